"""The questions that this package asks about a database, with answers that are right for any."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import CharField, ExpressionWrapper, Field, IntegerField, Lookup, TextField
from django.db.models.functions import Cast

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]


class Backend:
    """The answers for an unknown database.

    If the behaviour of the database is not known, the answer is the one that costs more and is never wrong.
    The fields that the methods get hold the values themselves: foreign keys have been followed to their
    targets.
    """

    # Statements that name rows by their keys.

    def key_lookup(self, pk: ModelField, keys: Sequence[Any], connection: Any) -> Lookup[Any] | None:
        """Return a condition that matches the rows with these keys and needs few parameters, or None.

        Thousands of parameters make up most of the cost of a statement. An array or a JSON array is a single
        parameter. But it is only right if the database reads each element exactly as it reads a parameter.
        None means an ordinary `IN` list.
        """
        return None

    def max_parameters(self, connection: Any) -> int | None:
        """Return how many parameters a statement may have, or None if there is no limit."""
        limit: int | None = connection.features.max_query_params
        return limit

    # Values as a column stores them, and as a query returns them.

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """Return an expression that returns in a SELECT what the field's column would hold after an UPDATE.

        An assignment converts a value to the column's type; a SELECT returns it in the expression's own type.
        """
        return Selected(expression, output_field=field)

    def selects_stored_value(self) -> bool:
        """Return whether `as_column()` returns exactly what the column would store, whatever its type.

        If it does not, Python rounds decimals and turns numbers into text.
        """
        return False

    def stores_only_its_type(self) -> bool:
        """Return whether each column converts values to its type, or refuses them.

        If not, a column may hold values that its field cannot read.
        """
        return False

    def refuses_other_types(self) -> bool:
        """Return whether an UPDATE may refuse an expression only because of the expression's type.

        A SELECT of the expression, as for a preview, does not show that.
        """
        return True

    def rounding(self) -> str:
        """Return how a decimal is rounded to the scale of its column, as a constant of `decimal`."""
        return decimal.ROUND_HALF_UP

    def bytes_read(self, value: bytes) -> Any:
        """Return bytes in the form in which the driver returns them from a binary column."""
        return value

    def keeps_order_in_json(self, connection: Any) -> bool:
        """Return whether a JSON column keeps the order of an object's names.

        If it does, a change of that order is a change of the value.
        """
        return True

    # What an UPDATE does.

    def sets_from_left_to_right(self) -> bool:
        """Return whether SET works from left to right, so that expressions read what was assigned before.

        In standard SQL, all expressions of an UPDATE read the row as it was before the statement.
        """
        return True

    def orders_updates(self) -> bool:
        """Return whether UPDATE has an ORDER BY, without which moving unique values up by one may collide."""
        return False

    # What an INSERT does.

    def made_keys_question(self) -> str | None:
        """Return a query for the first key that the last INSERT made, and for the step from key to key.

        It serves where INSERT has no RETURNING. None if a row's key does not tell that of the next row.
        """
        return None

    def ignoring_changes_values(self) -> bool:
        """Return whether an INSERT that ignores conflicts also makes values fit their column."""
        return True

    def has_declared_constraints(self) -> bool:
        """Return whether a table certainly has all unique constraints that its model declares.

        Django does not create those that a database does not support (such as deferrable ones).
        """
        return False

    def inserted_marker(self, model: type[Model], connection: Any) -> ModelField | None:
        """Return a field that an upsert can return and that is true for inserted rows, or None."""
        return None

    # Transactions.

    def begins_with_statement(self, connection: Any) -> bool:
        """Return whether a transaction must take a lock for writing before it reads anything.

        It takes the lock with a statement that writes but matches no row. Most databases lock single rows.
        """
        return False

    def limit_idle_time(self, seconds: float, connection: Any) -> None:
        """Make the database end this transaction if the client stays silent for so long, where it can."""

    def plain_table_question(self) -> str | None:
        """Return a query that tells whether an INSERT into a table changes only that table, or None.

        Its parameter is the table's name. A view, a trigger or a rule may change other tables.
        """
        return None

    def reads_snapshots(self) -> bool:
        """Return whether a plain SELECT may show an old version of a row that this transaction has locked."""
        return True

    def with_committed_subqueries(self, resolved: Any) -> Any:
        """Return a resolved expression or condition whose subqueries read committed rows.

        The subqueries of an UPDATE always do. Those of a SELECT may not where `reads_snapshots()` is true.
        """
        return resolved


class _HashedByIdentity:
    """Makes expressions with unhashable values usable in a SELECT, which needs a hash."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Selected(_HashedByIdentity, ExpressionWrapper):  # type: ignore[type-arg]  # Django's takes no arguments
    """An expression to select, whose values are read like those of its output field."""


class SelectedCast(_HashedByIdentity, Cast):
    """A cast in a SELECT, of any expression that an UPDATE accepts."""


class Among(Lookup):
    """`IN`, with all values in one parameter."""

    lookup_name = "among"
    prepare_rhs = False


def are_numbers(pk: ModelField, keys: Sequence[Any]) -> bool:
    """Return whether all keys are integers, in a column of integers."""
    return isinstance(pk, IntegerField) and are_of_type(keys, int)


def are_texts(pk: ModelField, keys: Sequence[Any]) -> bool:
    """Return whether all keys are plain strings, in a column of text."""
    return isinstance(pk, (CharField, TextField)) and are_of_type(keys, str)


def are_of_type(keys: Sequence[Any], kind: type) -> bool:
    """Return whether all keys are exactly of this class."""
    return set(map(type, keys)) == {kind}


def are_int64(keys: Sequence[int]) -> bool:
    """Return whether integers fit into an array or a JSON array of the database."""
    return min(keys) >= -(2**63) and max(keys) < 2**63
