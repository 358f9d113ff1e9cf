from __future__ import annotations

import os
from importlib import import_module

from django.apps import AppConfig, apps

# The environment variable that holds the module of the run, which is the app's `models`, too.
RUN = "SIGNAL_PATCH_RUN"


class PackagesConfig(AppConfig):
    name = "tests.packages"

    def import_models(self) -> None:
        self.models = apps.all_models[self.label]
        self.models_module = import_module(os.environ[RUN])
