"""What Django or the database refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from signal_patch import no_bulk_signals
from tests.database import is_mysql

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

# MySQL's error 1093, which MariaDB does not have.
reads_its_own_table = pytest.mark.skipif(is_mysql(), reason="its UPDATE cannot read the table that it writes")


def refusal(call: Callable[[], object]) -> tuple[type[Exception], str] | None:
    """Return the exception that a call raises and its message, or None if it succeeds."""
    try:
        with transaction.atomic():
            call()
    except Exception as error:  # noqa: BLE001  # any exception is compared
        return type(error), str(error)
    return None


def is_refused(call: Callable[[], object], receivers: Receivers) -> bool:
    """Return whether Django refuses a call by itself.

    If so, the library has refused it with the same error, before any signal.
    """
    with no_bulk_signals(), transaction.atomic():
        expected = refusal(call)
        transaction.set_rollback(True)
    if expected is None:
        return False
    log = receivers.record()
    assert refusal(call) == expected
    assert not log
    return True
