"""Checks are about all active suppliers: a run over one hides nothing that is wrong with another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.core.records.identity import ChangeRecord
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.partitions import range_tags
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.stores.documents.collections import SCORES
from testbench_dagster_tests.defs.conftest import Materialized
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, configuration

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
A, B = ALPHA, BETA
NOW = datetime.now(UTC)
OF_B = range_tags(B, B)
Told = dict[str, dict[str, Any]]


def evaluated(definitions: dg.Definitions, tags: dict[str, str] | None = OF_B) -> Told:
    """What all checks of suppliers say in a run over some: their metadata by name, with ``passed``."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", [A, B])
        job = definitions.resolve_job_def("evaluate_suppliers")
        checks = set(job.asset_layer.asset_graph.asset_check_keys)
        only = job.get_subset(asset_selection=set(), asset_check_selection=checks)
        done = only.execute_in_process(instance=instance, tags=tags, run_config=QUIET)
    assert done.success
    return {
        check.check_name: {
            "passed": check.passed,
            **{name: value.value for name, value in check.metadata.items()},
        }
        for check in done.get_asset_check_evaluations()
    }


class Two(NamedTuple):
    """An installation of two suppliers whom nobody asked anything yet."""

    documents: DocumentStore
    definitions: dg.Definitions


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    config = configuration(tmp_path_factory.mktemp("health"), {"tasks": [{"name": "starter_logic"}]})
    with Workspace(config) as workspace:
        yield Two(workspace.documents, build_definitions(workspace))


@pytest.fixture
def two(installed: Two) -> Two:
    for record in (HealthRecord, ChangeRecord):
        typed.purge(installed.documents, record, {"_id": {"ne": ""}})
    return installed


def rows(*suppliers: str, **wrong: Any) -> list[HealthRecord]:
    """Rows of suppliers that everything was noted of, and what is wrong with each."""
    noted = {"attempts_at": NOW, "scores_at": NOW, "abilities_at": NOW, "attempts": 10, **wrong}
    return [HealthRecord(id=key, **noted) for key in suppliers]


def change(supplier: str, detected_at: datetime) -> ChangeRecord:
    return ChangeRecord(
        id=f"{supplier} {detected_at}",
        supplier=supplier,
        service="external",
        kind="repeat",
        task=None,
        at=detected_at - timedelta(hours=1),
        detected_at=detected_at,
        seen_at=detected_at,
        cut=True,
        reason="answers the same prompts otherwise",
        before_at=None,
        log_e=9.0,
        arl=1000.0,
        observations=20,
        since_change=5,
        null_rate=0.9,
        rate_after=0.1,
        direction="down",
        certain=True,
    )


def test_who_changed_is_named_though_another_was_evaluated_after(two: Two) -> None:
    """The acceptance of the matter: A changed, B is evaluated after, the check names A."""
    typed.put_new(two.documents, ChangeRecord, [change(A, NOW), change("gone@external", NOW)])
    told = evaluated(two.definitions)["models_unchanged"]
    assert not told["passed"]
    assert list(told["offenders"].values()) == ["answers the same prompts otherwise"]
    assert next(iter(told["offenders"])).startswith(A)
    assert (told["n_offenders"], told["n_suppliers"], told["n_suppliers_of_this_run"]) == (1, 1, 0)
    assert evaluated(two.definitions, range_tags(A, A))["models_unchanged"]["n_suppliers_of_this_run"] == 1
    typed.purge(two.documents, ChangeRecord, {"supplier": A})
    typed.put_new(two.documents, ChangeRecord, [change(A, NOW - timedelta(days=2))])
    assert evaluated(two.definitions)["models_unchanged"]["passed"], "it is old news, and the other left"


def test_every_check_tells_what_is_kept_of_suppliers_outside_its_run(two: Two) -> None:
    wrong = {
        "fault_share": 0.5,
        "n_unowned": 1,
        "unowned": {"empty": "3 attempts"},
        "n_stale": 7,
        "stale": {f"t{n}": "it was never asked" for n in range(5)},
        "n_short": 1,
        "short": {"t0": "10 of 50 docs"},
        "n_late": 1,
        "late": {"t1": "9 of 50 docs"},
        "n_empty": 1,
        "empty": {"t2": "all of them"},
        "n_refused": 1,
        "refused": {"t3": "because of seed"},
        "n_uncovered": 1,
        "uncovered": {"general": "reasoning"},
    }
    typed.upsert(two.documents, HealthRecord, [*rows(A, **wrong), *rows(B), *rows("gone@external", **wrong)])
    found = evaluated(two.definitions)
    expected = {
        "attempts_have_an_owner": {f"{A} empty": "3 attempts"},
        "supplier_fault_rate": {A: 0.5},
        "scores_fresh": {f"{A} t{n}": "it was never asked" for n in range(5)},
        "windows_tight": {f"{A} t0": "10 of 50 docs"},
        "answers_in_time": {f"{A} t1": "9 of 50 docs"},
        "answers_have_text": {f"{A} t2": "all of them"},
        "requests_taken": {f"{A} t3": "because of seed"},
        "taxonomies_covered": {f"{A} general": "reasoning"},
    }
    for name, violations in expected.items():
        told = found[name]
        assert (told["passed"], told["offenders"]) == (False, violations), name
        assert (told["n_suppliers"], told["n_suppliers_of_this_run"]) == (1, 0), name
        assert "not_looked_at" not in told, name
    assert found["scores_fresh"]["n_offenders"] == 7, "not only those that are told in words"
    assert {name for name, told in found.items() if told["passed"]} == {
        "models_unchanged", "alike_with_reference", "scores_reproducible", "hosts_agree"
    }  # fmt: skip


def test_scores_that_grow_old_without_any_run_are_told(two: Two) -> None:
    past = NOW - timedelta(hours=2)
    typed.upsert(two.documents, HealthRecord, [*rows(A, scores_until=past), *rows(B)])
    told = evaluated(two.definitions)["scores_fresh"]
    assert told["offenders"] == {A: f"the newest score of a task counted until {past:%Y-%m-%d %H:%M} UTC"}
    typed.upsert(two.documents, HealthRecord, rows(A, scores_until=NOW + timedelta(hours=2)))
    assert evaluated(two.definitions)["scores_fresh"]["passed"]


def test_a_home_of_before_says_who_was_not_looked_at_yet(two: Two) -> None:
    found = evaluated(two.definitions)
    for name in ("supplier_fault_rate", "scores_fresh", "taxonomies_covered"):
        assert found[name]["passed"], name
        assert (found[name]["n_not_looked_at"], found[name]["not_looked_at"]) == (2, [A, B]), name


def test_the_worst_come_first_and_tables_stay_short(tmp_path: Path) -> None:
    keys = [f"s{n:03}@external" for n in range(120)]
    suppliers = [
        {"address": key.partition("@")[0], "base_url": "http://127.0.0.1:9/v1", "model": "m"} for key in keys
    ]
    settings = {
        "suppliers": suppliers,
        "tasks": [{"name": "starter_logic"}],
        "board": {"url": "https://board.example.org"},
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        worse = [rows(key, fault_share=0.3 + n / 1000)[0] for n, key in enumerate(keys)]
        typed.upsert(workspace.documents, HealthRecord, worse)
        told = evaluated(build_definitions(workspace))["supplier_fault_rate"]
    assert list(told["offenders"])[:2] == ["s119@external", "s118@external"]
    assert (len(told["offenders"]), told["n_offenders"]) == (50, 120)
    lines = [line for line in told["worst"].splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 20
    assert lines[1].startswith(
        "| [s119@external](https://board.example.org/supplier/s119@external) | 1 | 0.4"
    )
    assert told["board"] == "https://board.example.org"


def test_an_evaluation_leaves_a_row_of_each_supplier(materialized: Materialized) -> None:
    """Through the assets: all three parts, of suppliers that are well."""
    kept = {row.id: row for row in typed.find(materialized.workspace.documents, HealthRecord)}
    assert set(kept) == {supplier.key for supplier in materialized.workspace.config.settings.suppliers}
    for row in kept.values():
        assert row.attempts_at and row.scores_at and row.abilities_at and row.scores_until
        assert row.attempts >= 16 and row.fault_share == 0.0
        assert (row.n_stale, row.n_refused, row.n_unowned, row.n_uncovered) == (0, 0, 0, 0)
        assert row.half_width is not None and row.half_width_task is not None


def test_scores_that_do_not_follow_are_named_until_they_do(materialized: Materialized) -> None:
    """Whomever runs are about meanwhile: a random sample of somebody else's answers says nothing of them."""
    wide, other = "sim-02@simulation", "sim-01@simulation"
    documents = materialized.workspace.documents
    whole = list(documents.find(SCORES, {"supplier": wide, "task": "starter_units"}))
    definitions = build_definitions(materialized.workspace)
    check = dg.AssetCheckKey(dg.AssetKey("supplier_scores"), "scores_reproducible")

    def told(key: str) -> dict[str, Any]:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("supplier", [wide, other])
            job = definitions.resolve_job_def("evaluate_suppliers")
            only = job.get_subset(asset_selection=set(), asset_check_selection={check})
            done = only.execute_in_process(instance=instance, tags=range_tags(key, key), run_config=QUIET)
        (found,) = done.get_asset_check_evaluations()
        return {"passed": found.passed, **{name: value.value for name, value in found.metadata.items()}}

    first = told(wide)
    assert first["passed"] and first["scores_compared"] >= 20
    try:
        documents.upsert(SCORES, [{**score, "metrics": {"exact_match": 7.0}} for score in whole])
        found = told(wide)
        assert not found["passed"] and found["n_suppliers_of_this_run"] == 1
        assert all(doc.startswith("starter_units doc ") for doc in found["offenders"].values())
        found = told(other)
        assert not found["passed"], "the other's answers say nothing of these"
        assert (found["n_suppliers"], found["n_suppliers_of_this_run"]) == (1, 0)
    finally:
        documents.upsert(SCORES, whole)
    assert told(wide)["passed"]
    assert told(other)["passed"]
