"""``Testbench.run`` and ``.backfill``: passes until a width is reached or a cap is, recorded in Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.backfills import BackfillRequests
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.defs.conftest import opened_instance, starter_settings


@pytest.fixture
def workspace(localnet: LocalnetProcess, tmp_path: Path) -> Iterator[Workspace]:
    """Two suppliers, and a task that waits for the other."""
    settings = starter_settings(localnet)
    settings["suppliers"] = settings["suppliers"][:2]
    settings["tasks"] = [
        {"name": "starter_logic", "samples": {"min": 4, "max": 12, "half_width": 0.01}},
        {
            "name": "starter_units",
            "samples": 4,
            "planning": {"gates": [{"task": "starter_logic", "is": "present"}]},
        },
    ]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as opened:
        yield opened


def jobs(workspace: Workspace) -> list[str]:
    with opened_instance(workspace) as instance:
        return [run.job_name for run in instance.get_runs()][::-1]


def pictures(workspace: Workspace) -> set[str]:
    """Names of those that the newest leaderboard shows in the UI."""
    with opened_instance(workspace) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("leaderboard"))
    assert event is not None and event.asset_materialization is not None
    return {
        name
        for name, value in event.asset_materialization.metadata.items()
        if "data:image/png" in str(value.value)
    }


@pytest.mark.slow
def test_it_goes_on_while_gates_open(workspace: Workspace) -> None:
    testbench = Testbench(workspace)
    planned: list[int] = []
    seen: list[Progress] = []
    notes: list[str] = []
    report = testbench.run(on_planned=planned.append, on_progress=seen.append, on_note=notes.append)
    keys = tuple(s.key for s in workspace.config.settings.suppliers)
    assert (report.suppliers, report.tasks) == (keys, ("starter_logic", "starter_units"))
    assert report.sent == report.final == workspace.documents.count(ATTEMPTS) == 2 * (12 + 4)
    assert report.passes == len(planned) > 1, "what a gate lets be asked shows only after scoring"
    assert planned == [2 * 12, 2 * 4, 0]
    assert seen
    assert (report.waiting, report.problem) == ("", "")
    for key in keys:  # who runs no daemon has a history, too
        points = testbench.history(key).rows
        assert {p["source"] for p in points} == {"snapshot"}
        assert {p["task"] for p in points if p["taxonomy"] is None} == {*report.tasks}
    assert notes == [
        "catalog: preparing 2 of 2 tasks",
        "evaluation: 2 suppliers, 2 tasks",
        "evaluation: 32 relays sent",
        "service: 4 of 4 probes done, 4 answered",
    ]
    assert jobs(workspace) == [
        "refresh_suppliers",
        "refresh_catalog",
        *["evaluate_suppliers"] * report.passes,
        "probe_service",
        "refresh_identity",
        "refresh_summaries",
    ]
    assert (workspace.on_planned, workspace.on_progress) == (None, None), "nobody watches any more"

    again = testbench.run(keys[:1])
    assert (again.suppliers, again.sent, again.passes) == (keys[:1], 0, 1)
    forced = testbench.run(keys[:1], force=True, max_relays=3)
    assert (forced.sent, forced.passes) == (3, 1), "the cap holds over all passes"


@pytest.mark.slow
def test_one_run_asks_all_so_nobody_waits_for_the_dead_before_it(
    localnet: LocalnetProcess, tmp_path: Path
) -> None:
    settings = starter_settings(localnet)
    [alive] = settings["suppliers"][:1]
    dead = {**alive, "base_url": "http://127.0.0.1:9/v1"}
    settings["suppliers"] = [
        {**(dead if n < 60 else alive), "address": f"s{n:02}", "model": alive["model"]} for n in range(62)
    ]
    settings["tasks"] = [{"name": "starter_logic", "samples": 2}]
    settings["planning"] = {"occasions_minutes": [0, 0.06, 0.5, 3, 6, 12, 18]}  # the dead are left sooner
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        report = Testbench(workspace).run()
        assert report.final == 2 * 2
        assert jobs(workspace).count("evaluate_suppliers") == 1


@pytest.mark.slow
def test_a_cap_is_over_all_passes_and_what_came_to_nothing_is_told(
    workspace: Workspace, localnet: LocalnetProcess
) -> None:
    testbench = Testbench(workspace)
    none = testbench.run(max_relays=0)
    assert (none.sent, none.final, none.passes) == (0, 0, 1)
    assert (
        none.nothing_allowed
        and none.problem == "nothing was scored: a cap of 0 relays allows none to be sent"
    )
    assert pictures(workspace) == set(), "there is nothing to be seen yet"
    some = testbench.run(max_relays=26)
    assert pictures(workspace) >= {"plot"}
    assert (some.sent, some.problem) == (26, "")
    assert some.passes > 1

    supplier = workspace.config.settings.suppliers[0]
    localnet.fail(supplier.address, "429")
    try:
        vain = testbench.run([supplier.key], force=True, max_relays=2)
    finally:
        localnet.fail(supplier.address, rate=0.0)
    assert (vain.sent, vain.final, vain.passes) == (2, 0, 1)
    assert vain.problem == "2 relays sent, none answered (rate_limited 2): nothing new was learned"
    assert testbench.run([supplier.key], max_relays=0).problem == "", "nothing was sent, and there are scores"


@pytest.mark.slow
def test_who_refuses_all_that_is_asked_is_to_be_checked(tmp_path: Path) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"error": {"message": "Unsupported parameter", "param": "max_tokens"}}'
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    supplier = {"address": "a", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m"}
    settings = {"suppliers": [supplier], "tasks": [{"name": "starter_logic", "samples": 2}]}
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    notes: list[str] = []
    try:
        with Workspace(load_config(path)) as opened:
            Testbench(opened).run(on_note=notes.append)
    finally:
        server.shutdown()
        server.server_close()
    (told,) = [
        note for note in notes if note.startswith("evaluation: a@external refuses all that was asked: ")
    ]
    assert told.endswith("`testbench check` finds out which settings are wanted")


@pytest.mark.slow
def test_a_backfill_is_handed_to_the_daemon(workspace: Workspace) -> None:
    testbench = Testbench(workspace)
    with pytest.raises(TestbenchError, match="has no partition yet; run `testbench run --max-relays 0`, or"):
        testbench.backfill()
    testbench.run(max_relays=0)
    requested = testbench.backfill(rescore=True)
    assert requested.suppliers == tuple(s.key for s in workspace.config.settings.suppliers)
    assert not requested.daemon_is_running()
    outcome = requested.outcome()
    assert (outcome.status, outcome.ended) == ("REQUESTED", False)
    with BackfillRequests(workspace) as requests:
        assert requests.outcome(requested.id) == outcome
