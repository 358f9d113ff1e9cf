"""Which statements of receivers do not change the rows of a batch."""

from __future__ import annotations

import re
from typing import Any, Final

from signal_patch.dispatch import backends


class Statements:
    """Decides which statements do not change any row of the batch."""

    # Names before a parenthesis. KNOWN has those that are keywords, or functions that write nothing.
    CALLED: Final = re.compile(r'(\w+)["`]?\s*\(')
    KNOWN: Final = frozenset(
        {"IN", "AS", "AND", "OR", "NOT", "ON", "WHERE", "VALUES", "OVER", "EXISTS", "ANY", "UNNEST"}
        | {"COUNT", "SUM", "MIN", "MAX", "AVG", "COALESCE", "CAST", "UPPER", "LOWER", "JSON_EACH"}
    )
    SAVEPOINT: Final = re.compile(r"(RELEASE )?SAVEPOINT \S+$")
    INSERT: Final = re.compile(r'INSERT INTO ["`](\w+)["`] (?!.* ON (CONFLICT|DUPLICATE))', re.DOTALL)
    # Comments and further statements, which may hide a write.
    HIDDEN: Final = re.compile(r";|--|/\*|#")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.plain_tables: dict[str, bool] = {}
        self.is_asking = False

    def is_harmless(self, sql: Any, tables: set[str]) -> bool:
        """Return whether a statement changes nothing in these tables."""
        if self.is_asking:
            return True
        if not isinstance(sql, str) or self.HIDDEN.search(sql):
            return False
        if self.SAVEPOINT.match(sql):
            return True
        if sql.startswith("SELECT "):
            return " INTO " not in sql and self._calls_known(sql)
        insert = self.INSERT.match(sql)
        return bool(
            insert
            and insert[1] not in tables
            and self._calls_known(sql[insert.end() :])
            and self._is_plain(insert[1])
        )

    def _calls_known(self, sql: str) -> bool:
        return self.KNOWN.issuperset(map(str.upper, self.CALLED.findall(sql)))

    def _is_plain(self, table: str) -> bool:
        if table not in self.plain_tables:
            self.plain_tables[table] = self._query_is_plain(table)
        return self.plain_tables[table]

    def _query_is_plain(self, table: str) -> bool:
        question = backends.of(self.connection).plain_table_question()
        if question is None:
            return False
        self.is_asking = True
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(question, [table])
                (answer,) = cursor.fetchone() or (False,)
        finally:
            self.is_asking = False
        return bool(answer)
