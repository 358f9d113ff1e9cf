"""The patched methods look like Django's, can be copied like Django's, and can be patched again."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import wrapt
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
from django.template import Context, Engine
from django.test.utils import isolate_apps

from signal_patch import bulk_signals, disable, enable, no_bulk_signals, patches
from signal_patch.dispatch.signals import in_flight
from tests.models import Book, BookProxy, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Log, Receivers

PATCHED = [(owner, name) for owner, name, _ in patches.ENTRY_POINTS + patches.ROW_MARKERS]
METHODS = ("update", "bulk_update", "bulk_create", "delete")
OWN = {name: vars(QuerySet)[name] for name in METHODS}
SAVED = ["pre_save", "post_save"]

# For what mypy does not know or, like Django, refuses.
UntypedQuerySet: Any = QuerySet
UntypedBook: Any = Book
UntypedModel: Any = Model
UntypedCollector: Any = Collector

pytestmark = pytest.mark.django_db


@pytest.fixture
def book() -> Book:
    return Book.objects.create(title="Emma")


class TestTheyLookTheSame:
    @pytest.mark.parametrize(("owner", "name"), PATCHED)
    def test_name_signature_docstring_and_attributes_are_kept(self, owner: type, name: str) -> None:
        own = inspect.unwrap(vars(owner)[name])
        enable()

        methods: list[Any] = [getattr(owner, name), vars(owner)[name]]
        assert all(method is patches.ours(owner, name) for method in methods)
        for method in methods:
            assert method is not own
            assert (method.__name__, method.__qualname__) == (own.__name__, own.__qualname__)
            assert (method.__module__, method.__doc__) == (own.__module__, own.__doc__)
            assert inspect.signature(method) == inspect.signature(own)
            assert method.__dict__ == own.__dict__
            assert inspect.isfunction(method)

    @pytest.mark.parametrize("name", METHODS)
    def test_a_bound_method_keeps_them_too(self, name: str) -> None:
        before = getattr(Book.objects.all(), name)
        signature = inspect.signature(before)
        enable()

        method: Any = getattr(Book.objects.all(), name)
        assert method.alters_data
        assert inspect.ismethod(method)
        assert inspect.signature(method) == signature
        assert (method.__name__, method.__doc__) == (before.__name__, before.__doc__)
        assert inspect.unwrap(method) is OWN[name]

    def test_queryset_only_is_kept(self) -> None:
        """Otherwise a manager would get `delete`; Django's own managers look at `queryset_only`."""
        enable()

        assert not hasattr(QuerySet.update, "queryset_only")
        assert UntypedQuerySet.delete.queryset_only
        assert not hasattr(Book.objects, "delete")

    def test_a_template_does_not_call_them(self, book: Book) -> None:
        enable()

        Engine().from_string("{{ books.update }}").render(Context({"books": Book.objects.all()}))
        assert UntypedQuerySet.update.alters_data

    @isolate_apps("tests")
    def test_managers_made_from_querysets_have_them(self, book: Book, log: Log) -> None:
        enable()

        class Shelf(QuerySet[Book]):
            def shelved(self) -> int:
                return self.update(status="shelved")

        managers: list[Any] = [models.Manager.from_queryset(Shelf)(), Shelf.as_manager()]
        for manager in managers:
            manager.model = Book
            assert manager.update(title="Persuasion") == 1
            assert manager.shelved() == 1
            assert inspect.signature(manager.update) == inspect.signature(Book.objects.update)

        assert log.names() == SAVED * 4


class TestPicklingAndCopying:
    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_a_bound_method(self, again: Callable[[Any], Any], book: Book, log: Log) -> None:
        enable()

        assert again(Book.objects.filter(pk=book.pk).update)(title="Persuasion") == 1

        book.refresh_from_db()
        assert book.title == "Persuasion"
        assert log.names() == SAVED

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    @pytest.mark.parametrize(("owner", "name"), PATCHED)
    def test_a_method_of_the_class(self, again: Callable[[Any], Any], owner: type, name: str) -> None:
        enable()

        assert again(getattr(owner, name)) is getattr(owner, name)

    def test_a_bound_method_pickled_while_patched_loads_without_the_patch(self, book: Book) -> None:
        enable()
        pickled = pickle.dumps(Book.objects.filter(pk=book.pk).update)
        disable()

        assert b"signal_patch" not in pickled
        assert pickle.loads(pickled)(title="Persuasion") == 1

    def test_a_queryset(self, book: Book, log: Log) -> None:
        enable()

        for queryset in (
            pickle.loads(pickle.dumps(Book.objects.all())),
            copy.copy(Book.objects.all()),
            copy.deepcopy(Book.objects.all()),
        ):
            assert queryset.update(title="Persuasion") == 1

        assert log.names() == SAVED * 3


class TestCalling:
    def test_unbound(self, book: Book, log: Log) -> None:
        enable()

        assert QuerySet.update(Book.objects.all(), title="Persuasion") == 1
        assert QuerySet.bulk_update(Book.objects.all(), [book], ["title"]) == 1
        assert vars(QuerySet)["update"](Book.objects.all(), title="Persuasion") == 1

        assert log.names() == SAVED * 3

    def test_through_a_subclass_that_the_queryset_is_no_instance_of(self, book: Book, log: Log) -> None:
        class Shelf(QuerySet[Book]):
            pass

        enable()

        assert Shelf.update(Book.objects.all(), title="Persuasion") == 1
        assert log.names() == SAVED

    def test_a_subclass_that_calls_super(self, book: Book, log: Log) -> None:
        class Shelf(QuerySet[Book]):
            def update(self, **values: Any) -> int:
                return super().update(**{"status": "shelved", **values})

            def bulk_update(self, objs: Any, fields: Any, batch_size: int | None = None) -> int:
                return super().bulk_update(objs, [*fields, "status"], batch_size)

        enable()

        assert Shelf(Book).update(title="Persuasion") == 1
        assert Shelf(Book).bulk_update([book], ["title"]) == 1

        assert [sent.arguments["update_fields"] for sent in log] == [{"title", "status"}] * 4

    @pytest.mark.parametrize(
        "call",
        [
            lambda: books().update("title"),
            lambda: books().update({"title": "x"}, status="y"),
            lambda: UntypedQuerySet.update(),
            lambda: UntypedQuerySet.update("garbage", title="x"),
            lambda: UntypedQuerySet.update(self=books(), queryset=1),
            lambda: books().update(self=1),
            lambda: books().update(wrapped=1),
            lambda: UntypedQuerySet(None).update(title="x"),
            lambda: books().bulk_update(),
            lambda: books().bulk_update([], ["title"], 5, 6),
            lambda: books().bulk_update([], ["title"], size=5),
            lambda: UntypedQuerySet.bulk_update(),
            lambda: books().bulk_update([], []),
            lambda: UntypedBook().save_base("raw", True, True, "default", None, "more"),
            lambda: UntypedBook().save_base(raws=True),
            lambda: UntypedModel.save_base(),
            lambda: UntypedCollector.delete(),
            lambda: UntypedCollector("default").delete(1),
        ],
    )
    def test_what_django_refuses_is_refused_in_its_own_words(
        self, call: Callable[[], object], log: Log
    ) -> None:
        def refusal() -> tuple[type[Exception], str]:
            with pytest.raises((TypeError, ValueError, AttributeError, FieldDoesNotExist)) as refused:
                call()
            return refused.type, str(refused.value)

        disabled = refusal()
        enable()

        assert refusal() == disabled
        assert not log

    @pytest.mark.parametrize(
        "call",
        [
            lambda books, book: books.bulk_update([book], ["title"]),
            lambda books, book: books.bulk_update([book], ["title"], 1),
            lambda books, book: books.bulk_update(objs=[book], fields=["title"], batch_size=1),
            lambda books, book: books.bulk_update([book], batch_size=None, fields=["title"]),
        ],
    )
    def test_bulk_update_takes_its_arguments_by_place_and_by_name(
        self, call: Callable[..., int], book: Book, log: Log
    ) -> None:
        enable()
        book.title = "Persuasion"

        assert call(Book.objects.all(), book) == 1

        book.refresh_from_db()
        assert book.title == "Persuasion"
        assert log.names() == SAVED

    def test_while_the_library_writes_they_go_straight_to_django(self, book: Book, log: Log) -> None:
        enable()

        with in_flight.silence(Book):
            Book.objects.update(title="Persuasion")
            Book.objects.bulk_update([book], ["title"])

        assert not log

    def test_an_operation_that_is_not_on_sends_nothing(self, book: Book, log: Log) -> None:
        enable(operations=["bulk_update"])
        Book.objects.update(title="Persuasion")
        assert not log

        Book.objects.bulk_update([book], ["title"])
        assert log.names() == SAVED

    def test_the_update_inside_a_bulk_update_that_is_not_on_sends_nothing(self, book: Book, log: Log) -> None:
        enable(operations=["update"])

        Book.objects.bulk_update([book], ["title"])

        assert not log

    def test_another_models_update_inside_it_sends_signals(self, book: Book, log: Log) -> None:
        class Shelf(QuerySet[Book]):
            def update(self, **values: Any) -> int:
                Publisher.objects.update(name="Egerton")
                return super().update(**values)

        Publisher.objects.create(name="Murray")
        log.clear()
        enable(Publisher)

        Shelf(Book).bulk_update([book], ["title"])

        assert [sent.sender for sent in log] == [Publisher] * 2

    def test_a_model_that_is_not_on_sends_nothing(self, book: Book, log: Log) -> None:
        enable(BookProxy)

        Book.objects.update(title="Persuasion")
        assert not log
        BookProxy.objects.update(title="Persuasion")
        assert [sent.sender for sent in log] == [BookProxy] * 2


class TestMarking:
    """While Django saves or deletes, the row is in flight."""

    @pytest.mark.parametrize("how", ["save", "save_base", "by place", "unbound"])
    def test_a_save(self, how: str, receivers: Receivers) -> None:
        enable()
        flying: list[set[Any]] = []

        def receiver(instance: Book, using: str, **kwargs: Any) -> None:
            flying.append(in_flight.keys_in_flight(using, Book, [instance.pk]))

        receivers.connect(models.signals.post_save, receiver, Book)
        book = Book(title="Emma")
        ways: dict[str, Callable[[], object]] = {
            "save": book.save,
            "save_base": book.save_base,
            "by place": lambda: book.save_base(False, False, False, "default", None),
            "unbound": lambda: Model.save_base(book, raw=True, using="default"),
        }
        ways[how]()

        assert flying == [{book.pk}]
        assert in_flight.keys_in_flight("default", Book, [book.pk]) == set()

    def test_a_router_is_asked_once(self, settings: Any) -> None:
        settings.DATABASE_ROUTERS = [router := CountingRouter()]
        enable()

        Book(title="Emma").save_base()

        assert router.asked == 1

    def test_a_delete(self, book: Book, receivers: Receivers) -> None:
        enable()
        flying: list[set[Any]] = []
        receivers.connect(
            models.signals.pre_delete,
            lambda instance, using, **kwargs: flying.append(
                in_flight.keys_in_flight(using, Book, [instance.pk])
            ),
            Book,
        )

        pk = book.pk
        Book.objects.all().delete()

        assert flying == [{pk}]

    def test_a_failed_save_leaves_nothing_behind(self, book: Book, receivers: Receivers) -> None:
        enable()

        def fail(**kwargs: Any) -> None:
            raise KeyError

        receivers.connect(models.signals.pre_save, fail, Book)
        with pytest.raises(KeyError):
            book.save()

        assert in_flight.keys_in_flight("default", Book, [book.pk]) == set()


class CountingRouter:
    asked = 0

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        self.asked += 1
        return "default"


def books() -> Any:
    return Book.objects.all()


def by_wrapt(seen: list[str]) -> Any:
    @wrapt.decorator
    def theirs(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(type(instance).__name__)
        return wrapped(*args, **kwargs)

    return theirs(vars(QuerySet)["update"])


def by_function_wrapper(seen: list[str]) -> Any:
    def theirs(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(type(instance).__name__)
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(QuerySet.update, theirs)


def by_closure(seen: list[str]) -> Any:
    original = QuerySet.update

    def update(self: QuerySet[Any], **kwargs: Any) -> int:
        seen.append(type(self).__name__)
        return original(self, **kwargs)

    update.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own
    return update


def by_wraps(seen: list[str]) -> Any:
    return functools.wraps(QuerySet.update)(by_closure(seen))


THEIRS = [by_wrapt, by_function_wrapper, by_closure, by_wraps]
SPLICED = [by_wrapt, by_function_wrapper]


@pytest.fixture
def foreign() -> Iterator[list[str]]:
    """Record what another library's wrapper got; restore Django's own method afterwards."""
    yield []
    disable()
    UntypedQuerySet.update = OWN["update"]


@pytest.mark.parametrize("theirs", THEIRS)
class TestWithOtherLibraries:
    def test_theirs_beneath_ours_is_called_with_its_queryset(
        self, theirs: Any, foreign: list[str], book: Book, log: Log
    ) -> None:
        UntypedQuerySet.update = wrapper = theirs(foreign)
        enable()

        assert Book.objects.update(title="Persuasion") == 1
        assert log.names() == SAVED
        assert set(foreign) == {"QuerySet"}

        with no_bulk_signals():
            foreign.clear()
            assert Book.objects.update(title="Emma") == 1
        assert foreign == ["QuerySet"]
        assert len(log) == 2

        disable()
        assert vars(QuerySet)["update"] is wrapper

    def test_theirs_above_ours_is_called_and_calls_ours(
        self, theirs: Any, foreign: list[str], book: Book, log: Log
    ) -> None:
        enable()
        UntypedQuerySet.update = theirs(foreign)

        assert Book.objects.update(title="Persuasion") == 1
        assert log.names() == SAVED
        assert foreign == ["QuerySet"]

    def test_when_ours_goes_theirs_stays_and_works(
        self, theirs: Any, foreign: list[str], book: Book, log: Log
    ) -> None:
        enable()
        UntypedQuerySet.update = wrapper = theirs(foreign)
        disable()

        assert vars(QuerySet)["update"] is wrapper
        assert Book.objects.update(title="Persuasion") == 1
        assert foreign == ["QuerySet"]
        assert not log
        assert (patches.ours(QuerySet, "update") is None) == (theirs is not by_wraps)

    def test_enabling_again_sends_once_per_row(
        self, theirs: Any, foreign: list[str], book: Book, log: Log
    ) -> None:
        enable()
        UntypedQuerySet.update = theirs(foreign)
        for _ in range(3):
            disable()
            enable()

        assert Book.objects.update(title="Persuasion") == 1
        assert log.names() == SAVED

    def test_another_library_may_restore_the_method_that_it_found(
        self, theirs: Any, foreign: list[str], book: Book, log: Log
    ) -> None:
        enable()
        found = QuerySet.update
        UntypedQuerySet.update = theirs(foreign)
        UntypedQuerySet.update = found

        Book.objects.update(title="Persuasion")
        assert log.names() == SAVED
        disable()
        assert vars(QuerySet)["update"] is OWN["update"]

    def test_once_theirs_is_gone_the_next_disable_removes_our_inert_patch(
        self, theirs: Any, foreign: list[str], book: Book
    ) -> None:
        enable()
        found = QuerySet.update
        UntypedQuerySet.update = theirs(foreign)
        disable()
        UntypedQuerySet.update = found

        disable()
        assert vars(QuerySet)["update"] is OWN["update"]


@pytest.mark.parametrize("theirs", SPLICED)
def test_if_one_of_two_beneath_ours_is_removed_the_other_still_gets_its_queryset(
    theirs: Any, foreign: list[str], book: Book, log: Log
) -> None:
    others: list[str] = []
    UntypedQuerySet.update = theirs(foreign)
    UntypedQuerySet.update = upper = theirs(others)
    enable()
    wrapt.unwrap_object(QuerySet, "update", upper)

    assert Book.objects.update(title="Persuasion") == 1
    assert log.names() == SAVED
    assert set(foreign) == {"QuerySet"}
    assert not others


@pytest.mark.parametrize("theirs", SPLICED)
def test_theirs_can_be_taken_out_from_beneath_ours(
    theirs: Any, foreign: list[str], book: Book, log: Log
) -> None:
    UntypedQuerySet.update = wrapper = theirs(foreign)
    enable()
    wrapt.unwrap_object(QuerySet, "update", wrapper)

    Book.objects.update(title="Persuasion")

    assert log.names() == SAVED
    assert not foreign
    disable()
    assert vars(QuerySet)["update"] is OWN["update"]


class World:
    """The switch and another library's patch, which are turned on and off in any order."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen
        self.on = False
        self.wrappers: list[Any] = []

    def enable(self) -> None:
        enable()
        self.on = True

    def disable(self) -> None:
        disable()
        self.on = False

    def scope(self) -> None:
        with bulk_signals():
            pass

    def wrap(self) -> None:
        UntypedQuerySet.update = wrapper = by_wrapt(self.seen)
        self.wrappers.append(wrapper)

    def unwrap(self) -> None:
        if self.wrappers:
            wrapt.unwrap_object(QuerySet, "update", self.wrappers.pop(0))


@pytest.mark.parametrize("first", ["enable", "disable", "scope", "wrap"])
def test_in_whatever_order_they_come_and_go(first: str, foreign: list[str], book: Book, log: Log) -> None:
    """Signals are sent if and only if the switch is on; each installed wrapper is called once."""
    for rest in itertools.product(["enable", "disable", "scope", "wrap", "unwrap"], repeat=3):
        world = World(foreign)
        for step in (first, *rest):
            getattr(world, step)()

        log.clear()
        with bulk_signals(Publisher):
            assert Book.objects.update(title="Persuasion") == 1
        assert log.names() == (SAVED if world.on else []), rest
        log.clear()
        foreign.clear()
        with no_bulk_signals():
            assert Book.objects.update(title="Persuasion") == 1
        assert not log
        assert foreign == ["QuerySet"] * len(world.wrappers), rest

        while world.wrappers:
            world.unwrap()
        disable()
        assert vars(QuerySet)["update"] is OWN["update"], rest


def test_a_wrapper_that_replaces_ours_is_not_removed(foreign: list[str]) -> None:
    def update(self: QuerySet[Any], **kwargs: Any) -> None: ...

    enable()
    UntypedQuerySet.update = update
    disable()

    assert vars(QuerySet)["update"] is update


@pytest.mark.parametrize("name", ["bulk_create", "bulk_update"])
def test_a_wrapper_beneath_with_arguments_of_its_own_gets_them(name: str, book: Book, log: Log) -> None:
    own = getattr(QuerySet, name)

    def theirs(self: Any, objs: Any, hint: str = "") -> str:
        return hint

    setattr(QuerySet, name, theirs)
    try:
        enable()
        assert getattr(books(), name)([book], hint="theirs") == "theirs"
        disable()
    finally:
        setattr(QuerySet, name, own)


def test_a_wrapper_beneath_sees_the_instances_to_create_and_nothing_else(log: Log) -> None:
    own = OWN["bulk_create"]
    seen: list[tuple[int, str]] = []

    def theirs(self: Any, objs: Any, **kwargs: Any) -> Any:
        seen.append((len(objs), objs[0].title))
        return own(self, objs, **kwargs)

    UntypedQuerySet.bulk_create = theirs
    try:
        enable()
        books().bulk_create([Book(title="Emma"), Book(title="Persuasion")])
        disable()
    finally:
        UntypedQuerySet.bulk_create = own
    assert seen == [(2, "Emma")]
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2


def test_a_callable_that_is_not_a_function_is_called_as_django_would(book: Book, foreign: list[str]) -> None:
    class Callable:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

    UntypedQuerySet.update = Callable()
    assert books().update(title="x") == ((), {"title": "x"})
    enable()

    with bulk_signals(Publisher, exclude=[Book, User]):
        assert books().update(title="x") == ((), {"title": "x"})
