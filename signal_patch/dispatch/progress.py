"""Telling the user how far a bulk operation is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signal_patch.options import Options


@contextmanager
def reporting(options: Options, label: str) -> Iterator[Callable[[int, int], object]]:
    """Yield a function of the rows done and the rows in all, to be called after each batch."""
    if callable(options.progress):
        yield options.progress
    elif options.progress:
        with _bar(label) as show:
            yield show
    else:
        yield _nothing


def _nothing(done: int, total: int) -> None:
    pass


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], object]]:
    # tqdm comes with the `progress` extra only; Options has refused True without it.
    from tqdm import tqdm

    with tqdm(desc=label, unit="row") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
