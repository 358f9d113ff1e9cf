"""The comparison of `python -m tests.django_suite` must not let a difference pass."""

from __future__ import annotations

import io
import json
import tarfile
import unittest
from collections.abc import Callable
from typing import TYPE_CHECKING

import django
import pytest
from django.test.runner import DiscoverRunner

from tests.django_suite import __main__ as command, execution
from tests.django_suite.allowed import ALLOWED, EVERY_DATABASE, EVERY_DJANGO, allowed_on
from tests.django_suite.comparison import DID_NOT_RUN, Difference, differences, judge, within, without
from tests.django_suite.execution import BrokenRunError, Record, refuse_lost, shared_out
from tests.django_suite.labels import labels_for
from tests.django_suite.recorder import RecordingResult, RecordingRunner
from tests.django_suite.source import all_labels, unpack

if TYPE_CHECKING:
    from pathlib import Path

# It replaces Django's `runtests.py`, and runs two tests; the second one depends on the mode.
FAKE_RUNTESTS = """
import json, os, pathlib, sys

if "broken" in sys.argv:
    sys.exit("no such app")
mode = os.environ["DJANGO_SUITE_MODE"]
with open("runs.txt", "a") as runs:
    print(mode, file=runs)
ending = {endings}[mode]
if ending == "chance":
    ending = "passed" if pathlib.Path("once").exists() else "failed"
    pathlib.Path("once").touch()
outcomes = {{"a.tests.T.test_1": ["passed"], "a.tests.T.test_2": [ending]}}
details = {{}} if ending == "passed" else {{"a.tests.T.test_2": "boom"}}
record = {{"outcomes": outcomes, "details": details, "seconds": {{}}}}
pathlib.Path(os.environ["DJANGO_SUITE_RECORD"]).write_text(json.dumps(record))
"""

FakeDjango = Callable[..., list[str]]


@pytest.fixture
def fake_django(tmp_path: Path) -> FakeDjango:
    """Return a function that creates a fake Django and returns the arguments to run it."""

    def lay_out(*, vanilla: str = "passed", receivers: str = "passed", patched: str) -> list[str]:
        tests = tmp_path / f"django-{django.__version__}" / "tests"
        (tests / "a").mkdir(parents=True)
        (tests / "a" / "__init__.py").touch()
        endings = {"vanilla": vanilla, "receivers": receivers, "patched": patched}
        (tests / "runtests.py").write_text(FAKE_RUNTESTS.format(endings=endings))
        return ["--cache", str(tmp_path)]

    return lay_out


def runs(cache: Path) -> list[str]:
    return (cache / f"django-{django.__version__}" / "tests" / "runs.txt").read_text().split()


def test_equal_outcomes_pass() -> None:
    outcomes = {"a.T.test_1": ["passed"], "a.T.test_2": ["skipped"]}

    verdict = judge(outcomes, dict(outcomes), {})

    assert (verdict.passed, verdict.failed) == (2, 0)


def test_a_difference_that_is_not_listed_fails() -> None:
    verdict = judge({"a.T.test": ["passed"]}, {"a.T.test": ["failed"]}, {})

    assert verdict.unlisted == [Difference("a.T.test", ["passed"], ["failed"])]
    assert (verdict.passed, verdict.failed) == (0, 1)


def test_a_difference_that_is_listed_passes() -> None:
    allowed = {"a.T.test": "counts statements"}

    verdict = judge({"a.T.test": ["passed"]}, {"a.T.test": ["failed"]}, allowed)

    assert [difference.test for difference in verdict.listed] == ["a.T.test"]
    assert (verdict.passed, verdict.failed) == (1, 0)


@pytest.mark.parametrize("outcomes", [{"a.T.test": ["passed"]}, {}], ids=["equal", "gone"])
def test_a_listed_test_that_does_not_differ_fails(outcomes: dict[str, list[str]]) -> None:
    verdict = judge(outcomes, outcomes, {"a.T.test": "counts statements"})

    assert verdict.stale == ["a.T.test"]
    assert verdict.failed == 1


def test_a_test_that_runs_on_one_side_only_differs() -> None:
    assert differences({"a.T.test": ["passed"]}, {}) == [Difference("a.T.test", ["passed"], DID_NOT_RUN)]


def test_other_subtests_going_wrong_is_a_difference() -> None:
    vanilla = {"a.T.test": ["failed in (n=1)"]}
    patched = {"a.T.test": ["failed in (n=1)", "failed in (n=2)"]}

    assert [str(difference) for difference in differences(vanilla, patched)] == [
        "a.T.test: failed in (n=1) -> failed in (n=1) + failed in (n=2)"
    ]


def test_what_goes_wrong_on_both_sides_passes_and_is_named() -> None:
    outcomes = {"a.T.test_1": ["error"], "a.T.test_2": ["skipped"]}

    verdict = judge(outcomes, outcomes, {})

    assert verdict.wrong_anyway == ["a.T.test_1"]
    assert verdict.failed == 0


def test_what_ends_by_chance_is_left_out() -> None:
    assert without({"a.T.test_1": ["failed"], "a.T.test_2": ["passed"]}, {"a.T.test_1"}) == {
        "a.T.test_2": ["passed"]
    }


def test_only_listed_tests_of_the_labels_that_ran_are_asked_for() -> None:
    listed = {"update.tests.T.test": "", "update_only_fields.tests.T.test": ""}

    assert within(listed, ["update"]) == {"update.tests.T.test": ""}
    assert within(listed, ["update.tests.T"]) == {"update.tests.T.test": ""}
    assert within(listed, ["update.tests.T.test", "queries"]) == {"update.tests.T.test": ""}


def test_the_list_names_each_test_once_with_a_reason_and_where_it_holds() -> None:
    for series in EVERY_DJANGO:
        for database in EVERY_DATABASE:
            here = [e for e in ALLOWED if series in e.django and database in e.databases]
            assert len(here) == len(allowed_on(series, database))
    assert all(entry.reason for entry in ALLOWED)
    assert all(entry.django <= EVERY_DJANGO for entry in ALLOWED)
    assert all(entry.databases <= EVERY_DATABASE for entry in ALLOWED)


def test_a_whole_run_passes_when_both_sides_agree(
    fake_django: FakeDjango, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(patched="passed")) == 0
    assert runs(tmp_path) == ["vanilla", "patched"]
    assert capsys.readouterr().out.endswith("2 passed, 0 failed\n")


def test_the_vanilla_run_is_kept_until_a_fresh_one_is_asked_for(
    fake_django: FakeDjango, tmp_path: Path
) -> None:
    arguments = fake_django(patched="passed")
    command.main(arguments)

    command.main(arguments)
    assert runs(tmp_path) == ["vanilla", "patched", "patched"]
    command.main([*arguments, "--fresh"])
    assert runs(tmp_path)[3:] == ["vanilla", "patched"]


def test_a_lasting_difference_fails_the_run_and_is_shown_with_its_traceback(
    fake_django: FakeDjango, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(patched="failed")) == 1

    output = capsys.readouterr().out
    assert "a.tests.T.test_2: passed -> failed (the library does it)\nboom" in output
    assert output.endswith("1 passed, 1 failed\n")


def test_a_difference_that_receivers_alone_make_is_named_so(
    fake_django: FakeDjango, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(receivers="failed", patched="failed")) == 1
    assert "(receivers alone do it)" in capsys.readouterr().out


def test_a_difference_by_chance_does_not_count(
    fake_django: FakeDjango, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(patched="chance")) == 0
    assert runs(tmp_path) == ["vanilla", "patched", "vanilla", "patched"]
    assert "Again, to rule chance out: a\n" in capsys.readouterr().out


@pytest.fixture
def second_test_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"a.tests.T.test_2": "counts statements"}
    monkeypatch.setattr(command, "allowed_on", lambda series, database: listed)


@pytest.mark.usefixtures("second_test_is_listed")
def test_a_listed_difference_is_shown_with_its_reason(
    fake_django: FakeDjango, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(patched="failed")) == 0
    assert "listed: a.tests.T.test_2: counts statements" in capsys.readouterr().out


@pytest.mark.usefixtures("second_test_is_listed")
def test_a_listed_test_that_no_longer_differs_fails_the_run(
    fake_django: FakeDjango, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fake_django(patched="passed")) == 1
    assert "does not differ any more: a.tests.T.test_2" in capsys.readouterr().out


def test_a_baseline_shows_what_fails_without_the_library(
    fake_django: FakeDjango, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*fake_django(patched="passed"), "--vanilla-only"]) == 0
    assert runs(tmp_path) == ["vanilla"]
    assert capsys.readouterr().out == "2 tests, 0 went wrong without the library\n"


def test_what_is_not_compared_is_left_out_of_a_baseline(
    fake_django: FakeDjango, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(execution, "NOT_COMPARED", {"a.tests.T.test_2"})
    assert command.main([*fake_django(vanilla="failed", patched="passed"), "--vanilla-only"]) == 0
    assert capsys.readouterr().out == "1 tests, 0 went wrong without the library\n"


def test_a_run_that_leaves_no_record_is_an_error_with_its_output(fake_django: FakeDjango) -> None:
    with pytest.raises(BrokenRunError, match="no such app"):
        command.main([*fake_django(patched="passed"), "--labels", "broken"])


def test_a_label_that_cannot_be_imported_is_an_error_not_two_equal_failures() -> None:
    record = Record(outcomes={"unittest.loader._FailedTest.no_such_label": ["error"]})

    with pytest.raises(BrokenRunError, match="no_such_label"):
        refuse_lost(record)


@pytest.mark.parametrize(
    ("test", "label"),
    [
        ("update.tests.T.test", "update"),
        ("setUpClass (update.tests.T)", "update"),
        ("unittest.loader._FailedTest.update.tests", "update"),
    ],
)
def test_every_test_id_leads_to_its_label(test: str, label: str) -> None:
    assert command.label_of(test) == label


def test_labels_are_dealt_out_whole_and_evenly() -> None:
    weights = {"a": 5, "b": 3, "c": 3, "d": 1}

    assert shared_out(list(weights), 2, weights.__getitem__) == [["a", "d"], ["b", "c"]]
    assert shared_out(["a"], 2, weights.__getitem__) == [["a"]]


def test_mariadb_runs_its_labels_and_the_others_run_all() -> None:
    everything = ["admin_views", "update"]

    assert labels_for("sqlite", everything) == everything
    assert labels_for("mariadb", everything) == ["update"]


def test_the_sources_are_unpacked_and_their_labels_found(tmp_path: Path) -> None:
    archive = tmp_path / "django-0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("update/__init__.py", "gis_tests/__init__.py", "templates/a.html"):
            tar.addfile(tarfile.TarInfo(f"django-0/tests/{name}"), io.BytesIO())

    unpack(archive, tmp_path / "django-0")

    assert all_labels(tmp_path / "django-0") == ["update"]


class Specimens(unittest.TestCase):
    """Not collected by pytest: it is run below, and ends in every possible way."""

    __test__ = False

    def succeeds(self) -> None:
        pass

    def is_skipped(self) -> None:
        self.skipTest("no reason")

    def fails(self) -> None:
        self.fail()

    def breaks(self) -> None:
        raise ValueError

    @unittest.expectedFailure
    def fails_as_expected(self) -> None:
        self.fail()

    @unittest.expectedFailure
    def succeeds_unexpectedly(self) -> None:
        pass

    def has_subtests(self) -> None:
        for n in (1, 2, 3):
            with self.subTest(n=n, of="<object at 0x7f00>"):
                assert n == 2


def test_the_recorder_writes_down_every_way_a_test_can_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record.json"
    monkeypatch.setenv("DJANGO_SUITE_RECORD", str(record))
    names = [name for name in vars(Specimens) if not name.startswith("_")]
    suite = unittest.TestSuite(map(Specimens, names))
    result = RecordingResult(unittest.runner._WritelnDecorator(io.StringIO()), True, 0)

    suite.run(result)
    RecordingRunner(verbosity=0).suite_result(suite, result)

    saved = json.loads(record.read_text())
    assert {name.rpartition(".")[2]: how for name, how in saved["outcomes"].items()} == {
        "succeeds": ["passed"],
        "is_skipped": ["skipped"],
        "fails": ["failed"],
        "breaks": ["error"],
        "fails_as_expected": ["expected failure"],
        "succeeds_unexpectedly": ["unexpected success"],
        "has_subtests": [
            "failed in (n=1, of='<object at 0x>')",
            "failed in (n=3, of='<object at 0x>')",
        ],
    }
    assert {name.rpartition(".")[2] for name in saved["details"]} == {
        "fails",
        "breaks",
        "has_subtests",
    }


def test_the_recorder_is_what_django_runs_its_tests_with() -> None:
    assert issubclass(RecordingRunner, DiscoverRunner)
    assert RecordingRunner(verbosity=0).get_resultclass() is RecordingResult
