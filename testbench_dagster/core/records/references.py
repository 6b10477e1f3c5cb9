"""References: whether suppliers are as the one that is trusted to serve their model."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from testbench_dagster.core.records.declaring import VIEW, Record, content, key, queryable, record


@record("references", one_per="supplier whose model has a reference", kind=VIEW, indexes=(("reference",),))
class ReferenceRecord(Record):
    """What is known of a supplier and the reference of its model."""

    id: str = key("key of the supplier")
    service: str = queryable("its service")
    model: str = queryable("the model that both name")
    reference: str = queryable("key of the reference")
    as_reference: Literal["yes", "no", "not yet known"] = queryable("whether it is as the reference is")
    finding: str = content("what was seen, in words")
    compared_at: datetime = queryable("when it was compared")
    n_prompts: int = content("common prompts with answers at temperature 0")
    agreement: float | None = content("share of them on which both began alike")
    n_docs: int = content("common docs of tasks with scores")
    difference: float | None = content("its mean score less the reference's on them, tasks weighing alike")
    difference_low: float | None = content("lower end of the 99.75 % interval of the true difference")
    difference_high: float | None = content("upper end of it")
    n_unanswered: int | None = content(
        "of these, docs that it alone left unanswered for good; they count as wrong"
    )
    n_whole: int | None = content("common docs whose whole answers were compared")
    n_equal: int | None = content("of these, docs to which both gave equal answers")
    n_tool_docs: int = content("common docs that offer tools")
    trigger_f1: float | None = content("F1 of its calls or not, the reference's taken for right")
    trigger_f1_low: float | None = content("lower end of its 95 % interval, by bootstrap over docs")
    trigger_f1_high: float | None = content("upper end of it")
    schema_accuracy: float | None = content("share of its answers with calls that fit the schemas")
    reference_schema_accuracy: float | None = content("the same share of the reference's")
