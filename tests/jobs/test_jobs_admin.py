"""The admin's pages of jobs."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models.signals import post_save
from django.test import Client

from signal_patch.contrib.jobs import control
from signal_patch.contrib.jobs.models import Job
from signal_patch.contrib.jobs.working import work
from tests.jobs.bulk_jobs import Increase
from tests.jobs.models import Item
from tests.jobs.rows import finish, items
from tests.recording import Receivers

pytestmark = pytest.mark.django_db

JOBS = "/admin/signal_patch_jobs/job/"


@pytest.fixture
def job() -> Job:
    items(20)
    return Increase.start(runners=2)


def page(client: Client, job: Job) -> str:
    response = client.get(f"{JOBS}{job.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


def client_with(*permissions: str) -> Client:
    user = User.objects.create(username="ann", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="signal_patch_jobs", codename__in=permissions)
    )
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


def test_the_list_shows_how_far_the_jobs_are(admin_client: Client, job: Job) -> None:
    work(job.pk, seconds=0)
    shown = admin_client.get(JOBS).content.decode()
    assert str(job) in shown
    assert "3 rows" in shown


def test_a_job_cannot_be_added_here(admin_client: Client) -> None:
    assert admin_client.get(f"{JOBS}add/").status_code == 403


def test_a_job_is_shown_with_its_lanes(admin_client: Client, job: Job) -> None:
    work(job.pk, seconds=0)
    shown = page(admin_client, job)
    assert "UPDATE jobs.Item SET n = " in shown
    assert shown.count("<progress ") == 2
    for lane in job.lanes.all():
        assert f"<td>{lane.upto}</td>" in shown
    assert "Failed rows" not in shown


def test_rows_that_failed_are_shown_with_their_tracebacks(
    admin_client: Client, job: Job, receivers: Receivers
) -> None:
    def refuse(instance: Item, **_: Any) -> None:
        raise RuntimeError("<no>")

    receivers.connect(post_save, refuse, Item)
    finish(job)
    shown = page(admin_client, job)
    assert "RuntimeError: &lt;no&gt;" in shown
    assert "Traceback (most recent call last)" in shown


@pytest.mark.parametrize(
    ("status", "buttons"),
    [
        ("running", ["pause", "cancel"]),
        ("paused", ["resume", "cancel"]),
        ("failed", ["resume", "cancel"]),
        ("changed", ["confirm", "cancel"]),
        ("done", []),
        ("cancelled", []),
    ],
)
def test_the_buttons_are_those_that_can_do_something(
    admin_client: Client, job: Job, status: str, buttons: list[str]
) -> None:
    Job.objects.update(status=status)
    shown = page(admin_client, job)
    found = [b for b in ("pause", "resume", "confirm", "cancel") if f'action="../{b}/"' in shown]
    assert found == buttons


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("pause", "running", "paused"),
        ("resume", "paused", "running"),
        ("confirm", "changed", "running"),
        ("cancel", "running", "cancelled"),
    ],
)
def test_a_button_does_what_it_says(
    admin_client: Client, job: Job, action: str, before: str, after: str
) -> None:
    Job.objects.update(status=before)
    response = admin_client.post(f"{JOBS}{job.pk}/{action}/", follow=True)
    assert f"Job {job.pk} is {after}." in response.content.decode()
    job.refresh_from_db()
    assert job.status == after


def test_a_button_of_an_old_page_says_why_it_does_nothing(admin_client: Client, job: Job) -> None:
    control.cancel(job.pk)
    shown = admin_client.post(f"{JOBS}{job.pk}/pause/", follow=True).content.decode()
    assert "is cancelled and cannot be paused" in shown
    shown = admin_client.post(f"{JOBS}999/pause/", follow=True).content.decode()
    assert "There is no bulk job 999" in shown


def test_a_get_changes_nothing(admin_client: Client, job: Job) -> None:
    assert admin_client.get(f"{JOBS}{job.pk}/cancel/").status_code == 405
    job.refresh_from_db()
    assert job.status == "running"


def test_a_post_needs_its_token(job: Job, admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(f"{JOBS}{job.pk}/cancel/").status_code == 403
    job.refresh_from_db()
    assert job.status == "running"


def test_who_may_only_look_has_no_buttons(job: Job) -> None:
    client = client_with("view_job")
    assert 'action="../pause/"' not in page(client, job)
    assert client.post(f"{JOBS}{job.pk}/pause/").status_code == 403
    job.refresh_from_db()
    assert job.status == "running"


def test_who_may_change_jobs_has_them(job: Job) -> None:
    client = client_with("view_job", "change_job")
    assert 'action="../pause/"' in page(client, job)
    assert client.post(f"{JOBS}{job.pk}/pause/", follow=True).status_code == 200
    job.refresh_from_db()
    assert job.status == "paused"


def test_strangers_are_sent_to_the_login(client: Client, job: Job) -> None:
    response = client.post(f"{JOBS}{job.pk}/pause/")
    assert response.status_code == 302
    assert "/login/" in response["Location"]


def test_a_job_that_is_not_there_is_said_to_be_missing(admin_client: Client) -> None:
    assert admin_client.get(f"{JOBS}999/change/").status_code == 302
