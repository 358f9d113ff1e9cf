"""What this package needs to know of a database, with answers that are right for any."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import CharField, ExpressionWrapper, Field, IntegerField, TextField
from django.db.models.functions import Cast

if TYPE_CHECKING:
    from django.db.models import Lookup, Model
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]
    _ExpressionWrapper = ExpressionWrapper[Any]
else:
    _ExpressionWrapper = ExpressionWrapper


class Backend:
    """The questions, answered for a database of which nothing is known.

    Where it is not known what the database does, the answer is the one that costs more and is never wrong.
    The fields that the methods get hold the values themselves: a foreign key has been followed to its
    target.
    """

    # Statements that name rows by their keys.

    def key_lookup(self, pk: ModelField, keys: Sequence[Any], connection: Any) -> Lookup[Any] | None:
        """Return a condition that matches the rows with these keys and needs few parameters, or None.

        Thousands of parameters are most of the price of a statement. An array, or a JSON array, is a single
        one, but only where the database reads each element exactly as it reads a parameter. None stands for
        an ordinary `IN` list.
        """
        return None

    def max_parameters(self, connection: Any) -> int | None:
        """Return how many parameters a statement may have, or None if there is no limit."""
        limit: int | None = connection.features.max_query_params
        return limit

    # Values as a column stores them, and as it gives them back.

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """Return an expression that gives in a SELECT what the field's column would hold after an UPDATE.

        An assignment converts a value to the column's type; a SELECT gives it in the expression's own type.
        """
        return Selected(expression, output_field=field)

    def selects_stored_value(self) -> bool:
        """Return whether `as_column` gives exactly what the column would store, whatever the column's type.

        Where it does not, Python rounds a decimal and turns a number into text.
        """
        return False

    def stores_only_its_type(self) -> bool:
        """Return whether each column converts values to its type, or refuses them.

        Where it does not, a column may hold what its field cannot read.
        """
        return False

    def refuses_other_types(self) -> bool:
        """Return whether an UPDATE may refuse an expression only because of the expression's type.

        The SELECT that previews the expression does not show that.
        """
        return True

    def rounding(self) -> str:
        """Return how a decimal is rounded to the scale of its column, as a constant of `decimal`."""
        return decimal.ROUND_HALF_UP

    def bytes_read(self, value: bytes) -> Any:
        """Return bytes as the driver gives them when a binary column is read."""
        return value

    def keeps_order_in_json(self) -> bool:
        """Return whether a JSON column keeps the order of an object's names.

        If it does, the same names in another order are a change.
        """
        return True

    # What an UPDATE does.

    def returns_as_selected(self, field: ModelField) -> bool:
        """Return whether `UPDATE … RETURNING` gives a column's value as a SELECT gives it."""
        return False

    def assigns_in_turn(self) -> bool:
        """Return whether SET works from left to right, each expression reading what is already assigned.

        In standard SQL all expressions of an UPDATE read the row as it was before.
        """
        return True

    def orders_updates(self) -> bool:
        """Return whether an UPDATE takes an ORDER BY, which unique values that move up in turn need."""
        return False

    # What an INSERT does.

    def ignoring_changes_values(self) -> bool:
        """Return whether an INSERT that ignores conflicts also makes values fit their column."""
        return True

    def has_declared_constraints(self) -> bool:
        """Return whether a table certainly has all unique constraints that its model declares.

        Django leaves out those that a database does not support (deferrable ones).
        """
        return False

    def inserted_marker(self, model: type[Model], connection: Any) -> ModelField | None:
        """Return a field that an upsert can return, true of rows that it inserted; None if it cannot tell."""
        return None

    # Transactions.

    def begin_write(self, statement: str, connection: Any) -> None:
        """Take the lock that a transaction needs to write, before it reads anything.

        `statement` is one that would write, but matches no row. Most databases lock rows, and need nothing.
        """

    def limit_idle_time(self, seconds: float, connection: Any) -> None:
        """Let the database end this transaction if its client sends nothing for so long, where it can."""

    def plain_table_question(self) -> str | None:
        """Return a query for whether an INSERT into a table changes that table alone, or None if unknown.

        It takes the table's name as its parameter. A view, a trigger or a rule may change other tables.
        """
        return None

    def reads_snapshots(self) -> bool:
        """Return whether a plain SELECT may show an old version of a row that this transaction has locked."""
        return True

    def with_committed_subqueries(self, resolved: Any) -> Any:
        """Return a resolved expression or condition whose subqueries read what is committed.

        The subqueries of an UPDATE do so everywhere; those of a SELECT where it `reads_snapshots` may not.
        """
        return resolved


class HashedByIdentity:
    """Makes expressions with values that have no hash usable in a SELECT, which needs one."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Selected(HashedByIdentity, _ExpressionWrapper):
    """An expression to select, read as a value of its output field."""


class SelectedCast(HashedByIdentity, Cast):
    """A cast to select, of whatever an UPDATE takes."""


def are_numbers(pk: ModelField, keys: Sequence[Any]) -> bool:
    """Return whether keys are whole numbers, and nothing else, in a column of whole numbers."""
    return isinstance(pk, IntegerField) and are_of_type(keys, int)


def are_texts(pk: ModelField, keys: Sequence[Any]) -> bool:
    """Return whether keys are plain strings in a column of text."""
    return isinstance(pk, (CharField, TextField)) and are_of_type(keys, str)


def are_of_type(keys: Sequence[Any], kind: type) -> bool:
    """Return whether all keys are of this very class."""
    return set(map(type, keys)) == {kind}


def are_int64(keys: Sequence[int]) -> bool:
    """Return whether whole numbers fit into what databases take in an array, or in JSON."""
    return min(keys) >= -(2**63) and max(keys) < 2**63
