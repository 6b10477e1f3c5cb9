"""The feeds: the same numbers in both forms, valid for any name, bounded."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testbench_dagster.core.columns import Shape, columns_of
from testbench_dagster.core.window import WINDOW_VIEWS, Window
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Entry
from testbench_dagster.ranking.feeds import SCHEMA, feed, render_json, render_prometheus
from testbench_dagster_tests.acceptance.documents import document
from testbench_dagster_tests.ranking.boards import ABILITIES, HOSTILE, MADE_AT, board
from testbench_dagster_tests.tasks.layouts import REPOSITORY

NAMES = ["one", "two", "three"]
SERIES = re.compile(
    r'(?P<name>[a-z_]+)(?:\{[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\n"])*")*\})? '
    r"(?P<value>-?[0-9][0-9.e+-]*)"
)


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Series by metric as a scraper reads them; one HELP, one TYPE and contiguous lines per metric."""
    names: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            names.append(line.split(" ")[2])
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {names[-1]} gauge"
        else:
            found = SERIES.fullmatch(line)
            assert found, line
            assert found["name"] == names[-1], "lines of a metric stand together"
    assert len(names) == len(set(names))
    assert text.endswith("\n")
    families: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        rows = families[family.name] = {}
        for sample in family.samples:
            key = tuple(sorted(sample.labels.items()))
            assert key not in rows, "a series stands once"
            rows[key] = sample.value
    return families


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


def test_both_forms_tell_what_the_board_holds() -> None:
    made = board(NAMES, ["gsm8k", "ifeval"], ["general", "maths"], groups=["both"])
    data = json.loads(render_json(made))
    metrics = parsed(render_prometheus(made))
    assert (data["schema"], data["made_at"], data["simulation"]) == (2, MADE_AT.isoformat(), True)
    assert metrics["testbench_feed_made_timestamp_seconds"] == {(): MADE_AT.timestamp()}
    assert metrics["testbench_feed_simulation"] == {(): 1.0}
    assert [s["supplier"] for s in data["suppliers"]] == [e.supplier for e in made.rankings["general"]]
    for supplier in data["suppliers"]:
        key = supplier["supplier"]
        one = labels(supplier=key, taxonomy="general")
        for field, metric in (("lower_bound", "score_lower_bound"), ("error_rate", "error_ratio")):
            assert metrics[f"testbench_supplier_{metric}"].get(one) == supplier[field]
        sampled = metrics["testbench_supplier_last_sample_timestamp_seconds"].get(one)
        age = supplier["age_seconds"]
        assert sampled == (None if age is None else MADE_AT.timestamp() - age)
        for task, row in supplier["tasks"].items():
            assert metrics["testbench_task_score"].get(labels(supplier=key, task=task)) == row["score"]
            assert row["age_seconds"] == (None if row["score"] is None else 3 * 3600)
        group = supplier["task_groups"]["both"]
        assert set(group) == {*supplier["tasks"]["gsm8k"], "missing"}
        for field, metric in (("score", "score"), ("lower_bound", "score_lower_bound")):
            series = metrics[f"testbench_task_group_{metric}"]
            assert series.get(labels(supplier=key, task_group="both")) == group[field]
        unknown = group["score"] is None
        assert group["missing"] == ({"gsm8k": "no_data", "ifeval": "no_data"} if unknown else None)
        for taxonomy, own in supplier["taxonomies"].items():
            assert set(own["nodes"]) == {taxonomy, *ABILITIES}
            for node, numbers in own["nodes"].items():
                series = labels(supplier=key, taxonomy=taxonomy, node=node)
                assert metrics["testbench_ability_score_lower_bound"].get(series) == numbers["lower_bound"]
                assert numbers["coverage"] == (0.0 if numbers["score"] is None else 0.75)
                assert (numbers["age_seconds"] is None) == (numbers["score"] is None)
    assert data["task_groups"] == {
        "both": {
            "metric": "exact_match",
            "filter": "none",
            "higher_is_better": True,
            "root": "both",
            "tasks": ["gsm8k", "ifeval"],
        }
    }
    last = data["suppliers"][-1]
    assert (last["supplier"], last["score"], last["age_seconds"]) == ("three@external", None, None)
    latency = metrics["testbench_supplier_latency_seconds"]
    assert latency[labels(supplier="one@external", taxonomy="general", quantile="0.95")] == 4.096
    assert metrics["testbench_feed_omitted_series"] == {}
    assert metrics["testbench_supplier_info"].keys() == {
        labels(supplier=f"{n}@external", address=n, service="external", group="", proxy="") for n in NAMES
    }


def test_where_lower_is_better_a_task_has_no_lower_bound_to_choose_by() -> None:
    """Docs that failed count as 1 there: of all suppliers the worst one has the highest."""
    made = board(NAMES, ["gsm8k", "toxicity"], ["general"])
    rows = {
        key: [replace(row, higher_is_better=row.task != "toxicity") for row in of_supplier]
        for key, of_supplier in made.windows.items()
    }
    made = replace(made, windows=rows)
    tasks = [supplier["tasks"] for supplier in feed(made)["suppliers"][:-1]]
    assert [row["toxicity"]["lower_bound"] for row in tasks] == [None, None]
    assert all(row["toxicity"]["upper_bound"] >= row["toxicity"]["score"] for row in tasks)
    assert all(row["gsm8k"]["lower_bound"] <= row["gsm8k"]["score"] for row in tasks)
    series = parsed(render_prometheus(made))["testbench_task_score_lower_bound"]
    assert {dict(key)["task"] for key in series} == {"gsm8k"}


def test_groups_are_told() -> None:
    made = board(NAMES, ["gsm8k"], ["general"])
    grouped = [replace(e, group="g1", proxy="one@external") for e in made.rankings["general"]]
    made = replace(made, rankings={"general": grouped})
    assert {(s["group"], s["proxy"]) for s in feed(made)["suppliers"]} == {("g1", "one@external")}
    info = parsed(render_prometheus(made))["testbench_supplier_info"]
    assert {(dict(series)["group"], dict(series)["proxy"]) for series in info} == {("g1", "one@external")}


def test_any_name_is_a_valid_label() -> None:
    made = board(HOSTILE, [HOSTILE[4]], [HOSTILE[1], HOSTILE[4]])
    metrics = parsed(render_prometheus(made))
    suppliers = {dict(series)["address"] for series in metrics["testbench_supplier_info"]}
    # a lone surrogate has no bytes in UTF-8
    assert suppliers == {name.replace("\ud800", "?") for name in HOSTILE}
    assert {s["address"] for s in json.loads(render_json(made))["suppliers"]} == set(HOSTILE)


def test_what_is_no_number_has_no_series() -> None:
    made = board(NAMES, ["ppl"], ["general"])
    rows = {key: [replace(row, score=math.inf) for row in own] for key, own in made.windows.items()}
    made = replace(made, windows={**rows, "two@external": [replace(rows["two@external"][0], score=math.nan)]})
    assert parsed(render_prometheus(made))["testbench_task_score"] == {}
    assert "Infinity" not in render_json(made) and "NaN" not in render_json(made)


def test_the_number_of_series_is_bounded() -> None:
    made = board([f"s{i}" for i in range(40)], [f"t{i}" for i in range(50)], ["general"])
    limited = parsed(render_prometheus(made, max_series=1000))
    omitted = {dict(series)["metric"]: n for series, n in limited["testbench_feed_omitted_series"].items()}
    assert omitted["testbench_task_score"] == 39 * 50
    assert "testbench_task_score" not in limited, "a family is there whole or not at all"
    assert len(limited["testbench_supplier_score"]) == 39
    assert sum(len(rows) for name, rows in limited.items() if name != "testbench_feed_omitted_series") <= 1000
    assert parsed(render_prometheus(made))["testbench_feed_omitted_series"] == {}


def test_a_json_feed_of_a_large_network_leaves_the_tasks_out_and_says_so() -> None:
    made = board(NAMES, ["a", "b"], ["general"])
    assert feed(made)["omitted"] == []
    small = feed(made, max_task_rows=5)
    assert small["omitted"] == ["tasks"]
    assert {s["tasks"] for s in small["suppliers"]} == {None}
    many = board(NAMES, ["a"], ["general"], groups=["b", "c", "d"])
    small = feed(many, max_task_rows=len(many.suppliers))
    assert small["omitted"] == ["task_groups"]
    assert {s["task_groups"] for s in small["suppliers"]} == {None}


@pytest.mark.parametrize("taxonomies", [[], ["general"]])
def test_a_board_of_nobody(taxonomies: list[str]) -> None:
    nobody = replace(
        board(NAMES, [], taxonomies), suppliers=[], nodes={}, windows={}, rankings={t: [] for t in taxonomies}
    )
    assert feed(nobody)["suppliers"] == []
    assert parsed(render_prometheus(nobody))["testbench_feed_suppliers"] == {(): 0.0}


def test_tasks_set_aside_are_told_with_their_reason_and_by_taxonomy() -> None:
    made = board(NAMES, ["gsm8k"], ["general", "other"])
    assert feed(made)["set_aside"] == []
    aside = {"torn": "its definition cannot be read", "lost": "a.jsonl does not exist"}
    told = feed(replace(made, set_aside=aside, lacking={"general": ["lost"], "other": []}))
    assert told["set_aside"] == [
        {"task": "torn", "reason": "its definition cannot be read"},
        {"task": "lost", "reason": "a.jsonl does not exist"},
    ]
    assert told["taxonomies"]["general"] == {"root": "general", "set_aside": ["lost"]}
    assert told["taxonomies"]["other"] == {"root": "other", "set_aside": []}


#: Of the keys of the JSON feed that no column stands behind.
MEANINGS = {
    "schema": f"{SCHEMA}; grows when a field changes its meaning or goes",
    "made_at": "when it was made",
    "simulation": "whether the suppliers are simulated",
    "omitted": "`tasks` with more than 200,000 suppliers × tasks, `task_groups` with as many suppliers × "
    "groups: a list; these fields of the suppliers are `null` then",
    "set_aside": "tasks that could not be prepared, so that nobody is asked them: a list of objects with "
    "`task` and `reason`; new answers to them are missing everywhere below",
    "taxonomies.<name>.root": "name of its root node",
    "taxonomies.<name>.set_aside": "names of its tasks that are set aside",
    "tasks.<name>.metric": "name of the primary metric",
    "tasks.<name>.filter": "name of the filter",
    "tasks.<name>.higher_is_better": "direction of the metric",
    "task_groups.<name>.metric": "name of the primary metric of a group of tasks that has a score",
    "task_groups.<name>.filter": "name of the filter",
    "task_groups.<name>.higher_is_better": "direction of the metric",
    "task_groups.<name>.root": "the configured group that it is nested in, or itself",
    "task_groups.<name>.tasks": "its leaf tasks in lm-eval's order; one that two nested groups hold twice",
    "suppliers[].task_groups.<name>": "score on the group: the fields of `tasks.<name>`, and `missing`, by "
    "task the status of those for lack of which it has none; `null` where it has one",
    "suppliers[].supplier": "partition key: `<address>@<service>`",
    "suppliers[].address": "its address",
    "suppliers[].service": "its service",
    "suppliers[].taxonomies.<name>.score": "score by this taxonomy",
    "suppliers[].taxonomies.<name>.lower_bound": "lower end of its 95 % interval",
    "suppliers[].taxonomies.<name>.upper_bound": "upper end of its 95 % interval",
    "suppliers[].taxonomies.<name>.rank_low": "best rank it may have by this taxonomy",
    "suppliers[].taxonomies.<name>.rank_high": "worst rank it may have by this taxonomy",
    "suppliers[].taxonomies.<name>.nodes.<node>.score": "score of this ability",
    "suppliers[].taxonomies.<name>.nodes.<node>.lower_bound": "lower end of its 95 % interval",
    "suppliers[].taxonomies.<name>.nodes.<node>.upper_bound": "upper end of its 95 % interval",
    "suppliers[].taxonomies.<name>.nodes.<node>.own_score": "the score by own docs alone",
    "suppliers[].taxonomies.<name>.nodes.<node>.n_own": "own docs behind that",
    "suppliers[].taxonomies.<name>.nodes.<node>.shared": "whether `score` is its proxy's, corrected by how "
    "its own answers to common docs differ",
    "suppliers[].taxonomies.<name>.nodes.<node>.n": "docs behind it",
    "suppliers[].taxonomies.<name>.nodes.<node>.status": "`partial` while docs of its tasks are open",
    "suppliers[].taxonomies.<name>.nodes.<node>.n_failed": "docs behind it that failed: left unanswered",
    "suppliers[].taxonomies.<name>.nodes.<node>.n_open": "docs behind it that are open: wrong until then",
    "suppliers[].taxonomies.<name>.nodes.<node>.coverage": "share of its weight with data",
    "suppliers[].taxonomies.<name>.nodes.<node>.age_seconds": "age of its newest sample at `made_at`",
}
#: Keys that are names of something, by where they stand.
NAMED = {"taxonomies": "<name>", "tasks": "<name>", "nodes": "<node>", "task_groups": "<name>"}
#: Keys whose own ones are told in one place for several.
WHOLE = frozenset({"suppliers[].task_groups.<name>"})
#: Where the columns of an entry and of a window stand.
OF_ENTRY, OF_WINDOW = "suppliers[].", "suppliers[].tasks.<name>."


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a feed as the reference writes it, down to what is plain or a column as a whole."""
    name = path.rpartition(".")[2]
    if path in WHOLE:
        yield path
    elif isinstance(value, dict) and (not path or name in NAMED or name.startswith(("<", "suppliers[]"))):
        for key, inner in value.items():
            yield from paths_of(inner, f"{path}.{NAMED.get(name, key)}" if path else key)
    elif path == "suppliers":
        for inner in value:
            yield from paths_of(inner, "suppliers[]")
    else:
        yield path


def meanings() -> dict[str, str]:
    """Meaning of each key: that of its column, or of :data:`MEANINGS`."""
    found = dict(MEANINGS)
    for prefix, record, views in ((OF_ENTRY, Entry, ENTRY_VIEWS), (OF_WINDOW, Window, WINDOW_VIEWS)):
        columns = columns_of(record)
        for cell in views.feed:
            (path,) = cell.paths
            whole, _, part = path.partition(".")
            if whole in columns:
                meaning = columns[whole].column.meaning
                meaning = f"`{part}` of: {meaning}" if part else meaning
            else:
                told = getattr(record, whole).__doc__.removesuffix(".")
                meaning = told[0].lower() + told[1:]
            if cell.shape is Shape.AGE:
                meaning += ", as its age at `made_at` in seconds"
            if prefix == OF_WINDOW and path == "ci_low":
                meaning += "; `null` where lower is better"
            found[prefix + cell.title] = meaning
    return found


def table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, *rest)).replace(
        "\n", f"\n{'|---' * len(head)}|\n", 1
    )


def shown(heading: str) -> str:
    """The table of a section of reference.md."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)^## ", document("docs/reference.md"), re.M | re.S)
    assert section, f"docs/reference.md has no section {heading!r}"
    return "\n".join(line for line in section[1].splitlines() if line.startswith("|"))


def test_the_reference_shows_every_field_of_the_json_feed() -> None:
    made = board(NAMES, ["gsm8k"], ["general"], groups=["sums"])
    paths = list(dict.fromkeys(paths_of(feed(made))))
    known = meanings()
    assert set(paths) == set(known), "a key has no meaning, or one that is gone has: change MEANINGS above"
    heading = "Fields of the JSON feed"
    wanted = table(("field", "meaning"), *((f"`{path}`", known[path]) for path in paths))
    assert shown(heading) == wanted, (
        f"paste this table into the section {heading!r} of docs/reference.md:\n\n{wanted}\n"
    )


def test_the_reference_shows_every_metric_of_the_prometheus_feed() -> None:
    made = board(NAMES, ["gsm8k"], ["general"], groups=["sums"])
    helps: dict[str, str] = {}
    named: dict[str, list[str]] = {}
    for text in (render_prometheus(made), render_prometheus(made, max_series=3)):  # with what is omitted, too
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, _, explanation = line.removeprefix("# HELP ").partition(" ")
                helps[name] = explanation.removesuffix(".")
            elif found := SERIES.fullmatch(line):
                named[found["name"]] = re.findall(r'(\w+)="', line)
    assert named.keys() == helps.keys(), "a metric has no series: give its column a value in boards.py"
    heading = "Metrics of the Prometheus feed"
    wanted = table(
        ("metric", "labels", "meaning"),
        *((f"`{name}`", ", ".join(named[name]) or "–", helps[name]) for name in helps),
    )
    assert shown(heading) == wanted, (
        f"paste this table into the section {heading!r} of docs/reference.md:\n\n{wanted}\n"
    )


def test_the_example_for_gateways_runs(tmp_path: Path) -> None:
    """As written, on a feed from a file, with its taxonomy and node."""
    guide = (REPOSITORY / "docs" / "gateways.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    made = replace(
        board(["one", "two", "three", "four"], ["gsm8k"], ["reasoning_math"]), made_at=datetime.now(UTC)
    )
    rows = {k: [replace(r, last_sample_at=made.made_at) for r in own] for k, own in made.windows.items()}
    path = tmp_path / "feed.json"
    path.write_text(render_json(replace(made, windows=rows)), "utf-8")
    code = code.replace("http://127.0.0.1:9469/feed.json", path.as_uri())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    fit = {
        s["supplier"]: bound
        for s in feed(made)["suppliers"]
        if (bound := s["taxonomies"]["reasoning_math"]["nodes"]["mathematics"]["lower_bound"])
        and bound >= 0.5
    }
    assert fit, "somebody is fit"
    best_first = sorted(fit.items(), key=lambda item: -item[1])
    assert done.stdout.splitlines() == [f"{bound:.3f} {name}" for name, bound in best_first]
