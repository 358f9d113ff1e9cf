"""What Django or the database refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(call: Callable[[], object]) -> tuple[type[Exception], str] | None:
    """Return the exception that a call raises and its message, or None if it succeeds."""
    try:
        with transaction.atomic():
            call()
    except Exception as error:  # noqa: BLE001  # any exception is compared
        return type(error), str(error)
    return None
