"""Where Celery's `autodiscover_tasks()` looks; nothing else imports this module."""

from __future__ import annotations

from .engines.celery import work_on as work_on
