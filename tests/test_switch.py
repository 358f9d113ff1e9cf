"""The switch: what is installed and when, scopes as blocks and decorators, threads and tasks."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector

import signal_patch
from signal_patch import bulk_signals, disable, enable, is_enabled, no_bulk_signals, patches, scopes
from tests.models import Book, Publisher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator

    from tests.recording import Log

DJANGOS = {name: vars(QuerySet)[name] for name in ("update", "bulk_update", "bulk_create", "delete")}
SCOPES = [bulk_signals, no_bulk_signals]


async def ask_inside() -> AsyncGenerator[bool, None]:
    with bulk_signals():
        yield is_enabled()


def is_installed() -> bool:
    found = {patches.ours(QuerySet, name) is not None for name in DJANGOS}
    assert len(found) == 1
    return found.pop()


def test_the_public_names_are_few() -> None:
    assert set(signal_patch.__all__) == {
        "bulk_receiver",
        "bulk_signals",
        "disable",
        "enable",
        "explain",
        "is_enabled",
        "no_bulk_signals",
        "observe",
    }
    assert all(callable(getattr(signal_patch, name)) for name in signal_patch.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'signal_patch' has no attribute 'bulk_signal'"):
        signal_patch.bulk_signal  # noqa: B018  # the mistake


class TestInstalling:
    def test_the_patches_are_installed_when_first_needed(self) -> None:
        assert not is_installed()

        scope = bulk_signals()
        assert not is_installed()
        with scope:
            assert is_installed()

    @pytest.mark.parametrize("scope", SCOPES)
    def test_they_stay_when_a_scope_is_left(self, scope: Any) -> None:
        with scope():
            update = vars(QuerySet)["update"]

        assert vars(QuerySet)["update"] is update

    def test_2000_blocks_leave_the_class_untouched(self) -> None:
        with bulk_signals():
            pass
        before = [vars(cls).copy() for cls in (QuerySet, Model, Collector)]

        for _ in range(1000):
            with bulk_signals(), no_bulk_signals(Book):
                pass

        for cls, attributes in zip((QuerySet, Model, Collector), before, strict=True):
            assert all(vars(cls)[name] is value for name, value in attributes.items())
            assert len(vars(cls)) == len(attributes)

    def test_after_disable_djangos_own_function_objects_are_back(self) -> None:
        enable()
        assert is_installed()

        disable()

        assert {name: vars(QuerySet)[name] for name in DJANGOS} == DJANGOS
        assert all(vars(QuerySet)[name] is function for name, function in DJANGOS.items())

    def test_disable_while_nothing_is_on_removes_the_patches_of_a_scope(self) -> None:
        with bulk_signals():
            pass

        disable()

        assert not is_installed()

    def test_disabling_one_model_of_two_keeps_them_on(self) -> None:
        enable(Book, Publisher)
        disable(Book)

        assert is_installed()

    def test_disable_keeps_the_patches_while_a_scope_is_open(self) -> None:
        enable()
        with bulk_signals(Book):
            with no_bulk_signals(Publisher):
                disable()
                assert is_installed()
            assert is_installed()
        assert not is_installed()

    def test_enabling_again_before_the_scope_closes_keeps_them_on(self) -> None:
        with bulk_signals():
            disable()
            enable()
        assert is_installed()

    def test_an_exception_in_the_block_closes_the_scope(self) -> None:
        with pytest.raises(KeyError), bulk_signals():
            raise KeyError
        assert not is_enabled()
        assert not scopes.process.open_scopes


class TestReentrancy:
    def test_one_object_may_be_entered_again_while_it_is_open(self) -> None:
        scope = bulk_signals(Book)

        with scope:
            with scope, no_bulk_signals(), scope:
                assert is_enabled(Book)
            assert is_enabled(Book)
        assert not is_enabled(Book)

    def test_a_decorated_function_may_call_itself(self) -> None:
        @bulk_signals()
        def descend(depth: int) -> int:
            assert is_enabled()
            return depth and descend(depth - 1)

        assert descend(5) == 0
        assert not is_enabled()

    def test_scopes_may_be_left_in_any_order(self) -> None:
        book, publisher = bulk_signals(Book), bulk_signals(Publisher)
        book.__enter__()
        publisher.__enter__()

        book.__exit__(None, None, None)

        assert not is_enabled(Book)
        assert is_enabled(Publisher)
        publisher.__exit__(None, None, None)
        assert not is_enabled()


class TestDecorating:
    @pytest.mark.parametrize("arguments", [(), (Book,)])
    def test_a_function(self, arguments: Any) -> None:
        @bulk_signals(*arguments)
        def decorated(one: int, /, *, two: int) -> tuple[int, int, bool]:
            """A docstring."""
            return one, two, is_enabled(Book)

        assert decorated(1, two=2) == (1, 2, True)
        assert (decorated.__name__, decorated.__doc__) == ("decorated", "A docstring.")
        assert not is_enabled()

    def test_an_async_function(self) -> None:
        @bulk_signals(Book)
        async def decorated() -> bool:
            await asyncio.sleep(0)
            return is_enabled(Book)

        assert inspect.iscoroutinefunction(decorated)
        assert asyncio.run(decorated())

    def test_a_method_and_a_static_method(self) -> None:
        class Service:
            @bulk_signals()
            def method(self) -> tuple[Service, bool]:
                return self, is_enabled()

            @staticmethod
            @bulk_signals()
            def static() -> bool:
                return is_enabled()

        service = Service()
        assert service.method() == (service, True)
        assert service.static()

    def test_no_bulk_signals_decorates_too(self) -> None:
        enable()

        assert no_bulk_signals()(is_enabled)() is False
        assert is_enabled()

    def test_a_partial(self) -> None:
        assert bulk_signals()(functools.partial(is_enabled, Book))()

    def test_an_object_that_is_called(self) -> None:
        class Question:
            def __call__(self) -> bool:
                return is_enabled()

        assert bulk_signals()(Question())()

    @pytest.mark.parametrize("partial", [False, True])
    def test_an_object_whose_call_is_async(self, partial: bool) -> None:
        class Question:
            async def __call__(self) -> bool:
                return is_enabled()

        question = functools.partial(Question()) if partial else Question()
        decorated = bulk_signals()(question)
        assert inspect.iscoroutinefunction(decorated)
        assert asyncio.run(decorated())

    def test_a_function_that_is_marked_as_async(self) -> None:
        async def ask() -> bool:
            return is_enabled()

        assert asyncio.run(bulk_signals()(markcoroutinefunction(lambda: ask()))())

    @pytest.mark.parametrize("scope", SCOPES)
    def test_a_class_is_refused(self, scope: Any) -> None:
        with pytest.raises(
            TypeError, match=r"decorate functions, not the class .*Service; decorate its methods"
        ):

            @scope()
            class Service:
                pass

    @pytest.mark.parametrize(
        "target",
        [property(), classmethod(is_enabled), staticmethod(ask_inside), 3],
        ids=["property", "classmethod", "staticmethod", "number"],
    )
    def test_what_cannot_be_called_is_refused(self, target: Any) -> None:
        with pytest.raises(TypeError, match=r"decorate functions, not .*; put them beneath @staticmethod"):
            bulk_signals()(target)

    def test_a_decorator_without_parentheses_is_refused(self) -> None:
        with pytest.raises(
            TypeError, match=r"decorated is neither .* the parentheses, as in @bulk_signals\(\)"
        ):

            @bulk_signals  # type: ignore[arg-type]  # the mistake
            def decorated() -> None: ...


class TestDecoratingGenerators:
    """The scope is open while the body runs, but not for the caller between the `yield`s."""

    @staticmethod
    @bulk_signals(Book)
    def conversation(*answers: str) -> Generator[str, str, str]:
        """Yield what is sent or thrown, until told to stop."""
        sent = "started"
        while True:
            assert is_enabled(Book)
            try:
                sent = yield f"{sent} {is_enabled(Book)}"
            except KeyError as error:
                sent = f"thrown {error}"
            if sent == "stop":
                return f"stopped {is_enabled(Book)}"

    def test_it_is_still_a_generator_function(self) -> None:
        assert inspect.isgeneratorfunction(self.conversation)
        assert self.conversation.__doc__ == "Yield what is sent or thrown, until told to stop."

    def test_iterating(self) -> None:
        @bulk_signals(Book)
        def body() -> Iterator[bool]:
            yield is_enabled(Book)
            yield is_enabled(Book)

        seen = [(inside, is_enabled(Book)) for inside in body()]
        assert seen == [(True, False), (True, False)]

    def test_send_throw_and_return(self) -> None:
        talk = self.conversation()

        assert next(talk) == "started True"
        assert not is_enabled(Book)
        assert talk.send("sent") == "sent True"
        assert talk.throw(KeyError(5)) == "thrown 5 True"
        assert not is_enabled(Book)
        with pytest.raises(StopIteration) as stopped:
            talk.send("stop")
        assert stopped.value.value == "stopped True"
        assert not is_enabled(Book)

    def test_an_exception_out_of_the_body(self) -> None:
        talk = self.conversation()
        next(talk)

        with pytest.raises(ZeroDivisionError):
            talk.throw(ZeroDivisionError())
        assert list(talk) == []
        assert not scopes.process.open_scopes

    @pytest.mark.parametrize("end", [lambda talk: talk.close(), lambda talk: talk.throw(GeneratorExit())])
    def test_close_runs_what_is_left_of_the_body_in_the_scope(self, end: Callable[[Any], object]) -> None:
        at_the_end: list[bool] = []

        @bulk_signals(Book)
        def body() -> Iterator[None]:
            try:
                yield
            finally:
                at_the_end.append(is_enabled(Book))

        talk = body()
        next(talk)
        with suppress(GeneratorExit):
            end(talk)
        assert at_the_end == [True]
        assert not is_enabled(Book)

    def test_a_body_that_goes_on_after_close_is_an_error_as_ever(self) -> None:
        @bulk_signals(Book)
        def body() -> Iterator[int]:
            with suppress(GeneratorExit):
                yield 1
            yield 2

        talk = body()
        next(talk)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            talk.close()  # type: ignore[attr-defined]  # it is a generator

    def test_under_contextmanager(self) -> None:
        inside: list[bool] = []

        @contextmanager
        @bulk_signals(Book)
        def around() -> Iterator[None]:
            inside.append(is_enabled(Book))
            yield
            inside.append(is_enabled(Book))

        with around():
            assert not is_enabled(Book)
        assert inside == [True, True]

    def test_a_partial_and_an_object_that_is_called(self) -> None:
        class Questions:
            def __call__(self, count: int) -> Iterator[bool]:
                yield from (is_enabled() for _ in range(count))

        for function in (functools.partial(Questions().__call__, 2), Questions()):
            assert set(
                bulk_signals()(function)(*([] if function.__class__ is functools.partial else [2]))
            ) == {True}

    def test_asend_athrow_and_the_end_of_an_async_generator(self) -> None:
        @bulk_signals(Book)
        async def talk() -> AsyncGenerator[str, str]:
            sent = "started"
            while sent != "stop":
                await asyncio.sleep(0)
                try:
                    sent = yield f"{sent} {is_enabled(Book)}"
                except KeyError as error:
                    sent = f"thrown {error}"

        async def main() -> None:
            generator = talk()
            assert await anext(generator) == "started True"
            assert not is_enabled(Book)
            assert await generator.asend("sent") == "sent True"
            assert await generator.athrow(KeyError(5)) == "thrown 5 True"
            assert not is_enabled(Book)
            with pytest.raises(StopAsyncIteration):
                await generator.asend("stop")
            assert not is_enabled(Book)

        assert inspect.isasyncgenfunction(talk)
        asyncio.run(main())

    def test_aclose_of_an_async_generator(self) -> None:
        at_the_end: list[bool] = []

        @no_bulk_signals(Book)
        async def body() -> AsyncGenerator[bool, None]:
            try:
                yield is_enabled(Book)
            finally:
                await asyncio.sleep(0)
                at_the_end.append(is_enabled(Book))

        async def main() -> None:
            generator = body()
            assert await anext(generator) is False
            assert is_enabled(Book)
            await generator.aclose()
            assert is_enabled(Book)

        enable()
        asyncio.run(main())
        assert at_the_end == [False]
        assert not scopes.process.open_scopes

    def test_an_exception_out_of_the_body_of_an_async_generator(self) -> None:
        @bulk_signals(Book)
        async def body() -> AsyncGenerator[bool, None]:
            yield is_enabled(Book)
            raise ZeroDivisionError

        async def main() -> None:
            generator = body()
            assert await anext(generator) is True
            with pytest.raises(ZeroDivisionError):
                await anext(generator)

        asyncio.run(main())
        assert not scopes.process.open_scopes


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (bulk_signals(), "bulk_signals()"),
        (bulk_signals(Book, "auth"), "bulk_signals('tests.Book', 'auth')"),
        (
            bulk_signals(exclude=["tests.book"], operations=["update", "delete"], progress=max),
            "bulk_signals(exclude=['tests.Book'], operations=['delete', 'update'], progress=max)",
        ),
        (no_bulk_signals(), "no_bulk_signals()"),
        (no_bulk_signals(Book), "no_bulk_signals('tests.Book')"),
    ],
    ids=str,
)
def test_the_repr_of_a_scope_is_the_call_that_makes_it(scope: object, text: str) -> None:
    assert repr(scope) == text


class TestThreads:
    def test_a_scope_is_invisible_in_another_thread(self) -> None:
        with bulk_signals(), ThreadPoolExecutor(1) as other:
            assert other.submit(is_enabled).result() is False

    def test_one_object_serves_many_threads(self) -> None:
        scope, barrier = bulk_signals(Book), threading.Barrier(4)

        def work() -> tuple[bool, bool]:
            with scope:
                barrier.wait(timeout=10)
                inside = is_enabled(Book)
            barrier.wait(timeout=10)
            return inside, is_enabled(Book)

        with ThreadPoolExecutor(4) as pool:
            results = [future.result() for future in [pool.submit(work) for _ in range(4)]]

        assert results == [(True, False)] * 4
        assert not scopes.process.open_scopes

    def test_the_last_scope_of_any_thread_removes_the_patches(self) -> None:
        inside, leave = threading.Event(), threading.Event()

        def work() -> None:
            with bulk_signals():
                inside.set()
                assert leave.wait(timeout=10)

        with ThreadPoolExecutor(1) as other:
            working = other.submit(work)
            assert inside.wait(timeout=10)
            with bulk_signals():
                disable()
            assert is_installed()
            leave.set()
            working.result()

        assert not is_installed()

    def test_enabling_and_asking_at_the_same_time_never_fails(self) -> None:
        def turn(model: type[Model]) -> None:
            for size in range(1, 200):
                enable(model, batch_size=size)
                assert scopes.options_for(model, "update") is not None

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(turn, model) for model in (Book, Publisher)]:
                future.result()

        assert is_enabled(Book)
        assert is_enabled(Publisher)


@pytest.mark.django_db(transaction=True)
def test_only_the_thread_inside_the_scope_sends(log: Log) -> None:
    book = Book.objects.create(title="Emma")
    log.clear()

    def update(title: str) -> list[str]:
        try:
            Book.objects.filter(pk=book.pk).update(title=title)
            return [sent.values["title"] for sent in log]
        finally:
            # On SQLite, close() does not close a database in memory for the thread that created it.
            BaseDatabaseWrapper.close(connection)

    with bulk_signals(), ThreadPoolExecutor(1) as other:
        assert other.submit(update, "outside").result() == []
        Book.objects.filter(pk=book.pk).update(title="inside")
        assert other.submit(bulk_signals()(update), "inside as well").result() == [
            "inside",
            "inside",
            "inside as well",
            "inside as well",
        ]


@pytest.mark.django_db
def test_only_the_task_inside_the_scope_sends(log: Log) -> None:
    async def update(title: str) -> None:
        await asyncio.sleep(0)
        await Book.objects.aupdate(title=title)

    async def main() -> None:
        await Book.objects.acreate()
        log.clear()
        await asyncio.gather(update("outside"), bulk_signals(Book)(update)("inside"))

    async_to_sync(main)()

    assert [sent.values["title"] for sent in log] == ["inside", "inside"]


class TestTasks:
    def test_a_scope_is_invisible_in_another_task(self) -> None:
        async def main() -> tuple[bool, bool]:
            entered, asked = asyncio.Event(), asyncio.Event()

            async def inside() -> bool:
                with bulk_signals():
                    entered.set()
                    await asked.wait()
                    return is_enabled()

            async def outside() -> bool:
                await entered.wait()
                answer = is_enabled()
                asked.set()
                return answer

            in_one, in_other = await asyncio.gather(inside(), outside())
            return in_one, in_other

        assert asyncio.run(main()) == (True, False)

    def test_a_scope_follows_into_awaited_coroutines_and_threads(self) -> None:
        async def main() -> list[bool]:
            with bulk_signals(Book):
                return [
                    await sync_to_async(is_enabled)(Book),
                    await asyncio.to_thread(is_enabled, Book),
                    *await asyncio.gather(sync_to_async(is_enabled)(Book)),
                ]

        assert asyncio.run(main()) == [True, True, True]

    def test_an_async_generator_finalised_in_another_task_raises_nothing(self) -> None:
        async def in_a_task(step: Awaitable[Any]) -> Any:
            return await step

        async def main() -> tuple[bool, bool]:
            generator = ask_inside()
            first = await asyncio.create_task(in_a_task(generator.asend(None)))
            await asyncio.create_task(in_a_task(generator.aclose()))
            return first, is_enabled()

        assert asyncio.run(main()) == (True, False)
        assert not scopes.process.open_scopes
