"""Rows of one's own: read from files, checked where they come in, and asked as they are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.task import TaskGeneration
from testbench_dagster.tasks.given import checked_registration
from testbench_dagster.tasks.plugs import TOOLS
from testbench_dagster.tasks.tools.adapter import Tools
from testbench_dagster_tests.tasks.tools.scripted import calling, means, right, scores, spec, stored

WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/days"}},
        "required": ["city"],
        "$defs": {"days": {"type": "integer", "minimum": 1}},
    },
}
TEMPERATURE = {"type": "object", "properties": {"celsius": {"type": "number"}}, "required": ["celsius"]}


def row(**changes):
    found = {
        "messages": [{"role": "user", "content": "Weather in Oslo?"}],
        "tools": [WEATHER],
        "gold": {"calls": [{"name": "weather", "arguments": {"city": "Oslo"}, "also": {"days": [1]}}]},
    }
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def structured(**changes):
    return row(**{"tools": None, "schema": TEMPERATURE, "gold": {"json": {"celsius": 5}}, **changes})


def write(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return {"test": path}


def test_own_rows_are_registered_asked_and_scored(tmp_path):
    wrapped = row(tools=[{"type": "function", "function": WEATHER}])
    none = row(gold={"calls": []}, tools=[WEATHER, {"name": "ping"}])
    data = write(tmp_path / "own.jsonl", wrapped, none)
    task = spec("mine", data)
    registered = Tools().register(task)
    assert registered.splits == {"test": 2}
    assert list(registered.data.flags.metrics) == ["exact", "triggered", "schema_valid", "called"]
    first, second = Tools().build_prompts(task, registered.data, [1, 0], "chat", "seed")
    (request,) = first.requests
    assert (first.doc_id, first.target, first.relayable) == (0, wrapped["gold"], True)
    assert request == {
        "type": "chat",
        "idx": 0,
        "messages": wrapped["messages"],
        "generation": {"until": [], "max_gen_toks": 1024, "temperature": 0},
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": "auto",
    }
    assert [tool["function"]["name"] for tool in second.requests[0]["tools"]] == ["weather", "ping"]
    assert means(scores(task, registered.data, right, [0, 1]))["exact"] == 1
    two_days = calling([("weather", {"city": "Oslo", "days": 1})])
    (made,) = scores(task, registered.data, lambda row: two_days, [0])
    assert made.metrics["none"] == {"exact": 1, "triggered": 1, "schema_valid": 1, "called": 1}
    no_days = calling([("weather", {"city": "Oslo", "days": 0})])
    (made,) = scores(task, registered.data, lambda row: no_days, [0])
    assert made.metrics["none"] == {"exact": 0, "triggered": 1, "schema_valid": 0, "called": 1}


def test_structured_rows_ask_for_their_form(tmp_path):
    task = spec("mine", write(tmp_path / "own.jsonl", structured(schema_name="temperature")))
    registered = Tools().register(task)
    assert list(registered.data.flags.metrics) == ["exact", "json_valid", "schema_valid"]
    ((request,),) = [p.requests for p in Tools().build_prompts(task, registered.data, [0], "chat", "s")]
    form = {"name": "temperature", "strict": True, "schema": TEMPERATURE}
    assert request["response_format"] == {"type": "json_schema", "json_schema": form}
    assert not request.keys() & {"tools", "tool_choice"}


def test_another_value_may_be_as_good(tmp_path):
    task = spec(
        "mine", write(tmp_path / "own.jsonl", structured(gold={"json": {"celsius": 5}, "also": [{}]}))
    )
    data = Tools().register(task).data
    (made,) = scores(task, data, lambda row: stored("{}"), [0])
    assert made.metrics["none"] == {"exact": 1, "json_valid": 1, "schema_valid": 0}


def test_without_tools_nothing_is_offered(tmp_path):
    task = spec("mine", write(tmp_path / "own.jsonl", row(tools=[], gold={"calls": []})))
    data = Tools().register(task).data
    (prompt,) = Tools().build_prompts(task, data, [0], "chat", "s")
    assert not prompt.requests[0].keys() & {"tools", "tool_choice", "response_format"}


def test_where_any_call_will_do_exact_is_no_metric(tmp_path):
    task = spec("mine", write(tmp_path / "own.jsonl", row(gold={"calls": None})))
    data = Tools().register(task).data
    assert list(data.flags.metrics) == ["triggered", "schema_valid", "called"]
    (made,) = scores(task, data, lambda row: calling([("weather", {"city": "Bergen"})]), [0])
    assert made.metrics["none"] == {"triggered": 1, "schema_valid": 1, "called": 1}


def test_settings_change_what_is_asked_and_the_hash(tmp_path):
    data = write(tmp_path / "own.jsonl", row())
    plain = Tools().register(spec("mine", data))
    asked = TaskGeneration(max_tokens=77, temperature=0.6, stop=("END",), system="Be brief.")
    task = spec("mine", data, generation=asked)
    registered = Tools().register(task)
    assert registered.task_hash != plain.task_hash
    assert registered.fingerprint == plain.fingerprint
    (prompt,) = Tools().build_prompts(task, registered.data, [0], "chat", "s")
    (request,) = prompt.requests
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["generation"] == {"until": ["END"], "max_gen_toks": 77, "temperature": 0.6}


def test_the_hash_follows_the_rows(tmp_path):
    one = Tools().register(spec("mine", write(tmp_path / "a.jsonl", row())))
    same = Tools().register(spec("mine", write(tmp_path / "b.jsonl", row())))
    assert (one.task_hash, one.config_hash) == (same.task_hash, same.config_hash)
    told = row(messages=[{"role": "user", "content": "Weather in Rome?"}])
    other = Tools().register(spec("mine", write(tmp_path / "a.jsonl", told)))
    assert other.task_hash != one.task_hash


@pytest.mark.parametrize("generation", [TaskGeneration(), TaskGeneration(max_tokens=50, system="Be brief.")])
def test_a_stored_task_is_identified_by_its_fingerprint(tmp_path, generation):
    task = spec("mine", write(tmp_path / "own.jsonl", row()), generation=generation)
    made = Tools().register(task)
    # the store sorts metrics by name, and keeps their order and what the task was made from beside them
    metrics = dict(sorted(made.data.flags.metrics.items()))
    order = list(made.data.flags.metrics)
    flags = replace(made.data.flags, metrics=metrics, metric_order=order, source="s", definition="d")
    data = replace(made.data, docs={0: made.data.docs[0]}, flags=flags)
    without_files = replace(task, data=None)
    assert Tools().identify(without_files, data, made.fingerprint) == (made.task_hash, made.config_hash)
    other = replace(task, generation=TaskGeneration(max_tokens=51))
    assert Tools().identify(other, data, made.fingerprint) != (made.task_hash, made.config_hash)


def tool(**changes):
    return row(tools=[{**WEATHER, **changes}])


def gold(**changes):
    return row(gold={"calls": [{"name": "weather", "arguments": {"city": "Oslo"}, **changes}]})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (gold(arguments={"city": float("nan")}), "holds a value that JSON has no form for"),
        (row(messages=[]), "messages must be a list with at least one"),
        (row(messages=[{"role": "tool", "content": "x"}]), r"messages\[0\] must be .* role \(assistant, dev"),
        (row(messages=[{"role": "user", "content": None}]), r"messages\[0\]"),
        (row(gold=5), "gold must be an object"),
        (row(gold={}), r"gold.calls must be a list of the calls that are right: \[\] where none"),
        (row(tools=None), "tools must be a list of at most 128 tools, or give a schema"),
        (row(tools=[WEATHER] * 129), "at most 128"),
        (row(tools=[WEATHER, WEATHER]), "'weather' is offered twice; rename"),
        (row(tools=["weather"]), r"tools\[0\] must be an object with name"),
        (tool(name="get.weather"), "is 'get.weather'; use 1 to 64 letters"),
        (tool(name="w" * 65), "use 1 to 64"),
        (tool(parameters={"type": "string"}), "must be a JSON Schema of the type object"),
        (
            tool(parameters={"type": "object", "properties": {"a": {"type": "dict"}}}),
            "is no JSON Schema .* at properties/a/type: 'dict'",
        ),
        (
            tool(parameters={"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/s"}}}),
            "refers to 'http://127.0.0.1:9/s'; write that part into the schema, nothing is fetched",
        ),
        (
            tool(parameters={"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}),
            "refers to '#/\\$defs/b', which it does not hold",
        ),
        (tool(description=5), "description must be a text"),
        (row(messages=[{"role": [], "content": "x"}]), r"messages\[0\]"),
        (gold(name=["weather"]), r"gold.calls\[0\].name must be one of the tools"),
        (gold(name="forecast"), r"gold.calls\[0\].name must be one of the tools offered: weather"),
        (gold(arguments=[]), r"gold.calls\[0\].arguments must be an object"),
        (gold(also={"city": "Rome"}), "also must map arguments to lists"),
        (gold(optional="city"), "optional must list arguments"),
        (row(tools=[], gold={"calls": None}), "gold.calls must be a list"),
        (structured(tools=[WEATHER]), "has both tools and schema"),
        (structured(schema={"type": "array"}), "schema must be a JSON Schema of the type object"),
        (structured(schema={"type": "object", "required": 5}), "schema is no JSON Schema"),
        (structured(schema_name="a b"), "schema_name is 'a b'"),
        (structured(gold={"value": 1}), "gold must hold json"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_field(wrong, message, tmp_path):
    data = write(tmp_path / "own.jsonl", row(), wrong)
    with pytest.raises(TaskError, match=r"own\.jsonl: row 2: .*" + message):
        Tools().register(spec("mine", data))


def test_rows_of_two_kinds_are_two_tasks(tmp_path):
    data = write(tmp_path / "own.jsonl", row(), structured())
    with pytest.raises(TaskError, match="some rows have tools, others a schema; make two tasks"):
        Tools().register(spec("mine", data))
    data = write(tmp_path / "own.jsonl", row(), row(gold={"calls": None}))
    with pytest.raises(TaskError, match="any call will do, and not in others; make two tasks"):
        Tools().register(spec("mine", data))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"metric": "acc"}, "'acc' is no metric of it; there are: exact, triggered, schema_valid, called"),
        (
            {"metric": "schema_valid"},
            "none of these would pay; choose one of exact, triggered, called",
        ),
        ({"filter_": "strict"}, "'strict' is no filter of it; there are: none"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(wanted, message, tmp_path):
    chosen = spec("mine", write(tmp_path / "own.jsonl", row()), **wanted)
    with pytest.raises(TaskError, match=message):
        checked_registration(TOOLS, chosen, Tools().register(chosen))


def test_a_structured_task_may_be_ranked_by_its_schema(tmp_path):
    chosen = spec("mine", write(tmp_path / "own.jsonl", structured()), metric="schema_valid")
    assert checked_registration(TOOLS, chosen, Tools().register(chosen))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "own.jsonl"}, "gives train, but no test: <file> with rows"),
        ({"test": "own.jsonl", "train": "own.jsonl"}, "gives train, which means nothing"),
        ({"test": "own.jsonl", "answers": "own.jsonl"}, "holds no questions of BFCL, .* remove it"),
    ],
)
def test_files_that_mean_nothing_are_named(splits, message, tmp_path):
    write(tmp_path / "own.jsonl", row())
    with pytest.raises(TaskError, match=message):
        Tools().register(spec("mine", {name: tmp_path / path for name, path in splits.items()}))


def test_no_schema_makes_the_framework_look_elsewhere(monkeypatch, tmp_path):
    """What a supplier sends is data: a reference in it is looked up nowhere."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    task = spec("mine", write(tmp_path / "own.jsonl", row()))
    data = Tools().register(task).data
    sent = {"$ref": "http://127.0.0.1:9/s", "$schema": "http://127.0.0.1:9/m", "city": "Oslo"}
    (made,) = scores(task, data, lambda row: calling([("weather", sent)]), [0])
    assert made.metrics["none"] == {"exact": 0, "triggered": 1, "schema_valid": 1, "called": 1}
