"""Commands that show answers, history and one supplier: what they print, and that nothing in it acts."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.cli.read import _courses, _indented, _markdown, sparkline
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.acceptance.test_docs import documented_keys
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK = "starter_logic"
HOSTILE = "\x1b[2J\x1b]0;mine\x07<script>\u202egnp.exe\u2066\x00``````\n# heading\n[bold red]x[/]"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {
        "tasks": [{"name": TASK, "samples": "all"}, {"name": "starter_units", "samples": "all"}],
        "sampling": {"max_age_days": 30},
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        asked = Asked(facts, facts.registration(TASK, n_docs=40))
        for doc_id in range(12):
            asked.answer(doc_id, float(doc_id % 2), f"answer {doc_id}", extracted=f"x{doc_id}")
        asked.answer(20, 0.0, HOSTILE, extracted=HOSTILE, target=HOSTILE, fault=Fault.TRUNCATED)
        asked.facts.attempt(asked.registration, 30, Fault.SUPPLIER_HTTP, NOW, prompt_id=asked.prompt(30))
        refresh_window_cache(workspace, [ALPHA, BETA])
        take_snapshots(workspace, NOW.date() - timedelta(days=2))
        take_snapshots(workspace, NOW.date())
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-c", str(folder / "testbench.yaml"), *arguments])


def test_five_wrong_answers_in_one_command(folder: Path) -> None:
    done = run(folder, "answers", "-s", ALPHA, "-t", TASK, "--wrong", "--limit", "5")
    assert done.exit_code == 0
    assert re.findall(r"^doc (\d+) · wrong · exact_match 0", done.stdout, re.MULTILINE) == [
        "0", "2", "4", "6", "8",
    ]  # fmt: skip
    block = done.stdout.split("\n\n")[1]
    for line in ("question   Question 2?", "expected   yes", "answered   answer 2", "extracted  x2"):
        assert f"  {line}\n" in block + "\n"
    assert "14 docs: right 6, wrong 7, open 1; of these truncated 1" in done.stderr
    assert "--after 8" in done.stderr
    rest = run(folder, "answers", "-s", ALPHA, "-t", TASK, "--wrong", "--after", "8")
    assert re.findall(r"^doc (\d+)", rest.stdout, re.MULTILINE) == ["10", "20"]
    assert "--after" not in rest.stderr


@pytest.mark.parametrize(
    ("chosen", "docs"),
    [
        (["--right"], [1, 3, 5, 7, 9]),
        (["--open"], [30]),
        (["--failed"], []),
        (["--truncated"], [20]),
        (["--different"], []),
        (["--kind", "graded"], []),
        (["--search", "ANSWER 11"], [11]),
        (["--limit", "2"], [0, 1]),
    ],
)
def test_docs_are_chosen(folder: Path, chosen: list[str], docs: list[int]) -> None:
    done = run(folder, "answers", "-s", ALPHA, "-t", TASK, *chosen, "--format", "json")
    assert done.exit_code == 0
    assert [row["doc_id"] for row in json.loads(done.stdout)] == docs


def test_lines_of_json_are_a_row_each(folder: Path) -> None:
    done = run(folder, "answers", "-s", ALPHA, "-t", TASK, "--format", "jsonl", "--limit", "3")
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == [
        f"answer {n}" for n in range(3)
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("format_", ["table", "markdown"])
def test_nothing_a_supplier_wrote_acts_on_a_terminal_or_in_markdown(folder: Path, format_: str) -> None:
    done = run(folder, "answers", "-s", ALPHA, "-t", TASK, "--truncated", "--format", format_)
    assert done.exit_code == 0
    assert not ACTS.search(done.stdout)
    assert "\\x1b[2J" in done.stdout
    assert "\\u202egnp" in done.stdout
    if format_ == "markdown":
        fence = max(re.findall("^(`{3,})text$", done.stdout, re.MULTILINE), key=len)
        assert len(fence) > 6, "longer than any in the text"


ROW = {
    "supplier": "a@x", "task": "t", "doc_id": 1, "kind": "wrong", "value": 0.0, "metric": "m",
    "truncated": False, "attempts": 1, "latency_ms": 1.0, "at": "2026-11-01T00:00:00+00:00", "question": None,
    "target": None,
    "model": "m", "reasoning": None, "extracted": None, "fault": None, "owner": None, "error": None,
}  # fmt: skip


@given(st.text())
def test_a_text_stays_in_its_place(text: str) -> None:
    shown = _indented("answered", text)
    assert not ACTS.search(shown)
    assert all(line.startswith("  ") or not line.strip() for line in shown.split("\n"))
    lines = _markdown({**ROW, "answer": text}).split("\n")
    [opening] = [n for n, line in enumerate(lines) if re.fullmatch("`{3,}text", line)][:1]
    fence = lines[opening].removesuffix("text")
    closing = [n for n, line in enumerate(lines) if n > opening and line.strip().startswith(fence)]
    assert closing == [len(lines) - 2], "nothing in the text ends its fence"


def test_a_long_text_is_cut_and_says_so() -> None:
    shown = _indented("answered", "x" * 5_000)
    assert len(shown) < 1_700
    assert shown.endswith("… (5,000 characters; --format json has them all)")


def test_one_doc_with_its_attempts(folder: Path) -> None:
    done = run(folder, "answers", "-s", ALPHA, "-t", TASK, "--doc", "30")
    assert done.exit_code == 0
    assert "doc 30 · open · 1 attempt" in done.stdout
    assert "fault      supplier_http (supplier)" in done.stdout
    assert re.search(r"attempt    .* request 1, sample 1, attempt 1: supplier_http, HTTP 200", done.stdout)
    [row] = json.loads(
        run(folder, "answers", "-s", ALPHA, "-t", TASK, "--doc", "3", "--format", "json").stdout
    )
    assert [attempt["text"] for attempt in row["sent"]] == ["answer 3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", ALPHA, "-t", TASK, "--doc", "39"], "doc 39 of task starter_logic is not in the window"),
        (["-s", "nobody@x", "-t", TASK], "supplier 'nobody@x' is not on the roster"),
        (["-s", ALPHA, "-t", "nope"], "task 'nope' is not configured"),
        (["-s", ALPHA, "-t", TASK, "--wrong", "--kind", "right"], "--wrong and --kind right are both given"),
        (["-s", ALPHA, "-t", TASK, "--doc", "1", "--search", "x"], "--doc names one doc"),
        (["-s", ALPHA, "-t", TASK, "--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_shown_is_told(folder: Path, arguments: list[str], said: str) -> None:
    done = run(folder, "answers", *arguments)
    assert done.exit_code != 0
    assert said in f"{done.stderr}{done.exception}"


def test_history_day_by_day(folder: Path) -> None:
    done = run(folder, "history", "-s", ALPHA, "-t", TASK, "--format", "json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [row["day"] for row in rows] == [(NOW.date() - timedelta(days=d)).isoformat() for d in (2, 0)]
    assert {row["source"] for row in rows} == {"snapshot"}
    assert {row["model"] for row in rows} == {None}, "the roster was never refreshed"
    today = run(folder, "history", "-s", ALPHA, "--since", NOW.date().isoformat(), "--format", "json")
    assert {row["day"] for row in json.loads(today.stdout)} == {NOW.date().isoformat()}
    table = run(folder, "history", "-s", ALPHA, "--since", "all").stdout
    assert TASK in table and "snapshot" in table


@pytest.mark.parametrize("since", ["30", "30x", "yesterday", "-3d", ""])
def test_a_wrong_since_is_told(folder: Path, since: str) -> None:
    done = run(folder, "history", "-s", ALPHA, f"--since={since}")
    assert done.exit_code == 2
    assert "neither a number of days (30d) or weeks (8w) nor a date" in " ".join(done.stderr.split())


def test_courses_of_scores() -> None:
    def point(day: int, score: float | None, **more: Any) -> dict[str, Any]:
        row = {"day": f"2026-11-0{day}", "task": "t", "taxonomy": None, "node": None, "n": 5, "cut": False}
        return {**row, "score": score, "ci_low": None, "ci_high": None, **more}

    rows = [point(1, 0.0), point(2, None), point(3, 0.5), point(4, 1.0, ci_low=0.9, ci_high=1.0, cut=True)]
    assert list(_courses(rows)) == ["t  ▁▅█  1.000 (0.900–1.000)  2026-11-04, n 5, model changed 2026-11-04"]
    of_node = [{**point(1, 0.5), "task": None, "taxonomy": "starter", "node": "overall"}]
    assert list(_courses(of_node)) == ["starter: overall  ▄  0.500  2026-11-01, n 5"]
    assert list(_courses([])) == []


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=50))
def test_a_sparkline_has_a_bar_for_each_value(values: list[float | None]) -> None:
    line = sparkline(values)
    known = [v for v in values if v is not None]
    if not known:
        assert line == ""
        return
    assert len(line) == len(values)
    assert [c == " " for c in line] == [v is None for v in values]
    if max(known) - min(known) > 1e-6:
        assert line[values.index(max(known))] == "█"
        assert line[values.index(min(known))] == "▁"


def test_one_supplier_at_a_glance(folder: Path) -> None:
    done = run(folder, "show", ALPHA)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{ALPHA}  active\n  model      m (chat)\n")
    assert "this week  13 attempts answered, 1 not, supplier_http 1" in done.stdout
    assert re.search(
        rf"^  {TASK} +0\.\d{{3}} \(0\.\d+–0\.\d+\)  n 13  cut by: 1 open, 1 cut at", done.stdout, re.M
    )
    assert f"next: testbench answers -s {ALPHA} -t {TASK} --wrong" in done.stderr
    told = json.loads(run(folder, "show", ALPHA, "--format", "json").stdout)
    assert set(told) == documented_keys("Fields of `testbench show --format json`")
    assert (told["supplier"], told["model"], told["change"]) == (ALPHA, "m", None)
    assert told["faults"] == {"ok": 12, "supplier_http": 1, "truncated": 1}
    assert [row["task"] for row in told["windows"]] == [TASK, "starter_units"]
    stranger = run(folder, "show", "nobody@x")
    assert stranger.exit_code != 0


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["scores"], ["model"]),
        (["plan"], ["model"]),
        (["history", "-s", ALPHA], ["model"]),
        (["answers", "-s", ALPHA, "-t", TASK], ["model"]),
        (["compare", ALPHA, BETA], ["model_a", "model_b"]),
    ],
)
def test_every_row_says_whose_model_it_is_about(folder: Path, command: list[str], names: list[str]) -> None:
    if command[0] == "history":
        with Workspace.open(folder / "testbench.yaml") as workspace:
            refresh_roster(workspace, NOW - timedelta(days=1))
    rows = json.loads(run(folder, *command, "--format", "json").stdout)
    assert rows
    said = {row[name] for row in rows for name in names}
    # of the day before the roster knew anybody, nobody knows
    assert said == ({None, "m"} if command[0] == "history" else {"m"})


@pytest.mark.parametrize("command", ["scores", "plan", "identity", "taxonomies", "leaderboard"])
def test_suppliers_are_chosen_by_model(folder: Path, command: str) -> None:
    path = folder / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["suppliers"][1]["model"] = "other-7b"
    settings["taxonomies"] = ["builtin:starter"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        testbench.refresh_identity()
        refresh_summaries(testbench._workspace, [ALPHA, BETA])
    for patterns, models in (
        (["other*"], {"other-7b"}),
        (["!other*"], {"m"}),
        (["m", "oth?r-7b"], {"m", "other-7b"}),
    ):
        done = run(folder, command, *(f"--model={one}" for one in patterns), "--format", "json")
        assert done.exit_code == 0, done.stderr
        assert {row["model"] for row in json.loads(done.stdout)} == models, patterns
    nobody = run(folder, command, "--model", "Other*")
    assert "no supplier claims a model like 'Other*'; models are: m, other-7b" in str(nobody.exception)
