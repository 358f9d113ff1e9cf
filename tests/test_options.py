from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from signal_patch.options import OPERATIONS, Options


class ThreeTaken:
    def __call__(self, done: int, total: int, rate: int) -> None: ...


def test_the_defaults_are_all_operations_in_batches_of_2000_locked_and_written_back() -> None:
    assert Options() == Options(
        operations=OPERATIONS, batch_size=2000, lock=True, write_back=True, progress=None
    )


@pytest.mark.parametrize(
    "names", [["update"], ("update",), {"update"}, iter(["update"])], ids=["list", "tuple", "set", "iterator"]
)
def test_operations_may_be_any_collection_and_become_a_frozenset(names: Any) -> None:
    assert Options(operations=names).operations == frozenset({"update"})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"operations": ["update", "upsert"]},
            ValueError,
            "unknown operation 'upsert'; valid are 'bulk_create', 'bulk_update', 'delete', 'update'",
        ),
        ({"operations": "update"}, TypeError, r"operations must be a collection, such as \['update'\]"),
        ({"operations": 3}, TypeError, "operations must be a collection of names, not 3"),
        ({"operations": [["update"]]}, ValueError, r"unknown operation \['update'\]"),
        ({"operations": []}, ValueError, "operations is empty; valid are 'bulk_create'"),
        (
            {"delete_batch_size": 0},
            ValueError,
            "delete_batch_size must be at least 1, not 0",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        ({"batch_size": -5}, ValueError, "batch_size must be at least 1, not -5"),
        ({"batch_size": True}, TypeError, "batch_size must be a whole number of rows, at least 1, not True"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number of rows, at least 1, not 2.5"),
        ({"batch_size": "9"}, TypeError, "batch_size must be a whole number of rows, at least 1, not '9'"),
        ({"batch_size": None}, TypeError, "batch_size must be a whole number of rows, at least 1, not None"),
        ({"lock": 1}, TypeError, "lock must be True or False, not 1"),
        (
            {"prefetch": "berth"},
            TypeError,
            r"prefetch must be a collection of names, such as \['category'\], not 'berth'",
        ),
        ({"prefetch": [3]}, TypeError, r"prefetch must be a collection of names, .* not \[3\]"),
        ({"prefetch": 3}, TypeError, "prefetch must be a collection of names, .* not 3"),
        ({"write_back": None}, TypeError, "write_back must be True or False, not None"),
        ({"progress": "bar"}, TypeError, r"progress must be .*callable\(done, total\), not 'bar'"),
        (
            {"batchsize": 5, "locked": True},
            TypeError,
            r"unknown option 'batchsize', 'locked'; did you mean 'batch_size'\? \(valid are 'operati",
        ),
        ({"exclud": []}, TypeError, r"unknown option 'exclud'; did you mean 'exclude'\?"),
        ({"colour": 1}, TypeError, "unknown option 'colour'; valid are 'operations', .*, 'exclude'"),
        (
            {"models": ["tests.Book"]},
            TypeError,
            r"unknown option 'models': models are positional arguments, as in enable\('shop.Book'",
        ),
        ({"operations": ["UPDATE"]}, ValueError, r"unknown operation 'UPDATE'; did you mean 'update'\?"),
        ({"operations": ["aupdate"]}, ValueError, r"unknown operation 'aupdate'; did you mean 'update'\?"),
        (
            {"progress": lambda done: None},
            TypeError,
            r"progress must take two arguments, \(done, total\); <lambda> does not",
        ),
        ({"progress": ThreeTaken()}, TypeError, r"progress must take two .*; <.*ThreeTaken.*> does not"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it_and_what_is_valid(
    options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Options.from_keywords(options)


# max() is written in C and has no signature.
@pytest.mark.parametrize("progress", [None, True, False, max, lambda done, total=0, *rest: None])
def test_progress_may_be_a_callable_or_a_switch(progress: Any) -> None:
    assert Options(progress=progress).progress is progress


def test_a_bar_without_tqdm_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)

    with pytest.raises(ImportError, match=r"progress=True needs tqdm: .*django-signal-patch\[progress\]"):
        Options(progress=True)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().batch_size = 1  # type: ignore[misc]  # which mypy reports
