"""Compare Django's own tests with and without the library: `python -m tests.django_suite`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import django

from .allowed import allowed_on
from .comparison import DID_NOT_RUN, Difference, Verdict, judge, within
from .execution import BrokenRunError, Record, Suite
from .labels import SUBSET, labels_for
from .source import all_labels, source_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# In the form of the command line: 6.1.
SERIES = ".".join(map(str, django.VERSION[:2]))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    suite = Suite(
        tree=source_tree(django.__version__, options.cache),
        version=django.__version__,
        database=options.db,
        cache=options.cache,
        fresh=options.fresh,
    )
    labels = options.labels or (SUBSET if options.subset else labels_for(options.db, all_labels(suite.tree)))
    vanilla = suite.run("vanilla", labels, options.parallel)
    if options.vanilla_only:
        return show_baseline(vanilla)
    patched = suite.run("patched", labels, options.parallel)
    allowed = within(allowed_on(SERIES, options.db), labels)
    rerun_differing(suite, vanilla, patched, allowed)
    verdict = judge(vanilla.outcomes, patched.outcomes, allowed)
    show(suite, verdict, patched, allowed)
    return 1 if verdict.failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description=__doc__)
    parser.add_argument(
        "--django", choices=[SERIES], default=SERIES, help="fail unless this Django is installed"
    )
    parser.add_argument("--db", choices=["sqlite", "postgres", "mariadb"], default="sqlite")
    parser.add_argument("--labels", nargs="+", help="run only these labels of Django's tests")
    parser.add_argument("--subset", action="store_true", help="run the labels that CI runs")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where downloads go")
    parser.add_argument("--fresh", action="store_true", help="repeat the vanilla run, too")
    parser.add_argument("--vanilla-only", action="store_true", help="only fill the cache")
    return parser.parse_args(arguments)


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "signal_patch", "django_suite")


def rerun_differing(suite: Suite, vanilla: Record, patched: Record, allowed: dict[str, str]) -> None:
    """Run the labels of tests that differ once more on both sides, and let the second results count.

    A difference by chance (a port in use, a clock) hardly happens twice.
    """
    verdict = judge(vanilla.outcomes, patched.outcomes, allowed)
    suspects = {difference.test for difference in verdict.unlisted} | {*verdict.stale}
    if not suspects:
        return
    labels = sorted({label_of(test) for test in suspects})
    print(f"Again, to rule chance out: {' '.join(labels)}")
    again = replace(suite, fresh=True)
    take_over(vanilla, again.run("vanilla", labels), suspects)
    take_over(patched, again.run("patched", labels), suspects)


def take_over(record: Record, rerun: Record, tests: Iterable[str]) -> None:
    """Put the rerun's results for these tests in place of the record's own."""
    for test in tests:
        record.outcomes[test] = rerun.outcomes.get(test, DID_NOT_RUN)
        record.details[test] = rerun.details.get(test, "")


def label_of(test: str) -> str:
    """Return the label that runs a test; `setUpClass (label.tests.Class)` is an id, too."""
    name = test.removeprefix("unittest.loader._FailedTest.")
    return re.split(r"[.)]", name.rpartition("(")[2])[0]


def show_baseline(vanilla: Record) -> int:
    for test, detail in sorted(vanilla.details.items()):
        print(f"{test}: {' + '.join(vanilla.outcomes[test])}\n{detail}")
    print(f"{len(vanilla.outcomes)} tests, {len(vanilla.details)} went wrong without the library")
    return 0


def show(suite: Suite, verdict: Verdict, patched: Record, allowed: dict[str, str]) -> None:
    for difference in verdict.listed:
        print(f"listed: {difference.test}: {allowed[difference.test]}")
    for test in verdict.wrong_anyway:
        print(f"wrong on both sides: {test}")
    for test in verdict.stale:
        print(f"FAILED: listed, but it does not differ any more: {test}")
    alone = receivers_alone(suite, verdict.unlisted)
    for difference in verdict.unlisted:
        cause = "receivers alone do it" if difference.test in alone else "the library does it"
        print(f"FAILED: not listed: {difference} ({cause})")
        print(patched.details.get(difference.test, ""))
    print(
        f"Django {suite.version} on {suite.database}: {verdict.tests} tests, "
        f"{len(verdict.listed)} differ and are listed, {len(verdict.unlisted)} differ and are not, "
        f"{len(verdict.stale)} are listed and do not differ"
    )
    print(f"{verdict.passed} passed, {verdict.failed} failed")


def receivers_alone(suite: Suite, found: Sequence[Difference]) -> set[str]:
    """Return the tests that end differently with receivers alone, without the library."""
    if not found:
        return set()
    labels = sorted({label_of(difference.test) for difference in found})
    outcomes = suite.run("receivers", labels).outcomes
    return {
        difference.test
        for difference in found
        if outcomes.get(difference.test, DID_NOT_RUN) != difference.vanilla
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenRunError as broken:
        sys.exit(f"{broken}\n0 passed, 1 failed")
