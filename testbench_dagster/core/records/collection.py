"""A collection as the document stores see it: its name, the fields that queries may name, its indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.core.errors import UndeclaredField


@dataclass(frozen=True)
class Collection:
    """Name, declared fields and indexes of one collection.

    ``fields`` maps a declared field to its scalar type (``str``, ``int``, ``float``, ``bool``,
    ``datetime``); every one may be null. ``_id`` is always declared. ``indexes`` and ``unique`` list
    compound keys of declared fields; of several that serve a query as well the embedded store takes the
    first.
    """

    name: str
    fields: Mapping[str, type]
    indexes: tuple[tuple[str, ...], ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()

    def check_declared(self, names: Iterable[str]) -> None:
        """Raise :class:`UndeclaredField` unless every name is ``_id`` or a declared field."""
        for name in names:
            if name != "_id" and name not in self.fields:
                raise UndeclaredField(
                    f"{self.name}.{name} is not a declared field; make it `queryable` in its class in "
                    f"core/records or use one of: {', '.join(sorted(self.fields))}"
                )


@dataclass(frozen=True)
class Group:
    """What a store computes per distinct combination of the ``by`` fields.

    The result rows hold the ``by`` fields plus ``count`` and, for each requested field ``f``,
    ``min_f``, ``max_f`` or ``sum_f``. Times in ``by`` that are ``hourly`` too are the hours they lie in.
    """

    by: Sequence[str]
    min: Sequence[str] = ()
    max: Sequence[str] = ()
    sum: Sequence[str] = ()
    hourly: Sequence[str] = ()


@dataclass(frozen=True)
class Minutely:
    """What a store counts of the documents of each minute, for each value of the field ``by``.

    Minutes are those of the field ``time``; told apart are documents whose ``field`` is one of ``values``.
    """

    by: str
    time: str
    field: str
    values: tuple[str, ...]
