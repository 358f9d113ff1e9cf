"""An engine that remembers what it was asked for."""

from __future__ import annotations

from typing import ClassVar

from signal_patch.contrib.jobs.engines import Engine


class Notebook(Engine):
    sent: ClassVar[list[tuple[int, float]]] = []

    def send(self, job_id: int, delay: float = 0.0) -> None:
        self.sent.append((job_id, delay))


class Unreachable(Engine):
    def send(self, job_id: int, delay: float = 0.0) -> None:
        raise ConnectionError("no broker")


NOTEBOOK = f"{Notebook.__module__}.Notebook"
UNREACHABLE = f"{Unreachable.__module__}.Unreachable"
