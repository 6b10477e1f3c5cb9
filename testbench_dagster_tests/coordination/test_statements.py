"""What processes state that they go by, whom that binds, and what is said of a difference."""

from __future__ import annotations

import dataclasses
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.coordination.packages import stated_versions
from testbench_dagster.coordination.processes import host_name, machine
from testbench_dagster.coordination.statements import (
    CODE_SERVER,
    RUN,
    Requested,
    Statement,
    Stating,
    binding,
    leading,
    living,
    note_admitted,
    note_refused,
    refusal,
    refused_lately,
    stating_once,
)
from testbench_dagster.core import versions
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.coordination import StatementRecord
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster_tests.coordination.workers import wait_for
from testbench_dagster_tests.statements import elsewhere

FORTY = Statement({"tasks.t.samples.max": "40"}, {"lm-eval": "0.4.13"}, "/etc/testbench.yaml")
FORTY_ONE = dataclasses.replace(FORTY, settings={"tasks.t.samples.max": "41"})
OTHER_PACKAGES = dataclasses.replace(FORTY, versions={"lm-eval": "0.4.14"})


def put(store: DocumentStore, *records: StatementRecord) -> None:
    typed.upsert(store, StatementRecord, records)


def test_what_is_stated_lives_with_its_process(store: DocumentStore) -> None:
    with Stating(lambda: store, CODE_SERVER, lambda: FORTY):
        wait_for(lambda: living(store))
        (stated,) = living(store)
        assert (stated.config, stated.packages) == (FORTY.config, FORTY.packages)
        assert (stated.host, stated.pid, stated.settings) == (machine(), os.getpid(), FORTY.settings)
    assert living(store) == []
    (kept,) = typed.find(store, StatementRecord)
    with Stating(lambda: store, CODE_SERVER, lambda: FORTY):
        wait_for(lambda: living(store))
        assert living(store)[0].since == kept.since, "one that was started again was there before"


def test_a_change_is_stated_and_an_old_statement_renewed(local: DocumentStore) -> None:
    own = [FORTY]
    with Stating(lambda: local, CODE_SERVER, lambda: own[0], ttl_s=0.9):
        wait_for(lambda: living(local))
        first = living(local)[0]
        wait_for(lambda: living(local)[0].expires_at > first.expires_at)
        own[0] = FORTY_ONE
        wait_for(lambda: living(local)[0].config == FORTY_ONE.config)
        assert living(local)[0].since == first.since


def test_a_store_that_is_away_is_tried_again(local: DocumentStore) -> None:
    failures = iter([StoreError("out of reach"), StoreError("out of reach")])

    def documents() -> DocumentStore:
        for error in failures:
            raise error
        return local

    with Stating(documents, CODE_SERVER, lambda: FORTY, ttl_s=0.6):
        wait_for(lambda: living(local))


def test_nothing_is_stated_of_a_file_that_never_was_right(local: DocumentStore) -> None:
    stating = Stating(lambda: local, CODE_SERVER, lambda: None)
    stating.look()
    assert typed.count(local, StatementRecord) == 0


def test_who_agrees_may_act(store: DocumentStore) -> None:
    put(store, elsewhere(FORTY))
    assert refusal(store, FORTY, leading, catch_up_s=0) is None
    moved = dataclasses.replace(FORTY, path="/home/me/testbench.yaml")
    assert refusal(store, moved, leading, catch_up_s=0) is None
    assert refusal(store, FORTY, leading, Requested("old", "of", "before"), catch_up_s=0) is None


def test_one_sentence_names_machine_differences_and_remedy(local: DocumentStore) -> None:
    put(local, elsewhere(FORTY))
    assert refusal(local, FORTY_ONE, leading) == (
        f"{host_name()} goes by another configuration than the code server on first (process 7, "
        "/etc/testbench.yaml): tasks.t.samples.max is 41 here and 40 there; make /etc/testbench.yaml and the "
        "files it names equal on all machines and restart what runs there (docs/operations.md); nothing was "
        "relayed"
    )
    assert refusal(local, OTHER_PACKAGES, leading) == (
        f"{host_name()} goes by other packages than the code server on first (process 7, "
        "/etc/testbench.yaml): lm-eval is 0.4.14 here and 0.4.13 there; install the same versions on all "
        "machines and restart what runs there (docs/operations.md); nothing was relayed"
    )
    many = dataclasses.replace(FORTY, settings={f"key{i}": "1" for i in range(5)}, versions={})
    told = refusal(local, many, leading) or ""
    assert "lm-eval is not installed here and 0.4.13 there; key0 is 1 here and not set there" in told
    assert told.count(" here and ") == 3 and "and 4 other differences" in told


def test_the_code_server_that_was_there_first_binds_all(local: DocumentStore) -> None:
    later = datetime.now(UTC) + timedelta(seconds=5)
    put(local, elsewhere(FORTY_ONE, "second", since=later), elsewhere(FORTY, "first"))
    found = leading(local)
    assert found is not None and found.host.startswith("first")
    assert refusal(local, FORTY, leading, catch_up_s=0) is None
    assert "than the code server on first" in (refusal(local, FORTY_ONE, leading) or "")


def test_a_dead_code_server_binds_nobody(local: DocumentStore) -> None:
    past = datetime.now(UTC) - timedelta(seconds=40)
    put(local, elsewhere(FORTY, expires_at=past))
    assert refusal(local, FORTY_ONE, leading) is None


def test_without_a_code_server_a_run_is_bound_by_what_it_was_requested_with(local: DocumentStore) -> None:
    requested = Requested("first", FORTY.config, FORTY.packages)
    assert refusal(local, FORTY, leading, requested) is None
    assert "than first, which requested this run: their fingerprints differ" in (
        refusal(local, FORTY_ONE, leading, requested) or ""
    )
    put(local, elsewhere(FORTY, expires_at=datetime.now(UTC) - timedelta(seconds=40)))
    assert "tasks.t.samples.max is 41 here and 40 there" in (
        refusal(local, FORTY_ONE, leading, requested) or ""
    )


def test_evaluations_from_terminals_bind_each_other_where_no_code_server_is(local: DocumentStore) -> None:
    with stating_once(local, RUN, FORTY):
        assert binding(local) is None, "it is alone"
        put(local, elsewhere(FORTY, role=RUN))
        assert "than the evaluation on first" in (refusal(local, FORTY_ONE, binding) or "")
        put(local, elsewhere(FORTY_ONE, "second"))
        assert refusal(local, FORTY_ONE, binding) is None, "a code server is there"


def test_who_reads_the_same_file_is_waited_for(local: DocumentStore) -> None:
    """The file was edited a moment ago, and the code server has not looked yet."""

    def mine(own: Statement) -> StatementRecord:
        return dataclasses.replace(elsewhere(own), host=machine(), pid=os.getpid(), started=None)

    put(local, mine(FORTY))
    timer = threading.Timer(0.3, lambda: put(local, mine(FORTY_ONE)))
    timer.start()
    assert refusal(local, FORTY_ONE, leading) is None
    timer.join()
    assert refusal(local, FORTY, leading, catch_up_s=0.1) is not None, "it never came to read the same"


def test_a_refused_machine_is_remembered_until_it_is_admitted(local: DocumentStore) -> None:
    note_refused(local, FORTY_ONE, "why")
    (one,) = refused_lately(local)
    assert (one.host, one.problem) == (machine(), "why")
    assert living(local) == []
    note_admitted(local, FORTY)
    assert refused_lately(local) == []


def test_versions_are_those_of_what_is_installed() -> None:
    found = stated_versions({"own": "3"})
    assert found["framework own"] == "3"
    assert found["plans of testbench_dagster"] == str(versions.PLANS.number)
    assert {"lm-eval", "datasets", "dagster", "python", "testbench_dagster"} <= found.keys()


@pytest.mark.parametrize("name", ["settings", "versions"])
def test_each_entry_counts_in_any_order(name: str) -> None:
    entries = {f"k{i}": str(i) for i in range(9)}
    one = dataclasses.replace(FORTY, **{name: entries})
    turned = dataclasses.replace(FORTY, **{name: dict(reversed(entries.items()))})
    assert (one.config, one.packages) == (turned.config, turned.packages)
    for key in entries:
        other = dataclasses.replace(FORTY, **{name: {**entries, key: "x"}})
        assert (one.config, one.packages) != (other.config, other.packages)


def test_paths_of_a_machine_are_no_part_of_it(tmp_path: Path) -> None:
    assert dataclasses.replace(FORTY, path=str(tmp_path)).config == FORTY.config
