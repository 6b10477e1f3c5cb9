"""The Python face of what commands do: checks, plans, and arguments that are none. Runs: defs/."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster import rescore
from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Testbench]:
    """One supplier that nobody listens for, and one task."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "suppliers": [
            {
                "address": "a",
                "service": "external",
                "base_url": "http://127.0.0.1:9/v1",
                "api": "chat",
                "model": "m",
            }
        ],
        "tasks": [{"name": "starter_logic", "samples": 4}],
        "budget": {"relays_per_day": 7},
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        yield testbench


def test_a_check_returns_what_it_told(installation: Testbench, tmp_path: Path) -> None:
    told: list[Finding] = []
    found = installation.check(on_finding=told.append)
    assert found == told
    by_what = {finding.what: finding for finding in found}
    assert list(by_what) == [
        "configuration",
        "document store",
        "dataset store",
        "Dagster's storage",
        "task starter_logic",
        "supplier a@external",
    ]
    assert by_what["configuration"].detail == f"{tmp_path / 'testbench.yaml'}, 1 task"
    assert by_what["document store"].detail == f"SQLite in {tmp_path / '.testbench'}"
    assert [finding.what for finding in found if finding.failed] == ["supplier a@external"]
    assert "is it running, and is base_url right?" in by_what["supplier a@external"].detail
    assert installation.check(suppliers=False) == found[:-1]


def test_a_check_tells_of_named_docs_that_there_are_not(installation: Testbench, tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["tasks"][0]["samples"] = {"ids": [3, 10**30]}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        (told,) = [f for f in testbench.check(suppliers=False) if f.what == "task starter_logic"]
    assert told.failed and f"samples.ids names {10**30}, but its split" in told.detail


def test_labels_that_have_no_place_in_a_taxonomy_are_told(installation: Testbench, tmp_path: Path) -> None:
    lines = ("t {", "root_c -> logic;", "}", "t_labeling {", "logic -> starter_logic;", "lost -> gsm8k;", "}")
    (tmp_path / "t.tax").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "testbench.yaml"
    settings = {**yaml.safe_load(path.read_text("utf-8")), "taxonomies": ["t.tax"]}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        first, second = [f for f in testbench.check(suppliers=False) if f.what == "taxonomy t"]
    assert (first.failed, first.detail) == (False, "1 of its 1 task configured")
    assert (second.failed, second.warning) == (False, True)
    assert second.detail.startswith("node 'lost' has labels but no edge leads to it, so its 1 task (such as")


def test_a_finding_says_once_whom_it_is_about(
    installation: Testbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TB_NO_SUCH_KEY", raising=False)
    path = tmp_path / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["suppliers"][0]["api_key_env"] = "TB_NO_SUCH_KEY"
    settings["tasks"][0]["metric"] = "absent"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        task, supplier = [finding for finding in testbench.check() if finding.failed]
    assert (task.what, supplier.what) == ("task starter_logic", "supplier a@external")
    assert "starter_logic" not in task.detail and "absent" in task.detail
    assert supplier.detail.startswith("api_key_env names TB_NO_SUCH_KEY, which is not set")


def test_a_plan_says_why_nothing_is_due_and_what_is_left(installation: Testbench) -> None:
    plan = installation.plan()
    assert [(row["supplier"], row["task"], row["calls"]) for row in plan.rows] == [
        ("a@external", "starter_logic", 4)
    ]
    assert plan.rows[0]["estimated"] and plan.rows[0]["reason"]
    assert (plan.calls, plan.estimated, plan.left) == (4, 4, {"external": 7})
    assert len(installation.plan(tasks=["starter_logic"]).to_pandas()) == 1


def test_arguments_that_are_none_are_told(installation: Testbench) -> None:
    with pytest.raises(ConfigError, match=r"budget is -1; give a number of relays of at least 0"):
        installation.plan(budget=-1)
    with pytest.raises(ConfigError, match=r"max_relays is -2; give a number of relays of at least 0"):
        installation.run(max_relays=-2)
    with pytest.raises(ConfigError, match="force relays and rescore does not"):
        installation.backfill(force=True, rescore=True)
    for act in (installation.plan, installation.run, installation.backfill):
        with pytest.raises(ConfigError, match="supplier 'b@external' is not active; active are: a@external"):
            act(["b@external"])
    with pytest.raises(ConfigError, match="task 'starter_logik' is not configured"):
        installation.plan(tasks=["starter_logik"])


#: Patterns that choose nobody, or are none.
NO_MODELS: list[tuple[str, dict[str, Any], str]] = [
    (method, {"models": given}, said)
    for method in (
        "plan",
        "scores",
        "taxonomies",
        "leaderboard",
        "identity",
        "identity_pairs",
        "references",
        "twins",
        "suspicions",
        "service_quality",
        "changes",
    )
    for given, said in (
        (["x*"], "no supplier claims a model like 'x\\*'; models are: m;"),
        ("m", "models is 'm'; give a list"),
        ([], "models is empty"),
    )
]
KEY, TASK = "a@external", "starter_logic"
#: Arguments of each method that are none, with what is said of them.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("check", {"suppliers": [KEY]}, "suppliers is "),
    ("check", {"on_finding": 5}, "on_finding is 5; give a function"),
    ("check", {"on_wait": 5}, "on_wait is 5; give a function"),
    ("run", {"suppliers": []}, "suppliers is empty; name at least one, or give None for all"),
    ("run", {"suppliers": KEY}, f"suppliers is '{KEY}'; give a list"),
    ("run", {"tasks": []}, "tasks is empty"),
    ("run", {"tasks": "starter_logic"}, "tasks is 'starter_logic'; give a list"),
    ("run", {"max_relays": "5"}, "max_relays is '5'; give a number of relays"),
    ("run", {"max_relays": 1.5}, "max_relays is 1.5"),
    ("run", {"max_relays": True}, "max_relays is True"),
    ("run", {"force": "no"}, "force is 'no'; give True or False"),
    ("run", {"retry_errors": 1}, "retry_errors is 1; give True or False"),
    ("run", {"on_planned": 5}, "on_planned is 5"),
    ("run", {"on_progress": 5}, "on_progress is 5"),
    ("run", {"on_note": 5}, "on_note is 5; give a function"),
    ("run", {"on_scored": 5}, "on_scored is 5; give a function"),
    ("run", {"on_stage": 5}, "on_stage is 5; give a function"),
    ("run", {"on_wait": 5}, "on_wait is 5; give a function"),
    ("run", {"wait": "5m"}, "wait is '5m'; give True, False, or a timedelta"),
    ("run", {"wait": timedelta(seconds=-1)}, "wait is .*; give True, False, or a timedelta of at least 0"),
    ("run", {"stop": True}, "stop is True; give a threading.Event"),
    ("probe", {"suppliers": []}, "suppliers is empty"),
    ("probe", {"on_stage": 5}, "on_stage is 5; give a function"),
    ("probe", {"stop": True}, "stop is True; give a threading.Event"),
    ("plan", {"suppliers": []}, "suppliers is empty"),
    ("plan", {"suppliers": [None]}, r"suppliers\[0\] is None; give a text"),
    ("plan", {"tasks": []}, "tasks is empty"),
    ("plan", {"budget": "5"}, "budget is '5'"),
    ("plan", {"budget": math.nan}, "budget is no finite number"),
    ("backfill", {"suppliers": []}, "suppliers is empty"),
    ("backfill", {"rescore": "no"}, "rescore is 'no'"),
    ("backfill", {"force": "no"}, "force is 'no'"),
    ("scores", {"suppliers": []}, "suppliers is empty"),
    ("scores", {"suppliers": KEY}, "give a list"),
    ("scores", {"tasks": "starter_logic"}, "give a list"),
    ("scores", {"as_of": "2026-11-01"}, "as_of is '2026-11-01'; give a datetime with a time zone, a date"),
    ("scores", {"as_of": datetime(2026, 1, 1)}, "as_of has no time zone"),
    ("scores", {"as_of": date(9000, 1, 1)}, "as_of is 9000-01-01, which is yet to come"),
    ("scores", {"as_of": datetime(9000, 1, 1, tzinfo=UTC)}, "as_of is 9000.*yet to come"),
    ("answers", {"supplier": 5, "task": TASK}, "supplier is 5; give a text"),
    ("answers", {"supplier": "nobody@x", "task": TASK}, "supplier 'nobody@x' is not on the roster"),
    ("answers", {"supplier": KEY, "task": ["x"]}, "task is "),
    ("answers", {"supplier": KEY, "task": TASK, "kind": "bad"}, "kind is 'bad'; give one of right, "),
    ("answers", {"supplier": KEY, "task": TASK, "kind": 5}, "kind is 5; give a text, or None"),
    ("answers", {"supplier": KEY, "task": TASK, "search": 5}, "search is 5; give a text"),
    ("answers", {"supplier": KEY, "task": TASK, "after": -1}, "after is -1; give a number of a doc"),
    (
        "answers",
        {"supplier": KEY, "task": TASK, "limit": 0},
        "limit is 0; give a number of docs of at least 1",
    ),
    ("answer", {"supplier": "nobody@x", "task": TASK, "doc_id": 1}, "'nobody@x' is not on the roster"),
    ("answer", {"supplier": KEY, "task": "nope", "doc_id": 1}, "task 'nope' is not configured"),
    ("answer", {"supplier": KEY, "task": TASK, "doc_id": "1"}, "doc_id is '1'"),
    ("supplier", {"supplier": "nobody@x"}, "supplier 'nobody@x' is not on the roster"),
    ("doc", {"task": "nope", "doc_id": 0}, "task 'nope' is not configured"),
    ("doc", {"task": TASK, "doc_id": None}, "doc_id is None"),
    ("doc", {"task": TASK, "doc_id": 0, "after": 5}, "after is 5; give a text"),
    ("doc", {"task": TASK, "doc_id": 0, "limit": 0}, "limit is 0; give a number of suppliers"),
    ("history", {"supplier": "nobody@x"}, "supplier 'nobody@x' is not on the roster"),
    ("history", {"supplier": KEY, "tasks": []}, "tasks is empty"),
    ("history", {"supplier": KEY, "since": "30d"}, "since is '30d'; give a date, a timedelta, or None"),
    ("history", {"supplier": KEY, "since": timedelta.max}, "since is .*which no calendar reaches"),
    ("history", {"supplier": KEY, "since": datetime(2026, 1, 1)}, "since has no time zone"),
    ("history", {"supplier": KEY, "until": 5}, "until is 5; give a date"),
    ("history", {"supplier": KEY, "fill": "no"}, "fill is 'no'; give True or False"),
    ("service_quality", {"suppliers": ["nobody@x"]}, "supplier 'nobody@x' is not on the roster"),
    ("service_quality", {"suppliers": []}, "suppliers is empty"),
    ("service_quality", {"by_day": "yes"}, "by_day is 'yes'; give True or False"),
    ("service_quality", {"since": timedelta(days=3)}, "since chooses days; give by_day too"),
    (
        "service_quality",
        {"by_day": True, "since": "30d"},
        "since is '30d'; give a date, a timedelta, or None",
    ),
    ("taxonomies", {"suppliers": []}, "suppliers is empty"),
    ("taxonomies", {"taxonomy": 5}, "taxonomy is 5; give a text"),
    ("leaderboard", {"taxonomy": 5}, "taxonomy is 5; give a text"),
    ("leaderboard", {"task": 5}, "task is 5; give a text"),
    ("leaderboard", {"by": "price"}, "by is 'price'; .*score"),
    ("compare", {"a": None, "b": KEY}, "a is None; give a text"),
    ("compare", {"a": KEY, "b": 5}, "b is 5; give a text"),
    ("compare", {"a": KEY, "b": "b@external", "tasks": []}, "tasks is empty"),
    ("compare", {"a": KEY, "b": "b@external", "margin": "0.1"}, "margin is '0.1'"),
    ("identity", {"suppliers": []}, "suppliers is empty"),
    ("identity_pairs", {"suppliers": []}, "suppliers is empty"),
    ("references", {"suppliers": []}, "suppliers is empty"),
    ("twins", {"suppliers": []}, "suppliers is empty"),
    ("twins", {"refresh": "no"}, "refresh is 'no'; give True or False"),
    ("twins", {"every_epoch": 1}, "every_epoch is 1; give True or False"),
    ("suspicions", {"suppliers": []}, "suppliers is empty"),
    ("suspicions", {"kinds": ["odd"]}, "kinds: 'odd' is none of outages, latency"),
    ("changes", {"suppliers": []}, "suppliers is empty"),
    ("cuts", {"suppliers": []}, "suppliers is empty"),
    ("attempts", {"supplier": [KEY]}, "supplier is "),
    ("attempts", {"supplier": "nobody@x"}, "supplier 'nobody@x' is not on the roster"),
    ("attempts", {"task": 5}, "task is 5; give a text"),
    ("attempts", {"task": "nope"}, "task 'nope' is not configured"),
    ("export", {"out": 5}, "out is 5; give a path"),
    ("export", {"out": "x", "suppliers": ["nobody@x"]}, "'nobody@x' is not on the roster"),
    ("export", {"out": "x", "tasks": []}, "tasks is empty"),
    ("export", {"out": "x", "format": "csv"}, "format is 'csv'; give one of parquet, inspect, lm-eval"),
    (
        "export",
        {"out": "x", "since": "2026-11-01"},
        "since is '2026-11-01'; give a datetime with a time zone",
    ),
    ("export", {"out": "x", "until": 5}, "until is 5; give a datetime with a time zone, or None"),
    ("export_by_day", {"out": 5}, "out is 5; give a path"),
    ("export_by_day", {"out": "x", "since": 5}, "since is 5; give"),
    ("evidence", {"supplier": [KEY], "out": "x.zip"}, "supplier is "),
    ("evidence", {"supplier": KEY, "out": 5}, "out is 5; give a path"),
    ("evidence", {"supplier": KEY, "out": "."}, "give the path of a file"),
    ("evidence", {"supplier": KEY, "out": "x.zip", "tasks": []}, "tasks is empty"),
    ("evidence", {"supplier": KEY, "out": "x.zip", "docs": []}, "docs is empty"),
    ("evidence", {"supplier": KEY, "out": "x.zip", "docs": 3}, "docs is 3; give a list"),
    ("evidence", {"supplier": KEY, "out": "x.zip", "docs": ["3"]}, r"docs\[0\] is '3'"),
    ("evidence", {"supplier": KEY, "out": "x.zip", "on_progress": 5}, "on_progress is 5"),
    *NO_MODELS,
]


@pytest.mark.parametrize(("method", "given", "said"), WRONG)
def test_a_wrong_argument_is_told(
    installation: Testbench, method: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        getattr(installation, method)(**given)


def test_every_argument_of_every_method_is_tried() -> None:
    tried = {(method, name) for method, given, _ in WRONG for name in given}
    public = {name: method for name, method in vars(Testbench).items() if not name.startswith("_")}
    wanted = {
        (name, argument)
        for name, method in public.items()
        if callable(method)
        for argument in inspect.signature(method).parameters
        if argument != "self"
    }
    assert tried == wanted


@pytest.mark.parametrize("config", [5, "", "a\0b", b"x"])
def test_a_configuration_is_a_path(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"config is .*; give a path"):
        Testbench.open(config)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": 5}, "path is 5; give a path"),
        ({"path": "x.zip", "trust_code": "no"}, "trust_code is 'no'; give True or False"),
        ({"path": "x.zip", "max_mb": "5"}, "max_mb is '5'; give a number of MiB of at least 1"),
        ({"path": "x.zip", "max_mb": 0}, "max_mb is 0"),
        ({"path": "x.zip", "on_progress": 5}, "on_progress is 5; give a function"),
    ],
)
def test_wrong_arguments_of_rescore_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rescore(**given)


def test_a_selection_may_be_walked_once_only(installation: Testbench) -> None:
    assert len(installation.plan((key for key in [KEY]), (name for name in ["starter_logic"]))) == 1
    assert len(installation.scores(iter([KEY]), iter(["starter_logic"]))) == 1


def test_paths_may_be_texts(installation: Testbench, tmp_path: Path) -> None:
    written = installation.export(str(tmp_path / "out"))
    assert {path.parent for path in written} == {tmp_path / "out"}
    with pytest.raises(ConfigError, match=f"there is no evidence of supplier '{KEY}'"):
        installation.evidence(KEY, str(tmp_path / "x.zip"))


@pytest.mark.parametrize(
    ("taxonomies", "said"),
    [
        (["builtin:starter", "builtin:nope"], r"taxonomies\[1\]: no built-in taxonomy 'nope'; there are: "),
        (["nowhere.yaml"], r"taxonomies\[0\]: .*nowhere\.yaml: the taxonomy cannot be read"),
        (
            ["builtin:starter"] * 2,
            r"taxonomies\[1\]: 'builtin:starter' gives the name 'starter' a second time",
        ),
        (["overlap.yaml"], r"taxonomies\[0\]: with groups replaced by their tasks, "),
    ],
)
def test_a_wrong_taxonomy_is_told_before_anything_is_sent(
    installation: Testbench, tmp_path: Path, taxonomies: list[str], said: str
) -> None:
    (tmp_path / "overlap.yaml").write_text(
        "name: overlap\nroot: all\nnodes:\n  all: {tasks: [starter_all, starter_logic]}\n", encoding="utf-8"
    )
    path = tmp_path / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    tasks = [{"name": "starter_all", "samples": 4}]
    settings |= {"tasks": tasks, "taxonomies": taxonomies}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    said = f"^{re.escape(str(path))}: {said}"
    with Testbench.open(path) as testbench:
        for act in (testbench.run, testbench.plan, testbench.backfill):
            with pytest.raises(ConfigError, match=said):
                act()
        found = {finding.what: finding for finding in testbench.check(suppliers=False)}
        assert re.match(said, found["taxonomies"].detail)
    assert not (tmp_path / ".testbench" / "dagster").exists(), "no run was begun"


@pytest.mark.slow
def test_only_what_looks_at_dagster_pays_for_it(installation: Testbench, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from testbench_dagster.api import Testbench\n"
        "with Testbench.open('testbench.yaml') as testbench:\n"
        "    assert testbench.plan().rows\n"
        "    assert 'dagster' not in sys.modules\n"
        "    assert testbench.check(suppliers=False)\n"
        "assert not {'pandas', 'aiohttp', 'lm_eval'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
