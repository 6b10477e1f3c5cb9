"""What adapters of others give back: mistakes are named, with task, framework and what is wanted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import FrameworkPlug
from testbench_dagster.core.prompt import BuiltPrompt, DocScore, Registered
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.tasks.adapter import registered
from testbench_dagster.tasks.given import (
    checked_prompts,
    checked_registration,
    checked_scores,
    json_problem,
    undeclared,
)
from testbench_dagster.transports.payload import unsendable
from testbench_dagster_tests.tasks.quiz import spec_of

PLUG = FrameworkPlug(name="mine", version="1", adapter="mine:Mine")
SPEC = replace(spec_of("quiz"), framework="mine")
MESSAGES = [{"role": "user", "content": "Say it."}]
REQUEST = {"type": "generate_until", "idx": 0, "messages": MESSAGES, "generation": {}}
MEAN = MetricFlags(aggregation="mean", higher_is_better=True)


def registration(**changes: Any) -> Registered:
    said: dict[str, Any] = {
        "docs": [{"n": 1}, {"n": 2}],
        "metrics": {"exact": MetricFlags(aggregation="mean", higher_is_better=True)},
        "filters": ["none"],
        "version": "1",
    }
    said |= changes
    return registered(SPEC, said.pop("docs"), asked="1", scored="1", **said)


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
    ("changes", "said"),
    [
        ({"version": 1}, r"version is 1 \(int\); give a text, such as '1'"),
        ({"version": ""}, r"version is '' \(str\); give a text"),
        ({"output_type": "talk"}, r"output_type is 'talk' \(str\); name one of generate_until, chat"),
        ({"metrics": {"exact": "mean"}}, r"metric 'exact' is 'mean' \(str\), no MetricFlags"),
        ({"metrics": {"exact": replace(MEAN, aggregation=None)}}, r"'exact': aggregation is None"),
        ({"metrics": {"exact": replace(MEAN, binary="yes")}}, r"'exact': binary is 'yes' \(str\); say True"),
        (
            {"metrics": {"exact": replace(MEAN, bounds=1)}},
            r"'exact': bounds is 1 \(int\); give the least and",
        ),
        ({"metrics": {"exact": replace(MEAN, bounds=[0, float("inf")])}}, "such as \\[-1, 1\\]"),
        ({"metrics": {"exact": replace(MEAN, bounds=[1, -1])}}, "the least value comes first"),
        ({"metrics": {"exact": replace(MEAN, binary=True, bounds=[0, 1])}}, "a mean and not binary; leave"),
        ({"metrics": {1: MEAN}}, r"the name of a metric is 1 \(int\)"),
        ({"filters": ["last", "last"]}, "filters are last, last; name each once"),
        ({"filters": [None]}, "the name of a filter is None"),
        ({"forms": ["talk"]}, r"forms is \['talk'\] \(list\); give a list of chat or completions"),
        ({"forms": []}, "forms is"),
        ({"output_type": "chat"}, "requests of kind 'chat' have only chat"),
        ({"docs": [{"n": 1}, {"n": [1, float("nan")]}]}, r"doc 1: n\[1\] is nan, for which JSON has no word"),
        ({"docs": [{"n": float("-inf")}]}, "doc 0: n is -inf"),
        ({"docs": [{"n": {1, 2}}]}, r"doc 0: n is \{1, 2\} \(set\), which JSON cannot hold"),
        ({"docs": [{("a", "b"): 1}]}, r"doc 0: it is an object with the key \('a', 'b'\)"),
        ({"docs": [["a"]]}, r"doc 0: it is \['a'\] \(list\), no JSON object"),
        (
            {"metrics": {"valid": replace(MEAN, of_some_docs=True), "exact": MEAN}},
            "the first metric is the task's score, but 'valid' is of some answers alone",
        ),
    ],
)
def test_a_value_of_a_registration_that_cannot_be_is_told_with_field_value_and_remedy(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(TaskError, match=r"task 'quiz': framework 'mine': .*" + said):
        registration(**changes)


def test_what_is_hashed_has_to_be_json() -> None:
    with pytest.raises(TaskError, match=r"framework 'mine': asked: it is .*|asked: .*which JSON cannot hold"):
        registered(SPEC, [{"n": 1}], asked={1}, scored="1", version="1", metrics={"exact": MEAN})


def test_a_registration_that_was_put_together_by_hand_is_looked_at_likewise() -> None:
    good = registration()
    flags, docs = good.data.flags, good.data.docs
    wrong = {
        "version is 1": replace(good, data=replace(good.data, flags=replace(flags, version=1))),
        "doc 1: n is nan": replace(good, data=replace(good.data, docs={**docs, 1: '{"n":NaN}'})),
        "not numbered from 0": replace(good, data=replace(good.data, docs={1: docs[0], 2: docs[1]})),
        "1 of doc_hashes": replace(good, doc_hashes=good.doc_hashes[:1]),
        "task_hash is None": replace(good, task_hash=None),
    }
    for said, one in wrong.items():
        with pytest.raises(TaskError, match=said):
            checked_registration(PLUG, SPEC, one)


def test_a_metric_of_some_answers_cannot_be_chosen_as_the_score() -> None:
    given = registration(metrics={"exact": MEAN, "valid": replace(MEAN, of_some_docs=True)})
    with pytest.raises(TaskError, match=r"metric: 'valid' is of some answers alone.*choose one of exact"):
        checked_registration(PLUG, replace(SPEC, metric="valid"), given)


def test_json_problems_have_a_place() -> None:
    assert json_problem({"a": [{"b": "fine"}, None, True, 1.5]}) is None
    assert json_problem({"a": [{"b": object}]}) is not None
    assert str(json_problem({"a": [0, {"b": float("inf")}]})).startswith("a[1].b is inf")
    endless: list[Any] = []
    endless.append(endless)
    assert json_problem(endless) is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no list of BuiltPrompt"),
        ([{}], "no list of BuiltPrompt"),
        ([prompt(0)], "no prompt for doc 1"),
        ([prompt(1), prompt(0)], "out of order"),
        ([prompt(0), prompt(1), prompt(2)], "prompts of other docs"),
        ([prompt(0), BuiltPrompt(1, [], "x", 1, True)], "doc 1: it has no requests"),
        ([prompt(0), prompt(1, target={1})], "doc 1: target: it is|which JSON cannot hold"),
        ([prompt(0), prompt(1, target=[float("nan")])], r"doc 1: target: \[0\] is nan"),
        ([prompt(0), prompt(1, generation={"seed": 1 << 65})], "doc 1: requests: "),
        ([prompt(0), prompt(1, type="talk")], r"'talk' \(str\); there are: generate_until, chat"),
        ([prompt(0), prompt(1, type=["chat"])], r"of type \['chat'\]"),
        (
            [prompt(0), prompt(1, type="get")],
            "of type 'get', but register.. says output_type 'generate_until'",
        ),
        ([prompt(0), prompt(1, idx=...)], r"its idx is None .*; count from 0"),
        ([prompt(0), prompt(1, messages=...)], "no 'messages', which chat needs"),
        ([prompt(0), prompt(1, messages=[])], r"messages is \[\] \(list\); give a list of at least one"),
        ([prompt(0), prompt(1, messages="hi")], r"messages is 'hi' \(str\)"),
        ([prompt(0), prompt(1, messages=[{"content": "hi"}])], r"messages\[0\] is .*role and content"),
        ([prompt(0), prompt(1, messages=[{"role": "user", "content": 5}])], r"messages\[0\].content is 5"),
        ([prompt(0), prompt(1, tools=[])], "'tools', which only requests of type 'chat' carry"),
        ([prompt(0), prompt(1, generation=[])], r"generation is \[\] \(list\); give an object"),
        ([prompt(0), prompt(1, generation={"until": 5})], "generation.until is 5"),
        ([prompt(0), prompt(1, generation={"max_gen_toks": "64"})], "max_gen_toks is '64'"),
        ([prompt(0), prompt(1, generation={"max_gen_toks": 0})], "max_gen_toks is 0"),
        ([prompt(0), prompt(1, generation={"temperature": "hot"})], "temperature is 'hot'"),
    ],
)
def test_what_cannot_be_asked_is_told(given: object, said: str) -> None:
    with pytest.raises(TaskError, match=r"task 'quiz': framework 'mine': build_prompts\(\).*(" + said + ")"):
        checked_prompts(PLUG, SPEC, DATA, [0, 1], "chat", given)


DATA = registration().data
CHATS = registration(output_type="chat", forms=["chat"]).data


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tools": {}}, r"tools is \{\}"),
        ({"tools": [{"name": "add"}]}, r"tools\[0\] is .*'function'"),
        ({"tool_choice": 5}, "tool_choice is 5"),
        ({"response_format": "json"}, "response_format is 'json'"),
    ],
)
def test_what_a_chat_request_cannot_offer_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        checked_prompts(PLUG, SPEC, CHATS, [0], "chat", [prompt(0, type="chat", **changes)])
    fine = {"tools": [{"type": "function", "function": {"name": "add"}}], "tool_choice": "auto"}
    good = [prompt(0, type="chat", **fine)]
    assert checked_prompts(PLUG, SPEC, CHATS, [0], "chat", good) == good


def test_good_prompts_pass_in_the_form_that_is_asked_for() -> None:
    good = [prompt(0), prompt(1)]
    assert checked_prompts(PLUG, SPEC, DATA, [1, 0], "chat", good) == good
    with pytest.raises(TaskError, match="no 'prompt', which completions needs"):
        checked_prompts(PLUG, SPEC, DATA, [0, 1], "completions", good)


#: Fields of requests, each as it should be and as it may come from others.
_GENERATIONS = st.dictionaries(
    st.sampled_from(["until", "max_gen_toks", "max_tokens", "temperature", "top_p", "seed"]),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.text(max_size=2))),
)
_ANYTHING = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


@given(
    generation=st.one_of(_ANYTHING, _GENERATIONS),
    asked=st.one_of(_ANYTHING, st.just(MESSAGES)),
    kind=st.sampled_from(["generate_until", "chat", "loglikelihood", "get"]),
    api=st.sampled_from(["chat", "completions"]),
)
@settings(max_examples=150, deadline=None)
def test_what_passes_can_be_sent(generation: Any, asked: Any, kind: str, api: str) -> None:
    """Else it would end as a fault of ours at every supplier."""
    fields = {"messages": asked, "prompt": asked, "context": asked, "continuation": asked, "path": "/a/b"}
    request = {"type": kind, "idx": 0, "generation": generation, **fields}
    forms = {"chat": ["chat"], "loglikelihood": ["completions"]}.get(kind, ["chat", "completions"])
    data = registration(output_type=kind, forms=forms).data
    try:
        checked_prompts(PLUG, SPEC, data, [0], api, [BuiltPrompt(0, [request], None, 1, True)])
    except TaskError:
        return
    assert api not in forms or unsendable(request, api) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "gave NoneType"),
        ([1.0], "gave float, not DocScore"),
        ([], "gave 0 scores for 2 answers; want a DocScore for each"),
        ([DocScore(1), DocScore(0)], "scores of other docs, or in another order"),
        ([DocScore(0, {"all": {}}), DocScore(1)], "gave the filter 'all'; there are: none"),
    ],
)
def test_what_is_no_score_is_told(given: object, said: str) -> None:
    with pytest.raises(TaskError, match=r"task 'quiz': framework 'mine': score\(\) .*" + said):
        checked_scores(PLUG, SPEC, "score", DATA.flags, given, [0, 1])


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (
            DocScore(0, {"none": {"exact": float("nan")}}),
            r"nan \(float\), no finite number, as the metric 'exact'",
        ),
        (DocScore(0, {"none": {"exact": "1"}}), "'1' .str., no finite number"),
        (DocScore(0, {"none": {"exact": None}}), "None .NoneType., no finite number"),
        (DocScore(0, {"none": {}}), "no value of the metric 'exact', filter 'none'"),
        (DocScore(0), "no values for the filter 'none'"),
        (DocScore(0, {"none": {"exact": 1}}, extracted={"none": 5}), r"5 .int. as extracted\['none'\]"),  # type: ignore[dict-item]
    ],
)
def test_a_value_that_is_none_is_the_error_of_its_answer_and_of_no_other(score: DocScore, said: str) -> None:
    """It may follow from what a supplier sent, who must not stop the scoring of others."""
    good = DocScore(1, {"none": {"exact": 1.0}}, extracted={"none": "read"})
    wrong, right = checked_scores(PLUG, SPEC, "score", DATA.flags, [score, good], [0, 1])
    assert right == good
    assert wrong.doc_id == 0 and re.search(said, wrong.error or "") and not wrong.metrics


def test_values_of_binary_metrics_are_0_or_1_and_some_metrics_may_be_left_out() -> None:
    metrics = {"exact": replace(MEAN, binary=True), "valid": replace(MEAN, of_some_docs=True)}
    flags = registration(metrics=metrics).data.flags
    good = [DocScore(0, {"none": {"exact": True}}), DocScore(1, {"none": {"exact": 0.0, "valid": 0.5}})]
    assert checked_scores(PLUG, SPEC, "score", flags, good) == good
    (half,) = checked_scores(PLUG, SPEC, "score", flags, [DocScore(0, {"none": {"exact": 0.5}})])
    assert "0.5 (float), neither 0 nor 1" in (half.error or "")


def test_values_of_a_metric_with_bounds_lie_within_them() -> None:
    flags = registration(metrics={"exact": replace(MEAN, bounds=[-1, 1])}).data.flags
    good = [DocScore(0, {"none": {"exact": -1}}), DocScore(1, {"none": {"exact": 0.5}})]
    assert checked_scores(PLUG, SPEC, "score", flags, good) == good
    (far,) = checked_scores(PLUG, SPEC, "score", flags, [DocScore(0, {"none": {"exact": -1.5}})])
    assert "-1.5 (float), not from -1 to 1" in (far.error or "")


def test_what_is_read_of_an_answer_is_kept_short() -> None:
    long = DocScore(0, {"none": {"exact": 1}}, extracted={"none": "a" * 1_000_000})
    (kept,) = checked_scores(PLUG, SPEC, "score", DATA.flags, [long])
    assert len(kept.extracted["none"]) < 2_000 and kept.metrics == long.metrics


def test_what_was_not_declared_is_told() -> None:
    flags = registration().data.flags
    assert undeclared(flags, [DocScore(0, {"none": {"exact": 1.0}}), DocScore(1, error="x")]) is None
    assert undeclared(flags, [DocScore(0, {"all": {}})]) == "the filter 'all'; there are: none"
    assert undeclared(flags, [DocScore(0, {"none": {"close": 1}})]) == "the metric 'close'; there are: exact"
