"""Statements whose text never changes: the query library writes it once, the driver runs it.

For what stands between a fault and its remedy. Asked through the library, a statement that comes
once in a while costs more than all that the database does for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Insert, Select, Update
from sqlalchemy.engine.interfaces import DBAPICursor

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _Text(NamedTuple):
    """What a dialect makes of a statement; ``outward`` turns values into the driver's."""

    sql: str
    given: Mapping[str, Any]
    outward: tuple[tuple[str, Callable[[Any], Any]], ...]


class Prepared:
    """One statement. An insert or an update sets the columns that its values name."""

    def __init__(self, statement: Select[*tuple[Any, ...]] | Insert | Update) -> None:
        self._statement = statement
        self._texts: dict[tuple[str, ...], _Text] = {}

    def run(self, connection: Connection, values: Mapping[str, Any] = _NOTHING) -> DBAPICursor:
        """Run it within the connection's transaction; what is raised is the driver's own."""
        sql, given, outward = self._text(connection.dialect, values)
        filled = {**given, **values}
        for name, convert in outward:
            filled[name] = convert(filled[name])
        cursor = connection.connection.cursor()
        cursor.execute(sql, filled)
        return cursor

    def rows(
        self, connection: Connection, values: Mapping[str, Any] = _NOTHING
    ) -> list[dict[str, Any]]:
        """All rows as the driver gives them: texts and numbers, nothing that needs converting."""
        cursor = self.run(connection, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _text(self, dialect: Dialect, names: Iterable[str]) -> _Text:
        key = (dialect.name, *names)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._compile(dialect, list(names))
        return text

    def _compile(self, dialect: Dialect, names: list[str]) -> _Text:
        compiled = self._statement.compile(dialect=dialect, column_keys=names)
        assert not compiled.positional, "an engine of ours names its parameters"
        parameters = [(name, parameter) for parameter, name in compiled.bind_names.items()]
        given = {name: one.value for name, one in parameters if not one.required}
        converters = (
            (name, one.type.dialect_impl(dialect).bind_processor(dialect))
            for name, one in parameters
        )
        outward = tuple((name, convert) for name, convert in converters if convert is not None)
        return _Text(compiled.string, given, outward)
