from __future__ import annotations

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    name = "catalogue"

    def ready(self) -> None:
        # Connects the receivers.
        from catalogue import receivers  # noqa: F401
