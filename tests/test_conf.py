"""The setting, the app, and a switch turned in a settings file, which needs a process for each start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from signal_patch import disable, enable, is_enabled, scopes
from signal_patch.conf import Settings
from signal_patch.options import Options
from tests.models import Book, Novel, Publisher, Reader
from tests.startup import SETUP, Project

if TYPE_CHECKING:
    from pathlib import Path

    import pytest_django


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def install(settings: pytest_django.Settings, setting: dict[str, Any] | None = None) -> None:
    if setting is not None:
        settings.SIGNAL_PATCH = setting
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]


class TestTheApp:
    def test_it_enables_everything(self, settings: pytest_django.Settings) -> None:
        install(settings)

        assert scopes.options_for(Book, "update") == Options()
        assert is_enabled("auth.User")

    def test_the_setting_narrows_it(self, settings: pytest_django.Settings) -> None:
        install(
            settings,
            {
                "MODELS": ["tests"],
                "EXCLUDE": ["tests.Novel"],
                "OPERATIONS": ["update"],
                "BATCH_SIZE": 50,
                "LOCK": False,
                "WRITE_BACK": False,
                "PROGRESS": print,
                "PREFETCH": ["publisher"],
                "BATCH_INSERTS": ["tests.Reader"],
                "BATCH_READS": False,
            },
        )

        assert scopes.options_for(Book, "update") == Options(
            operations=frozenset({"update"}),
            batch_size=50,
            lock=False,
            write_back=False,
            progress=print,
            prefetch=["publisher"],
            batch_inserts=[Reader],
        )
        assert not is_enabled(Book, "delete")
        assert not is_enabled(Novel)
        assert not is_enabled("auth.User")

    def test_with_autoenable_off_it_enables_nothing(self, settings: pytest_django.Settings) -> None:
        install(settings, {"AUTOENABLE": False, "MODELS": ["tests"]})

        assert not is_enabled()

    def test_a_second_ready_changes_nothing(self, settings: pytest_django.Settings) -> None:
        install(settings, {"MODELS": ["tests.Book"]})
        before = scopes.process.rules.entries

        with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "django.contrib.staticfiles"]):
            assert scopes.process.rules.entries == before
        assert is_enabled(Book)
        assert not is_enabled(Publisher)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"MODELS": ["tests.Bok"]}, r"SIGNAL_PATCH\['MODELS'\]: 'tests.Bok': .*did you mean 'Book'\?"),
            ({"EXCLUDE": ["a.b.c"]}, r"SIGNAL_PATCH\['EXCLUDE'\]: 'a.b.c' is not a label"),
            (
                {"BATCH_INSERTS": ["tests.Bok"]},
                r"SIGNAL_PATCH\['BATCH_INSERTS'\]: 'tests.Bok': .*did you mean 'Book'\?",
            ),
            ({"BATCH_SIZE": 0}, r"SIGNAL_PATCH\['BATCH_SIZE'\]: batch_size must be at least 1, not 0"),
        ],
    )
    def test_a_wrong_setting_fails_in_ready(
        self, settings: pytest_django.Settings, setting: dict[str, Any], message: str
    ) -> None:
        settings.SIGNAL_PATCH = setting

        with pytest.raises(ImproperlyConfigured, match=message):
            override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "signal_patch"]).enable()
        assert not is_enabled()


class TestOverrides:
    """`override_settings(SIGNAL_PATCH=...)` applies while it is active."""

    def test_on_narrowed_off_and_back(self, settings: pytest_django.Settings) -> None:
        install(settings, {"AUTOENABLE": False})

        with override_settings(SIGNAL_PATCH={"BATCH_SIZE": 7}):
            assert is_enabled(Publisher)
            with override_settings(SIGNAL_PATCH={"MODELS": ["tests.Book"], "EXCLUDE": ["tests.Novel"]}):
                assert is_enabled(Book)
                assert not is_enabled(Novel)
                assert not is_enabled(Publisher)
                with override_settings(SIGNAL_PATCH={"AUTOENABLE": False}):
                    assert not is_enabled()
                assert is_enabled(Book)
                assert not is_enabled(Novel)
            assert scopes.options_for(Publisher, "update") == Options(batch_size=7)
        assert not is_enabled()

    def test_what_calls_turned_on_stays_on_and_what_they_turned_off_comes_back_off(
        self, settings: pytest_django.Settings
    ) -> None:
        install(settings, {"MODELS": ["tests"]})
        disable(Novel)
        enable("auth.User")

        with override_settings(SIGNAL_PATCH={"AUTOENABLE": False}):
            assert is_enabled("auth.User")
            assert not is_enabled(Book)
        assert is_enabled(Book)
        assert not is_enabled(Novel)
        assert is_enabled("auth.User")

    def test_a_wrong_one_changes_nothing(self, settings: pytest_django.Settings) -> None:
        install(settings, {"MODELS": ["tests.Book"]})

        for wrong in ({"MODELS": ["tests.Bok"]}, {"LOCK": 3}):
            with pytest.raises(ImproperlyConfigured, match=r"SIGNAL_PATCH\['"):
                override_settings(SIGNAL_PATCH=wrong).enable()
        assert is_enabled(Book)
        assert not is_enabled(Publisher)

    def test_without_the_app_the_setting_means_nothing(self) -> None:
        with override_settings(SIGNAL_PATCH={"MODELS": ["tests"]}):
            assert not is_enabled()

    def test_when_an_override_takes_the_app_away_its_models_are_off(
        self, settings: pytest_django.Settings
    ) -> None:
        apps = [*settings.INSTALLED_APPS, "signal_patch"]

        with override_settings(INSTALLED_APPS=apps, SIGNAL_PATCH={"MODELS": ["tests.Book"]}):
            assert is_enabled(Book)
            assert not is_enabled(Publisher)
        assert not is_enabled()

    def test_other_settings_have_no_effect(self, settings: pytest_django.Settings) -> None:
        install(settings, {"MODELS": ["tests.Book"]})
        rules = scopes.process.rules

        with override_settings(TIME_ZONE="UTC"):
            assert scopes.process.rules is rules
        assert scopes.process.rules is rules


class TestTheCommandCheck:
    @pytest.mark.parametrize(
        ("setting", "error"),
        [
            ({"MODELS": ["library.Bok"]}, "(signal_patch.E002) SIGNAL_PATCH['MODELS']: 'library.Bok': app"),
            (
                {"BATCH_INSERTS": ["library.Bok"]},
                "(signal_patch.E002) SIGNAL_PATCH['BATCH_INSERTS']: 'library.Bok': app",
            ),
            ({"BATCH_SIZE": 0}, "(signal_patch.E001) SIGNAL_PATCH['BATCH_SIZE']: batch_size must be"),
        ],
    )
    def test_it_reports_errors_that_stop_every_other_command(
        self, setting: dict[str, Any], error: str, project: Project
    ) -> None:
        project.append("settings.py", f"INSTALLED_APPS.append('signal_patch')\nSIGNAL_PATCH = {setting}")

        checked = project.run("manage.py", "check")
        assert error in checked.stderr
        assert "Traceback" not in checked.stderr
        assert checked.returncode == 1
        for start in (["manage.py", "showmigrations"], ["-c", SETUP, "check"]):
            started = project.run(*start)
            assert started.returncode == 1
            assert f"ImproperlyConfigured: {error.partition(' ')[2]}" in started.stderr


class TestSettings:
    def test_are_read_at_each_access(self, settings: pytest_django.Settings) -> None:
        read = Settings()
        assert (read.models, read.exclude, read.options, read.autoenable) == ([], [], {}, True)

        settings.SIGNAL_PATCH = {
            "MODELS": ("tests",),
            "EXCLUDE": {"auth"},
            "LOCK": False,
            "AUTOENABLE": False,
        }

        assert (read.models, read.exclude) == (["tests"], ["auth"])
        assert (read.options, read.autoenable) == ({"lock": False}, False)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            (
                {"MODEL": ["tests"], "models": []},
                r"SIGNAL_PATCH\['MODEL'\]: unknown key; did you mean 'MODELS'\? \(valid are ATOMIC",
            ),
            (
                {"size": 5},
                r"SIGNAL_PATCH\['size'\]: unknown key; valid are ATOMIC, AUTOENABLE, BATCH_INSERTS, ",
            ),
            (["tests"], r"SIGNAL_PATCH must be a dictionary, not \['tests'\]"),
            (None, "SIGNAL_PATCH must be a dictionary, not None"),
            (
                {"MODELS": "tests"},
                r"SIGNAL_PATCH\['MODELS'\]: must be a list of labels such as .*, not 'tests'",
            ),
            ({"MODELS": []}, r"SIGNAL_PATCH\['MODELS'\]: is empty; leave it out for every model"),
            ({"MODELS": [Book]}, r"SIGNAL_PATCH\['MODELS'\]: must be a list of labels"),
            ({"EXCLUDE": None}, r"SIGNAL_PATCH\['EXCLUDE'\]: must be a list of labels .*, not None"),
            ({"AUTOENABLE": 1}, r"SIGNAL_PATCH\['AUTOENABLE'\]: must be True or False, not 1"),
            ({"BATCH_SIZE": "5"}, r"SIGNAL_PATCH\['BATCH_SIZE'\]: batch_size must be a whole number"),
            (
                {"OPERATIONS": ["insert"]},
                r"SIGNAL_PATCH\['OPERATIONS'\]: unknown operation 'insert'; valid are",
            ),
            ({"LOCK": None}, r"SIGNAL_PATCH\['LOCK'\]: lock must be True or False"),
        ],
    )
    def test_what_is_wrong_is_named_with_what_is_valid(
        self, settings: pytest_django.Settings, setting: Any, message: str
    ) -> None:
        settings.SIGNAL_PATCH = setting

        for name in ("models", "exclude", "options", "autoenable"):
            with pytest.raises(ImproperlyConfigured, match=message):
                getattr(Settings(), name)


WSGI = "import django.core.wsgi, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
CONFIGURED = "from django.conf import settings\nimport settings as own\n"
ENTRIES = {
    "setup": SETUP,
    "wsgi": f"{WSGI}django.core.wsgi.get_wsgi_application()",
    "asgi": f"{WSGI}import django.core.asgi; django.core.asgi.get_asgi_application()",
    "configure": f"{CONFIGURED}"
    "settings.configure(**{name: getattr(own, name) for name in dir(own) if name.isupper()})\n"
    "import django; django.setup()",
    "models first": "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
    "import django.db.models, django.contrib.auth.hashers, django; django.setup()",
}
CALL = "import signal_patch\nsignal_patch.enable({arguments})"
ONLY_BOOK = """
from library.models import Book, Shelf
from signal_patch import is_enabled
assert is_enabled(Book) and not is_enabled(Shelf) and not is_enabled("auth.User")
"""


class TestInASettingsFile:
    @pytest.mark.parametrize("setup", ENTRIES.values(), ids=ENTRIES)
    def test_enable_works_at_every_entry(self, setup: str, project: Project) -> None:
        project.append("settings.py", CALL.format(arguments="'library.Book', batch_size=5"))

        project.check(ONLY_BOOK, setup=setup)

    @pytest.mark.parametrize(
        "command", [("manage.py",), ("-m", "django")], ids=["manage.py", "python -m django"]
    )
    def test_enable_works_for_commands(self, command: tuple[str, ...], project: Project) -> None:
        project.append("settings.py", CALL.format(arguments="'library.Book'"))

        finished = project.run(*command, "shell", "--settings=settings", "--no-imports", "-c", ONLY_BOOK)

        assert finished.returncode == 0, finished.stderr

    def test_signals_are_sent(self, project: Project) -> None:
        project.append("settings.py", CALL.format(arguments=""))

        project.check(SEND)

    @pytest.mark.parametrize(
        "names", ["'library'", "'library.Book', 'library.shelf'", "exclude=['auth', 'contenttypes']"]
    )
    def test_names_resolve_when_the_models_are_loaded(self, names: str, project: Project) -> None:
        """Once they are loaded, the app registry is as it was."""
        project.append("settings.py", CALL.format(arguments=names))

        project.check(BOTH + UNPATCHED_ONCE_OFF)

    def test_the_last_call_for_a_model_wins_however_it_is_named(self, project: Project) -> None:
        project.append(
            "settings.py",
            "import signal_patch\n"
            "signal_patch.enable('library.Book', 'library.Shelf')\n"
            "signal_patch.disable('library.shelf')\n",
        )

        project.check(ONLY_BOOK)

    def test_is_enabled_can_be_called_there(self, project: Project) -> None:
        project.append(
            "settings.py",
            "import signal_patch as s\n"
            "s.enable('library', exclude=['library.Shelf'])\n"
            "assert s.is_enabled('library.book') and s.is_enabled('library') and s.is_enabled()\n"
            "assert not s.is_enabled('library.Shelf') and not s.is_enabled('auth')\n"
            "s.disable(); assert not s.is_enabled()\n",
        )

        project.check("import signal_patch; assert not signal_patch.is_enabled()")

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (
                "'library.Bok'",
                (
                    "LookupError: 'library.Bok': app 'library' has no such model; did you mean 'Book'? "
                    "(valid are Book, Shelf)"
                ),
            ),
            (
                "exclude=['libary']",
                (
                    "LookupError: 'libary': no installed app has the label 'libary'; did you mean 'library'? "
                    "(valid are auth, contenttypes, library)"
                ),
            ),
        ],
    )
    def test_a_wrong_name_fails_at_setup(self, arguments: str, error: str, project: Project) -> None:
        project.append("settings.py", CALL.format(arguments=arguments))

        assert project.fails() == error

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("'library.Book.title'", "ValueError: 'library.Book.title' is not a label; valid are"),
            ("batchsize=3", "TypeError: unknown option 'batchsize'; did you mean 'batch_size'?"),
            ("3", "TypeError: 3 is neither a model class nor a label"),
        ],
    )
    def test_what_is_known_to_be_wrong_fails_there(
        self, arguments: str, error: str, project: Project
    ) -> None:
        project.append("settings.py", CALL.format(arguments=arguments))

        assert project.fails().startswith(error)

    def test_importing_it_there_patches_nothing(self, project: Project) -> None:
        project.append("settings.py", "import signal_patch")

        project.check("import wrapt\n" + UNPATCHED)


SEND = """
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from django.db.models.signals import post_save
from library.models import Book
titles = []
Book.objects.bulk_create([Book(title="Emma"), Book(title="Persuasion")])
def receiver(instance, **kwargs):
    titles.append(instance.title)
post_save.connect(receiver, Book)
assert Book.objects.update(title="Sanditon") == 2
assert titles == ["Sanditon"] * 2, titles
"""
BOTH = """
from library.models import Book, Shelf
from signal_patch import disable, enable, is_enabled, scopes
assert is_enabled(Book) and is_enabled(Shelf) and not is_enabled("auth.User")
assert not scopes.process.pending
"""
UNPATCHED = """
from types import FunctionType
from django.apps.registry import Apps
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
for owner, name in [
    (QuerySet, "update"), (QuerySet, "bulk_update"), (Model, "save_base"), (Collector, "delete"),
    (Apps, "get_app_configs"), (Apps, "populate"),
]:
    assert type(vars(owner)[name]) is FunctionType, (owner, name)
"""
UNPATCHED_ONCE_OFF = f"import signal_patch; signal_patch.disable()\n{UNPATCHED}"


class TestWhileModelsAreLoading:
    @pytest.mark.parametrize("module", ["library/models.py", "library/__init__.py"])
    def test_enable_works_in_a_module_of_the_app(self, module: str, project: Project) -> None:
        project.append(module, CALL.format(arguments="'library.Book'"))

        project.check(ONLY_BOOK + UNPATCHED_ONCE_OFF)

    def test_a_wrong_name_fails_at_setup(self, project: Project) -> None:
        project.append("library/models.py", CALL.format(arguments="'library.Bok'"))

        assert project.fails().startswith("LookupError: 'library.Bok': app 'library' has no such model")

    def test_a_decorator_may_name_a_model_that_is_not_loaded_yet(self, project: Project) -> None:
        project.write(
            "library/models.py",
            "import signal_patch\n"
            "@signal_patch.bulk_signals('library.Book')\n"
            "def are_enabled(*models): return [signal_patch.is_enabled(model) for model in models]\n"
            + MODELS_AGAIN,
        )

        project.check("from library.models import *\nassert are_enabled(Book, Shelf) == [True, False]")

    def test_a_wrong_name_in_a_decorator_fails_at_setup(self, project: Project) -> None:
        project.append(
            "library/models.py", "import signal_patch\nsignal_patch.no_bulk_signals('library.Bok')(print)"
        )

        assert project.fails().startswith("LookupError: 'library.Bok'")

    def test_a_wrong_name_in_the_options_of_a_mixin_fails_at_setup(self, project: Project) -> None:
        project.append(
            "library/models.py",
            "from signal_patch.mixins import SignalEnhancedQuerySetMixins\n"
            "from signal_patch.options import Options\n"
            "class Listed(SignalEnhancedQuerySetMixins, models.QuerySet):\n"
            "    signal_options = Options(batch_inserts=['library.Bok'])",
        )

        assert project.fails().startswith("LookupError: 'library.Bok': app 'library' has no such model")

    def test_in_ready_names_resolve_at_once(self, project: Project) -> None:
        project.write(
            "library/apps.py",
            "from django.apps import AppConfig\n"
            "class LibraryConfig(AppConfig):\n"
            "    name = 'library'\n"
            "    def ready(self):\n"
            "        import signal_patch\n"
            "        signal_patch.enable('library.Book')\n"
            "        assert not signal_patch.scopes.process.pending\n",
        )

        project.check(ONLY_BOOK)

    def test_get_app_configs_works_meanwhile(self, project: Project) -> None:
        """The names are only checked when the models are loaded, however early somebody asks for the apps."""
        project.append("settings.py", CALL.format(arguments="'library.Book'"))
        project.append(
            "library/models.py", "from django.apps import apps\nassert list(apps.get_app_configs())"
        )

        project.check(ONLY_BOOK)


MODELS_AGAIN = """
from django.db import models
class Book(models.Model): pass
class Shelf(models.Model): pass
"""
