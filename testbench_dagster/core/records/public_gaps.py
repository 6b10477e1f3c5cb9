"""Public questions beside fresh ones of the same kind: what each epoch says of each supplier."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from testbench_dagster.core.records.declaring import VIEW, Record, content, key, queryable, record, view


@record(
    "public_gaps",
    one_per="supplier, task in pairs and epoch",
    kind=VIEW,
    indexes=(("supplier", "task", "epoch"), ("task", "epoch")),
)
class PublicGapRecord(Record):
    """How a supplier answered public questions and fresh ones of the same kind, beside its peers.

    The newest two epochs of a task are made anew from the facts; those before stay as they were told.
    """

    id: str = key("follows from supplier, task and epoch")
    supplier: str = queryable("key of the supplier")
    service: str = queryable("its service")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    epoch: int = queryable("number of the epoch")
    compared_at: datetime = queryable("when it was compared")
    verdict: Literal["better", "not better", "no verdict"] = queryable(
        "whether it is better on the public questions than its peers are, in this epoch"
    )
    flagged: bool = queryable(
        "whether it was so in two of its last four epochs with a verdict, up to this one"
    )
    finding: str = content("what was seen, in words")
    why: str | None = content("why there is no verdict")
    final: bool = content("whether all that it was asked in the epoch is closed, or the epoch is over")
    made_by: str = content("what read the facts: version, scorer, and after which change of its model")
    n_pairs: int = content("pairs of which both halves are closed")
    n_open: int = content("pairs that wait for the answer to a half, or to be asked")
    both: int = content("pairs of which both halves are right")
    public_only: int = content("pairs of which the public half alone is right")
    fresh_only: int = content("pairs of which the fresh half alone is right")
    neither: int = content("pairs of which no half is right")
    failed_public: int = content("public halves left unanswered for good; they count as wrong")
    failed_fresh: int = content("fresh halves left unanswered for good; they count as wrong")
    public_share: float | None = content("share of right answers to public halves")
    fresh_share: float | None = content("share of right answers to fresh halves")
    peers: int = content("units of other suppliers that it was compared with")
    peers_public_only: int = content("pairs of which peers had the public half alone right")
    peers_fresh_only: int = content("pairs of which peers had the fresh half alone right")
    peers_public_share: float | None = content("mean of the peers' shares of right public halves")
    peers_fresh_share: float | None = content("mean of the peers' shares of right fresh halves")
    peers_shift: float | None = content(
        "log odds of the peers' half right pairs: how much harder fresh questions are for them, in logits"
    )
    peers_shift_error: float | None = content("its standard error")
    known_shift: float | None = content(
        "the same over this epoch and the earlier ones, which the rule looks at"
    )
    known_shift_error: float | None = content("its standard error")
    excess: float | None = content("log odds of its own half right pairs less the peers', in logits")
    excess_low: float | None = content("lower end of the 95 % interval of it, null for none")
    excess_high: float | None = content("upper end of it, null for none")
    p: float | None = content("p value, adjusted over the suppliers of its service by Holm")


@view(PublicGapRecord)
class GapVerdict(NamedTuple):
    """What an epoch says of a supplier, in short."""

    supplier: str
    task: str
    task_hash: str
    epoch: int
    verdict: Literal["better", "not better", "no verdict"]
    flagged: bool
