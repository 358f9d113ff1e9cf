from __future__ import annotations

from django.apps import AppConfig


class KillsConfig(AppConfig):
    """Lets each change of a row be audited, in every worker."""

    name = "tests.jobs.kills"
    label = "kills"

    def ready(self) -> None:
        from django.db.models.signals import post_save

        from tests.jobs.models import Item
        from tests.jobs.rows import write_audit

        post_save.connect(write_audit, Item)
