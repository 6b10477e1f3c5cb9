"""The definitions as the design names them, and how they load for a newcomer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

import testbench_dagster
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.partitions import pack_ranges, run_suppliers, suppliers_per_run

ROOT = Path(testbench_dagster.__file__).parent.parent

ASSETS = {
    "task_datasets": ("catalog", "task"),
    "sampled_prompts": ("catalog", "task"),
    "suppliers": ("network", None),
    "relay_responses": ("evaluation", "supplier"),
    "supplier_scores": ("evaluation", "supplier"),
    "service_probes": ("service", "supplier"),
    "taxonomy_summaries": ("summaries", "supplier"),
    "identity_groups": ("summaries", None),
    "leaderboard": ("summaries", None),
    "supplier_snapshots": ("summaries", "day"),
}
#: Written by runs of other assets, and observed there: external ones, which nothing materializes.
RECORDED = {"supplier_plans": ("summaries", None), "detected_changes": ("summaries", None)}
CHECKS = {
    "task_datasets": {"datasets_intact", "tasks_prepared"},
    "sampled_prompts": {"docs_storable", "prompts_reproducible"},
    "relay_responses": {"attempts_have_an_owner", "hosts_agree", "supplier_fault_rate"},
    "supplier_scores": {
        "scores_fresh",
        "windows_tight",
        "answers_in_time",
        "answers_have_text",
        "requests_taken",
        "models_unchanged",
        "alike_with_reference",
        "scores_reproducible",
    },
    "service_probes": {"probes_answered"},
    "taxonomy_summaries": {"taxonomies_covered"},
    "identity_groups": {"identity_consistent", "public_not_special"},
}
JOBS = {
    "refresh_catalog": {"task_datasets", "sampled_prompts"},
    "refresh_suppliers": {"suppliers"},
    "evaluate_suppliers": {"relay_responses", "supplier_scores", "taxonomy_summaries"},
    "rescore": {"supplier_scores", "taxonomy_summaries"},
    "probe_service": {"service_probes"},
    "refresh_abilities": {"taxonomy_summaries"},
    "refresh_summaries": {"leaderboard"},
    "refresh_identity": {"identity_groups"},
    "take_snapshots": {"supplier_snapshots"},
}
SENSORS: dict[str, set[str]] = {
    "new_suppliers": {"evaluate_suppliers"},
    "stale_catalog": {"refresh_catalog"},
    "stale_scores": {"evaluate_suppliers"},
    "service_probes": {"probe_service"},
    "lost_runs": set(),
    "run_failure": set(),
    "change_alerts": set(),
}
SCHEDULES = {
    "nightly_evaluation": "evaluate_suppliers",
    "hourly_summaries": "refresh_abilities",
    "daily_snapshots": "take_snapshots",
    "weekly_epochs": "refresh_catalog",
    "retention": "apply_retention",
}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    """Those of the bundled configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        return build_definitions()


def test_they_load(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_assets_have_the_groups_and_partitions_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        partitions = node.partitions_def
        kind = None
        if isinstance(partitions, dg.DynamicPartitionsDefinition):
            kind = partitions.name
        elif isinstance(partitions, dg.StaticPartitionsDefinition):
            kind = "task"
            assert "starter_logic" in partitions.get_partition_keys()
        elif isinstance(partitions, dg.TimeWindowPartitionsDefinition):
            kind = "day"
        found[key.to_user_string()] = (node.group_name, kind)
    assert found == {**ASSETS, **RECORDED}
    external = {key.to_user_string() for key in graph.external_asset_keys}
    assert external == set(RECORDED)


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name in (*ASSETS, *RECORDED):
        assert len(graph.get(dg.AssetKey(name)).description or "") > 40, name


def test_every_asset_says_whose_it_is_and_where_its_code_stands(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name, (group, _) in {**ASSETS, **RECORDED}.items():
        node = graph.get(dg.AssetKey(name))
        assert node.owners == [f"team:{group}"], name
        if name in ASSETS:
            (reference,) = node.metadata["dagster/code_references"].code_references
            text = Path(reference.file_path).read_text(encoding="utf-8").splitlines()
            shown = "\n".join(text[reference.line_number - 1 : reference.line_number + 60])
            assert f"def {name}(" in shown or f"def {name}_asset(" in shown, (name, reference)


def test_every_stored_asset_shows_its_columns_with_their_meaning(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name in ASSETS:
        metadata = graph.get(dg.AssetKey(name)).metadata
        if name == "task_datasets":  # in the dataset store, which has no records
            continue
        columns = {column.name: column for column in metadata["dagster/column_schema"].schema.columns}
        assert columns["_id"].type == "text" and not columns["_id"].constraints.nullable, name
        assert all(len(column.description or "") > 3 for column in columns.values()), name


def test_checks_are_unpartitioned_and_complete(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
        assert graph.get(key).partitions_def is None
    assert found == CHECKS


def test_jobs_hold_their_assets(definitions: dg.Definitions) -> None:
    for name, assets in JOBS.items():
        job = definitions.resolve_job_def(name)
        keys = {k.to_user_string() for k in job.asset_layer.executable_asset_keys}
        assert keys == assets, name
        assert job.executor_def is dg.in_process_executor


def test_everything_runs_by_itself_unless_switched_off(
    definitions: dg.Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = definitions.get_repository_def()
    sensors = {s.name: s for s in repository.sensor_defs}
    assert set(sensors) == {*SENSORS, "summaries_automation"}
    for name, jobs in SENSORS.items():
        assert {t.job_name for t in sensors[name].targets} == jobs, name
    assert {s.default_status for s in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    schedules = {s.name: s for s in repository.schedule_defs}
    assert {name: s.job_name for name, s in schedules.items()} == SCHEDULES
    assert {s.default_status for s in schedules.values()} == {dg.DefaultScheduleStatus.RUNNING}

    names = (
        "new_suppliers",
        "stale_catalog",
        "stale_scores",
        "service_probes",
        "lost_runs",
        "change_alerts",
        "summaries_sensor",
    )
    automation: dict[str, object] = {name: {"enabled": False, "every_s": 17} for name in names}
    automation |= {name: {"enabled": False, "cron": "7 7 * * *"} for name in SCHEDULES}
    settings = {"tasks": [{"name": "starter_logic"}], "automation": automation}
    (tmp_path / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    repository = build_definitions().get_repository_def()
    switched = [s for s in repository.sensor_defs if s.name != "run_failure"]
    assert {s.default_status for s in switched} == {dg.DefaultSensorStatus.STOPPED}
    assert {s.minimum_interval_seconds for s in switched} == {17}
    for schedule in repository.schedule_defs:
        assert (schedule.default_status, schedule.cron_schedule) == (
            dg.DefaultScheduleStatus.STOPPED,
            "7 7 * * *",
        )


def test_a_cron_expression_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"tasks": [{"name": "starter_logic"}], "automation": {"retention": {"cron": "every night"}}}
    (tmp_path / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"automation\.retention\.cron: 'every night' is no cron expression"
    ):
        build_definitions()


def test_every_asset_shows_its_freshness(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert [name for name in ASSETS if graph.get(dg.AssetKey(name)).freshness_policy is None] == []


def test_only_summaries_over_all_suppliers_materialize_themselves(definitions: dg.Definitions) -> None:
    """``on_cron`` on a supplier asset would ask for every partition at every tick."""
    graph = definitions.resolve_asset_graph()
    automated = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).automation_condition is not None
    }
    assert automated == {"identity_groups", "leaderboard"}


def test_static_to_dynamic_edges_map_all_partitions(definitions: dg.Definitions) -> None:
    """The default, identity, loads and validates, and then breaks backfills."""
    graph = definitions.resolve_asset_graph()
    crossing = []
    for key in graph.get_all_asset_keys():
        child = graph.get(key)
        for parent_key in child.parent_keys:
            parent = graph.get(parent_key)
            if parent.partitions_def is None or child.partitions_def is None:
                continue
            if type(parent.partitions_def) is not type(child.partitions_def):
                crossing.append((parent_key.to_user_string(), key.to_user_string()))
                assert isinstance(graph.get_partition_mapping(key, parent_key), dg.AllPartitionMapping)
            else:
                assert parent.partitions_def == child.partitions_def
    assert sorted(crossing) == [
        ("sampled_prompts", "relay_responses"),
        ("taxonomy_summaries", "supplier_snapshots"),
    ]


def test_backfill_policies_are_the_same_along_a_chain(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    policies = {name: graph.get(dg.AssetKey(name)).backfill_policy for name in ASSETS}
    chain = ("relay_responses", "supplier_scores", "taxonomy_summaries")
    assert {policies[name] for name in chain} == {dg.BackfillPolicy.multi_run(suppliers_per_run())}
    assert {policies[name] for name in ("task_datasets", "sampled_prompts")} == {
        dg.BackfillPolicy.single_run()
    }


def test_dagster_yaml_is_what_the_commands_write() -> None:
    assert yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8")) == INSTANCE_SETTINGS


def test_the_workspace_file_names_the_front_door() -> None:
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert entry["python_module"]["module_name"] == "testbench_dagster.definitions"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["empty folder", "repository root"])
def test_they_load_without_any_variable(tmp_path: Path, place: str) -> None:
    """What `dagster dev` does first, in the two places a newcomer tries it."""
    folder = ROOT if place == "repository root" else tmp_path
    before = set(folder.iterdir())
    target = [] if place == "repository root" else ["-m", "testbench_dagster.definitions"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", *target],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Validation successful" in done.stderr + done.stdout
    assert "BetaWarning" not in done.stderr
    left = {p.name for p in set(folder.iterdir()) - before}
    assert not {name for name in left if name not in (".cache", ".testbench") and "pytest" not in name}, left


def test_a_wrong_configuration_stops_the_code_location_with_our_message(tmp_path: Path) -> None:
    (tmp_path / "testbench.yaml").write_text("tasks: [{name: starter_logik}]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import testbench_dagster.definitions"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "unknown task 'starter_logik'; did you mean starter_logic" in done.stderr


# --------------------------------------------------------------------------------- ranges of suppliers


def test_an_unknown_key_is_no_range() -> None:
    with pytest.raises(KeyError):
        pack_ranges(["a", "b"], ["c"], 2)


def test_the_suppliers_of_a_run_follow_from_its_tags() -> None:
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", ["a", "b", "c", "d"])
        assert run_suppliers(instance, {start: "b", end: "c"}) == ["b", "c"]
        assert run_suppliers(instance, {"dagster/partition": "d"}) == ["d"]
        assert run_suppliers(instance, {}) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_a_bad_batch_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TESTBENCH_SUPPLIERS_PER_RUN", text)
    with pytest.raises(ConfigError, match=r"TESTBENCH_SUPPLIERS_PER_RUN is .* whole number of at least 1"):
        suppliers_per_run()
