"""Engines deliver the message "work on this job for some seconds"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from django.conf import settings
from django.utils.module_loading import import_string

# Imported when they are used, because some need packages that may not be installed.
ENGINES: Final = {
    "processes": "signal_patch.contrib.jobs.engines.processes.ProcessEngine",
    "celery": "signal_patch.contrib.jobs.engines.celery.CeleryEngine",
    "tasks": "signal_patch.contrib.jobs.engines.tasks.TasksEngine",
}

# How long the handler of one message works: much shorter than the time limits of engines.
SECONDS: Final = 20.0


class Engine(ABC):
    """A way to have `work()` called in other processes.

    To write one of your own, let `send()` put a message into your queue. Its handler calls `work()`, and
    sends the message again while the outcome `is_left`. `SIGNAL_PATCH_JOBS_ENGINE` names the class.
    """

    # Whether `send()` alone makes somebody work.
    starts_workers: ClassVar[bool] = True

    def check(self) -> None:
        """Raise ImproperlyConfigured, saying what to do, if the engine cannot work here."""
        return

    @abstractmethod
    def send(self, job_id: int, delay: float = 0.0) -> None:
        """Ask for one runner, in `delay` seconds."""


def default() -> str:
    """Return the name of the default engine."""
    return str(getattr(settings, "SIGNAL_PATCH_JOBS_ENGINE", "processes"))


def find(name: str) -> Engine:
    """Return an engine by its name or path; ValueError for an unknown name."""
    path = ENGINES.get(name, name)
    if "." not in path:
        raise ValueError(
            f"unknown engine {name!r}; valid: {', '.join(map(repr, ENGINES))} and the path of an Engine class"
        )
    engine = import_string(path)()
    if not isinstance(engine, Engine):
        raise TypeError(f"the engine {name!r} must be a subclass of {Engine.__module__}.Engine")
    return engine
