"""What the packages' checks share: a verdict with its violations in the metadata.

A check of suppliers is about all active ones, whichever its run carried: else a run over somebody else would
hide what is wrong with the others. It looks at their kept health (:mod:`testbench_dagster.stages.health`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from testbench_dagster.board import links
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.defs.metadata import Markdown, inert, markdown_table
from testbench_dagster.defs.partitions import run_suppliers
from testbench_dagster.stages.discover.roster import active_keys
from testbench_dagster.stages.health import not_looked_at, unhealthy
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.contract import Where

_VIOLATIONS_SHOWN = 50  # they live in an event row
_ROWS_SHOWN = 20


def violations_result(
    violations: Mapping[str, Any],
    severity: dg.AssetCheckSeverity,
    check: str | None = None,
    /,
    **extra: Any,
) -> dg.AssetCheckResult:
    """Passed where there are no violations; the first of them, and ``extra``, are shown.

    ``check`` names it, where an asset evaluates it itself.
    """
    shown = dict(list(violations.items())[:_VIOLATIONS_SHOWN])
    return dg.AssetCheckResult(
        check_name=check,
        passed=not violations,
        severity=severity,
        metadata={"offenders": shown, "n_offenders": len(violations), **extra},
    )


@dataclass(frozen=True)
class Violation:
    """Something wrong with a supplier: ``told`` by what it is about, of ``n`` in all, as of ``at``.

    ``weight`` says how bad it is beside others of its kind.
    """

    supplier: str
    told: Mapping[str, Any]
    at: datetime | None
    weight: float
    n: int


class ActiveSuppliers:
    """Who is active when a check looks, and who of them its run was about."""

    def __init__(self, context: dg.AssetCheckExecutionContext, workspace: Workspace) -> None:
        self.workspace = workspace
        self.keys = sorted(active_keys(workspace))
        self.of_run = frozenset(run_suppliers(context.instance, context.run.tags))
        self._active = frozenset(self.keys)

    def unhealthy(self, where: Where) -> list[HealthRecord]:
        """Their rows of kept health that a filter matches."""
        return unhealthy(self.workspace, self._active, where)

    def result(
        self,
        violations: Iterable[Violation],
        severity: dg.AssetCheckSeverity,
        part: str | None = None,
        **extra: Any,
    ) -> dg.AssetCheckResult:
        """Passed where nobody violates anything; else all that do are counted, and the worst named.

        ``part`` is the date of the part of the rows of health that was looked at: who has none yet is told.
        """
        ranked = sorted(violations, key=lambda one: (-one.weight, one.supplier))
        named = {f"{one.supplier} {of}".strip(): told for one in ranked for of, told in one.told.items()}
        metadata: dict[str, Any] = {
            "offenders": dict(list(named.items())[:_VIOLATIONS_SHOWN]),
            "n_offenders": sum(one.n for one in ranked),
            "n_suppliers": len(ranked),
            "n_suppliers_of_this_run": sum(one.supplier in self.of_run for one in ranked),
            **extra,
        }
        if ranked:
            metadata["worst"] = markdown_table(
                ["supplier", "in all", "what", "as of (UTC)", "in this run"],
                [self._row(one) for one in ranked[:_ROWS_SHOWN]],
            )
            if (board := self.workspace.config.settings.board.url) is not None:
                metadata["board"] = dg.MetadataValue.url(board)
        if part is not None and (unknown := not_looked_at(self.workspace, self._active, part)):
            metadata |= {"n_not_looked_at": len(unknown), "not_looked_at": unknown[:_ROWS_SHOWN]}
        return dg.AssetCheckResult(passed=not ranked, severity=severity, metadata=metadata)

    def _row(self, one: Violation) -> Sequence[object]:
        board = self.workspace.config.settings.board.url
        name: object = one.supplier
        if board is not None:
            name = Markdown(f"[{inert(one.supplier)}]({board}{links.supplier(one.supplier)})")
        told = "; ".join(f"{of}: {what}" if of else str(what) for of, what in one.told.items())
        at = None if one.at is None else f"{one.at:%Y-%m-%d %H:%M}"
        return [name, one.n, told, at, "yes" if one.supplier in self.of_run else "no"]


def noted(rows: Iterable[HealthRecord], name: str, at: str) -> Iterator[Violation]:
    """What a part of some rows notes under a name: its number, its texts, and the date ``at`` of the part."""
    for row in rows:
        n = getattr(row, f"n_{name}")
        yield Violation(row.id, getattr(row, name) or {}, getattr(row, at), n, n)
