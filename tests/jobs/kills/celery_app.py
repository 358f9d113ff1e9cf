from __future__ import annotations

import os

import django
from celery import Celery

django.setup()

app = Celery("kills", broker=os.environ["JOBS_BROKER"])
app.conf.worker_prefetch_multiplier = 1
app.conf.task_default_queue = os.environ["JOBS_DATABASE"]
# Redis redelivers the messages of dead workers after this time.
app.conf.broker_transport_options = (
    {"visibility_timeout": 5, "unacked_restore_limit": None}
    if app.conf.broker_url.startswith("redis")
    else {}
)
app.autodiscover_tasks()
