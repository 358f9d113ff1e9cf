"""The receivers of an example: they record all that they see, and then act."""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_save, pre_save

from tests.parity.fields import put
from tests.parity.rows import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model, QuerySet

    from tests.parity.scenario import Action, Hearing

# A receiver also acts on signals that another receiver's action has sent; signals of that action are only
# recorded.
DEPTH = 2


class Boom(Exception):
    """Raised by a receiver."""


@dataclass(frozen=True)
class Sent:
    """One signal as it was seen. The oracle may put a set of allowed values in the place of a value."""

    signal: str
    sender: str
    key: str
    arguments: dict[str, Any]
    fields: dict[str, Any]
    # These must be true for every instance that is sent.
    honest: dict[str, bool]


def _arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    names = arguments.pop("update_fields")
    del arguments["signal"]
    return {**arguments, "update_fields": names if names is None else (type(names).__name__, sorted(names))}


def _in_step(instance: Model) -> bool:
    """Return whether each cached related object is the one to which its column refers."""
    fields: tuple[Any, ...] = instance._meta.concrete_fields
    cached = [field for field in fields if field.is_relation and field.is_cached(instance)]
    return all(
        getattr(field.get_cached_value(instance), field.target_field.attname, None)
        == getattr(instance, field.attname)
        for field in cached
    )


def _loaded(instance: Model) -> set[str]:
    """Return the names of the relations whose objects the instance has loaded."""
    return {*instance._state.fields_cache, *getattr(instance, "_prefetched_objects_cache", ())}


class Receivers:
    def __init__(
        self,
        model: type[Model],
        alias: str,
        hearing: Hearing,
        update: Callable[[QuerySet[Any], dict[str, Any]], object],
        loads: frozenset[str] = frozenset(),
    ) -> None:
        self.log: list[Sent] = []
        self.gone: set[str] = set()
        self._model = model
        self._alias = alias
        self._hearing = hearing
        self._update = update
        self._loads = loads
        self._depth = 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect these receivers as an application would."""
        receivers = {"pre": self._pre, "post": self._post}
        signals = {"pre": pre_save, "post": post_save}
        for name in self._hearing.signals:
            signals[name].connect(receivers[name], sender=self._hearing.sender, weak=False)
        try:
            yield
        finally:
            for name in self._hearing.signals:
                signals[name].disconnect(receivers[name], sender=self._hearing.sender)

    def _pre(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        self.receive("pre", sender, instance, arguments)

    def _post(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        self.receive("post", sender, instance, arguments)

    def receive(
        self,
        signal: str,
        sender: type[Model],
        instance: Model,
        arguments: dict[str, Any],
        allowances: dict[str, Any] | None = None,
    ) -> None:
        if not self._hearing.hears(signal, sender):
            return
        heard_before = instance.__dict__.setdefault("_heard", set())
        earlier = self._hearing.signals - {"post"}
        honest = {
            "its class is the sender": type(instance) is sender,
            "it is the object of pre_save": signal == "pre" or heard_before == earlier,
            "its relations are in step": _in_step(instance),
            "its related objects came with it": self._depth > 0 or self._loads <= _loaded(instance),
            "it comes from this database": instance._state.db == self._alias and not instance._state.adding,
        }
        heard_before.add(signal)
        fields = {**fields_of(instance), **(allowances or {})}
        self.log.append(
            Sent(signal, sender.__name__, str(instance.pk), _arguments({**arguments}), fields, honest)
        )
        if self._depth < DEPTH and isinstance(instance, self._model):
            self._act(signal, instance, len(self.log))

    def _act(self, signal: str, instance: Model, call: int) -> None:
        self._depth += 1
        for action in self._hearing.actions:
            if action.signal == signal and action.call in (None, call):
                getattr(self, f"_{action.kind}")(instance, action)
        self._depth -= 1

    def _rows(self, instance: Model) -> QuerySet[Any]:
        return type(instance)._base_manager.using(self._alias)

    def _sibling(self, instance: Model) -> Any:
        sibling: Model | None = self._rows(instance).exclude(pk=instance.pk).order_by("pk").first()
        return sibling

    def _set(self, instance: Model, action: Action) -> None:
        put(instance, action.name, deepcopy(action.value))

    def _append(self, instance: Any, action: Action) -> None:
        instance.log.append(action.value)

    def _nest(self, instance: Any, action: Action) -> None:
        """Change the log in place, one level deeper than it has been changed before."""
        inner = instance.log
        while inner and isinstance(inner[-1], dict) and "in" in inner[-1]:
            inner = inner[-1]["in"]
        inner.append({"in": [action.value]})

    def _distinguish(self, instance: Any, action: Action) -> None:
        instance.slug = f"{action.value}-{instance.pk}"

    def _update_same(self, instance: Model, action: Action) -> None:
        self._update(self._rows(instance).filter(pk=instance.pk), {"memo": action.value})

    def _update_sibling(self, instance: Model, action: Action) -> None:
        if sibling := self._sibling(instance):
            self._update(self._rows(instance).filter(pk=sibling.pk), {"memo": action.value})

    def _update_all(self, instance: Model, action: Action) -> None:
        self._update(self._rows(instance).all(), {"memo": action.value})

    def _update_children(self, instance: Any, action: Action) -> None:
        self._update(instance.cargo.all(), {"memo": action.value})

    def _save_sibling(self, instance: Model, action: Action) -> None:
        if sibling := self._sibling(instance):
            sibling.memo = action.value
            sibling.save(update_fields=["memo"])

    def _delete_sibling(self, instance: Model, action: Action) -> None:
        if sibling := self._sibling(instance):
            before = set(self._rows(instance).values_list("pk", flat=True))
            sibling.delete()
            after = set(self._rows(instance).values_list("pk", flat=True))
            self.gone |= {str(pk) for pk in before - after}

    def _raise(self, instance: Model, action: Action) -> None:
        raise Boom(instance.pk)
