"""Scores of groups: those of ``simple_evaluate`` on the same answers, and what becomes of lacking docs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from testbench_dagster.api import Testbench
from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.feeds import feed
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.score.task_groups import with_groups
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.combinations import wilson_of_mean
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration
from testbench_dagster_tests.tasks import layouts
from testbench_dagster_tests.tasks.parity import Case, Side, evaluated, ours, specs_of
from testbench_dagster_tests.tasks.test_parity import BBH_CASE, MMLU_CASE

LEAF = """
dataset_path: tests/sums
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
num_fewshot: 0
"""
EXACT = """
include: _leaf
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
FILTERED = (
    EXACT
    + """
filter_list:
  - {name: last, filter: [{function: regex, regex_pattern: "(\\\\d+)$"}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
"""
)
SIZES = {"sums_a": 3, "sums_b": 11, "sums_c": 7, "sums_d": 5}


def leaf(name: str, text: str) -> str:
    return f"task: {name}\ndataset_name: {name}\n{text}"


#: A group of groups: by size and not, with filters found and named, one inline, one name twice.
YAML = {
    "_leaf": LEAF,
    "sums_a.yaml": leaf("sums_a", FILTERED),
    "sums_b.yaml": leaf("sums_b", FILTERED),
    "sums_c.yaml": leaf("sums_c", FILTERED),
    "sums_d.yaml": leaf("sums_d", EXACT),
    "sums_first.yaml": """
group: sums_first
task: [sums_a, sums_b]
aggregate_metric_list: {metric: exact_match, weight_by_size: false}
""",
    "sums_plain.yaml": "group: sums_plain\ntask: [sums_c]\n",
    "sums.yaml": """
group: sums
task:
  - sums_first
  - group: rest
    task: [sums_c, sums_d]
    aggregate_metric_list: [{metric: exact_match, filter_list: last}]
  - sums_plain
aggregate_metric_list:
  - {metric: exact_match, filter_list: [whole, last], aggregation: mean, weight_by_size: true}
  - {metric: exact_match, filter_list: none, weight_by_size: true}
""",
}


def sums(name: str | None) -> layouts.Splits:
    """As many docs as the task has."""
    n = SIZES[str(name)]
    return {"test": [{"question": f"{name}: {i} + {n}?", "answer": str(i + n)} for i in range(n)]}


def answers(doc: dict[str, Any]) -> list[str]:
    return [doc["answer"], f"It is {doc['answer']}", "It is 1000", "no idea"]


SUMS = Case(
    "sums", sums, answers, ("starter",), dataset_names=tuple(SIZES), own_yaml=YAML, limit=None, num_fewshot=0
)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    """Opens an installation with tasks of a folder."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    found: list[Workspace] = []

    def build(tasks: list[dict[str, Any]], files: Mapping[str, str] = YAML) -> Facts:
        own = tmp_path / "own"
        own.mkdir(exist_ok=True)
        for name, text in files.items():
            (own / name).write_text(text, encoding="utf-8")
        settings = {
            "tasks": tasks,
            "task_paths": [str(own)],
            "sampling": {"window": 2000, "max_age_days": 9000},
        }
        found.append(Workspace(configuration(tmp_path, settings)))
        return Facts(found[-1])

    yield build
    for workspace in found:
        workspace.close()


def stored(facts: Facts, sides: Mapping[str, Side]) -> None:
    """Store the results of tasks as the scoring stage does."""
    for spec in facts.workspace.specs:
        results = sides[spec.leaf].results
        filters = tuple(results[0])
        metrics = dict.fromkeys(results[0][filters[0]], "mean")
        task = facts.registration(spec.name, n_docs=len(results), metrics=metrics, filters=filters)
        for doc_id, by_filter in results.items():
            facts.score(task, doc_id, metrics=by_filter)


def group_rows(facts: Facts, supplier: str = ALPHA) -> dict[tuple[str, str | None, str | None], Window]:
    rows = windows(facts.workspace, suppliers=[supplier], now=NOW)
    found = with_groups(rows, facts.workspace.groups)
    assert found[: len(rows)] == rows
    return {(row.task, row.metric, row.filter): row for row in found[len(rows) :]}


def compare(case: Case, folder: Path, facts: Facts) -> dict[tuple[str, str | None, str | None], Window]:
    """Every group result of lm-eval is ours, to the last bit, and we have no others."""
    folder.mkdir()
    specs = specs_of(case, folder)
    results, _ = evaluated(case, folder / "yaml", bootstrap_iters=1)
    stored(facts, {spec.leaf: ours(case, spec) for spec in specs})
    rows = group_rows(facts)
    expected = {
        (name, *key.split(",")): (value, found[key.replace(",", "_stderr,")])
        for name, found in results["groups"].items()
        for key, value in found.items()
        if "," in key and "_stderr," not in key
    }
    assert rows.keys() == expected.keys()
    of_task = {spec.leaf: spec.name for spec in specs}
    for key, (score, stderr) in expected.items():
        row = rows[key]
        assert (row.score, row.score_answered) == (score, score), key
        leaves = [
            leaf for leaf in leaves_of(results, key[0]) if f"{key[1]},{key[2]}" in results["results"][leaf]
        ]
        assert row.n == sum(results["results"][leaf]["sample_len"] for leaf in leaves)
        group = next(g for g in facts.workspace.groups if g.name == key[0])
        assert list(group.tasks) == [of_task[leaf] for leaf in leaves_of(results, key[0])]
        by_size = next(m for m in group.metrics if m.metric == key[1]).weight_by_size
        assert row.se is not None and row.ci_low is not None and row.ci_high is not None
        assert row.ci_low <= row.score <= row.ci_high
        if by_size and len(set(leaves)) == len(leaves):
            # lm-eval divides its pooled variance by the docs less the tasks, which we do not
            assert row.se * math.sqrt(row.n / (row.n - len(leaves))) == pytest.approx(stderr, rel=1e-12)
    return rows


def leaves_of(results: Mapping[str, Any], name: str) -> list[str]:
    """The tasks below a group, as lm-eval's own results tell them."""
    children = results["group_subtasks"].get(name)
    return [name] if children is None else [leaf for child in children for leaf in leaves_of(results, child)]


def test_nested_groups_are_those_of_simple_evaluate(opened: Callable[..., Facts], tmp_path: Path) -> None:
    facts = opened([{"name": "sums", "samples": "all"}])
    rows = compare(SUMS, tmp_path / "case", facts)
    assert set(rows) == {
        ("sums", "exact_match", "whole"),
        ("sums", "exact_match", "last"),
        ("sums", "exact_match", "none"),
        ("sums_first", "exact_match", "last"),
        ("sums_first", "exact_match", "whole"),
        ("sums::rest", "exact_match", "last"),
    }
    scores = [row.score for row in rows.values()]
    assert len(set(scores)) > 3, "scores that are all alike would prove little"
    first = rows["sums_first", "exact_match", "last"]
    means = {
        row.task: row for row in windows(facts.workspace, suppliers=[ALPHA], now=NOW) if row.filter == "last"
    }
    a, b = means["sums_a"], means["sums_b"]
    assert first.score == (a.score + b.score) / 2 != (3 * a.score + 11 * b.score) / 14
    assert (first.ci_low, first.ci_high) == pytest.approx(
        wilson_of_mean([0.5, 0.5], [a.score, b.score], [3, 11])
    )
    # the variance of a mean of two: lm-eval's, but for its division of each by one doc less
    assert first.se == pytest.approx(math.hypot(a.se, b.se) / 2)
    assert (first.kind, first.group, first.status, first.task_hash) == ("group", "sums", "ok", None)
    whole = rows["sums", "exact_match", "whole"]
    # sums_c stands in two of its groups: it weighs twice, as there, and is no evidence for itself
    assert (whole.group, whole.n) == (None, 3 + 11 + 7 + 7)
    assert [row.primary for row in rows.values() if row.task == "sums"] == [True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmlu", "bbh_cot_fewshot"])
def test_groups_of_lm_eval_on_public_data(name: str, opened: Callable[..., Facts], tmp_path: Path) -> None:
    if not layouts.DATA.is_dir():
        pytest.skip("needs ../shared")
    case = {
        "mmlu": replace(MMLU_CASE, only=None, num_fewshot=0, limit=6),
        "bbh_cot_fewshot": replace(BBH_CASE, limit=4),
    }[name]
    facts = opened([{"name": name, "samples": "all"}], {})
    rows = compare(case, tmp_path / "case", facts)
    assert len(rows) == {"mmlu": 5, "bbh_cot_fewshot": 1}[name]


def quarters(facts: Facts, supplier: str = ALPHA) -> None:
    """Scores of two tasks of 8 docs by two filters: 3 of 4 and 1 of 8."""
    for name, right, n in (("sums_a", 3, 4), ("sums_b", 1, 8)):
        task = facts.registration(name, n_docs=8, filters=("last", "whole"))
        for doc in range(n):
            value = float(doc < right)
            facts.score(
                task, doc, supplier=supplier, metrics={f: {"exact_match": value} for f in ("last", "whole")}
            )


BY_SIZE = {**YAML, "sums_first.yaml": YAML["sums_first.yaml"].replace("false", "true")}
FIRST = ("sums_first", "exact_match", "last")


def test_failed_docs_count_as_wrong_and_open_ones_widen_the_interval(opened: Callable[..., Facts]) -> None:
    facts = opened([{"name": "sums_first", "samples": "all"}], BY_SIZE)
    quarters(facts)
    before = group_rows(facts)[FIRST]
    assert (before.score, before.n, before.n_planned, before.coverage) == (4 / 12, 12, 16, 0.75)
    assert (before.status, before.failures) == ("ok", "as_worst")
    assert (before.bound_low, before.bound_high) == (4 / 12, 4 / 12)
    task = facts.workspace.datasets.current("sums_a")
    assert task is not None
    for doc in (4, 5):
        facts.fail(task, doc)
    after = group_rows(facts)[FIRST]
    assert (after.n, after.n_failed, after.errors) == (12, 2, {"supplier_refused": 2})
    assert after.score == (3 / 6 * 6 + 1 / 8 * 8) / 14 == 4 / 14
    assert after.score_answered == before.score, "lm-eval's number is over answered docs"
    facts.attempt(task, 6, Fault.SUPPLIER_TIMEOUT)
    open_ = group_rows(facts)[FIRST]
    assert (open_.status, open_.n_open, open_.score) == ("partial", 1, pytest.approx(4 / 15))
    assert open_.ci_low < after.ci_low + 0.05 and open_.ci_high > 4 / 15
    assert (open_.bound_low, open_.bound_high) == (pytest.approx(4 / 15), pytest.approx(5 / 15))


def test_a_group_takes_all_of_its_tasks(opened: Callable[..., Facts]) -> None:
    """A score of some of its tasks would be that of another group."""
    facts = opened([{"name": "sums_first", "samples": "all"}])
    assert {key: row.status for key, row in group_rows(facts).items()} == {
        ("sums_first", "exact_match", None): "no_data"
    }
    task = facts.registration("sums_a", n_docs=2, filters=("last", "whole"))
    facts.score(task, 0, metrics={f: {"exact_match": 1.0} for f in ("last", "whole")})
    row = group_rows(facts)[FIRST]
    assert (row.status, row.score, row.ci_low, row.score_answered, row.n) == ("no_data", None, None, 1.0, 1)
    quarters(facts, BETA)
    assert group_rows(facts, BETA)[FIRST].score == (3 / 4 + 1 / 8) / 2
    assert group_rows(facts)[FIRST].status == "no_data"
    assert {row.status for row in group_rows(facts, BETA).values()} == {"ok"}


def test_where_groups_of_tasks_are_shown(opened: Callable[..., Facts], tmp_path: Path) -> None:
    facts = opened(
        [
            {"name": "sums", "samples": "all", "only": ["sums_a", "sums_b"]},
            {"name": "sums_first", "alias": "mine", "samples": "all"},
            {"name": "sums_plain", "alias": "plain"},
        ]
    )
    groups = facts.workspace.groups
    assert [(g.name, g.root, g.tasks) for g in groups] == [
        ("sums_first", "sums", ("sums_a", "sums_b")),
        ("mine", "mine", ("mine__sums_a", "mine__sums_b")),
    ], "not of sums, of which a part is configured, nor of a group that lm-eval gives no score"
    assert [s.name for s in facts.workspace.chosen_specs(["sums_first"])] == ["sums_a", "sums_b"]
    with pytest.raises(ConfigError, match="task 'sums::rest' is not configured"):
        facts.workspace.chosen_specs(["sums::rest"])
    quarters(facts)
    facts.on_roster(ALPHA)
    facts.on_roster(BETA)
    with Testbench.open(tmp_path / "testbench.yaml") as testbench:
        table = testbench.scores([ALPHA])
        kinds = {(row["task"], row["kind"]) for row in table.rows}
        assert {("sums_first", "group"), ("mine", "group"), ("sums_a", "task")} <= kinds
        assert [row["task"] for row in testbench.scores([ALPHA], ["sums_a"]).rows] == ["sums_a", "sums_a"]
        found = testbench.scores([ALPHA], ["sums_first"]).rows
        assert {row["task"] for row in found} == {"sums_a", "sums_b", "sums_first"}
        assert next(row for row in found if row["kind"] == "group")["score"] == (3 / 4 + 1 / 8) / 2
        ranking = testbench.leaderboard(task="sums_first").rows
        assert [(r["taxonomy"], r["supplier"], r["score"], r["rank_low"]) for r in ranking] == [
            ("sums_first", ALPHA, (3 / 4 + 1 / 8) / 2, 1), ("sums_first", BETA, None, None),
        ]  # fmt: skip
        assert [(r["tasks_measured"], r["tasks_total"], r["n"]) for r in ranking] == [(2, 2, 12), (0, 2, 0)]
        assert testbench.leaderboard(task="sums_a").rows[0]["score"] == 3 / 4
        for arguments, said in (
            ({"task": "sums"}, "'sums' has no score: it is a tag, a group that lm-eval gives none, or"),
            ({"task": "nowhere"}, "task 'nowhere' is not configured"),
            ({"task": "sums_a", "taxonomy": "t"}, "taxonomy and task are both given"),
        ):
            with pytest.raises(ConfigError, match=said):
                testbench.leaderboard(**arguments)
        page = testbench.supplier(ALPHA)
        assert [(row.task, row.primary) for row in page.groups] == [("sums_first", True), ("mine", True)]
        written = testbench.export(tmp_path / "out", [ALPHA])
        windows_file = tmp_path / "out" / "windows.parquet"
        frame = pq.read_table(windows_file).to_pylist()
        assert written[windows_file] == len(table.rows)
        assert [(r["task"], r["score"]) for r in frame if r["kind"] == "group" and r["primary"]] == [
            ("sums_first", (3 / 4 + 1 / 8) / 2), ("mine", None),
        ]  # fmt: skip
        made = {"group": "sums_first", "root": "sums", "metric": "exact_match", "weight_by_size": False}
        members = pq.read_table(tmp_path / "out" / "groups.parquet").to_pylist()
        assert members[:2] == [
            {**made, "filters": None, "position": place, "task": task}
            for place, task in enumerate(("sums_a", "sums_b"))
        ]
        assert [row["task"] for row in members[2:]] == ["mine__sums_a", "mine__sums_b"]
    on_board(facts)
    in_history_and_feed(facts, tmp_path)


def in_history_and_feed(facts: Facts, folder: Path) -> None:
    """A day's snapshot keeps the group, and the feed has it."""
    today = datetime.now(UTC).date()
    assert take_snapshots(facts.workspace, today) == 2
    with Testbench.open(folder / "testbench.yaml") as testbench:
        points = testbench.history(ALPHA, ["sums_first"]).rows
        assert {(p["task"], p["source"]) for p in points if p["day"] == today.isoformat()} == {
            (name, "snapshot") for name in ("sums_first", "sums_a", "sums_b")
        }
        (point,) = (p for p in points if p["task"] == "sums_first")
        assert (point["score"], point["n"], point["metric"]) == ((3 / 4 + 1 / 8) / 2, 12, "exact_match")
        assert not any(p["task"] == "sums_first" for p in testbench.history(ALPHA, ["sums_a"]).rows)
    told = feed(make_board(facts.workspace))
    assert told["task_groups"]["sums_first"] == {
        "metric": "exact_match", "filter": "last", "higher_is_better": True, "root": "sums",
        "tasks": ["sums_a", "sums_b"],
    }  # fmt: skip
    alpha, beta = (next(s for s in told["suppliers"] if s["supplier"] == key) for key in (ALPHA, BETA))
    row = alpha["task_groups"]["sums_first"]
    assert (row["score"], row["n"], row["missing"]) == ((3 / 4 + 1 / 8) / 2, 12, None)
    assert 0 < row["lower_bound"] < row["score"] < row["upper_bound"] < 1
    assert beta["task_groups"]["sums_first"]["missing"] == {"sums_a": "no_data", "sums_b": "no_data"}


def on_board(facts: Facts) -> None:
    """The supplier's page leads to the group's, and that to the leaderboard by it."""
    app = make_app(Site(facts.workspace), hosts=allowed_hosts("127.0.0.1"))
    board = TestClient(app, base_url="http://127.0.0.1:3001")
    page = board.get(links.supplier(ALPHA))
    assert page.status_code == 200
    table = page.text.partition("<h3>Groups of tasks</h3>")[2].partition("</table>")[0]
    assert [">sums_first<" in table, ">mine<" in table] == [True, True]
    assert ">0.438<" in table
    assert "not all of its tasks have data yet: <bdi>mine__sums_a</bdi>, <bdi>mine__sums_b</bdi>" in table
    address = links.group("sums_first")
    assert f'href="{address}"' in table
    unranked = board.get(address).text
    assert "nobody was ranked by it yet" in unranked and ">0.438<" in unranked
    store_board(facts.workspace, make_board(facts.workspace))
    shown = board.get(address).text
    assert shown.index(f">{ALPHA}<") < shown.index(f">{BETA}<"), "best first"
    assert "all tasks weigh the same" in shown and f'href="{links.task("sums_a")}"' in shown
    assert "<td>1</td>" in shown and "<bdi>sums_a</bdi>, <bdi>sums_b</bdi>" in shown
    ranked = board.get(links.with_query("/", {"task": "sums_first"})).text
    assert f'By the group of tasks <a href="{address}">' in ranked and ">0.438<" in ranked
    nobody = board.get(links.with_query("/", {"task": "elsewhere"})).text
    assert "Nobody was ranked by a group of tasks <bdi>elsewhere</bdi> yet" in nobody
    assert board.get(links.group("elsewhere")).status_code == 404
    assert f'href="{address}"' in board.get(links.task("sums_a")).text
    assert board.get(links.history(ALPHA, {"task": "sums_first"})).status_code == 200


BAD = {
    "acc": "is 'acc'; write a list such as",
    "[{weight_by_size: true}]": "which names no metric; write {metric: acc}",
    "[{metric: exact_match, weight: 1}]": "has the unknown key 'weight'; known are aggregation,",
    "[{metric: exact_match, aggregation: median}]": "'median'; lm-eval knows 'mean' alone",
    "[{metric: exact_match, filter_list: 5}]": "has the filter_list 5; write the names",
}


def test_what_lm_eval_could_not_aggregate_is_told(opened: Callable[..., Facts]) -> None:
    files = {
        f"bad_{i}.yaml": f"group: bad_{i}\ntask: [starter_logic]\naggregate_metric_list: {text}\n"
        for i, text in enumerate(BAD)
    }
    facts = opened([{"name": f"bad_{i}", "alias": f"a{i}", "samples": "all"} for i in range(len(BAD))], files)
    assert group_rows(facts) == {}
    told = {f.what: f for f in findings(facts.workspace, suppliers=False) if f.what.startswith("group ")}
    assert list(told) == [f"group a{i}" for i in range(len(BAD))]
    for finding, said in zip(told.values(), BAD.values(), strict=True):
        assert (finding.ok, finding.warning) == (False, True)
        assert " has no score: aggregate_metric_list " in finding.detail
        assert said in finding.detail
