"""What adapters of others give back: mistakes are named, with task, framework and what is wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import FrameworkPlug
from testbench_dagster.core.prompt import BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.tasks.adapter import registered
from testbench_dagster.tasks.given import checked_prompts, checked_registration, checked_scores, undeclared
from testbench_dagster_tests.tasks.quiz import spec_of

PLUG = FrameworkPlug(name="mine", version="1", adapter="mine:Mine")
SPEC = replace(spec_of("quiz"), framework="mine")
REQUEST = {"type": "generate_until", "idx": 0, "messages": [], "generation": {}}


def registration(**changes: Any) -> Registered:
    said: dict[str, Any] = {
        "docs": [{"n": 1}, {"n": 2}],
        "metrics": {"exact": MetricFlags(aggregation="mean", higher_is_better=True)},
        "filters": ["none"],
    }
    said |= changes
    return registered(SPEC, said.pop("docs"), asked="1", scored="1", version="1", **said)


def prompt(doc_id: int = 0, target: Any = "x", **changes: Any) -> BuiltPrompt:
    request = {key: value for key, value in {**REQUEST, **changes}.items() if value is not ...}
    return BuiltPrompt(doc_id, [request], target, 1, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"task 'quiz': framework 'mine': register\(\) gave dict, not a Registered"),
        (None, "gave NoneType"),
        (registration(docs=[]), "gave no docs"),
        (registration(metrics={}), "gave no metrics"),
        (registration(filters=[]), "gave no filters"),
    ],
)
def test_what_is_no_registration_is_told(given: object, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        checked_registration(PLUG, SPEC, given)


def test_a_metric_or_filter_that_a_task_has_not_is_told_with_those_it_has() -> None:
    good = registration()
    assert checked_registration(PLUG, replace(SPEC, metric="exact", filter="none"), good) is good
    for wrong in (replace(SPEC, metric="exakt"), replace(SPEC, filter="flexibel")):
        with pytest.raises(TaskError, match=r"is no (metric|filter) of it; there are: (exact|none)"):
            checked_registration(PLUG, wrong, good)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no list of BuiltPrompt"),
        ([{}], "no list of BuiltPrompt"),
        ([prompt(0)], "no prompt for doc 1"),
        ([prompt(1), prompt(0)], "out of order"),
        ([prompt(0), prompt(1), prompt(2)], "prompts of other docs"),
        ([prompt(0), BuiltPrompt(1, [], "x", 1, True)], "doc 1 has no requests"),
        ([prompt(0), prompt(1, target={1})], "doc 1 holds what JSON cannot"),
        ([prompt(0), prompt(1, type="talk")], "type 'talk'; there are: generate_until, chat"),
        ([prompt(0), prompt(1, type=["chat"])], "type .'chat'."),
        ([prompt(0), prompt(1, idx=...)], "idx of request 0 is None"),
        ([prompt(0), prompt(1, messages=...)], "no 'messages', which chat needs"),
    ],
)
def test_what_cannot_be_asked_is_told(given: object, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        checked_prompts(PLUG, SPEC, [0, 1], "chat", given)


def test_good_prompts_pass_in_the_form_that_is_asked_for() -> None:
    good = [prompt(0), prompt(1)]
    assert checked_prompts(PLUG, SPEC, [1, 0], "chat", good) == good
    with pytest.raises(TaskError, match="no 'prompt', which completions needs"):
        checked_prompts(PLUG, SPEC, [0, 1], "completions", good)


@pytest.mark.parametrize(("given", "said"), [(None, "gave NoneType"), ([1.0], "gave float, not DocScore")])
def test_what_is_no_score_is_told(given: object, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        checked_scores(PLUG, "score", given)


def test_what_was_not_declared_is_told() -> None:
    flags = registration().data.flags
    assert undeclared(flags, [DocScore(0, {"none": {"exact": 1.0}}), DocScore(1, error="x")]) is None
    assert undeclared(flags, [DocScore(0, {"all": {}})]) == "the filter 'all'; there are: none"
    assert undeclared(flags, [DocScore(0, {"none": {"close": 1}})]) == "the metric 'close'; there are: exact"
    assert isinstance(registration().data, TaskData)
