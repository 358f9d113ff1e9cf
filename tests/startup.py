"""A tiny project in its own directory, started in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

SETTINGS = """
SECRET_KEY = "for tests only"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "library"]
ROOT_URLCONF = "library.urls"
USE_TZ = True
"""
MODELS = """
from django.db import models

class Book(models.Model):
    title = models.CharField(max_length=100)

class Shelf(models.Model):
    books = models.ManyToManyField(Book)
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETUP = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
django.setup()
"""


class Project:
    """A project with an app `library`, whose files the test completes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "library").mkdir()
        self.write("settings.py", SETTINGS)
        self.write("manage.py", MANAGE)
        for module in ("__init__", "urls"):
            self.write(f"library/{module}.py", "urlpatterns = []\n")
        self.write("library/models.py", MODELS)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def append(self, name: str, text: str) -> None:
        with (self.directory / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the project's directory, with coverage: some code only runs when a project starts."""
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, code: str, *, setup: str = SETUP) -> None:
        """Run the code after the start-up; it must not fail."""
        finished = self.run("-c", f"{setup}\n{code}")
        assert finished.returncode == 0, finished.stderr

    def fails(self, code: str = "", *, setup: str = SETUP) -> str:
        """Return the last line of the traceback of a start-up that must fail."""
        finished = self.run("-c", f"{setup}\n{code}")
        assert finished.returncode != 0
        return finished.stderr.strip().splitlines()[-1]
