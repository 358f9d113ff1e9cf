"""The related objects that `select_related()` and `prefetch_related()` name, loaded with each batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from django.core.exceptions import FieldError
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import RawSQL
from django.db.models.query_utils import DeferredAttribute
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from signal_patch.dispatch.values.expressions import nodes


@dataclass(slots=True, repr=False)
class Related:
    """What a queryset loads along with its rows.

    `lookups` are those of `prefetch_related()`. `selected` is what `select_related()` has set, and `filtered`
    holds the FilteredRelations that it may name. `paths` are lookups that prefetch the same relations.
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
        """Make a queryset load them: by joins, or with a statement for each relation.

        The related objects are loaded whole, even if `only()` or `defer()` leaves out some of their fields.
        """
        if joined:
            _select(rows.query, self.selected, self.filtered)
            rows._prefetch_related_lookups = self.lookups
        else:
            # The caller's lookups come first: Django refuses a Prefetch with a queryset after the same
            # lookup.
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
        # A name is not a relation. Django's update() ignores that, too.
        return Related(lookups)
    selected = query.select_related
    if filtered and isinstance(selected, dict):
        selected = {name: within for name, within in selected.items() if name not in filtered}
    # Only a join can load a filtered relation.
    paths = tuple(_paths(_klass_info(query.model, selected, {}, using)))
    return Related(lookups, query.select_related, filtered, paths)


def _known(model: Any, lookups: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the lookups without those that name no relation, which Django's update() ignores.

    A lookup may also name an attribute that an earlier lookup sets (Prefetch.to_attr).
    """
    set_by_lookups = {getattr(lookup, "to_attr", None) for lookup in lookups}
    paths = [getattr(lookup, "prefetch_through", lookup).split(LOOKUP_SEP) for lookup in lookups]
    return tuple(
        lookup
        for lookup, path in zip(lookups, paths, strict=True)
        if _names_relations(model, path, set_by_lookups)
    )


def _names_relations(model: Any, path: list[str], set_by_lookups: set[Any]) -> bool:
    for name in path:
        relations = {
            getattr(field, "get_accessor_name", lambda field=field: field.name)(): field.related_model
            for field in model._meta.get_fields()
            if field.is_relation
        }
        if name not in relations:
            # A descriptor of the project's may load objects; the descriptor of a plain column does not.
            attribute = None if name == "pk" else getattr(model, name, None)
            return name in set_by_lookups or not isinstance(attribute, (DeferredAttribute, NoneType))
        model = relations[name]
        if model is None:
            # A generic foreign key: each row has its own model.
            return True
    return True


def _klass_info(model: Any, selected: Any, filtered: dict[str, Any], using: str) -> Any:
    """Return the relations that `select_related()` joins, as the compiler describes them.

    (SQLCompiler.setup_query and klass_info, Django 5.2 to 6.1.)
    """
    query: Any = Query(model)
    _select(query, selected, filtered)
    compiler = query.get_compiler(using)
    compiler.setup_query()
    return compiler.klass_info


def _select(query: Any, selected: Any, filtered: dict[str, Any]) -> None:
    # Copied, because the conditions are resolved when a join is made (Query.clone, Django 5.2 to 6.1).
    query._filtered_relations = {**filtered, **query._filtered_relations}
    query.select_related = selected


def _paths(klass_info: Any) -> Iterator[str]:
    for related in klass_info.get("related_klass_infos", ()):
        relation = related["field"]
        name = relation.remote_field.get_accessor_name() if related["reverse"] else relation.name
        yield name
        yield from (f"{name}{LOOKUP_SEP}{path}" for path in _paths(related))


def has_raw_sql(query: Query) -> bool:
    """Return whether a query contains raw SQL, which may name columns without their table."""
    parts = [query.where, *query.annotations.values(), *query.order_by]
    return any(isinstance(node, (ExtraWhere, RawSQL)) for part in parts for node in nodes(part))
