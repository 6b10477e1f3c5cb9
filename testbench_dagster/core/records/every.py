"""All records, and the page of the documentation that says what is stored.

``python -m testbench_dagster.core.records.every > docs/collections.md`` writes that page anew; a test keeps
both alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.bodies import BodyPlaceRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.coordination import (
    BudgetRecord,
    HeartbeatRecord,
    LeaseRecord,
    PaceRecord,
    StatementRecord,
)
from testbench_dagster.core.records.declaring import Part, Record, StoredField
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord, ScoreStreamRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.probe_seeds import ProbeSeedRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.rankings import (
    GroupScoresRecord,
    LeaderboardRecord,
    RankingPartRecord,
    SupplierSnapshotRecord,
    TaxonomySummaryRecord,
)
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import EmptyScoreRecord, ScoreRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord, SetAsideRecord, VoidDocRecord
from testbench_dagster.core.records.signatures import SignatureRecord
from testbench_dagster.core.records.sources import InstallationRecord, SourceLossRecord
from testbench_dagster.core.records.splits import SplitRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord

RECORDS: tuple[type[Record], ...] = (
    EpochRecord,
    PromptRecord,
    VoidDocRecord,
    SetAsideRecord,
    AttemptRecord,
    BodyPlaceRecord,
    ScoreRecord,
    EmptyScoreRecord,
    ScorerOutageRecord,
    LaneEndRecord,
    ServiceProbeRecord,
    SupplierRecord,
    InstallationRecord,
    SourceLossRecord,
    HeightRecord,
    SessionRecord,
    PlanRecord,
    WindowRecord,
    WindowAnswersRecord,
    HealthRecord,
    TaxonomySummaryRecord,
    LeaderboardRecord,
    GroupScoresRecord,
    RankingPartRecord,
    SupplierSnapshotRecord,
    ServiceQualityRecord,
    IdentityGroupRecord,
    ChangeRecord,
    ScoreStreamRecord,
    SplitRecord,
    SuspicionRecord,
    ReferenceRecord,
    PublicGapRecord,
    SignatureRecord,
    HeartbeatRecord,
    StatementRecord,
    LeaseRecord,
    BudgetRecord,
    PaceRecord,
    ProbeSeedRecord,
)

_HEAD = """# Collections of the document store

What is stored, in MongoDB or the embedded store. Facts are never changed once written; views are made anew
from facts; the roster says whom and how to ask; what coordinates processes lives as long as these. Fields
with an **x** under *query* may be named by filters and are columns of the embedded store; the others are read
with the whole document. A test compares this page with the classes in `testbench_dagster/core/records/`,
which declare the collections.
"""
_NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    datetime: "time",
    bytes: "bytes",
    list: "list",
    dict: "object",
}


def page() -> str:
    """The page as Markdown."""
    return "\n".join([_HEAD, *(line for record in RECORDS for line in _section(record))])


def shard_commands(database: str) -> Iterator[str]:
    """What a shell on a sharded MongoDB is told, so that a database's large collections are spread."""
    yield f'sh.enableSharding("{database}")'
    for record in RECORDS:
        if record.shard_key:
            key = ", ".join(f"{name}: 1" for name in record.shard_key)
            name = record.collection.name
            yield f'db.getSiblingDB("{database}").{name}.createIndex({{{key}}})'
            yield f'sh.shardCollection("{database}.{name}", {{{key}}})'


def _section(record: type[Record]) -> Iterator[str]:
    collection = record.collection
    yield f"## `{collection.name}`"
    yield ""
    yield f"{_summary(record)} One per {record.one_per}; {record.collection_kind}."
    for title, keys in (("Indexes", collection.indexes), ("Unique", collection.unique)):
        if keys:
            yield ""
            yield f"{title}: {', '.join('(' + ', '.join(f'`{name}`' for name in key) + ')' for key in keys)}."
    if record.shard_key:
        yield ""
        yield f"Shard key: {', '.join(f'`{name}`' for name in record.shard_key)}."
    yield ""
    yield from _table(record)
    for part in _parts(record):
        yield f"`{part.__name__}`: {_summary(part)}"
        yield ""
        yield from _table(part)


def _table(of: type[Part]) -> Iterator[str]:
    yield "| field | type | query | meaning |"
    yield "|---|---|---|---|"
    for field in of.fields:
        query = "x" if field.queryable else ""
        meaning = field.meaning.replace("|", "\\|")
        yield f"| `{field.name}` | {type_name(field)} | {query} | {meaning} |"
    yield ""


def _parts(of: type[Part]) -> Iterator[type[Part]]:
    for field in of.fields:
        if field.part is not None:
            yield field.part
            yield from _parts(field.part)


def _summary(of: type[Part]) -> str:
    return " ".join((of.__doc__ or "").split("\n\n")[0].split())


def type_name(field: StoredField) -> str:
    """The type of a field as people read it."""
    null = ", or null" if field.nullable and field.types else ""
    return f"{_named(field)}{null}"


def _named(field: StoredField) -> str:
    if field.scalar is not None:
        return _NAMES[field.scalar]
    if field.part is not None:
        named = f"`{field.part.__name__}`"
        if field.types[0] is list:
            return f"list of {named}"
        return named if field.hint in (field.part, field.part | None) else f"{named} by name"
    containers: dict[type, str] = {list: "list", dict: "object"}
    names = {_NAMES.get(kind) or containers.get(kind, kind.__name__) for kind in field.types}
    return " or ".join(sorted(names)) or "any"


if __name__ == "__main__":
    print(page())
