"""Tables for Python: rows as plain dicts, and frames of pandas, polars and Arrow with typed columns.

Belongs here: what a caller of :mod:`testbench_dagster.api` gets in his hands. Does not: reading, arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.columns import columns_of
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Most rows and columns of a table as a notebook shows it, and characters of a cell.
SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_CHARS = 20, 30, 120


def kinds_of(record: type) -> dict[str, type]:
    """The columns of a published record and their plain types."""
    return {name: one.kind for name, one in columns_of(record).items()}


@dataclass(frozen=True)
class Table:
    """Rows as plain dicts; :meth:`to_pandas`, :meth:`to_polars` and :meth:`to_arrow` make frames of them.

    ``columns`` are the names of all columns, also where there is no row, and their types: ``str``, ``int``,
    ``float``, ``bool``, ``datetime``, or ``dict`` and ``list`` for nested values. A column may always be
    null. In rows times are texts (ISO 8601, UTC), in frames they are times.
    """

    rows: list[dict[str, Any]]
    columns: Mapping[str, type] = field(default_factory=dict)

    def to_pandas(self) -> pd.DataFrame:
        """One frame row per row; nested values stay Python objects.

        Whole numbers and truth values with gaps have pandas' nullable types.
        """
        import pandas as pd

        known = self._kinds()
        frame = pd.DataFrame(self.rows, columns=list(known) or None, dtype=object)
        for name, kind in known.items():
            gaps = bool(frame[name].isna().any())
            if kind is datetime:
                frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
            elif kind is float:
                frame[name] = frame[name].astype("float64")
            elif kind is int:
                frame[name] = frame[name].astype("Int64" if gaps else "int64")
            elif kind is bool:
                frame[name] = frame[name].astype("boolean" if gaps else "bool")
        return frame

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table; nested values are JSON texts."""
        import pyarrow as pa

        types = {
            int: pa.int64(),
            float: pa.float64(),
            bool: pa.bool_(),
            datetime: pa.timestamp("us", tz="UTC"),
        }
        schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in self._kinds().items()])
        readers: dict[str, Callable[[Any], Any]] = {
            name: _CELLS.get(kind, _text) for name, kind in self._kinds().items()
        }
        columns = [
            pa.array([None if (v := row.get(name)) is None else read(v) for row in self.rows], kind)
            for (name, read), kind in zip(readers.items(), schema.types, strict=True)
        ]
        return pa.table(columns, schema=schema)

    def to_polars(self) -> Any:
        """The rows as a ``polars.DataFrame``; nested values are JSON texts.

        Raises:
            TestbenchError: polars is not installed.
        """
        try:
            polars = import_module("polars")
        except ImportError:
            raise TestbenchError(
                "polars is not installed, and nothing else here needs it: install it with `pip install "
                "polars`, or take to_pandas() or to_arrow()"
            ) from None
        return polars.from_arrow(self.to_arrow())

    def __len__(self) -> int:
        return len(self.rows)

    def _repr_html_(self) -> str:
        """The first rows, for notebooks; escaped, whatever suppliers wrote."""
        names = list(self._kinds())
        shown = [[_shown(row.get(name)) for name in names[:SHOWN_COLUMNS]] for row in self.rows[:SHOWN_ROWS]]
        page: str = _template().render(
            names=[_shown(name) for name in names[:SHOWN_COLUMNS]],
            rows=shown,
            n_rows=len(self.rows),
            n_columns=len(names),
        )
        return page

    def _kinds(self) -> Mapping[str, type]:
        """The declared columns, then those that only rows have; their types from their first values."""
        found = dict(self.columns)
        for row in self.rows:
            for name, value in row.items():
                if name not in found and value is not None:
                    found[name] = type(value) if type(value) in (bool, int, float, dict, list) else str
        if len(found) < len({name for row in self.rows for name in row}):
            for row in self.rows:
                found |= {name: str for name in row if name not in found}
        return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        # what no UTF-8 can hold
        return value.encode("utf-8", "backslashreplace").decode()
    return json.dumps(value, default=str)


#: How a value of a row becomes one of an Arrow column.
_CELLS: Mapping[type, Callable[[Any], Any]] = {
    int: int,
    float: float,
    bool: bool,
    datetime: lambda value: value if isinstance(value, datetime) else datetime.fromisoformat(value),
}


def _shown(value: Any) -> str:
    """A value as a cell shows it: bounded, and nothing in it that moves or hides other text."""
    if value is None:
        return "–"
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    cut = text[:SHOWN_CHARS]
    plain = "".join(c if c.isprintable() else "�" for c in cut)
    return f"{plain}…" if len(text) > SHOWN_CHARS else plain


@cache
def _template() -> Any:
    from jinja2 import Environment  # 0.05 s that only notebooks need

    source = resources.files(__package__).joinpath("table.html.jinja").read_text("utf-8")
    environment = Environment(autoescape=True)
    environment.filters["counted"] = counted
    return environment.from_string(source)
