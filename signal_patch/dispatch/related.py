"""Related objects: what `select_related()` and `prefetch_related()` name is loaded along with each batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import RawSQL
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from .expressions import nodes


@dataclass(slots=True)
class Related:
    """What a queryset loads along with its rows.

    `lookups` are those of `prefetch_related()`, `selected` is what `select_related()` has set, `filtered` are
    the FilteredRelations that it may name, `paths` its relations as `prefetch_related()` would name them.
    """

    lookups: tuple[Any, ...]
    selected: Any = False
    filtered: dict[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether there is anything to load."""
        return bool(self.selected or self.lookups)

    def load_with(self, rows: Any, *, joined: bool) -> None:
        """Have a queryset load it all: by joins, or in a statement for each relation.

        The related objects are loaded whole, whatever `only()` and `defer()` leave out.
        """
        if joined:
            _select(rows.query, self.selected, self.filtered)
            rows._prefetch_related_lookups = self.lookups
        else:
            # Those of the caller come first: a Prefetch with a queryset must not come second.
            rows._prefetch_related_lookups = (*self.lookups, *self.paths)


def of(queryset: Any, using: str) -> Related:
    """Return what a queryset loads along with its rows.

    (QuerySet._prefetch_related_lookups, Query.select_related and _filtered_relations, Django 5.2 to 6.1.)
    """
    query = queryset.query
    lookups = queryset._prefetch_related_lookups
    lookups = _known(query.model, lookups) if lookups else ()
    if not query.select_related:
        return Related(lookups)
    filtered = query._filtered_relations
    try:
        _klass_info(query.model, query.select_related, filtered, using)
    except FieldError:
        # A name that is no relation: Django's update() does not look at it.
        return Related(lookups)
    selected = query.select_related
    if filtered and isinstance(selected, dict):
        selected = {name: within for name, within in selected.items() if name not in filtered}
    # Of a filtered relation only the join itself knows the objects.
    paths = tuple(_paths(_klass_info(query.model, selected, {}, using)))
    return Related(lookups, query.select_related, filtered, paths)


def _known(model: Any, lookups: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the lookups but those of which the model has not even the name: update() does not look at them.

    A later lookup may go on from what an earlier one is to set (Prefetch.to_attr).
    """
    names = {getattr(lookup, "to_attr", None) for lookup in lookups}
    firsts = [getattr(lookup, "prefetch_through", lookup).split(LOOKUP_SEP)[0] for lookup in lookups]
    return tuple(
        lookup
        for lookup, first in zip(lookups, firsts, strict=True)
        if first in names or hasattr(model, first)
    )


def _klass_info(model: Any, selected: Any, filtered: dict[str, Any], using: str) -> Any:
    """Return the relations of a query, as its compiler knows them.

    (SQLCompiler.setup_query and klass_info, Django 5.2 to 6.1.)
    """
    query: Any = Query(model)
    _select(query, selected, filtered)
    compiler = query.get_compiler(using)
    compiler.setup_query()
    return compiler.klass_info


def _select(query: Any, selected: Any, filtered: dict[str, Any]) -> None:
    # As Query.clone() copies them: the conditions are resolved when a join is made.
    query._filtered_relations = {**filtered, **query._filtered_relations}
    query.select_related = selected


def _paths(klass_info: Any) -> Iterator[str]:
    for related in klass_info.get("related_klass_infos", ()):
        relation = related["field"]
        name = relation.remote_field.get_accessor_name() if related["reverse"] else relation.name
        yield name
        yield from (f"{name}{LOOKUP_SEP}{path}" for path in _paths(related))


def has_raw_sql(query: Query) -> bool:
    """Return whether a query has SQL of its author's, whose columns may lack the name of their table."""
    parts = [query.where, *query.annotations.values(), *query.order_by]
    return any(isinstance(node, (ExtraWhere, RawSQL)) for part in parts for node in nodes(part))
