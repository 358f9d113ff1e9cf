from __future__ import annotations

import datetime

import pytest
from django.db.models.signals import post_save

from signal_patch.contrib.jobs.models import Job
from signal_patch.contrib.jobs.working import Status
from tests.jobs.bulk_jobs import CountCountries, CountPallets, CountParcels, CountReadings, Increase, Retire
from tests.jobs.models import Country, Item, Pallet, Parcel, Reading
from tests.jobs.rows import audits, counts, finish, items, write_audit
from tests.recording import Receivers

pytestmark = pytest.mark.django_db


def test_each_row_is_changed_once_and_its_receiver_is_called_once(receivers: Receivers) -> None:
    receivers.connect(post_save, write_audit, Item)
    rows = items(20)

    job = Increase.start(runners=3)
    outcome = finish(job)

    assert outcome.status is Status.DONE
    assert job.status == Job.Status.DONE
    assert job.finished is not None
    assert counts() == [1] * 20
    assert audits() == [(row.pk, 1) for row in rows]
    assert sum(job.lanes.values_list("rows", flat=True)) == 20


def test_a_job_over_other_keys(receivers: Receivers) -> None:
    Country.objects.bulk_create(
        [Country(code=code) for code in ("", "a", "é", "zz", "ZA", "0", "~", "日本", "b" * 30)]
    )
    Parcel.objects.bulk_create([Parcel() for _ in range(20)])
    first = datetime.datetime(2020, 1, 1, 5, 6, 7, 89, tzinfo=datetime.timezone.utc)
    Reading.objects.bulk_create([Reading(taken=first + i * datetime.timedelta(days=i)) for i in range(20)])
    for _ in range(20):
        Pallet.objects.create()
    for definition, model in (
        (CountCountries, Country),
        (CountParcels, Parcel),
        (CountReadings, Reading),
        (CountPallets, Pallet),
    ):
        job = definition.start(runners=4)
        finish(job)
        assert set(counts(model)) == {1}


def test_rows_that_stop_matching_are_changed_once(receivers: Receivers) -> None:
    items(10)
    finish(Retire.start())
    assert counts() == [1] * 10
