from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from . import control
from .models import Job
from .progress import progress_of

ACTIONS: dict[str, Callable[[int], Job]] = {
    "pause": control.pause,
    "resume": control.resume,
    "confirm": lambda job_id: control.resume(job_id, confirm=True),
    "cancel": control.cancel,
}

# What can be done to a job, by its status.
OFFERED = {
    Job.Status.RUNNING: ("pause", "cancel"),
    Job.Status.PAUSED: ("resume", "cancel"),
    Job.Status.FAILED: ("resume", "cancel"),
    Job.Status.CHANGED: ("confirm", "cancel"),
}


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's class takes no arguments
    """Shows jobs and how far they are, with buttons. Code or the command starts them."""

    change_form_template = "admin/signal_patch_jobs/job/change_form.html"
    list_display = ("__str__", "status", "progress", "started_by", "created", "finished")
    list_filter = ("status", "name")
    ordering = ("-pk",)
    fields = (
        "name",
        "parameters",
        "status",
        "progress",
        "error",
        "on_error",
        "engine",
        "runners",
        "started_by",
        "created",
        "finished",
        "sql",
    )

    @admin.display
    def progress(self, job: Job) -> str:
        return str(progress_of(job))

    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002  # Django calls it
        return False

    def get_urls(self) -> list[URLPattern]:
        turn = self.admin_site.admin_view(self.turn)
        mine = [
            path(f"<int:job_id>/{action}/", turn, {"action": action}, name=f"signal_patch_jobs_job_{action}")
            for action in ACTIONS
        ]
        return mine + super().get_urls()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        context = {} if job is None else self._context(request, job)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    def turn(self, request: HttpRequest, job_id: int, action: str) -> HttpResponse:
        """Pause, resume, confirm or cancel a job, for those who may change it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        try:
            job = ACTIONS[action](job_id)
        except (ValueError, Job.DoesNotExist) as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"Job {job.pk} is {job.status}.")
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:signal_patch_jobs_job_changelist"))

    def _context(self, request: HttpRequest, job: Job) -> dict[str, Any]:
        may_change = self.has_change_permission(request, job)
        return {
            "job_actions": OFFERED.get(Job.Status(job.status), ()) if may_change else (),
            "lanes": progress_of(job).lanes,
            "failed_rows": job.failed_rows.order_by("pk"),
            "show_save": False,
            "show_save_and_continue": False,
        }
