"""The definitions as the design names them, and how they load for a newcomer."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import testbench_dagster
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.partitions import pack_ranges, run_suppliers, suppliers_per_run
from testbench_dagster.errors import ConfigError

ROOT = Path(testbench_dagster.__file__).parent.parent

ASSETS = {
    "task_datasets": ("catalog", "task"),
    "sampled_prompts": ("catalog", "task"),
    "suppliers": ("network", None),
    "relay_responses": ("evaluation", "supplier"),
    "supplier_scores": ("evaluation", "supplier"),
    "taxonomy_summaries": ("summaries", "supplier"),
    "leaderboard": ("summaries", None),
}
CHECKS = {
    "task_datasets": {"datasets_intact"},
    "sampled_prompts": {"prompts_reproducible"},
    "relay_responses": {"attempts_have_an_owner", "supplier_fault_rate"},
    "supplier_scores": {"scores_fresh", "windows_tight", "scores_reproducible"},
}
JOBS = {
    "refresh_catalog": {"task_datasets", "sampled_prompts"},
    "refresh_suppliers": {"suppliers"},
    "evaluate_suppliers": {"relay_responses", "supplier_scores", "taxonomy_summaries"},
    "refresh_summaries": {"leaderboard"},
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
        found[key.to_user_string()] = (node.group_name, kind)
    assert found == ASSETS


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name in ASSETS:
        assert len(graph.get(dg.AssetKey(name)).description or "") > 40, name


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
    assert crossing == [("sampled_prompts", "relay_responses")]


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


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=40).flatmap(
        lambda order: st.tuples(
            st.just(order), st.lists(st.sampled_from(order), unique=True) if order else st.just([])
        )
    ),
    st.integers(1, 12),
)
def test_ranges_cover_exactly_the_wanted_keys(chosen: tuple[list[str], list[str]], size: int) -> None:
    order, wanted = chosen
    ranges = pack_ranges(order, wanted, size)
    covered = []
    for first, last in ranges:
        start, end = order.index(first), order.index(last)
        assert 0 <= end - start < size
        covered += order[start : end + 1]
    assert sorted(covered) == sorted(wanted)
    assert covered == sorted(covered, key=order.index), "in order, no overlap"
    full = [r for r in ranges if order.index(r[1]) - order.index(r[0]) == size - 1]
    gaps = sum(
        order.index(later[0]) - order.index(earlier[1]) > 1 for earlier, later in itertools.pairwise(ranges)
    )
    assert len(ranges) <= gaps + 1 + len(full), "a range ends at a gap or when it is full"


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
