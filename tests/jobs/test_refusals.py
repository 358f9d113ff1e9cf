"""What `start()` refuses, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError, ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import Case, Count, Exists, F, QuerySet, Subquery, When, Window
from django.db.models.functions import RowNumber

from signal_patch.contrib.jobs import BulkUpdateJob, registry
from signal_patch.contrib.jobs.models import Job
from tests.jobs.bulk_jobs import Increase
from tests.jobs.models import Box, Item, Pallet, Seat
from tests.jobs.rows import items

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _jobs_of_this_test() -> Iterator[None]:
    known = dict(registry._jobs)
    yield
    registry._jobs.clear()
    registry._jobs.update(known)


def job_over(rows: Any, new: dict[str, Any]) -> type[BulkUpdateJob]:
    class Tried(BulkUpdateJob):
        name = "tried"

        def queryset(self) -> QuerySet[Any]:
            found: QuerySet[Any] = rows() if callable(rows) else rows.all()
            return found

        def values(self) -> dict[str, Any]:
            return new

    return Tried


SIZE = Box.objects.values("size")[:1]


@pytest.mark.parametrize(
    ("rows", "new", "reason"),
    [
        (lambda: Item.objects.all()[:3], {"n": 1}, "the queryset is sliced"),
        (lambda: Item.objects.union(Item.objects.all()), {"n": 1}, "the queryset is a union"),
        (Item.objects.distinct(), {"n": 1}, "the queryset has distinct"),
        (Item.objects.distinct("colour"), {"n": 1}, "the queryset has distinct"),
        (Item.objects.order_by("n"), {"n": 1}, "the queryset has an explicit order"),
        (Item.objects.extra(order_by=["n"]), {"n": 1}, "the queryset has an explicit order"),
        (Item.objects.extra(tables=["jobs_box"]), {"n": 1}, "the queryset names other tables"),
        (Item.objects.annotate(k=Count("box__pallet")), {"n": 1}, "the queryset has an aggregate"),
        (
            Item.objects.annotate(place=Window(RowNumber(), order_by="n")).filter(place__lt=3),
            {"n": 1},
            "the queryset filters by a window",
        ),
        (Item.objects, {"n": Subquery(SIZE)}, "the value of 'n' reads other rows"),
        (Item.objects, {"n": SIZE}, "the value of 'n' reads other rows"),
        (Item.objects.annotate(k=Subquery(SIZE)), {"n": F("k") + 1}, "the value of 'n' reads other rows"),
        (
            Item.objects,
            {"n": Case(When(Exists(Box.objects.all()), then=1), default=2)},
            "the value of 'n' reads other rows",
        ),
        (Item.objects, {"id": F("id") + 1}, "'id' is the primary key"),
        (Pallet.objects, {"id": 3}, "'id' is the primary key"),
        (Item.objects, {}, "values\\(\\) is empty"),
        (Seat.objects, {"n": 1}, "the model has a composite primary key"),
        (
            Item.objects.using("other"),
            {"n": 1},
            "its rows are in the database 'other' and the ledger in 'default'",
        ),
    ],
)
def test_the_reason_is_given_and_nothing_is_written(rows: Any, new: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^tried cannot run as a job: .*{reason}"):
        job_over(rows, new).start()
    assert not Job.objects.exists()


def test_all_reasons_are_given_at_once() -> None:
    with pytest.raises(ValueError, match=r"sliced.*explicit order"):
        job_over(lambda: Item.objects.order_by("n")[:3], {"n": 1}).start()


def test_a_queryset_that_differs_when_it_is_built_twice_is_refused() -> None:
    numbers = count()
    with pytest.raises(ValueError, match="its SQL differs each time it is built"):
        job_over(lambda: Item.objects.filter(n__lt=next(numbers)), {"n": 1}).start()


@pytest.mark.parametrize(
    ("new", "error"),
    [
        ({"n": F("box__size")}, FieldError),
        ({"nothing": 1}, FieldDoesNotExist),
        ({"n": Window(Count("pk"))}, FieldError),
    ],
)
def test_what_django_refuses_is_refused_by_its_own_error(new: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error), transaction.atomic():
        job_over(Item.objects, new).start()


def test_a_job_needs_a_queryset() -> None:
    with pytest.raises(TypeError, match=r"tried: queryset\(\) must return a queryset, not list"):
        job_over(list, {"n": 1}).start()
    job_over(Item.objects, {"nowhere": 1})
    with pytest.raises(CommandError, match="Item has no field named 'nowhere'"):
        call_command("bulk_jobs", "start", "tried")


def test_values_of_every_kind_are_accepted() -> None:
    box = Box.objects.create()
    items(2)
    new = {"box": box, "n": F("n") + 1, "active": False, "colour": "blue"}
    job = job_over(Item.objects, new).start()
    assert job.sql.startswith("UPDATE jobs.Item SET active = %s [")
    assert "colour = %s ['blue']" in job.sql


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"runners": 0}, ValueError, "runners must be at least 1, not 0"),
        ({"runners": "8"}, TypeError, "runners must be a whole number, at least 1, not '8'"),
        ({"runners": True}, TypeError, "runners must be a whole number"),
        ({"on_error": "ignore"}, ValueError, r"on_error must be one of \['stop', 'skip'\], not 'ignore'"),
        ({"engine": "rabbit"}, ValueError, "unknown engine 'rabbit'; valid: 'processes', 'celery', 'tasks'"),
        ({"engine": "collections.Counter"}, TypeError, "must be a subclass of signal_patch"),
        ({"colour": object()}, TypeError, "jobs.Increase: the parameters must be JSON"),
        (
            {"size": 3},
            TypeError,
            r"jobs.Increase: got an unexpected keyword argument 'size' of queryset\(\*, colo",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Increase.start(**arguments)
    assert not Job.objects.exists()


def test_a_key_that_text_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    items(1)
    monkeypatch.setattr(Item._meta.pk, "to_python", str)
    with pytest.raises(ValueError, match=r"its primary key .* cannot be written as text and read again"):
        Increase.start()


def test_a_parameter_must_not_be_missing() -> None:
    class Wanting(Increase):
        name = "wanting"

        def queryset(self, *, colour: str) -> QuerySet[Item]:  # type: ignore[override]  # as users write it
            return super().queryset(colour=colour)

    with pytest.raises(
        TypeError, match=r"wanting: missing a required.*argument: 'colour' of queryset.*given are none"
    ):
        Wanting.start()
    assert Wanting.start(colour="red").parameters == {"colour": "red"}


def test_options_of_the_signals_are_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Increase, "signal_options", {"size": 3})
    with pytest.raises(TypeError, match="unknown option 'size'"):
        Increase.start()


def test_steps_are_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Increase, "signal_options", {"atomic": False})
    with pytest.raises(ValueError, match="signal_options has atomic=False, and a step is one transaction"):
        Increase.start()


def test_two_jobs_of_one_name_are_refused() -> None:
    job_over(Item.objects, {"n": 1})
    with pytest.raises(ValueError, match="two bulk jobs are called 'tried': "):

        class Other(Increase):
            name = "tried"


def test_a_queryset_of_no_row_is_a_job_that_is_done() -> None:
    job = job_over(Item.objects.none, {"n": 1}).start()
    assert job.status == Job.Status.DONE
    assert job.sql.endswith("no row")


def test_a_job_outside_of_the_apps_needs_a_name() -> None:
    with pytest.raises(
        ValueError, match=r"elsewhere.Stray is in no installed app, so its name must be given"
    ):
        type("Stray", (BulkUpdateJob,), {"__module__": "elsewhere"})


def test_an_unknown_job_is_named_with_those_that_there_are() -> None:
    with pytest.raises(LookupError, match=r"no bulk job is called 'jobs.Increse'; there are jobs.Broken"):
        registry.find("jobs.Increse")
    registry._jobs.clear()
    with pytest.raises(LookupError, match="there are none"):
        registry.find("jobs.Increase")


def test_the_ledger_must_have_been_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job._meta, "db_table", "not_there")
    with pytest.raises(
        ImproperlyConfigured, match=r"the table 'not_there' is missing .* migrate signal_patch_jobs"
    ):
        Increase.start()
