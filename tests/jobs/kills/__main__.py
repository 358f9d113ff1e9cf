from __future__ import annotations

import argparse
import os
import random
import sys
import time
from datetime import timedelta

from tests.database import CHOICES
from tests.jobs.kills.database import new_database, new_items

ENGINES = ("processes", "celery-rabbitmq", "celery-redis", "tasks")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.jobs.kills", description=sys.modules["tests.jobs.kills"].__doc__
    )
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--db", choices=CHOICES, default="sqlite")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with new_database(given.db):
        passed = _run(given.engine, given.rows, given.kills, given.seed)
    print(f"{int(passed)} passed, {int(not passed)} failed")
    return int(not passed)


def _run(engine: str, rows: int, kills: int, seed: int) -> bool:
    from signal_patch.contrib.jobs import control
    from signal_patch.contrib.jobs.models import Job
    from signal_patch.contrib.jobs.progress import progress_of
    from tests.jobs.kills.bulk_jobs import RetireSlowly
    from tests.jobs.kills.workers import BROKERS, Workers
    from tests.jobs.models import Audit, Item

    os.environ["JOBS_BROKER"] = BROKERS.get(engine, "")
    new_items(engine, rows)
    # This schedule replaces runners more often than a real one would.
    control.IDLE_AFTER = timedelta(seconds=3)  # type: ignore[attr-defined]  # imported there, and not exported
    choice = random.Random(seed)
    began = time.monotonic()
    job = RetireSlowly.start(engine=engine.partition("-")[0], runners=3)
    workers = Workers(engine, job.pk, 3, choice)
    killed = 0
    seen = -1
    try:
        while job.status == Job.Status.RUNNING and time.monotonic() < began + 900:
            time.sleep(choice.uniform(0.05, 0.2))
            done = sum(job.lanes.values_list("rows", flat=True))
            # Workers that have just been started are not killed before they work. The last third of the rows
            # is a reserve, for a machine on which workers start slowly and work fast.
            if killed < kills and done > max(seen, rows * killed * 2 // (kills * 3)):
                seen = done
                killed += workers.kill_one()
            workers.replace_the_dead()
            if engine != "processes":
                control.resume_all()
            job.refresh_from_db()
    finally:
        workers.end()
    changed = dict(Item.objects.values_list("n").annotate(count=_count()))
    audited = Audit.objects.values("item").distinct().count()
    passed = (
        job.status == Job.Status.DONE
        and changed == {1: rows}
        and (audited, Audit.objects.count()) == (rows, rows)
        and killed == kills
    )
    print(
        f"{engine}: {'passed' if passed else 'FAILED'}: {killed} kills, {progress_of(job)}, "
        f"{job.lanes.count()} lanes, times changed: {changed}, audit rows: {Audit.objects.count()}, "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )
    return passed


def _count() -> object:
    from django.db.models import Count

    return Count("pk")


if __name__ == "__main__":
    sys.exit(main())
