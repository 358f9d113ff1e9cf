from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError, ImproperlyConfigured, ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser

from signal_patch.contrib.jobs import control, engines, registry
from signal_patch.contrib.jobs.engines import processes as engine
from signal_patch.contrib.jobs.explaining import explain
from signal_patch.contrib.jobs.models import Job
from signal_patch.contrib.jobs.progress import progress_of

# Errors whose message says enough, so that no traceback is needed.
_EXPLAINED = (
    FieldDoesNotExist,
    FieldError,
    ImproperlyConfigured,
    LookupError,
    ObjectDoesNotExist,
    RuntimeError,
    TypeError,
    ValueError,
)


class Command(BaseCommand):
    help = "Run bulk jobs; look at them; pause, resume and cancel them."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, metavar="command")
        commands.add_parser("list", help="the jobs that can be started, and those that were")
        show = commands.add_parser("show", help="a job that was started, or what a job would do")
        run = commands.add_parser("run", help="work here on a new job, or on one that was started")
        start = commands.add_parser("start", help="start a job and leave the work to an engine")
        for parser_of_one in (show, run):
            parser_of_one.add_argument("job", help="the name of a job, or the number of one that was started")
        start.add_argument("job", help="the name of a job")
        for parser_of_new in (show, run, start):
            _add_parameters(parser_of_new)
        for parser_of_started in (run, start):
            _add_on_error(parser_of_started)
        run.add_argument("--processes", type=int, default=1, help="number of processes (default: 1)")
        run.add_argument("--steps", type=int, help="run this many steps, then pause the job")
        start.add_argument("--runners", type=int, default=1, help="number of workers (default: 1)")
        start.add_argument("--engine", help="default: the setting SIGNAL_PATCH_JOBS_ENGINE, or 'processes'")
        pause = commands.add_parser("pause", help="let no further step begin")
        cancel = commands.add_parser("cancel", help="end a job for good; what has been committed stays")
        for parser_of_known in (pause, cancel):
            parser_of_known.add_argument("job", type=int, help="its number, as in `list`")
        resume = commands.add_parser("resume", help="go on with a job, or replace its runners that are gone")
        resume.add_argument("job", type=int, nargs="?", help="default: all running jobs, for a schedule")
        resume.add_argument("--confirm", action="store_true", help="accept that the job's SQL has changed")

    def handle(self, *_: Any, command: str, **options: Any) -> None:
        try:
            getattr(self, f"_{command}")(**options)
        except _EXPLAINED as error:
            raise CommandError(str(error)) from error

    def _list(self, **_: Any) -> None:
        for name in registry.names():
            self.stdout.write(name)
        for job in Job.objects.order_by("pk"):
            self._show_line(job)

    def _show(self, job: str, param: list[str], **_: Any) -> None:
        if job.isdecimal():
            self._show_job(control.find(int(job)))
        else:
            self.stdout.write(str(explain(registry.find(job), _parameters(param))))

    def _run(
        self, job: str, param: list[str], processes: int, steps: int | None, on_error: str, **_: Any
    ) -> None:
        _check_at_least_one("--processes", processes)
        _check_at_least_one("--steps", 1 if steps is None else steps)
        found = (
            self._resumed(int(job))
            if job.isdecimal()
            else _started(job, param, processes, "processes", on_error)
        )
        if steps is None:
            self._work(found, processes)
        else:
            engine.run_steps(found.pk, steps)
            self._pause_if_running(found)
        found.refresh_from_db()
        if found.status == Job.Status.FAILED:
            raise CommandError(f"job {found.pk} has failed: {found.error}")
        self._show_line(found)

    def _start(
        self, job: str, param: list[str], runners: int, engine: str | None, on_error: str, **_: Any
    ) -> None:
        self._show_sent(_started(job, param, runners, engine, on_error))

    def _pause(self, job: int, **_: Any) -> None:
        self._show_line(control.pause(job))

    def _cancel(self, job: int, **_: Any) -> None:
        self._show_line(control.cancel(job))

    def _resume(self, job: int | None, *, confirm: bool, **_: Any) -> None:
        for resumed in control.resume_all() if job is None else [control.resume(job, confirm=confirm)]:
            self._show_sent(resumed)

    def _resumed(self, job_id: int) -> Job:
        job = control.find(job_id)
        return job if job.status == Job.Status.RUNNING else control.resume(job_id)

    def _work(self, job: Job, processes: int) -> None:
        try:
            with self._reporting(job) as report:
                if processes == 1:
                    engine.run_here(job.pk, report)
                else:
                    engine.run_in_processes(job.pk, processes, report)
        except KeyboardInterrupt:
            raise CommandError(
                f"interrupted; `bulk_jobs run {job.pk}` goes on with it, `bulk_jobs cancel {job.pk}` ends it"
            ) from None

    @contextmanager
    def _reporting(self, job: Job) -> Iterator[Callable[[], None]]:
        """Yield a function that shows the job's progress: a bar if tqdm is installed, otherwise lines."""
        if find_spec("tqdm") is None:
            yield lambda: self.stdout.write(str(progress_of(job)))
            return
        from tqdm import tqdm

        with tqdm(total=100.0, desc=job.name, bar_format="{desc}: {bar} {postfix}") as bar:

            def show() -> None:
                progress = progress_of(job)
                bar.n = progress.share * 100
                bar.set_postfix_str(str(progress))

            yield show

    def _pause_if_running(self, job: Job) -> None:
        if Job.objects.filter(pk=job.pk, status=Job.Status.RUNNING).exists():
            control.pause(job.pk)

    def _show_line(self, job: Job) -> None:
        parameters = json.dumps(job.parameters)
        self.stdout.write(f"{job.pk}: {job.name} {parameters} {job.status}, {progress_of(job)}")

    def _show_sent(self, job: Job) -> None:
        self._show_line(job)
        if job.status == Job.Status.RUNNING and not engines.find(job.engine).starts_workers:
            self.stdout.write(f"  it waits for `manage.py bulk_jobs run {job.pk}`, which works on it")

    def _show_job(self, job: Job) -> None:
        self._show_line(job)
        self.stdout.write(job.sql)
        if job.error:
            self.stdout.write(job.error)
        for part in progress_of(job).lanes:
            lane = part.lane
            self.stdout.write(
                f"  lane {lane.pk}: {part.percent} %, {lane.rows} rows, {lane.steps} steps, at {lane.cursor}"
            )
        for row in job.failed_rows.order_by("pk"):
            self.stdout.write(f"  row {row.key}: {row.error}")


def _add_parameters(parser: CommandParser) -> None:
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter: JSON if it can be read as JSON, else text",
    )


def _add_on_error(parser: CommandParser) -> None:
    parser.add_argument(
        "--on-error",
        choices=Job.OnError.values,
        default="stop",
        help="what happens if a row fails (default: stop)",
    )


def _started(name: str, param: list[str], runners: int, engine: str | None, on_error: str) -> Job:
    return control.start(
        registry.find(name),
        _parameters(param),
        runners=runners,
        engine=engine,
        on_error=on_error,
        started_by=getpass.getuser(),
    )


def _parameters(given: list[str]) -> dict[str, Any]:
    return dict(map(_parameter, given))


def _parameter(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals:
        raise ValueError(f"--param takes NAME=VALUE, such as country=fr, not {given!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _check_at_least_one(option: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{option} must be at least 1, not {number}")
