"""The verdicts on scripted suppliers: what each metric tells apart, and what it does not."""

from __future__ import annotations

import json
import time
from itertools import combinations

import pytest

from testbench_dagster.core.prompt import Answered
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.tasks.tools import TASKS
from testbench_dagster.tasks.tools import metrics as verdicts
from testbench_dagster.tasks.tools.adapter import Tools
from testbench_dagster.tasks.tools.calls import MAX_CALLS, strict_object
from testbench_dagster_tests.tasks.tools.scripted import (
    always_calling,
    as_text,
    bad_json,
    calling,
    first_only,
    gold_calls,
    inventing,
    means,
    numbers_as_texts,
    quoting,
    right,
    scores,
    silent,
    spec,
    stored,
)

OF_CALLS, OF_JSON = TASKS[:-1], TASKS[-1]
ALL = {"exact": 1.0, "triggered": 1.0, "schema_valid": 1.0}


@pytest.fixture(scope="module")
def registered():
    return {name: Tools().register(spec(name)) for name in TASKS}


@pytest.fixture(scope="module")
def measure(registered):
    """The means of a scripted supplier on a starter task."""

    def measured(name, answer):
        data = registered[name].data
        return means(scores(spec(name), data, answer, sorted(data.docs)))

    return measured


@pytest.mark.parametrize("name", ["tools_one", "tools_several", "tools_parallel"])
def test_who_is_always_right(measure, name):
    assert measure(name, right) == {**ALL, "called": 1.0}


def test_who_is_always_right_where_none_fits_has_no_schema_to_follow(measure):
    assert measure("tools_none", right) == {"exact": 1.0, "triggered": 1.0, "called": 0.0}


def test_who_is_always_right_in_structured_answers(measure):
    assert measure(OF_JSON, right) == {"exact": 1.0, "json_valid": 1.0, "schema_valid": 1.0}


@pytest.mark.parametrize("answer", [silent, as_text, lambda row: stored(None), lambda row: ""])
@pytest.mark.parametrize("name", OF_CALLS)
def test_who_never_calls_triggers_only_where_none_fits(measure, name, answer):
    none = float(name == "tools_none")
    assert measure(name, answer) == {"exact": none, "triggered": none, "called": 0.0}


@pytest.mark.parametrize("name", OF_CALLS)
def test_an_invented_tool_is_worth_nothing(measure, name):
    triggered = float(name != "tools_none")
    expected = {"exact": 0.0, "triggered": triggered, "schema_valid": 0.0, "called": 1.0}
    assert measure(name, inventing) == expected


def has_number(value):
    return numbers_as_texts(value) != value


@pytest.mark.parametrize("name", ["tools_one", "tools_several", "tools_parallel"])
def test_numbers_as_texts_fail_the_schema_wherever_there_is_a_number(registered, name):
    data = registered[name].data
    made = scores(spec(name), data, quoting, sorted(data.docs))
    rows = [json.loads(text) for _, text in sorted(data.docs.items())]
    numbers = [any(has_number(arguments) for _, arguments in gold_calls(row)) for row in rows]
    assert 0.5 < sum(numbers) / len(numbers) < 1
    for score, numeric in zip(made, numbers, strict=True):
        right = int(not numeric)
        assert score.metrics["none"] == {
            "exact": right,
            "triggered": 1,
            "schema_valid": right,
            "called": 1,
        }


def test_the_first_call_alone_is_valid_and_not_all(measure):
    assert measure("tools_parallel", first_only) == {**ALL, "exact": 0.0, "called": 1.0}
    assert measure("tools_several", first_only) == {**ALL, "called": 1.0}


def test_calls_in_another_order_are_the_same_and_a_repeated_one_is_not(measure):
    assert measure("tools_parallel", lambda row: calling(gold_calls(row)[::-1]))["exact"] == 1
    repeated = measure("tools_parallel", lambda row: calling([*gold_calls(row), gold_calls(row)[0]]))
    assert (repeated["exact"], repeated["schema_valid"]) == (0, 1)


def test_case_and_the_kind_of_numbers_do_not_matter(measure):
    def shouting(value):
        if isinstance(value, dict):
            return {name: shouting(one) for name, one in value.items()}
        if isinstance(value, list):
            return [shouting(one) for one in value]
        if isinstance(value, str):
            return value.upper()
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    assert measure("tools_several", lambda row: calling(shouting(gold_calls(row))))["triggered"] == 1
    made = measure("tools_several", lambda row: calling([(n, shouting(a)) for n, a in gold_calls(row)]))
    assert made["exact"] == 1
    assert made["schema_valid"] < 1  # an enum is as the schema writes it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (lambda gold: f"```json\n{gold}\n```", (0, 0, 1)),
        (lambda gold: f"Here it is:\n```\n{gold}\n```\n", (0, 0, 1)),
        (lambda gold: f" {gold}\n", (1, 1, 1)),
        (lambda gold: gold[:-1], (0, 0, 0)),
        (lambda gold: f"```json\n{gold[:-1]}\n```", (0, 0, 0)),
        (lambda gold: f"```json\n{gold}", (0, 0, 0)),
        (lambda gold: gold.replace("{", '{"beside": NaN, ', 1), (0, 0, 0)),
        (lambda gold: gold.replace("{", '{"beside": 1, ', 1), (1, 0, 0)),
        (lambda gold: gold.replace("{", '{"beside": 1, "beside": 1, ', 1), (0, 0, 0)),
        (lambda gold: f"[{gold}]", (1, 0, 0)),
        (lambda gold: "{}", (1, 0, 0)),
        (lambda gold: "null", (1, 0, 0)),
        (lambda gold: f"The answer is {gold}", (0, 0, 0)),
        (lambda gold: "", (0, 0, 0)),
    ],
)
def test_structured_answers(measure, text, expected):
    made = measure(OF_JSON, lambda row: stored(text(json.dumps(row["gold"]["json"]))))
    assert (made["json_valid"], made["schema_valid"], made["exact"]) == expected


def test_numbers_as_texts_in_structured_answers_are_json_and_no_more(measure):
    assert measure(OF_JSON, quoting) == {"json_valid": 1, "schema_valid": 0, "exact": 0}


def test_a_call_is_no_structured_answer(measure):
    made = measure(OF_JSON, lambda row: stored(None, [("answer", json.dumps(row["gold"]["json"]))]))
    assert made == {"json_valid": 0, "schema_valid": 0, "exact": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "null",
        "[]",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"city": NaN}',
        '{"city": 1e999}',
        '{"city": 1' + "0" * 10_000 + "}",
        r'{"city": "\ud800"}',
        '{"city": "\ud800"}',
        "x" * 5_000_000,
        '{"city": "' + "x" * 5_000_000 + '"}',
        '{"\x00": 1}',
        '{"$ref": "http://127.0.0.1:9/schema"}',
    ],
)
@pytest.mark.parametrize("name", ["tools_one", "tools_none", OF_JSON])
def test_hostile_arguments_are_wrong_and_cost_nothing(registered, name, arguments):
    data = registered[name].data
    began = time.process_time()
    (made,) = scores(
        spec(name),
        data,
        lambda row: stored(arguments, [(t["name"], arguments) for t in row.get("tools", [{"name": "f"}])]),
        [0],
    )
    assert time.process_time() - began < 5
    assert made.error is None
    assert (made.metrics["none"]["exact"], made.metrics["none"]["schema_valid"]) == (0, 0)
    assert len(made.extracted["none"]) < 1_100
    made.extracted["none"].encode()  # a store can hold it


#: Names that are no tool's, made of that of the right one.
HOSTILE_NAMES = [
    lambda name: "",
    lambda name: name + "\0",
    lambda name: name + "\ud800",
    lambda name: "\udc00" + name,
    lambda name: name + "\u200b",
    lambda name: (
        name[0].translate({ord(c): 0x0430 + n for n, c in enumerate("abcdefghijklmnopqrstuvwxyz")}) + name[1:]
    ),
    lambda name: name.upper(),
    lambda name: f" {name}",
    lambda name: f"functions.{name}",
    lambda name: "$" + name,
    lambda name: name * 500_000,
]


@pytest.mark.parametrize("change", HOSTILE_NAMES)
def test_hostile_names_of_tools_are_wrong(registered, change):
    data = registered["tools_one"].data

    def misnamed(row):
        return calling([(change(name), arguments) for name, arguments in gold_calls(row)])

    (made,) = scores(spec("tools_one"), data, misnamed, [0])
    assert made.metrics["none"] == {"exact": 0, "triggered": 1, "schema_valid": 0, "called": 1}
    assert len(made.extracted["none"]) < 1_100
    made.extracted["none"].encode()  # a store can hold it


@pytest.mark.parametrize("text", ["null", "5", '"Oslo"', "[{}]", "true", '[["city", "Oslo"]]'])
def test_arguments_that_are_no_object_are_wrong_even_in_the_right_call(registered, text):
    data = registered["tools_one"].data

    def told(row):
        return stored(None, [(name, text) for name, _ in gold_calls(row)])

    (made,) = scores(spec("tools_one"), data, told, [0])
    assert made.metrics["none"] == {"exact": 0, "triggered": 1, "schema_valid": 0, "called": 1}


@pytest.mark.parametrize("count", [MAX_CALLS, 5_000])
def test_of_thousands_of_calls_no_more_are_looked_at_than_an_answer_may_have(registered, monkeypatch, count):
    read = []
    monkeypatch.setattr(verdicts, "strict_object", lambda text: read.append(text) or strict_object(text))
    data = registered["tools_parallel"].data
    (made,) = scores(
        spec("tools_parallel"), data, lambda row: calling((gold_calls(row) * count)[:count]), [0]
    )
    assert len(read) == MAX_CALLS
    expected = {"exact": 0, "triggered": 1, "schema_valid": int(count == MAX_CALLS), "called": 1}
    assert made.metrics["none"] == expected
    assert len(made.extracted["none"]) < 1_100


def test_doubled_names_fail_even_where_the_last_one_is_right(measure):
    def doubled(row):
        return stored(
            None,
            [(name, json.dumps(arguments).replace("{", '{"beside": 1, "beside": 1, ', 1)) for name, arguments
             in gold_calls(row)],
        )  # fmt: skip

    def repeated(row):
        calls = []
        for name, arguments in gold_calls(row):
            text = json.dumps(arguments)
            first, value = next(iter(arguments.items()))
            calls.append((name, f"{text[:-1]}, {json.dumps(first)}: {json.dumps(value)}}}"))
        return stored(None, calls)

    for answer in (doubled, repeated):
        made = measure("tools_one", answer)
        assert (made["schema_valid"], made["exact"], made["triggered"]) == (0, 0, 1)


def test_more_calls_than_are_looked_at_are_right_in_nothing(registered):
    data = registered["tools_one"].data

    def many(row):
        return calling(gold_calls(row) * (MAX_CALLS + 1))

    (made,) = scores(spec("tools_one"), data, many, [0])
    assert made.metrics["none"] == {"exact": 0, "triggered": 1, "schema_valid": 0, "called": 1}


def test_docs_that_offer_the_same_tool_hold_it_once(registered):
    """What is handed to the framework's process and back has each tool once, however many docs offer it."""
    data = registered["tools_several"].data
    prompts = Tools().build_prompts(spec("tools_several"), data, sorted(data.docs), "chat", "seed")
    tools = [tool for prompt in prompts for tool in prompt.requests[0]["tools"]]
    different = {json.dumps(tool) for tool in tools}
    assert len({id(tool) for tool in tools}) == len(different) < len(tools) / 4


def test_what_is_no_stored_answer_is_an_error_of_its_doc_alone(registered):
    data, task = registered["tools_one"].data, spec("tools_one")
    answers = [Answered(0, [{}], [["no message"]]), Answered(1, [{}], [[right(json.loads(data.docs[1]))]])]
    first, second = Tools().score(task, data, answers)
    assert first.error is not None and "stored answer" in first.error
    assert second.metrics["none"]["exact"] == 1


# ------------------------------------------------------------------------------------ told apart


def lies(name, answer):
    """A supplier that answers so four times in five, and rightly else."""

    def told(row):
        return right(row) if hash_of(row) % 5 == 0 else answer(row)

    told.__name__ = name
    return told


def hash_of(row):
    return int.from_bytes(row["id"].encode()[-4:], "big")


PERSONAS = [
    right,
    lies("no_tools", silent),
    lies("bad_json", bad_json),
    lies("ignores_irrelevance", always_calling),
]


@pytest.fixture(scope="module")
def hundred(registered):
    """Intervals of each persona's metrics on 100 docs, 25 of each task with tools."""
    found = {}
    for persona in PERSONAS:
        made = []
        for name in OF_CALLS:
            made += scores(spec(name), registered[name].data, persona, range(25))
        intervals = {}
        for metric in ("exact", "triggered", "schema_valid", "called"):
            values = [s.metrics["none"][metric] for s in made if metric in s.metrics["none"]]
            intervals[metric] = wilson(sum(values), len(values))
        found[persona.__name__] = intervals
    return found


@pytest.mark.parametrize(("one", "other"), list(combinations([p.__name__ for p in PERSONAS], 2)))
def test_a_hundred_docs_tell_personas_apart(hundred, one, other):
    apart = [
        metric
        for metric, (low, high) in hundred[one].items()
        if high < hundred[other][metric][0] or low > hundred[other][metric][1]
    ]
    assert apart, (hundred[one], hundred[other])


def test_ten_thousand_answers_are_scored_in_seconds(registered):
    """Printed by ``pytest -s``: microseconds of CPU for one answer."""
    data, task, adapter = registered["tools_several"].data, spec("tools_several"), Tools()
    rows = {n: json.loads(text) for n, text in data.docs.items()}
    answers = [Answered(n % 240, [{}], [[right(rows[n % 240])]]) for n in range(2_000)]
    began = time.process_time()
    made = list(adapter.score(task, data, answers))
    each = (time.process_time() - began) / len(answers)
    print(f"\n{each * 1e6:.0f} us for an answer")
    assert all(score.metrics["none"]["exact"] == 1 for score in made)
    assert each < 1e-2
