"""How many examples run: ``fixed`` the same few each time; ``--hypothesis-profile=deep`` many new ones."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fixed",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=250,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("deep", settings.get_profile("fixed"), derandomize=False, max_examples=20_000)


def share(part: int) -> settings:
    """Return the chosen profile with one of so many parts of its examples."""
    chosen = settings()
    return settings(chosen, max_examples=chosen.max_examples // part)
