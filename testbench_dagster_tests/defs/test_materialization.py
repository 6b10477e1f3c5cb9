"""Everything materialized over simulated suppliers, and what Dagster shows of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.defs.metadata import interval_plot, markdown_table
from testbench_dagster.defs.network.assets import roster_version
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, LEADERBOARDS, SCORES
from testbench_dagster_tests.defs.conftest import TASKS, Materialized, opened_instance, starter_settings
from testbench_dagster_tests.defs.test_definitions import ASSETS, CHECKS, RECORDED

SUPPLIERS = [f"sim-0{n}@simulation" for n in range(1, 5)]
CHAT = ["sim-01@simulation", "sim-03@simulation", "sim-04@simulation"]


def metadata(materialized: Materialized, asset: str) -> dict[str, Any]:
    event = materialized.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_every_asset_and_partition_is_materialized(materialized: Materialized) -> None:
    expected = {"task": set(TASKS), "supplier": set(SUPPLIERS)}
    for asset, (_, partitions) in ASSETS.items():
        key = dg.AssetKey(asset)
        if partitions == "day" or asset == "service_probes":
            continue  # the daily schedule's, and what is switched off: no part of this local run
        if partitions is None:
            assert materialized.instance.get_latest_materialization_event(key) is not None, asset
        else:
            assert materialized.instance.get_materialized_partitions(key) == expected[partitions], asset
    assert {run.status for run in materialized.instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
    names = [run.job_name for run in materialized.instance.get_runs()][::-1]
    assert names == [
        "refresh_suppliers", "refresh_catalog", "evaluate_suppliers", "refresh_identity", "refresh_summaries"
    ]  # fmt: skip


def test_the_roster_carries_a_data_version_which_the_sensor_gives_again(materialized: Materialized) -> None:
    event = materialized.instance.get_latest_materialization_event(dg.AssetKey("suppliers"))
    assert event is not None and event.asset_materialization is not None
    tags = event.asset_materialization.tags or {}
    assert tags["dagster/data_version"] == roster_version(known_suppliers(materialized.workspace))


def test_every_check_was_evaluated_and_passed(materialized: Materialized) -> None:
    evaluated = {}
    evaluated_here = {asset: names for asset, names in CHECKS.items() if asset != "service_probes"}
    for asset, names in evaluated_here.items():
        for name in names:
            key = dg.AssetCheckKey(dg.AssetKey(asset), name)
            records = materialized.instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
            assert len(records) == 1, f"{name} runs once per run"
            event = records[0].event
            assert event is not None
            evaluation = event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
            evaluated[name] = evaluation.passed
            assert evaluation.metadata["offenders"].value == {}, name
    assert evaluated == {name: True for names in evaluated_here.values() for name in names}


def test_the_run_events_do_not_grow_with_the_relays(materialized: Materialized) -> None:
    (run,) = [r for r in materialized.instance.get_runs() if r.job_name == "evaluate_suppliers"]
    n_attempts = materialized.workspace.documents.count(ATTEMPTS)
    n_events = len(materialized.instance.all_logs(run.run_id))
    assert n_attempts > 80
    assert n_events < 100, "some sixty, plus three a supplier"


def test_the_windows_are_complete(materialized: Materialized) -> None:
    rows = {(r.supplier, r.task): r for r in windows(materialized.workspace) if r.primary}
    assert set(rows) == {(s, t) for s in SUPPLIERS for t in TASKS}
    for (supplier, task), row in rows.items():
        if supplier in CHAT and task == "starter_choice":
            assert (row.status, row.n, row.score) == ("unsupported", 0, None)
        else:
            assert (row.status, row.n, row.errors) == ("ok", 8, {}), (supplier, task)
            assert row.score is not None
            assert row.ci_low is not None
            assert row.ci_high is not None
            assert row.ci_low <= row.score <= row.ci_high
    # twins share a backend, hence every score
    for task in ("starter_logic", "starter_units"):
        assert rows[SUPPLIERS[0], task].score == rows[SUPPLIERS[2], task].score


def test_metadata_tables_and_plot(materialized: Materialized) -> None:
    datasets = metadata(materialized, "task_datasets")
    for task in TASKS:
        assert task.replace("_", "\\_") in datasets["tasks"]
    assert datasets["dagster/row_count"] == sum(r.n_docs for r in materialized.workspace.datasets.tasks())
    prompts = metadata(materialized, "sampled_prompts")
    assert prompts["prompts_built"] == 8 * (2 + 2 + 1), "two forms of the generative tasks, one of the other"
    assert prompts["sequences"].count("\n") == 1 + len(TASKS)
    roster = metadata(materialized, "suppliers")
    assert (roster["active"], roster["joined"], roster["left"]) == (4, 4, 0)
    assert all(s.replace("_", "\\_").replace("-", "-") in roster["roster"] for s in SUPPLIERS)
    relays = metadata(materialized, "relay_responses")
    assert (relays["suppliers"], relays["due"], relays["settled"]) == (4, relays["sent"], relays["due"])
    assert relays["outcomes"] == f"ok {relays['sent']}"
    assert relays["relays_per_s"] > 0
    assert relays["unsupported"] == {key: ["starter_choice"] for key in CHAT}
    assert "problems" not in relays
    scores = metadata(materialized, "supplier_scores")
    assert scores["docs_scored"] == 8 * (4 + 4 + 1)
    assert (scores["docs_not_scorable"], scores["docs_put_off"]) == (0, 0)
    assert "starter_choice 8" in scores["by_task"]
    board = metadata(materialized, "leaderboard")
    (stored,) = {d["made_at"] for d in materialized.workspace.documents.find(LEADERBOARDS)}
    assert board["as_of"] == pytest.approx(stored.timestamp(), abs=0.001), "stores keep milliseconds"
    assert board["ranking"].count("\n") == 1 + len(SUPPLIERS)
    assert board["plot"].startswith("![Leaderboard: ")
    assert "data:image/png;base64,iVBOR" in board["plot"]
    assert "**Simulation**" in board["plot"]
    assert len(board["plot"]) < 70_000
    published = {p.name for p in (materialized.workspace.config.home / "published").iterdir()}
    assert published == {"leaderboard.html", "feed.json", "feed.prom", "item_matrix.parquet"}
    assert all(name.replace("_", "\\_") in board["published"] for name in published)
    assert all(Path(board[f"file {name}"]).is_file() for name in published)
    identity = metadata(materialized, "identity_groups")
    assert (identity["suppliers"], identity["changes"]) == (4, 0)
    assert identity["answers_compared"] > 0
    abilities = metadata(materialized, "taxonomy_summaries")
    assert "overall" in abilities["abilities"] or "starter" in abilities["abilities"]


def test_one_supplier_alone_gets_its_table_and_nothing_is_asked_twice(materialized: Materialized) -> None:
    sent_before = materialized.workspace.documents.count(ATTEMPTS)
    scores_before = materialized.workspace.documents.count(SCORES)
    job = build_definitions(materialized.workspace).resolve_job_def("evaluate_suppliers")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", SUPPLIERS)
        result = job.execute_in_process(instance=instance, partition_key=SUPPLIERS[1])
    assert result.success
    (event,) = result.asset_materializations_for_node("supplier_scores")
    table = event.metadata["windows"].value
    assert isinstance(table, str)
    assert table.count("\n") == 1 + len(TASKS)
    (relays,) = result.asset_materializations_for_node("relay_responses")
    assert (relays.metadata["sent"].value, relays.metadata["due"].value) == (0, 0)
    assert materialized.workspace.documents.count(ATTEMPTS) == sent_before
    assert materialized.workspace.documents.count(SCORES) == scores_before


def test_run_configuration_limits_tasks_and_relays(materialized: Materialized) -> None:
    job = build_definitions(materialized.workspace).resolve_job_def("evaluate_suppliers")
    config = {"ops": {"relay_responses": {"config": {"tasks": ["starter_logik"], "max_relays": 1}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", SUPPLIERS)
        with pytest.raises(Exception, match="starter_logik"):
            job.execute_in_process(instance=instance, partition_key=SUPPLIERS[0], run_config=config)


# ------------------------------------------------------------------------------------ bad suppliers


@pytest.fixture
def mixed(localnet: LocalnetProcess, tmp_path: Path) -> Iterator[Workspace]:
    """One good supplier among an unreachable one, one without its key and one that answers 404."""
    settings = starter_settings(localnet, n_docs=3)
    settings["tasks"] = settings["tasks"][:1]
    settings["relays"] = {"connect_s": 10, "first_byte_s": 20, "total_s": 30, "retries": 0}
    good = settings["suppliers"][0]
    bad = {name: {**copy.deepcopy(good), "address": name} for name in ("dead", "keyless", "lost")}
    bad["dead"]["base_url"] = "http://127.0.0.1:9/v1"
    bad["keyless"]["api_key_env"] = "TB_KEY_THAT_IS_NOT_SET"
    bad["lost"]["base_url"] = f"{localnet.url}/nobody/v1"
    settings["suppliers"] = [bad["dead"], bad["keyless"], good, bad["lost"]]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        yield workspace


@pytest.mark.slow
def test_bad_suppliers_do_not_fail_the_run(mixed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = dict(os.environ)
    with LocalRuns(mixed) as runs:
        runs.refresh_suppliers()
        runs.refresh_catalog(stale_tasks(mixed, mixed.specs))
        assert stale_tasks(mixed, mixed.specs) == []
        runs.evaluate([s.key for s in mixed.config.settings.suppliers])
        runs.refresh_summaries()
    assert dict(os.environ) == before, "the environment is put back"
    with opened_instance(mixed) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        event = instance.get_latest_materialization_event(dg.AssetKey("relay_responses"))
        assert event is not None
        assert event.asset_materialization is not None
        problems = event.asset_materialization.metadata["problems"].value
    assert list(problems) == ["keyless@simulation"]  # type: ignore[call-overload]
    assert "TB_KEY_THAT_IS_NOT_SET, which is not set; export it" in problems["keyless@simulation"]  # type: ignore[index,call-overload,operator]
    rows = {row.address: row for row in windows(mixed) if row.primary}
    assert (rows["sim-01"].n, rows["sim-01"].errors) == (3, {})
    assert (rows["dead"].status, rows["dead"].errors) == ("no_data", {"transport": 3})
    assert (rows["lost"].status, rows["lost"].errors) == ("no_data", {"credentials": 3})
    assert (rows["keyless"].status, rows["keyless"].errors) == ("no_data", {})


# ----------------------------------------------------------------------------------- foreign text


HOSTILE = [
    "a | b",
    "line one\nline two\r\n| three |",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "`code` **bold** _it_ ~~gone~~",
    "# heading",
    "&lt;b&gt; &#60;",
    "\\| back\\slash",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_foreign_text_is_inert_in_tables(text: str) -> None:
    """Rendered by the markdown-it of rich: one table, one row of two cells, no markup, nothing active."""
    from markdown_it import MarkdownIt

    table = markdown_table(["a", "b"], [[text, 0.5]]).value
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(table or "")
    kinds = [token.type for token in tokens]
    assert kinds.count("td_open") == 2
    assert kinds.count("tr_open") == 2
    cell = next(t for t in tokens if t.type == "inline" and t.map == [2, 3])
    assert {child.type for child in cell.children or ()} <= {"text", "text_special"}
    shown = "".join(child.content for child in cell.children or ())
    assert shown == " ".join(text.split())[:200]


def test_a_dollar_in_a_label_is_no_formula() -> None:
    """matplotlib would fail the whole leaderboard on it."""
    rows = [{"label": r"$\frac{$", "score": 0.5, "low": 0.4, "high": 0.6}]
    assert "iVBOR" in (interval_plot(r"$\broken{$", rows).value or "")
    assert "iVBOR" in (interval_plot("nobody yet", []).value or "")


# ---------------------------------------------------------------------------------------- backfills


BACKFILL = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on PartitionSetNotFoundError { message }
  }
}
"""


def test_a_backfill_of_two_suppliers_is_accepted_and_planned(
    materialized: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real webserver application; with an identity mapping this is what breaks."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.testclient import TestClient

    for name, value in materialized.environment.items():
        monkeypatch.setenv(name, value)
    target = ModuleTarget("testbench_dagster.definitions", None, str(materialized.path.parent), "testbench")
    wanted = SUPPLIERS[:2]
    with WorkspaceProcessContext(materialized.instance, target) as context:
        client = TestClient(create_app_from_workspace_process_context(context))

        def graphql(query: str, **variables: Any) -> Any:
            answer = client.post("/graphql", json={"query": query, "variables": variables}).json()
            assert "errors" not in answer, answer
            return answer["data"]

        nodes = graphql("{ assetNodes { assetKey { path } groupName } }")["assetNodes"]
        assert {n["assetKey"]["path"][0]: n["groupName"] for n in nodes} == {
            k: v[0] for k, v in {**ASSETS, **RECORDED}.items()
        }

        chain = ("relay_responses", "supplier_scores", "taxonomy_summaries")
        params = {"assetSelection": [{"path": [name]} for name in chain], "partitionNames": wanted}
        launched = graphql(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        backfill = materialized.instance.get_backfill(launched["backfillId"])
        assert backfill is not None
        assert _planned_runs(context, materialized.instance, backfill) == [(set(chain), set(wanted))]


def _planned_runs(
    context: Any, instance: dg.DagsterInstance, backfill: Any
) -> list[tuple[set[str], set[str]]]:
    """What the backfill daemon makes of it: its runs are queued, and no daemon launches them here."""
    import logging

    from dagster._daemon.backfill import execute_backfill_iteration

    order = list(instance.get_dynamic_partitions("supplier"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        errors = [e for e in execute_backfill_iteration(context, logging.getLogger("test")) if e is not None]
        assert errors == []
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
        if runs:
            found = []
            for run in runs:
                start = run.tags["dagster/asset_partition_range_start"]
                end = run.tags["dagster/asset_partition_range_end"]
                keys = set(order[order.index(start) : order.index(end) + 1])
                found.append(({k.to_user_string() for k in run.asset_selection or ()}, keys))
                instance.report_run_canceled(run)
            return found
    raise AssertionError("the backfill planned no run")
