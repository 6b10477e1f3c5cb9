"""Prompts: what is asked, in the order in which it is asked; and the epochs, whose seeds give the order."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.offers import with_shared_offers
from testbench_dagster.core.records.declaring import (
    FACT,
    Record,
    content,
    counted,
    key,
    queryable,
    record,
    view,
)
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Measurement


@record(
    "epochs",
    one_per="task and epoch",
    kind=FACT,
    indexes=(("started_at",),),
    unique=(("task", "epoch"),),
)
class EpochRecord(Record):
    """One prompt sequence of a task: its number and the seed that orders the docs."""

    id: str = key("follows from task and number")
    task: str = queryable("name of the task")
    epoch: int = queryable("number of the sequence, from 1")
    started_at: datetime = queryable("when it was started")
    seed: str = content("what orders the docs; secret until the next epoch")
    seed_sha256: str = content("SHA-256 of the seed, published at once: it cannot be chosen afterwards")
    roll_before: datetime | None = content("the instant it had to be newer than, if any", default=None)
    groups: int = content(
        "groups of suppliers with a complete row when it was started, where they set its number of docs",
        default=0,
    )
    variance: float | None = content(
        "median over these groups of the variance of a doc's value, null below five: how many docs everybody "
        "is asked follows from it",
        default=None,
    )
    spread_epoch: int | None = content(
        "the epoch at whose start `variance` was measured; null where that is null or stored earlier",
        default=None,
    )
    spread_at: datetime | None = content("when that was", default=None)
    spread_draw: str | None = content(
        "what draws which of the docs asked before it keep their slots", default=None
    )
    doc_ids: list[int] | None = content(
        "the docs it asks, ascending, where `samples.ids` names them; null for all of the split", default=None
    )

    @property
    def commitment(self) -> str:
        """SHA-256 of the seed: published at once, so that the order cannot be chosen afterwards."""
        return hashlib.sha256(self.seed.encode()).hexdigest()

    @property
    def measurement(self) -> Measurement | None:
        """When the variance was measured that sets the number of docs; None where none was."""
        if self.spread_epoch is None or self.spread_at is None or self.spread_draw is None:
            return None
        return Measurement(self.spread_epoch, self.spread_at, self.spread_draw)

    def began_before(self, instant: datetime, now: datetime) -> bool:
        """Whether the epoch is older than an instant; it is not older than the one it was started for.

        The clock of who named that may be ahead of the one that dated the epoch. Dates ahead of ``now`` are
        those of a clock that was set back since: they keep no epoch from being older.
        """
        dates = [at for at in (self.started_at, self.roll_before) if at is not None]
        return all(at < instant or is_ahead(at, now) for at in dates)


@view(EpochRecord)
class EpochStart(NamedTuple):
    """When an epoch was started."""

    started_at: datetime


@view(EpochRecord)
class EpochSpread(NamedTuple):
    """From what the number of docs of an epoch follows."""

    task: str
    epoch: int
    variance: float | None
    spread_epoch: int | None
    spread_draw: str | None


@view(EpochRecord)
class EpochDocs(NamedTuple):
    """Which docs an epoch asks."""

    task: str
    epoch: int
    doc_ids: list[int] | None


@counted(EpochRecord)
class NewestEpoch(NamedTuple):
    """The newest epoch of a task."""

    task: str
    max_epoch: int


@record(
    "prompts",
    one_per="prompt",
    kind=FACT,
    indexes=(
        ("task", "task_hash", "epoch", "api", "position"),
        ("task", "task_hash", "doc_id"),
        ("created_at",),
    ),
)
class PromptRecord(Record):
    """The requests made of one doc, in the form of one API."""

    id: str = key("follows from task, sequence, API, position, doc and requests")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    epoch: int = queryable("number of the sequence, from 1")
    api: Api = queryable("form of the requests")
    position: int = queryable("place in the sequence, from 0")
    doc_id: int = queryable("row of the doc in the task's data")
    doc_hash: str = queryable("hash of the doc")
    calls: int = queryable("calls that answer it: its requests times their repeats")
    relayable: bool = queryable("whether it can be sent over HTTP at all")
    requests: list[dict[str, Any]] = content(
        "the requests, independent of the transport", decode=with_shared_offers
    )
    target: Any = content("what the framework expects, where it says so")
    context_chars: int = content("characters of the longest request")
    created_at: datetime = queryable("when it was built")
    repeats: int = content("how often each request is made", exported=False)


@view(PromptRecord)
class SequencePrompt(NamedTuple):
    """A prompt as the planner needs it."""

    id: str
    position: int
    doc_id: int
    calls: int
    relayable: bool


@view(PromptRecord)
class PromptCalls(NamedTuple):
    """How many calls answer a prompt."""

    id: str
    calls: int


@view(PromptRecord)
class PromptPlace(NamedTuple):
    """Which doc stands where in a sequence."""

    position: int
    doc_id: int
    api: Api


@view(PromptRecord)
class PromptRequests(NamedTuple):
    """The requests of a prompt."""

    id: str
    requests: list[dict[str, Any]]


@view(PromptRecord)
class ShownPrompt(NamedTuple):
    """A prompt as people are shown it."""

    id: str
    epoch: int
    position: int
    doc_id: int
    api: Api
    calls: int
    requests: list[dict[str, Any]]
    target: Any
    context_chars: int


@view(PromptRecord)
class AskedPrompt(NamedTuple):
    """A prompt as scoring needs it."""

    id: str
    epoch: int
    position: int
    doc_id: int
    api: Api
    requests: list[dict[str, Any]]
    target: Any


@counted(PromptRecord)
class SequenceLength(NamedTuple):
    """Prompts of a sequence in the form of one API."""

    task: str
    task_hash: str
    epoch: int
    api: Api
    n: int


@counted(PromptRecord)
class PromptSequence(NamedTuple):
    """Prompts of a sequence in all forms."""

    task: str
    task_hash: str
    epoch: int
    n: int
