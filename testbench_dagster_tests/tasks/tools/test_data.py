"""The committed starter data: reproducible, distinct, right, and said in its words."""

import gzip
import json
from collections import Counter

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.tools import TASKS, read_docs
from testbench_dagster.tasks.tools.generate import DOCS, generate
from testbench_dagster.tasks.tools.questions.calls import TOOLS
from testbench_dagster.tasks.tools.rows import TOOL_NAME, checked_row
from testbench_dagster.tasks.tools.schemas import Schemas, problem_of
from testbench_dagster.tasks.tools.starter import DATA


def test_the_generator_reproduces_the_committed_data(tmp_path):
    for made in generate(tmp_path):
        committed = (DATA / made.name).read_bytes()
        # the text decides; the packed bytes could differ under another zlib than the committer's
        assert gzip.decompress(made.read_bytes()) == gzip.decompress(committed)
        assert committed[4:8] == b"\0\0\0\0", "gzip carries a time stamp"
        assert len(committed) < 100_000


def test_docs_are_enough_and_distinct_across_tasks():
    assert DOCS >= 200
    questions = [doc["messages"][0]["content"] for task in TASKS for doc in read_docs(task)]
    assert len(set(questions)) == len(questions) == DOCS * len(TASKS)
    assert all(len({doc["id"] for doc in read_docs(task)}) == DOCS for task in TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_doc_is_a_row_and_what_is_right_is_of_its_schema(task):
    schemas = Schemas()
    for doc in read_docs(task):
        row = checked_row(doc, doc["id"], problem_of)
        assert row == doc
        if task == "tools_schema":
            assert schemas.is_valid(row["schema"], row["gold"]["json"])
            continue
        offered = {tool["name"]: tool["parameters"] for tool in row["tools"]}
        for call in row["gold"]["calls"]:
            assert schemas.is_valid(offered[call["name"]], call["arguments"])


def test_each_task_asks_what_its_name_says():
    for doc in read_docs("tools_one"):
        assert len(doc["tools"]) == len(doc["gold"]["calls"]) == 1
    for doc in read_docs("tools_several"):
        assert len(doc["tools"]) >= 4 and len(doc["gold"]["calls"]) == 1
    for doc in read_docs("tools_parallel"):
        calls = [json.dumps(call, sort_keys=True) for call in doc["gold"]["calls"]]
        assert 2 <= len(calls) == len(set(calls))
    for doc in read_docs("tools_none"):
        assert doc["tools"] and doc["gold"]["calls"] == []
    assert Counter(doc["kind"] for doc in read_docs("tools_none")).keys() == {"conversation", "tool_missing"}
    assert Counter(doc["kind"] for doc in read_docs("tools_parallel")).keys() == {
        "same_tool",
        "different_tools",
    }


def test_the_right_tool_stands_at_any_place():
    places = Counter()
    for doc in read_docs("tools_several"):
        names = [tool["name"] for tool in doc["tools"]]
        places[names.index(doc["gold"]["calls"][0]["name"]) / len(names) < 0.5] += 1
    assert min(places.values()) > DOCS / 4


def schemas_in(schema):
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from schemas_in(inner)
    if "items" in schema:
        yield from schemas_in(schema["items"])


def test_tools_are_varied():
    assert (
        len({tool.domain for tool in TOOLS}) >= 15 and len({tool.name for tool in TOOLS}) == len(TOOLS) >= 30
    )
    parameters = [tool.offer["parameters"] for tool in TOOLS]
    kinds = Counter(str(s["type"]) for p in parameters for s in schemas_in(p))
    assert {"string", "integer", "number", "boolean", "array", "object"} <= kinds.keys()
    assert sum("enum" in s for p in parameters for s in schemas_in(p)) >= 15
    assert sum("default" in s for p in parameters for s in schemas_in(p)) >= 20
    assert all(TOOL_NAME.fullmatch(tool.name) for tool in TOOLS)
    used = {call["name"] for doc in read_docs("tools_one") for call in doc["gold"]["calls"]}
    assert used == {tool.name for tool in TOOLS}


def test_forms_of_answers_are_in_the_strict_subset():
    for doc in read_docs("tools_schema"):
        for schema in schemas_in(doc["schema"]):
            assert schema.keys() <= {
                *("type", "description", "enum", "properties", "required", "additionalProperties", "items")
            }
            if schema["type"] == "object":
                assert schema["additionalProperties"] is False
                assert set(schema["required"]) == set(schema["properties"])


def words_of(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from words_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from words_of(one)
    else:
        yield value


@pytest.mark.parametrize("task", ["tools_one", "tools_several", "tools_parallel"])
def test_every_free_text_of_a_right_call_is_said_in_the_request(task):
    dates = 0
    for doc in read_docs(task):
        question = doc["messages"][0]["content"].lower()
        for call in doc["gold"]["calls"]:
            for value in words_of(call["arguments"]):
                if not isinstance(value, str) or value in ("", "car", "foot", "bicycle"):
                    continue
                if len(value) == 10 and value[4] == value[7] == "-":
                    year, _, day = value.split("-")
                    assert year in question and str(int(day)) in question
                    dates += 1
                elif len(value) == 5 and value[2] == ":":
                    assert value[3:] in question
                else:
                    assert value.lower().rstrip("ys") in question, (value, question)
    assert dates > 20


def test_another_name_is_refused_with_the_names_there_are():
    with pytest.raises(TaskError, match=r"no task 'tools_two' of its own; it has tools_one, .*data: "):
        read_docs("tools_two")
