"""What a job would do: its SQL, its rows and the database's plan for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .control import checked, parameters_as_json

if TYPE_CHECKING:
    from .definitions import BulkJob


@dataclass(frozen=True)
class Explanation:
    sql: str
    count: int
    plan: str

    def __str__(self) -> str:
        return f"{self.sql}\n\nrows: {self.count}\n\nplan:\n{self.plan}"


def explain(definition: type[BulkJob], parameters: dict[str, Any]) -> Explanation:
    """
    Return what a job would do with these parameters, and change nothing.

    ValueError, with the reasons, if it cannot run as a job.
    """
    operation = checked(definition, parameters_as_json(definition, parameters))
    keys = operation.keys()
    return Explanation(operation.sql(), keys.count(), keys.explain())
