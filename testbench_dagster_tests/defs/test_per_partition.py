"""Each partition of a run shows what is its own."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.context.system import StepExecutionContext

from testbench_dagster.core.window import Window
from testbench_dagster.defs.per_partition import relays_shown, scores_shown, show_partitions
from testbench_dagster.relays.report import Counts
from testbench_dagster.stages.score.windows import windows
from testbench_dagster_tests.defs.conftest import Materialized

NARROW, WIDE = "sim-04@simulation", "sim-02@simulation"


def shown(materialized: Materialized, asset: str, partition: str) -> dict[str, Any]:
    """The metadata that Dagster's pages show of a partition."""
    found = materialized.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition]), limit=1
    )
    (record,) = found.records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


@pytest.fixture(scope="module")
def rows(materialized: Materialized) -> list[Window]:
    return [row for row in windows(materialized.workspace) if row.primary]


@pytest.mark.slow
@pytest.mark.parametrize("key", [NARROW, WIDE])
def test_each_supplier_of_a_run_shows_its_own_scores(
    materialized: Materialized, rows: list[Window], key: str
) -> None:
    own = [row for row in rows if row.supplier == key and row.score is not None]
    seen = shown(materialized, "supplier_scores", key)
    assert seen["score"] == pytest.approx(sum(row.score or 0.0 for row in own) / len(own))
    assert seen["score_low"] < seen["score"] < seen["score_high"]
    assert seen["tasks_measured"] == f"{len(own)} of {len(own)}"
    assert (seen["n"], seen["n_failed"], seen["n_open"]) == (8 * len(own), 0, 0)
    assert seen["newest_answer"] == pytest.approx(
        max(row.last_sample_at for row in own if row.last_sample_at).timestamp()
    )
    assert seen["windows"].count(key.replace("-", "\\-").partition("@")[0]) <= seen["windows"].count("\n")
    assert len([line for line in seen["windows"].splitlines() if line]) == 2 + len(own)
    assert seen["suppliers"] == 4, "what is said of the run stands beside it"


@pytest.mark.slow
def test_abilities_and_relays_are_of_the_partition(materialized: Materialized) -> None:
    abilities = [shown(materialized, "taxonomy_summaries", key) for key in (NARROW, WIDE)]
    assert abilities[0]["score"] != abilities[1]["score"]
    relays = [shown(materialized, "relay_responses", key) for key in (NARROW, WIDE)]
    assert relays[0]["supplier_sent"] < relays[1]["supplier_sent"], "it is not asked for choices"
    assert relays[0]["supplier_outcomes"] == f"ok {relays[0]['supplier_answered']}"


@pytest.mark.slow
def test_tasks_show_their_own_docs(materialized: Materialized) -> None:
    n_docs = {r.task: r.n_docs for r in materialized.workspace.datasets.tasks()}
    for task, n in n_docs.items():
        assert shown(materialized, "task_datasets", task)["dagster/partition_row_count"] == n
        assert shown(materialized, "sampled_prompts", task)["positions"] == 8, n


def test_who_has_no_scores_yet_has_no_score() -> None:
    assert scores_shown(["new@service"], [], None) == {
        "new@service": {
            "tasks_measured": "0 of 0",
            "n": 0,
            "n_failed": 0,
            "n_open": 0,
            "errors": "none",
        }
    }


def test_the_board_is_linked_where_it_has_an_address() -> None:
    (seen,) = scores_shown(["a/b@c"], [], "https://board.example.org").values()
    assert seen["board"].value == "https://board.example.org/supplier/a%2Fb@c"


def test_who_was_left_before_it_was_asked_is_told() -> None:
    counted = Counts(sent=3, answered=2, final=2)
    assert relays_shown({"a@b": counted}, {"c@d": "rate limited"}) == {
        "a@b": {"supplier_sent": 3, "supplier_answered": 2, "supplier_outcomes": "none"},
        "c@d": {"supplier_left": "rate limited"},
    }


def test_a_run_over_many_partitions_checks_none_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """``add_asset_metadata`` reads it once per partition, which is why it is not used."""
    partitions = dg.DynamicPartitionsDefinition(name="many")
    keys = [f"k{n:03d}" for n in range(60)]

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def many(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads no annotation as text
        show_partitions(context, {key: {"own": int(key[1:])} for key in context.partition_keys})

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("many", keys)
        checked = 0

        def counting(*_: Any, **__: Any) -> None:
            nonlocal checked
            checked += 1

        monkeypatch.setattr(StepExecutionContext, "add_asset_metadata", counting)
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        job = dg.Definitions(assets=[many], jobs=[dg.define_asset_job("all", [many])]).resolve_job_def("all")
        assert job.execute_in_process(instance=instance, tags=tags).success
        for key in (keys[0], keys[31], keys[-1]):
            found = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey("many"), asset_partitions=[key]), limit=1
            )
            assert found.records[0].asset_materialization is not None
            assert found.records[0].asset_materialization.metadata["own"].value == int(key[1:])
        assert not checked
