"""The Python face: everything the command line prints, as pandas frames.

>>> from testbench_dagster import Testbench
>>> with Testbench.open() as testbench:          # doctest: +SKIP
...     frame = testbench.scores().to_pandas()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbench_dagster.errors import ConfigError
from testbench_dagster.leaderboard import leaderboard
from testbench_dagster.network.roster import active_suppliers, known_suppliers
from testbench_dagster.scoring.windows import windows
from testbench_dagster.stores.documents.collections import ATTEMPTS, TAXONOMY_SUMMARIES
from testbench_dagster.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """Rows as plain dicts; :meth:`to_pandas` makes a frame of them."""

    rows: list[dict[str, Any]]

    def to_pandas(self) -> pd.DataFrame:
        """One frame row per row; nested values stay Python objects."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Testbench:
    """An opened installation for reading. Use as a context manager, or call :meth:`close`."""

    __test__ = False  # pytest: the name starts with "Test", but this is no test class

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @classmethod
    def open(cls, config: Path | str | None = None) -> Testbench:
        """Open the installation of a configuration file (default as on the command line).

        Raises:
            ConfigError: the configuration is missing or wrong.
        """
        return cls(Workspace.open(config))

    def close(self) -> None:
        """Release the stores."""
        self._workspace.close()

    def __enter__(self) -> Testbench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def scores(self, suppliers: Sequence[str] | None = None, tasks: Sequence[str] | None = None) -> Table:
        """Return the windows: one row per supplier × task × metric × filter (see docs/reference.md).

        By default of the active suppliers; of those that left only where named.

        Raises:
            ConfigError: a supplier is not on the roster, or a task is not configured.
        """
        self._check_suppliers(suppliers)
        return Table([row.to_json() for row in windows(self._workspace, suppliers=suppliers, tasks=tasks)])

    def taxonomies(self, suppliers: Sequence[str] | None = None) -> Table:
        """Return the stored taxonomy summaries: one row per supplier × taxonomy × node.

        By default of the active suppliers; of those that left only where named.

        Raises:
            ConfigError: a supplier is not on the roster.
        """
        self._check_suppliers(suppliers)
        active = active_suppliers(self._workspace) if suppliers is None else []
        wanted = {*(suppliers or ()), *(s.key for s in active)}
        rows = []
        for document in self._workspace.documents.find(
            TAXONOMY_SUMMARIES, sort=[("taxonomy", 1), ("supplier", 1)]
        ):
            if document["supplier"] in wanted:
                for name, node in document["nodes"].items():
                    head = {
                        "supplier": document["supplier"],
                        "taxonomy": document["taxonomy"],
                        "node": name,
                        "root": name == document["root"],
                        "summarized_at": document["summarized_at"].isoformat(),
                    }
                    rows.append({**head, **node})
        return Table(rows)

    def leaderboard(self, taxonomy: str | None = None) -> Table:
        """Return the ranking by each configured taxonomy, or by the named one."""
        return Table([entry.to_json() for entry in leaderboard(self._workspace, taxonomy)])

    def attempts(self, supplier: str | None = None, task: str | None = None) -> Table:
        """Return the declared fields of the stored attempts (bodies stay in the store)."""
        where = {k: v for k, v in (("supplier", supplier), ("task", task)) if v is not None}
        fields = ["_id", *ATTEMPTS.fields]
        return Table(list(self._workspace.documents.find(ATTEMPTS, where, fields=fields)))

    def item_matrix(self) -> Table:
        """Return one row per supplier × doc of the current windows, with the primary value."""
        return Table(list(self._items()))

    def export(self, out: Path) -> dict[Path, int]:
        """Write ``prompts``, ``attempts``, ``scores``, ``windows`` and ``item_matrix`` as parquet.

        Returns the rows per file. Each file appears whole or not at all.
        """
        from testbench_dagster.export import export_parquet

        return export_parquet(
            self._workspace.documents,
            out,
            {"windows": self.scores().rows, "item_matrix": self.item_matrix().rows},
        )

    def _items(self) -> Iterator[dict[str, Any]]:
        from datetime import UTC, datetime

        from testbench_dagster.scoring.samples import window_samples
        from testbench_dagster.scoring.windows import primary_pair, value_of

        now = datetime.now(UTC)
        suppliers = active_suppliers(self._workspace)
        for spec in self._workspace.specs:
            registration = self._workspace.datasets.current(spec.name)
            if registration is None:
                continue
            pair = primary_pair(spec, registration)
            for supplier in suppliers:
                for sample in window_samples(self._workspace, supplier, spec, registration, now):
                    value = value_of(sample, pair)
                    yield {
                        "supplier": supplier.key,
                        "task": spec.name,
                        "doc_id": sample.doc_id,
                        "metric": pair[0],
                        "filter": pair[1],
                        "value": float(value) if isinstance(value, (int, float)) else None,
                        "outcome": sample.fault.value,
                        "epoch": sample.epoch,
                        "round": sample.round,
                        "at": sample.at,
                    }

    def _check_suppliers(self, suppliers: Sequence[str] | None) -> None:
        if not suppliers:
            return
        known = [s.key for s in known_suppliers(self._workspace)]
        for key in suppliers:
            if key not in known:
                raise ConfigError(
                    f"supplier {key!r} is not on the roster; on it are: {', '.join(known[:20]) or 'none'}"
                )
