"""Logs for Inspect: held against our list of fields, and read back by Inspect where that is installed."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.period import ALWAYS
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.publish import inspect_log
from testbench_dagster.stages.read.answers import answered_tasks
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK, CHOICE, TOOLS = "starter_logic", "starter_choice", "starter_units"
FIELDS = yaml.safe_load((Path(__file__).parent / "inspect_fields.yaml").read_text("utf-8"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {
        "tasks": [{"name": name, "samples": "all"} for name in (TASK, CHOICE, TOOLS)],
        "sampling": {"max_age_days": 30},
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        made = Asked(facts, facts.registration(TASK, n_docs=10))
        made.answer(0, 1.0, "yes", extracted="yes")
        made.answer(
            1, 0.0, "no \x00 \u202e", extracted="no", fault=Fault.TRUNCATED, at=NOW - timedelta(hours=1)
        )
        facts.fail(made.registration, 2, Fault.EMPTY, NOW, prompt_id=made.prompt(2))
        yield made


def choose(asked: Asked) -> None:
    """A choice between three options, answered by log-probabilities."""
    facts = asked.facts
    registration = facts.registration(CHOICE, 5, {"acc": "mean"}, output_type="multiple_choice")
    choice = Asked(facts, registration)
    requests = [
        {"type": "loglikelihood", "idx": i, "context": "Which is a fruit?", "continuation": f" {option}"}
        for i, option in enumerate(("stone", "pear", "bus"))
    ]
    id_ = choice.prompt(0, requests, 1, api="completions")
    for idx, logprob in enumerate((-3.5, -0.25, -4.0)):
        put_logprob(choice, id_, requests[idx], idx, logprob)
    calls = [(idx, 0) for idx in range(3)]
    choice.score(0, id_, 1.0, 1, BETA, NOW, Fault.OK, "1", None, calls=calls, metrics={"acc": 1.0})


def put_logprob(asked: Asked, prompt: str, request: dict[str, Any], idx: int, logprob: float) -> None:
    """An echo of context and continuation, whose last token carries the whole log-probability."""
    tokens = [request["context"], request["continuation"]]
    body = orjson.dumps(
        {
            "choices": [
                {
                    "text": "".join(tokens),
                    "finish_reason": "length",
                    "logprobs": {
                        "tokens": tokens,
                        "token_logprobs": [None, logprob],
                        "top_logprobs": [None, {request["continuation"]: logprob}],
                        "text_offset": [0, len(tokens[0])],
                    },
                }
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1},
        }
    )
    put(asked, prompt, body, BETA, idx)


def put(asked: Asked, prompt: str, body: bytes, supplier: str = ALPHA, idx: int = 0, doc_id: int = 0) -> None:
    relay = Relay(
        supplier=supplier,
        service="external",
        task=asked.registration.task,
        task_hash=asked.registration.task_hash,
        epoch=1,
        round=1,
        prompt_id=prompt,
        position=doc_id,
        doc_id=doc_id,
        idx=idx,
        repeat=0,
        request={},
        occasion=1,
        canary=False,
    )
    attempt = Attempt(
        Fault.OK, NOW, NOW, 1500.0, status=200, body=body, body_bytes=len(body),
        prompt_tokens=7, completion_tokens=2,
    )  # fmt: skip
    record = attempt_record(relay, 1, attempt, height=None, lease=None)
    assert typed.put_new(asked.documents, AttemptRecord, [record]) == 1


def call(asked: Asked) -> Asked:
    """A doc that is answered by a tool call with good arguments and one with bad ones."""
    tools = Asked(asked.facts, asked.facts.registration(TOOLS, 5, output_type="chat"))
    request = {
        "type": "chat",
        "idx": 0,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "Rome is there"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        "generation": {},
    }
    id_ = tools.prompt(0, [request], {"calls": []})
    calls = [
        {"id": "x", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}},
        {"id": "y", "type": "function", "function": {"name": "weather", "arguments": "Rome"}},
    ]
    message = {"content": None, "tool_calls": calls, "reasoning_content": "I look it up."}
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    put(tools, id_, body)
    tools.score(0, id_, 0.5, 1, ALPHA, NOW, Fault.OK, None, None)
    return tools


def members(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def logs(asked: Asked, out: Path, **chosen: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The members of each log by supplier and task."""
    written = Testbench(asked.facts.workspace).export(out, format="inspect", **chosen)
    found = {}
    for path, n in written.items():
        assert path.parent == out
        read = members(path)
        spec = read["header.json"]["eval"]
        assert sum(name.startswith("samples/") for name in read) == n == spec["dataset"]["samples"]
        found[spec["metadata"]["supplier"], spec["task"]] = read
    return found


def test_one_log_per_supplier_and_task_says_what_became_of_each_doc(asked: Asked, tmp_path: Path) -> None:
    choose(asked)
    found = logs(asked, tmp_path / "out")
    assert set(found) == {(ALPHA, TASK), (BETA, CHOICE)}
    log = found[ALPHA, TASK]
    assert next(iter(log)) == "_journal/start.json"
    header, right, cut, failed = (
        log["header.json"],
        *(log[f"samples/{doc}_epoch_1.json"] for doc in range(3)),
    )
    assert right["scores"]["exact_match"] == {"value": "C", "answer": "yes", "history": []}
    assert (right["output"]["completion"], right["target"]) == ("yes", "yes")
    assert [message["role"] for message in right["messages"]] == ["system", "user", "assistant"]
    assert cut["scores"]["exact_match"]["value"] == "I"
    assert cut["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert failed["error"]["message"].startswith("it failed, and counts as wrong: empty")
    assert "scores" not in failed
    assert right["completed_at"].endswith("+00:00")
    assert header["eval"]["created"] == (NOW - timedelta(hours=1)).isoformat(timespec="milliseconds")
    assert (header["results"]["total_samples"], header["results"]["completed_samples"]) == (3, 2)
    [score] = header["results"]["scores"]
    [row] = Testbench(asked.facts.workspace).scores([ALPHA], [TASK]).rows
    told = {name: metric["value"] for name, metric in score["metrics"].items()}
    assert told == {name: row[name] for name in ("score", "ci_low", "ci_high", "score_answered", "se")}
    assert told["score"] == pytest.approx(1 / 3), "the failed one counts as wrong"
    assert [one["id"] for one in log["summaries.json"]] == [0, 1, 2]
    assert [one["completed"] for one in log["summaries.json"]] == [True, True, False]


def test_options_tool_calls_thoughts_and_usage_are_what_they_are(asked: Asked, tmp_path: Path) -> None:
    choose(asked)
    call(asked)
    found = logs(asked, tmp_path / "out")
    choice = found[BETA, CHOICE]["samples/0_epoch_1.json"]
    assert choice["choices"] == ["stone", "pear", "bus"]
    assert choice["target"] == "pear"
    assert choice["output"]["completion"].splitlines() == ["stone: -3.5000", "pear: -0.2500", "bus: -4.0000"]
    assert choice["model_usage"] == {"m": {"input_tokens": 21, "output_tokens": 6, "total_tokens": 27}}
    assert found[BETA, CHOICE]["header.json"]["stats"]["model_usage"] == choice["model_usage"]
    tools = found[ALPHA, TOOLS]["samples/0_epoch_1.json"]
    message = tools["output"]["choices"][0]["message"]
    assert [one["arguments"] for one in message["tool_calls"]] == [{"place": "Rome"}, {}]
    assert "no JSON object: Rome" in message["tool_calls"][1]["parse_error"]
    assert message["content"][0] == {"type": "reasoning", "reasoning": "I look it up."}
    assert tools["output"]["choices"][0]["stop_reason"] == "tool_calls"
    assert [one["role"] for one in tools["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert tools["messages"][1]["tool_calls"][0]["function"] == "find"
    assert tools["scores"]["exact_match"]["value"] == 0.5, "graded ones stay numbers"
    assert tools["metadata"]["tools"][0]["function"]["name"] == "weather"


def test_every_field_is_one_that_inspect_knows_and_of_its_type(asked: Asked, tmp_path: Path) -> None:
    choose(asked)
    call(asked)
    for log in logs(asked, tmp_path / "out").values():
        for name, value in log.items():
            kind = "sample" if name.startswith("samples/") else Path(name).stem
            check(value, FIELDS[kind], name)


def check(value: Any, wanted: Any, where: str) -> None:
    """That a value is of the shape that the list of fields says; ``~`` marks fields that may be absent."""
    if isinstance(wanted, str):
        kinds = {
            "text": str,
            "number": (int, float),
            "whole": int,
            "flag": bool,
            "object": dict,
            "list": list,
            "nothing": type(None),
        }
        assert any(isinstance(value, kinds[one]) for one in wanted.split("|")), (where, value, wanted)
    elif isinstance(wanted, list):
        assert isinstance(value, list), where
        for number, one in enumerate(value):
            check(one, wanted[0], f"{where}[{number}]")
    elif "*" in wanted:
        for name, one in value.items():
            check(one, wanted["*"], f"{where}.{name}")
    else:
        known = {name.removesuffix("~"): one for name, one in wanted.items()}
        assert set(value) <= set(known), where
        assert {name for name in wanted if not name.endswith("~")} <= set(value), where
        for name, one in value.items():
            check(one, known[name], f"{where}.{name}")


def test_a_period_leaves_out_what_was_answered_before_or_after(asked: Asked, tmp_path: Path) -> None:
    since = NOW - timedelta(minutes=30)
    [log] = logs(asked, tmp_path / "late", since=since).values()
    assert log["header.json"]["eval"]["dataset"]["sample_ids"] == [0, 2]
    [score] = log["header.json"]["results"]["scores"]
    assert list(score["metrics"]) == ["score_answered"], "an interval is of the whole window"
    [log] = logs(asked, tmp_path / "early", until=since).values()
    assert log["header.json"]["eval"]["dataset"]["sample_ids"] == [1]
    assert logs(asked, tmp_path / "never", since=NOW + timedelta(days=1)) == {}


def test_the_same_window_gives_the_same_file(asked: Asked, tmp_path: Path) -> None:
    bench = Testbench(asked.facts.workspace)
    [path] = bench.export(tmp_path, format="inspect")
    first = path.read_bytes()
    assert list(bench.export(tmp_path, format="inspect")) == [path]
    assert path.read_bytes() == first


def test_a_part_of_a_window_takes_the_place_of_no_other(asked: Asked, tmp_path: Path) -> None:
    bench = Testbench(asked.facts.workspace)
    periods: list[dict[str, Any]] = [
        {},
        {"since": NOW - timedelta(days=2)},
        {"until": NOW + timedelta(days=2)},
        {"until": NOW + timedelta(days=3)},
        {"since": NOW - timedelta(days=2), "until": NOW + timedelta(days=2)},
    ]
    names = {path for one in periods for path in bench.export(tmp_path, format="inspect", **one)}
    assert len(names) == len(periods)


@pytest.mark.parametrize("year", [1970, 2108])
def test_dates_that_no_zip_knows_stop_nothing(asked: Asked, tmp_path: Path, year: int) -> None:
    workspace = asked.facts.workspace
    chosen = named_suppliers(workspace, [ALPHA]), workspace.chosen_specs([TASK])
    [task] = list(answered_tasks(workspace, *chosen))
    log = inspect_log._Log(task, None, ALWAYS)
    log.ended = log.ended.replace(year=year)
    assert log.write(tmp_path / "odd.eval") == 3
    assert members(tmp_path / "odd.eval")["header.json"]["stats"]["completed_at"].startswith(str(year))


def test_a_doc_that_cannot_be_shown_costs_no_other(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = inspect_log._input

    def odd(requests: Any, question: str | None) -> Any:
        if question == "Question 0?":
            raise KeyError("messages")
        return usual(requests, question)

    monkeypatch.setattr(inspect_log, "_input", odd)
    [log] = logs(asked, tmp_path / "out").values()
    assert "cannot be shown: KeyError" in log["samples/0_epoch_1.json"]["error"]["message"]
    assert log["samples/1_epoch_1.json"]["scores"]["exact_match"]["value"] == "I"


def test_texts_that_no_utf8_can_hold_are_escaped(asked: Asked, tmp_path: Path) -> None:
    message = ChatMessage("half \ud800", (ToolCall("f", '{"a": "\\ud800"}'),))
    tools = Asked(asked.facts, asked.facts.registration(TOOLS, 5, output_type="chat"))
    request = {"type": "chat", "idx": 0, "messages": [{"role": "user", "content": "?"}], "generation": {}}
    id_ = tools.prompt(0, [request])
    answer = {
        "content": message.content,
        "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": message.tool_calls[0].arguments}}],
    }
    put(tools, id_, json.dumps({"choices": [{"message": answer, "finish_reason": "stop"}]}).encode())
    log = logs(asked, tmp_path / "out")[ALPHA, TOOLS]
    json.dumps(log, ensure_ascii=False).encode("utf-8")


@pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="inspect-ai is not installed (extra: inspect)"
)
def test_inspect_reads_every_log_back(asked: Asked, tmp_path: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries

    choose(asked)
    call(asked)
    written = Testbench(asked.facts.workspace).export(tmp_path / "out", format="inspect")
    assert {Path(one.name.removeprefix("file://")) for one in list_eval_logs(str(tmp_path / "out"))} == set(
        written
    )
    for path, n in written.items():
        log, raw = read_eval_log(str(path)), members(path)
        assert log.status == "success"
        assert log.samples is not None and len(log.samples) == n
        for sample in log.samples:
            own = raw[f"samples/{sample.id}_epoch_1.json"]
            assert {name: one.value for name, one in (sample.scores or {}).items()} == {
                name: one["value"] for name, one in own.get("scores", {}).items()
            }
            assert (sample.error.message if sample.error else None) == own.get("error", {}).get("message")
            assert sample.output.completion == own["output"]["completion"]
        assert len(read_eval_log_sample_summaries(str(path))) == n
