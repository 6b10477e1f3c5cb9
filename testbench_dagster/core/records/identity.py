"""Identity: which suppliers answer alike, and when what a supplier answers changed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from testbench_dagster.core.records.declaring import (
    FACT,
    VIEW,
    Part,
    Record,
    content,
    key,
    nested,
    queryable,
    record,
    view,
)


@record(
    "changes",
    one_per="detected change",
    kind=FACT,
    indexes=(("supplier", "at"), ("detected_at",)),
)
class ChangeRecord(Record):
    """A detected change of what a supplier answers, dated by its answers, with the evidence."""

    id: str = key("follows from supplier, kind, stream of evidence and date")
    supplier: str = queryable("key of the supplier")
    service: str = queryable("its service")
    kind: Literal["repeat", "group", "score"] = queryable(
        "against what it changed: its own earlier answers, its group's, or its scores"
    )
    task: str | None = queryable("of scores of one task, as earlier versions looked at them: its name")
    at: datetime = queryable("when the first answer that looked otherwise came; it changed before")
    detected_at: datetime = queryable("when it was recorded")
    seen_at: datetime = content("when the answer that raised the alarm came")
    cut: bool = queryable("whether what it answered before counts no more")
    reason: str = content("what was seen, in words")
    before_at: datetime | None = content("when the last answer that looked as before came; it changed after")
    log_e: float = content("evidence for the change, in nats")
    arl: float = content("observations to a false alarm, on average at least")
    observations: int = content("observations until the alarm")
    since_change: int = content("how many of them came after the change")
    null_rate: float = content("the mean that the time before allowed for: the lowest, for `up` the highest")
    rate_after: float = content("mean of the observations after the change")
    direction: Literal["down", "up"] = content("where the mean went")
    certain: bool = content("false where another member of its group may have changed instead")


@view(ChangeRecord)
class ToldChange(NamedTuple):
    """What is told of a change."""

    id: str
    supplier: str
    kind: Literal["repeat", "group", "score"]
    task: str | None
    at: datetime
    detected_at: datetime
    cut: bool
    reason: str


@nested
class StreamedTask(Part):
    """A task whose scores are in a stream, and what made them: entries of another one are read anew."""

    task: str = content("name of the task")
    task_hash: str = content("what the task's requests are made of")
    scorer_version: str = content("what computed the scores")
    metric: str = content("the metric")
    filter: str = content("the filter")
    higher_is_better: bool = content("where not, the stream holds 1 less the value")
    least: float = content("the least value of a doc, which the stream holds as 0", default=0.0)
    most: float = content("the greatest value of a doc, which the stream holds as 1", default=1.0)


@nested
class FoldedChange(Part):
    """A change that was seen in scores that were folded since; fields as in `changes`."""

    at: datetime = content("when the first doc that looked otherwise was asked")
    before_at: datetime | None = content("when the last one that looked as before was asked")
    detected_at: datetime = content("when the doc that raised the alarm was asked")
    log_e: float = content("evidence for the change, in nats")
    arl: float = content("docs to a false alarm, on average at least")
    observations: int = content("docs until the alarm")
    since_change: int = content("how many of them came after the change")
    null_rate: float = content("the mean that the time before allowed for")
    rate_after: float = content("mean of the docs after the change")
    direction: Literal["down", "up"] = content("where the mean went")
    reason: str = content("what was seen, in words")


@nested
class FoldedStream(Part):
    """What the oldest docs of a stream came to. Bytes are arrays, packed and compressed like the entries."""

    n: int = content("how many docs")
    began_at: datetime = content("when the first was asked")
    last_at: datetime = content("when the last was asked")
    period_days: float = content("days in which docs were renewed")
    n_first: int = content("how many docs were asked in the first of these periods")
    answered: tuple[int, ...] = content("places of the tasks of which one was answered")
    docs: bytes = content("each doc that was asked, how often, and the sum of its values")
    fitted: bytes = content("the docs that lines are fitted on")
    tasks: bytes = content("of each task the new docs, and the number of the last doc that was bet on")
    levels: bytes = content("how high the detectors stand, by share of the stake")
    blocks: bytes = content("sums over docs that were asked one after the other, by which a change is dated")
    change: FoldedChange | None = content("the first change that they show, if any")


@record("score_streams", one_per="supplier whose scores are watched", kind=VIEW, indexes=(("service",),))
class ScoreStreamRecord(Record):
    """A supplier's values of its docs since its last change, in order: what changes of scores show in.

    Those of docs that are old are folded: how large a document is does not grow with the time since.
    """

    id: str = key("key of the supplier")
    service: str = queryable("its service")
    read_until: datetime = queryable("when the facts were last read")
    level: float | None = queryable("mean of its newest values, null of too few")
    cut_at: datetime | None = content("the change after which it begins")
    version: int = content("version of what read the facts")
    tasks: tuple[StreamedTask, ...] = content("the tasks that entries refer to by their place")
    n: int = content("how many entries there are")
    entries: bytes = content("the entries, packed and compressed: see `stages/identify/score_streams.py`")
    folded: FoldedStream | None = content("what the docs before them came to, null where there are none")


@view(ScoreStreamRecord)
class ScoreLevel(NamedTuple):
    """How good a supplier is on the whole."""

    id: str
    level: float | None


#: Members that a record names: were it all of them, what is stored would grow with members times members.
MEMBERS_TOLD = 100
#: Fields of a record that say how it is kept: people are told all members, and of how many.
KEPT_FIELDS = frozenset({"n_members", "watched_at", "watched_as"})


@record(
    "identity_groups",
    one_per="compared supplier",
    kind=VIEW,
    indexes=(("proxy",), ("service",), ("group",)),
)
class IdentityGroupRecord(Record):
    """Whom a supplier answers like, and who stands for them."""

    id: str = key("key of the supplier")
    service: str = queryable("its service")
    group: str = queryable("name of its group; whoever is like nobody is in one alone")
    proxy: str = queryable("key of the member that is asked in full")
    role: Literal["alone", "proxy", "member"] = queryable("what it is in its group")
    members: list[str] = content(
        "keys of the members, its own among them; of more than 100 the first 100 only: all of them have the "
        "same `group` and `compared_at`"
    )
    since: datetime = queryable("since when it is in this group")
    rotates_at: datetime | None = queryable("when another member becomes the proxy, null for who is alone")
    compared_at: datetime = queryable("when it was compared")
    n_prompts: int = content("prompts whose answers tell something")
    self_agreement: float | None = content("share of prompts asked again that it answered as before")
    self_low: float = content("lower bound of that share")
    self_high: float = content("upper bound of that share")
    repeats: int = content("prompts asked again")
    agreement: float | None = content(
        "share of common prompts answered as its proxy does, null for the proxy"
    )
    distance: float | None = content(
        "half the sum of its and its proxy's self-agreements less their agreement: 0 for one model"
    )
    nearest: str | None = content("the other group it is most like")
    nearest_agreement: float | None = content("share of common prompts answered as that group does")
    nearest_low: float | None = content("lower bound of that share")
    nearest_high: float | None = content("upper bound of that share")
    nearest_common: int = content("prompts it has in common with that group")
    suspect: str | None = content("why it seems to route to several backends, null if it does not")
    reason: str = content("why it is in its group, in words")
    cut_at: datetime | None = queryable("its cut as it was known when it was compared", default=None)
    split_at: datetime | None = content(
        "when it was split off its group, as long as it is kept apart from it", default=None
    )
    n_members: int | None = content(
        "how many members there are; null in records of earlier versions, whose `members` are all",
        default=None,
    )
    watched_at: datetime | None = queryable(
        "when all its scores were last compared with its proxy's; of newer ones those are that came until "
        "`compared_at`. Null where all have to be compared again",
        default=None,
    )
    watched_as: str | None = queryable("hash of what compared them", default=None)

    @property
    def size(self) -> int:
        """How many members its group has."""
        return len(self.members) if self.n_members is None else self.n_members


@view(IdentityGroupRecord)
class GroupAssignment(NamedTuple):
    """Where a supplier was placed, and as of which cut."""

    id: str
    group: str
    proxy: str
    since: datetime
    rotates_at: datetime | None
    compared_at: datetime
    cut_at: datetime | None


@view(IdentityGroupRecord)
class WatchedMember(NamedTuple):
    """Where a supplier was placed, and what of its scores was compared with its proxy's."""

    id: str
    group: str
    proxy: str
    since: datetime
    cut_at: datetime | None
    compared_at: datetime
    watched_at: datetime | None
    watched_as: str | None


@view(IdentityGroupRecord)
class MemberOfGroup(NamedTuple):
    """That a supplier was in a group when it was compared."""

    id: str
    group: str
    compared_at: datetime


@view(IdentityGroupRecord)
class ProxyOfSupplier(NamedTuple):
    """Who stands for a supplier, as of which cut."""

    id: str
    group: str
    proxy: str
    cut_at: datetime | None


@view(IdentityGroupRecord)
class Suspect(NamedTuple):
    """Whether a supplier seems to route to several backends."""

    id: str
    suspect: str | None
