"""Which models are on, with which options: `enable`, `disable`, `is_enabled`, and scopes within."""

from __future__ import annotations

import gc
import weakref
from contextlib import ExitStack
from typing import Any

import pytest
from django.apps import apps
from django.db import models
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import isolate_apps

from signal_patch import bulk_signals, disable, enable, is_enabled, no_bulk_signals, scopes
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from signal_patch.options import Options
from tests.models import (
    Article,
    Book,
    BookProxy,
    Foghorn,
    HarbourFoghorn,
    Letter,
    Novel,
    Publisher,
    Timestamped,
)

DEFAULT = Options()


def size(model: type[models.Model]) -> int | None:
    """Return the batch size for updates of the model, or None if they are off."""
    options = scopes.options_for(model, "update")
    return options.batch_size if options else None


def test_at_first_everything_is_off() -> None:
    assert not is_enabled()
    assert not is_enabled(Book)
    assert scopes.options_for(Book, "update") is None


def test_enable_without_a_model_turns_on_every_model() -> None:
    enable()

    assert scopes.options_for(Book, "update") == DEFAULT
    assert scopes.options_for(Publisher, "delete") == DEFAULT


@pytest.mark.parametrize("book", [Book, "tests.Book", "tests.book"])
def test_a_model_is_a_class_or_a_label_in_any_case(book: Any) -> None:
    enable(book)

    assert is_enabled(Book)
    assert is_enabled("tests.Book")
    assert not is_enabled(Publisher)


def test_an_app_label_stands_for_the_models_of_the_app() -> None:
    enable("tests")

    assert is_enabled(Book)
    assert is_enabled(Article)
    assert is_enabled("tests")
    assert not is_enabled("auth")
    assert not is_enabled("auth.User")


@pytest.mark.parametrize(
    ("base", "heirs", "strangers"),
    [
        (Book, [BookProxy, Novel], [Publisher, Article]),
        (Timestamped, [Article, Letter], [Book]),
        (BookProxy, [BookProxy], [Book, Novel]),
        (models.Model, [Book, Article], []),
    ],
)
def test_a_model_stands_for_all_that_inherits_from_it(
    base: Any, heirs: list[Any], strangers: list[Any]
) -> None:
    enable(base)

    assert all(is_enabled(heir) for heir in heirs)
    assert not any(is_enabled(stranger) for stranger in strangers)


@isolate_apps("tests")
def test_an_app_label_stands_for_what_inherits_from_its_models_elsewhere() -> None:
    class Elsewhere(Book):
        class Meta:
            app_label = "auth"
            proxy = True

    enable("tests")

    assert is_enabled(Elsewhere)


def test_enabling_a_second_model_keeps_the_first() -> None:
    enable(Book)
    enable(Publisher)

    assert is_enabled(Book)
    assert is_enabled(Publisher)
    assert not is_enabled(Article)


def test_exclude_carves_models_out() -> None:
    enable(exclude=[Novel, "tests.Letter"])

    assert is_enabled(Book)
    assert not is_enabled(Novel)
    assert not is_enabled(Letter)


def test_an_exit_stack_leaves_its_scopes() -> None:
    with ExitStack() as stack:
        stack.enter_context(bulk_signals(Book))
        stack.enter_context(no_bulk_signals(Book))
        assert not is_enabled(Book)
        stack.pop_all().close()
        stack.enter_context(bulk_signals(Book))
        assert is_enabled(Book)
    assert not is_enabled(Book)


def test_disabling_a_model_while_everything_is_on_carves_it_out() -> None:
    enable()
    disable(Book)

    assert not is_enabled(Book)
    assert not is_enabled(Novel)
    assert is_enabled(Publisher)


def test_the_last_call_for_a_model_wins() -> None:
    enable()
    disable(Book)
    enable(Novel, batch_size=7)

    assert not is_enabled(Book)
    assert size(Novel) == 7


def test_a_call_for_a_base_replaces_earlier_calls_for_its_subclasses() -> None:
    enable(Novel, batch_size=7)
    enable(Book, batch_size=9)

    assert size(Novel) == 9


def test_if_a_model_is_turned_on_twice_the_later_options_apply() -> None:
    enable(Book, batch_size=5, operations=["update"])
    enable(Book)

    assert scopes.options_for(Book, "update") == DEFAULT
    assert is_enabled(Book, "delete")


def test_enable_twice_is_enable_once() -> None:
    enable()
    enable()
    disable()

    assert not is_enabled()


def test_disabling_the_last_model_leaves_nothing_on() -> None:
    enable(Book, "tests.Publisher")
    disable("tests")

    assert not is_enabled()
    assert scopes.process.rules is scopes.NOTHING


def test_an_operation_that_is_not_chosen_is_off() -> None:
    enable(Book, operations=["update"])

    assert is_enabled(Book, "update")
    assert not is_enabled(Book, "delete")
    assert is_enabled(operation="update")
    assert not is_enabled(operation="delete")


def test_is_enabled_refuses_an_unknown_operation() -> None:
    with pytest.raises(ValueError, match="unknown operation 'insert'; valid are"):
        is_enabled(Book, "insert")  # type: ignore[arg-type]  # the mistake


def test_is_enabled_without_a_model_says_whether_any_is_on() -> None:
    enable(Book)

    assert is_enabled()
    with no_bulk_signals(Publisher):
        assert is_enabled()
    with no_bulk_signals("tests"):
        assert not is_enabled()


def test_an_app_is_on_when_one_of_its_models_is() -> None:
    enable("auth.Group")

    assert is_enabled("auth")
    disable("auth.Group")
    assert not is_enabled("auth")


class TestAModelThatOnlyAMixinCovers:
    def test_is_on_and_so_is_its_app(self) -> None:
        assert is_enabled(Foghorn)
        assert is_enabled(Foghorn, "update")
        assert is_enabled("tests.Foghorn")
        assert is_enabled("tests")

    def test_only_the_models_of_its_managers_are(self) -> None:
        assert not is_enabled(HarbourFoghorn)
        assert not is_enabled(models.Model)

    def test_disable_leaves_it_on_and_no_bulk_signals_does_not(self) -> None:
        enable(Foghorn)
        disable(Foghorn)
        assert is_enabled(Foghorn)
        with no_bulk_signals(Foghorn):
            assert not is_enabled(Foghorn)
            assert not is_enabled(Foghorn, "delete")

    def test_its_class_may_leave_operations_out(self) -> None:
        class Deleting(SignalEnhancedQuerySetMixins, models.QuerySet[Any]):
            signal_options = Options(operations=frozenset({"delete"}))

        with isolate_apps("tests"):

            class Parted(models.Model):
                objects = Deleting.as_manager()

        assert is_enabled(Parted)
        assert is_enabled(Parted, "delete")
        assert not is_enabled(Parted, "update")


class TestScopes:
    def test_a_scope_turns_on_for_the_block_only(self) -> None:
        with bulk_signals(Book):
            assert is_enabled(Book)
            assert not is_enabled(Publisher)
        assert not is_enabled(Book)

    def test_the_innermost_scope_that_covers_the_model_wins(self) -> None:
        with bulk_signals(Book, batch_size=1), bulk_signals(Publisher, batch_size=2):
            assert size(Book) == 1
            with bulk_signals(batch_size=3):
                assert size(Book) == 3
                with no_bulk_signals(Book):
                    assert size(Book) is None
                    assert size(Publisher) == 3

    def test_a_scope_that_does_not_cover_the_model_leaves_it_to_the_process(self) -> None:
        enable(batch_size=4)

        with bulk_signals(Publisher):
            assert size(Book) == 4

    def test_exclude_in_a_scope_turns_off_what_is_on_around_it(self) -> None:
        with bulk_signals(Book), bulk_signals(exclude=[Book]):
            assert not is_enabled(Book)
            assert is_enabled(Publisher)

    def test_a_scope_without_the_operation_turns_it_off(self) -> None:
        enable()

        with bulk_signals(Book, operations=["delete"]):
            assert not is_enabled(Book, "update")
            assert is_enabled(Book, "delete")

    def test_no_bulk_signals_wins_inside_an_enabled_process(self) -> None:
        enable()

        with no_bulk_signals(Book):
            assert not is_enabled(Book)
            assert is_enabled(Publisher)
        with no_bulk_signals():
            assert not is_enabled()

    def test_disable_does_not_affect_an_open_scope(self) -> None:
        enable()
        with bulk_signals(Book):
            disable()
            assert is_enabled(Book)
            assert not is_enabled(Publisher)


class TestNeverCovered:
    def test_a_historical_model_of_a_migration(self) -> None:
        enable()
        historical = historical_model()

        assert scopes.options_for(historical, "update") is None
        with bulk_signals():
            assert scopes.options_for(historical, "update") is None
        assert scopes.options_for(historical, "update", DEFAULT) is None

    def test_a_historical_model_is_not_kept_alive(self) -> None:
        enable()
        historical = weakref.ref(historical_model())
        scopes.options_for(historical_model(), "update")
        gc.collect()

        assert historical() is None

    def test_an_automatic_through_model(self) -> None:
        enable()

        assert scopes.options_for(Book.readers.through, "update") is None


def historical_model() -> type[models.Model]:
    state = ProjectState()
    state.add_model(ModelState("tests", "Old", [("id", models.BigAutoField(primary_key=True))]))
    return state.apps.get_model("tests", "Old")


class TestWrongModels:
    @pytest.mark.parametrize(
        ("model", "error", "message"),
        [
            ("tests.Bok", LookupError, r"'tests.Bok': app 'tests' has no such model; did you mean 'Book'\?"),
            ("tests.Xyzzyx", LookupError, "'tests.Xyzzyx': .*valid are .*Article, .*Book, .*BookProxy"),
            ("test", LookupError, r"no installed app has the label 'test'; did you mean 'tests'\?"),
            ("TESTS.Book", LookupError, r"no installed app has the label 'TESTS'; did you mean 'tests'\?"),
            ("shop.Book", LookupError, "'shop.Book': no installed app has the label 'shop'"),
            (
                "django.contrib.auth",
                ValueError,
                r"'django.contrib.auth' is not a label; did you mean 'auth'\?",
            ),
            ("", ValueError, "'' is not a label"),
            ("tests.", ValueError, "'tests.' is not a label"),
            (str, TypeError, "str is neither a model class nor a label"),
            (Book(), TypeError, "^an instance of Book is neither a model .* label: give its class, Book$"),
            (Book.objects, TypeError, "^a Manager of Book is neither a model .*: give the model, Book$"),
            (
                Book.objects.all(),
                TypeError,
                "^a QuerySet of Book is neither a model .*: give the model, Book$",
            ),
            ([Book], TypeError, "^a list is neither a model .*: give each model as an argument of its own"),
            ({Book}, TypeError, "^a set is neither a model class nor a label"),
            (len, TypeError, r"^the function len is neither .* the parentheses, as in @bulk_signals\(\)$"),
            (
                "Book",
                LookupError,
                r"'Book': no installed app has the label 'Book'; did you mean 'tests.Book'\?",
            ),
            (
                "tests.models.Book",
                ValueError,
                r"'tests.models.Book' is not a label; did you mean 'tests.Book'\?",
            ),
            ("a.shop.models.old.Book", ValueError, r"is not a label; did you mean 'shop.Book'\?"),
            ("tests.Book.title", ValueError, "'tests.Book.title' is not a label; valid are 'app_label"),
            (None, TypeError, "None is neither a model class nor a label"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_is_an_error_when_the_switch_is_turned_and_changes_nothing(
        self, model: Any, error: type[Exception], message: str
    ) -> None:
        enable(Publisher)
        before = scopes.process.rules

        for turn in (enable, disable, bulk_signals, no_bulk_signals):
            with pytest.raises(error, match=message):
                turn(Book, model)
        for turn in (enable, bulk_signals):
            with pytest.raises(error, match=message):
                turn(exclude=[model])
        assert scopes.process.rules is before

    @pytest.mark.parametrize("turn", [enable, bulk_signals])
    @pytest.mark.parametrize("exclude", ["tests.Book", Book, None, 5, Book.objects.all(), Book.objects])
    def test_exclude_takes_a_collection(self, exclude: Any, turn: Any) -> None:
        with pytest.raises(TypeError, match=r"exclude must be a collection of models, such as \[.*\], not "):
            turn(exclude=exclude)
        assert not is_enabled()

    def test_disable_takes_no_options(self) -> None:
        enable()

        with pytest.raises(
            TypeError, match=r"disable\(\) takes models only, not 'exclude'; to keep some models on"
        ):
            disable(exclude=[Book])  # type: ignore[arg-type]  # the mistake
        assert is_enabled(Publisher)

    def test_is_enabled_takes_one_model(self) -> None:
        with pytest.raises(TypeError, match=r"is_enabled\(\) takes one model and the name of one operation"):
            is_enabled(Book, Publisher)  # type: ignore[arg-type]  # the mistake

    def test_is_enabled_refuses_a_wrong_model_too(self) -> None:
        with pytest.raises(LookupError):
            is_enabled("tests.Bok")

    def test_a_wrong_option_changes_nothing(self) -> None:
        with pytest.raises(ValueError, match="batch_size"):
            enable(batch_size=0)

        assert not is_enabled()


def test_decisions_are_cached_for_each_model_of_the_registry() -> None:
    enable(Book)

    for _ in range(2):
        assert [model for model in apps.get_models() if scopes.is_on(model)] == [Book, BookProxy, Novel]
