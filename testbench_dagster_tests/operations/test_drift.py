"""Two installations on one store, one of which asks another number of docs; and backfills in the queue.

The first is a running platform with its daemon, the second commands and a code server of their own, with
another home and configuration, as on another host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.coordination.processes import host_name
from testbench_dagster.coordination.statements import living
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.defs.hosts import CONFIG_TAG, HOST_TAG, PACKAGES_TAG, REQUESTED_BY_TAG
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.operations.harness import SENSORS, UNFINISHED, Platform, platform, wait_until
from testbench_dagster_tests.servers import ends_with_us, free_port

pytestmark = pytest.mark.slow(minutes=5)

EVALUATED_WITHIN_S = 400.0
STATED_WITHIN_S = 120.0
LIMIT = 2  # evaluations at a time, as `dagster.yaml` has it
SUPPLIERS = 4


def second_host(made: Platform, folder: Path, samples: int) -> dict[str, str]:
    """Another home on the same store, whose configuration asks so many docs; return its environment."""
    folder.mkdir(exist_ok=True)
    settings = yaml.safe_load(made.config_path.read_text(encoding="utf-8"))
    for task in settings["tasks"]:
        task["samples"] = {"min": samples, "max": samples, "half_width": None}
    (folder / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TESTBENCH_", "DAGSTER_"))}
    return {**environment, **made.environment, "TESTBENCH_CONFIG": str(folder / "testbench.yaml")}


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the second host."""
    return subprocess.run(
        [sys.executable, "-m", "testbench_dagster.cli", *arguments],
        env=environment,
        cwd=Path(environment["TESTBENCH_CONFIG"]).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextlib.contextmanager
def code_server(environment: dict[str, str], log: Path) -> Iterator[None]:
    """A second code server, as Dagster starts it."""
    served = [sys.executable, "-m", "dagster", "api", "grpc", "-m", "testbench_dagster.definitions"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*served, "--port", str(free_port())],
            env=environment,
            cwd=log.parent,
            stdout=said,
            stderr=said,
            preexec_fn=ends_with_us(signal.SIGTERM),
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def test_one_store_is_evaluated_under_one_configuration(tmp_path: Path, mongo_database_uri: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    variables = {"TESTBENCH_MONGO_URI": mongo_database_uri}
    with platform(first, 2, variables) as made:
        made.start()
        wait_until("an evaluation", lambda: made.scores() and made.at_rest(), EVALUATED_WITHIN_S)
        attempts, plans = made.attempts(), made.plans()
        environment = second_host(made, second, samples=9)

        refused = command(environment, "run", "--quiet")
        assert refused.returncode != 0
        (sentence,) = [line for line in refused.stderr.splitlines() if "goes by another" in line]
        assert "samples.max is 9 here and 8 there" in sentence and str(made.config_path) in sentence
        assert "Traceback" not in refused.stderr
        checked = command(environment, "check", "--no-suppliers")
        (failed,) = [line for line in checked.stdout.splitlines() if line.startswith("FAIL")]
        assert failed.startswith("FAIL  other machines: ")
        assert failed.partition(" goes by ")[2] == sentence.partition(" goes by ")[2]
        planned = command(environment, "plan")
        assert planned.returncode == 0
        (told,) = [line for line in planned.stderr.splitlines() if "none of it would be relayed" in line]
        assert told.partition(" goes by ")[2] == sentence.partition(" goes by ")[2]
        log = second / "server.log"
        with code_server(environment, log):
            told = "goes by another configuration than the code server on"
            wait_until("its warning", lambda: told in log.read_text(errors="replace"), STATED_WITHIN_S)
            with made.documents() as documents:
                assert [Path(one.path).parent.name for one in living(documents)] == ["first", "second"]

        # nobody was asked, and the first host's daemon saw no reason to plan anything anew
        assert made.at_rest() and made.attempts() == attempts
        assert {key: plan["planned_at"] for key, plan in made.plans().items()} == {
            key: plan["planned_at"] for key, plan in plans.items()
        }

        # the second number is made that of both, and nothing has to be started again for it
        shutil.copy(second / "testbench.yaml", made.config_path)
        beside = command(
            {**environment, "TESTBENCH_CONFIG": str(made.config_path)}, "check", "--no-suppliers"
        )
        assert "ok    other machines: the code server on" in beside.stdout, beside.stdout
        done = command(environment, "run", "--quiet", "--max-relays", "0")
        assert "goes by another" not in done.stderr
        wait_until("the ninth doc", lambda: len(made.scores()) > len(plans) * 2 * 8, EVALUATED_WITHIN_S)
        with made.documents() as documents:
            assert {one.host for one in typed.find(documents, AttemptRecord)} == {host_name()}


def test_runs_of_a_backfill_say_their_kind_and_keep_to_the_limit(tmp_path: Path) -> None:
    quiet = {name: {"enabled": False} for name in ("stale_scores", "new_suppliers", "nightly_evaluation")}
    changes = {
        "automation": {**SENSORS, **quiet},
        "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": 2},
        "tasks": [{"name": "starter_units", "samples": 8}],
    }
    with platform(tmp_path, SUPPLIERS, latency_ms=1_000, **changes) as made:
        with made.workspace() as workspace:
            Testbench(workspace).run(max_relays=0)  # roster, partitions, prompts
        made.environment["TESTBENCH_SUPPLIERS_PER_RUN"] = "1"
        made.start()
        id_ = made.backfill(made.partitions())
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, len(made.runs(*[s for s in UNFINISHED if s in ("STARTING", "STARTED")])))
            return made.backfill_status(id_) == "COMPLETED_SUCCESS"

        wait_until("its end", ended, EVALUATED_WITHIN_S)
        runs = [run for run in made.runs() if run["tags"].get("dagster/backfill") == id_]
        assert len(runs) == SUPPLIERS and {run["jobName"] for run in runs} == {"__ASSET_JOB"}
        assert {run["tags"].get("testbench/kind") for run in runs} == {"evaluation"}
        assert most == LIMIT
        for tag in (HOST_TAG, REQUESTED_BY_TAG):
            assert {run["tags"].get(tag) for run in runs} == {host_name()}
        assert len({(run["tags"][CONFIG_TAG], run["tags"][PACKAGES_TAG]) for run in runs}) == 1
