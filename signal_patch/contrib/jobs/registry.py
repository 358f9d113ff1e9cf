"""The jobs of this process by name. The ledger stores a job's name, not its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps

if TYPE_CHECKING:
    from signal_patch.contrib.jobs.definitions import BulkJob

_jobs: dict[str, type[BulkJob]] = {}


def register(job: type[BulkJob]) -> None:
    """Register a job under the `name` in its class body or, without one, `app_label.ClassName`.

    ValueError if another class has that name, or if a class without a name is in no installed app.
    """
    if "name" not in vars(job):
        job.name = _default_name(job)
    other = _jobs.get(job.name, job)
    if _origin(other) != _origin(job):
        raise ValueError(
            f"two bulk jobs are called {job.name!r}: {_origin(other)} and {_origin(job)}; "
            "set `name` in the body of one of them"
        )
    _jobs[job.name] = job


def find(name: str) -> type[BulkJob]:
    """Return the job with this name; LookupError, with the known names, if there is none."""
    try:
        return _jobs[name]
    except KeyError:
        raise LookupError(
            f"no bulk job is called {name!r}; there are {', '.join(names()) or 'none'}. Jobs are subclasses "
            "of BulkUpdateJob or BulkDeleteJob in the module `bulk_jobs` of an installed app"
        ) from None


def names() -> list[str]:
    return sorted(_jobs)


def _default_name(job: type[BulkJob]) -> str:
    config = apps.get_containing_app_config(job.__module__)
    if config is None:
        raise ValueError(
            f"{_origin(job)} is in no installed app, so its name must be given: set `name` in its body"
        )
    return f"{config.label}.{job.__name__}"


def _origin(job: type[BulkJob]) -> str:
    return f"{job.__module__}.{job.__qualname__}"
