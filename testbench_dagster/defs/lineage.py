"""What assets read and write beside what their edges show, and where that stands in the lineage.

Two stored things have several writers and no step of their own: the cached plans and the detected changes.
They are **external assets** here, observed by whichever run wrote them. A step of their own would be a lie
for the plans: an evaluation notes in them who failed, a cut makes them due at once, and the next evaluation
reads them, which would close a circle. It would also let a backfill leave plans out, so that the sensor
``stale_scores`` asked for the same suppliers again; and it would cost one more event per supplier and run. An
external asset can be neither run nor backfilled, and costs one event per run.

Everything else that an asset touches in the document store says the metadata ``reads`` and ``writes`` of its
definition. A test compares both with what runs really touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from testbench_dagster.core.records.declaring import Record
from testbench_dagster.core.records.every import RECORDS, type_name
from testbench_dagster.core.records.identity import ChangeRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.defs.metadata import markdown_table
from testbench_dagster.stages.plan.plan_cache import CachedPlans

_BY_COLLECTION = {record.collection.name: record for record in RECORDS}
_SHOWN = 200  # rows of a table: it lives in an event row


def touches(
    *, reads: Sequence[type[Record]] = (), writes: Mapping[str, str] | None = None
) -> dict[str, dg.MetadataValue[Any]]:
    """Metadata of an asset's definition: the collections that it reads, and by collection what it writes.

    Coordination (heartbeats, leases, budgets) is left out: every run takes part in it. What the collections
    hold says docs/reference.md. The first collection written is what the asset is there for: its fields are
    the asset's columns.
    """
    found: dict[str, dg.MetadataValue[Any]] = {}
    if reads:
        found["reads"] = dg.MetadataValue.text(", ".join(of.collection.name for of in reads))
    if writes:
        told = (f"{name}: {what}" for name, what in writes.items())
        found["writes"] = dg.MetadataValue.text("; ".join(told))
        own = _BY_COLLECTION.get(next(iter(writes)))
        if own is not None:
            found["dagster/table_name"] = dg.MetadataValue.text(own.collection.name)
            found["dagster/column_schema"] = dg.MetadataValue.table_schema(column_schema(own))
    return found


def column_schema(record: type[Record]) -> dg.TableSchema:
    """The fields of a collection as Dagster shows columns: name, type, whether it may be null, meaning."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                type=type_name(field),
                description=field.meaning,
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in record.fields
        ]
    )


#: What a person has to know who sees them in the UI.
_OBSERVED = "Observed, not run: Dagster calls it never materialized; what counts is the newest observation."

supplier_plans = dg.AssetSpec(
    "supplier_plans",
    group_name="summaries",
    deps=["relay_responses", "taxonomy_summaries"],
    description="When each supplier is due next and what it would be asked: the cached plans, which the "
    "sensor stale_scores looks at. Made anew by taxonomy_summaries at the end of every evaluation; "
    "relay_responses notes in them who failed and who was put off. Evaluate a supplier to refresh its plan. "
    f"{_OBSERVED}",
    kinds={"python"},
)

detected_changes = dg.AssetSpec(
    "detected_changes",
    group_name="summaries",
    deps=["supplier_scores", "identity_groups"],
    description="Changes of what suppliers answer, each with its evidence, kept for good: the facts that "
    "windows are cut by and the webhook is told. Recorded by supplier_scores (answers and scores of one "
    "supplier) and identity_groups (a member that left its group). "
    f"{_OBSERVED}",
    kinds={"python"},
)


def plans_metadata(plans: CachedPlans) -> dict[str, dg.MetadataValue[Any]]:
    """What is told of plans that were made anew."""
    told: dict[str, dg.MetadataValue] = {
        "plans_cached": dg.MetadataValue.int(plans.suppliers),
        "plans_due": dg.MetadataValue.int(plans.due),
    }
    if plans.next_due_at is not None:
        told["next_due_at"] = dg.MetadataValue.timestamp(plans.next_due_at)
    return told


def observe_plans(context: dg.AssetExecutionContext, plans: CachedPlans) -> None:
    """Note that this run wrote ``supplier_plans``."""
    context.log_event(dg.AssetObservation(supplier_plans.key, metadata=plans_metadata(plans)))


def references_metadata(compared: Sequence[ReferenceRecord]) -> dict[str, dg.MetadataValue[Any]]:
    """What is told of suppliers that were compared with the reference of their model; nothing of none."""
    if not compared:
        return {}
    rows = [
        [
            one.id,
            one.reference,
            one.as_reference,
            _points(one.difference),
            _points(one.difference_low, one.difference_high),
            one.n_docs,
            None if not one.n_whole else f"{one.n_equal} of {one.n_whole}",
            one.finding,
        ]
        for one in compared[:_SHOWN]
    ]
    headers = [
        "supplier",
        "reference",
        "as the reference",
        "points more",
        "certainly",
        "common docs",
        "equal answers",
        "why",
    ]
    return {"as_reference": markdown_table(headers, rows)}


def public_gaps_metadata(gaps: Sequence[PublicGapRecord]) -> dict[str, dg.MetadataValue[Any]]:
    """What is told of suppliers that were asked public questions and fresh ones; nothing of none."""
    if not gaps:
        return {}
    headers = [
        "supplier",
        "task",
        "epoch",
        "verdict",
        "two epochs",
        "public",
        "fresh",
        "peers' shift",
        "logits more",
        "certainly",
        "why",
    ]
    ordered = sorted(gaps, key=lambda one: (not one.flagged, 2 if one.p is None else one.p, one.supplier))
    rows = [
        [
            one.supplier,
            one.task,
            one.epoch,
            one.verdict,
            "yes" if one.flagged else "no",
            _percent(one.public_share),
            _percent(one.fresh_share),
            None if one.peers_shift is None else f"{one.peers_shift:+.2f}",
            None if one.excess is None else f"{one.excess:+.2f}",
            None if one.excess_low is None else f"{one.excess_low:+.2f}",
            one.finding,
        ]
        for one in ordered[:_SHOWN]
    ]
    return {"public_and_fresh": markdown_table(headers, rows)}


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _points(*shares: float | None) -> str | None:
    """Differences of scores in points, ``-20.0 to -3.1``; None where one is not known."""
    known = [f"{100 * share:+.1f}" for share in shares if share is not None]
    return " to ".join(known) if len(known) == len(shares) else None


def changes_metadata(changes: Sequence[ChangeRecord]) -> dict[str, dg.MetadataValue[Any]]:
    """What is told of changes that were recorded: how many, how many of them cut windows, and each."""
    told: dict[str, dg.MetadataValue] = {
        "changes": dg.MetadataValue.int(len(changes)),
        "cuts": dg.MetadataValue.int(sum(change.cut for change in changes)),
    }
    if changes:
        rows = [
            [
                change.supplier,
                change.kind,
                change.task,
                f"{change.at:%Y-%m-%d %H:%M}",
                "cut" if change.cut else "reported only",
                change.reason,
            ]
            for change in changes[:_SHOWN]
        ]
        headers = ["supplier", "kind", "task", "since (UTC)", "its windows", "why"]
        told["recorded_changes"] = markdown_table(headers, rows)
    return told


def observe_changes(context: dg.AssetExecutionContext, changes: Sequence[ChangeRecord]) -> None:
    """Note what this run wrote into ``detected_changes``, in its log as well."""
    for change in changes:
        context.log.warning(f"{change.supplier} changed at {change.at}: {change.reason}")
    context.log_event(dg.AssetObservation(detected_changes.key, metadata=changes_metadata(changes)))
