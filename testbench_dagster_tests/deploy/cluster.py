"""An installation on Celery: a control host, and workers on others; from the files of deploy/celery."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from testbench_dagster.coordination.heartbeats import is_gone
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.deploy import units
from testbench_dagster_tests.deploy.hosts import Host, Hosts, hosts, namespaces
from testbench_dagster_tests.operations.harness import (
    STARTS_WITHIN_S,
    Platform,
    wait_until,
)
from testbench_dagster_tests.servers import (
    ReplicaSet,
    ends_with_us,
    free_port,
    replica_set,
    show_log,
    start_redis,
    stop,
    wait_for_port,
)

NAMES = ("host-a", "host-b")
CONTROL = "control"
LEAVES_WITHIN_S = 600.0
#: Events by which a run is at its end.
ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
_OF_RUNS = {dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START, *ENDS}
_EVENTS = """
query Events($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { eventConnection { events {
      __typename
      ... on RunFailureEvent { error { message causes { message } } }
      ... on ExecutionStepFailureEvent { error { message causes { message } } }
    } } }
  }
}
"""
_CHECKS = """
query Checks($key: AssetKeyInput!, $name: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $name, limit: 100) {
    runId
    evaluation { success severity metadataEntries { label ... on JsonMetadataEntry { jsonString } } }
  }
}
"""
_LAUNCH = """
mutation Launch($job: String!, $location: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: $location, repositoryName: "__repository__", jobName: $job}
    runConfigData: {}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
_FORCE = """
mutation Force($id: String!) {
  terminateRun(runId: $id, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename }
}
"""


@dataclass
class Redis:
    """The broker, with the settings of deploy/celery."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it kept."""
        self.process = start_redis(self.folder, self.port, units.DEPLOY / "redis.conf")

    def stop(self) -> None:
        """End it as its service does."""
        if self.process is not None:
            stop(self.process)

    @property
    def uri(self) -> str:
        """As clients name it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def waiting(self) -> int:
        """Messages that no worker has taken, of whatever priority."""
        import redis

        with redis.Redis.from_url(self.uri) as client:
            return sum(client.llen(key) for key in client.keys("dagster*") if client.type(key) == b"list")


@dataclass
class Cluster(Platform):
    """The control host (code server, daemon, UI) as plain processes, and the hosts of workers."""

    base: Path = Path()
    workers_at: Hosts | None = None
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """Of testbench.env that differ from what stands there."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Further variables of its, as of keys."""

    def install(self) -> None:
        """Make the folders of all hosts."""
        for name in (CONTROL, *NAMES):
            environment = {**units.install(self.base / name, self.values), **self.keys}
            if name == CONTROL:
                self.environment = environment

    def configure(self, **changes: Any) -> None:
        """Write testbench.yaml, the same on all hosts."""
        super().configure(**changes)
        for name in NAMES:
            self.copy_configuration(name)

    def configure_without(self, forgotten: str, **changes: Any) -> None:
        """Write testbench.yaml on all hosts but one."""
        super().configure(**changes)
        for name in NAMES:
            if name != forgotten:
                self.copy_configuration(name)

    def copy_configuration(self, name: str) -> None:
        """Give a host the control host's testbench.yaml."""
        copy = self.base / name / "etc" / "testbench.yaml"
        partial = copy.with_suffix(".tmp")
        partial.write_bytes(self.config_path.read_bytes())
        partial.replace(copy)

    def start(self) -> None:
        """Start everything and wait until the UI shows the code."""
        for name in NAMES:
            self.start_worker(name)
        for unit in ("testbench-code", "testbench-daemon", "testbench-web"):
            folder = self.base / CONTROL
            path = folder / f"{unit}.log"
            show_log(unit, path)
            with path.open("ab") as log:
                self.services[unit] = subprocess.Popen(
                    units.command(unit, folder, self.environment),
                    env=_surroundings() | self.environment,
                    cwd=folder / "var",
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=ends_with_us(signal.SIGTERM),
                )
            if unit == "testbench-code":  # the UI shows what it did not reach at once
                port = int(self.environment["TESTBENCH_CODE_PORT"])
                wait_for_port(port, self.services[unit], STARTS_WITHIN_S)
        self.process = self.services["testbench-web"]
        wait_until("the UI", self._answers, STARTS_WITHIN_S)

    def start_worker(self, name: str) -> Host:
        """Start the worker of a host."""
        assert self.workers_at is not None
        folder = self.base / name
        environment = {
            k: v.replace(str(self.base / CONTROL), str(folder)) for k, v in self.environment.items()
        }
        program = units.command("testbench-worker", folder, environment)
        return self.workers_at.start(name, program, _surroundings() | environment)

    def host(self, name: str) -> Host:
        """A host whose worker was started."""
        assert self.workers_at is not None
        return self.workers_at.running[name]

    def hosts_alive(self) -> list[Host]:
        """Those whose worker runs."""
        assert self.workers_at is not None
        return [host for host in self.workers_at.running.values() if host.process.poll() is None]

    def leave(self, name: str) -> None:
        """End a host's worker as its service does; an idle one leaves at once."""
        host = self.host(name)
        host.terminate()
        assert host.process.wait(LEAVES_WITHIN_S) == 0, self.log()

    def stop(self) -> None:
        """End the services of the control host."""
        for process in self.services.values():
            process.terminate()
        for process in self.services.values():  # what it holds is thrown away: nobody waits for long
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self) -> str:
        """The end of what every service said."""
        logs = [*(self.base / CONTROL).glob("*.log"), *(self.base / name / "log" for name in NAMES)]
        return "\n".join(
            f"--- {path.parent.name}/{path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in logs
            if path.exists()
        )

    # -- what runs where -----------------------------------------------------------------------------------

    def runs_on(self, name: str) -> set[str]:
        """Runs that a host executes now."""
        with self.documents() as documents:
            beats = [beat for beat in typed.find(documents, HeartbeatRecord) if not is_gone(beat)]
        if namespaces():
            return {beat.id for beat in beats if beat.host.partition("/")[0] == name}
        pids = set(self.host(name).pids())
        return {beat.id for beat in beats if beat.pid in pids}

    def relaying_on(self, name: str, until: int) -> str | None:
        """A run on a host that asks a supplier at this moment which has got fewer than so many requests."""
        stats = self.localnet.stats()
        asked = [f"{a}@simulation" for a, s in stats.items() if s["in_flight"] and s["requests"] < until]
        if not asked:
            return None
        runs, leases = self.runs_on(name), self.leases()
        return next((leases[key] for key in asked if leases.get(key) in runs), None)

    def taken_by(self, name: str) -> int:
        """How many runs a host's workers have taken, by their own log."""
        return len(re.findall(r"Task execute_job\[\S+\] received", self.host(name).log()))

    def published_on(self, name: str) -> str | None:
        """The feed that a host has published on its own disk."""
        path = self.base / name / "var" / "published" / "feed.json"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as it is now."""
        return next(run for run in self.runs() if run["runId"] == run_id)

    def repeats(self, run_id: str) -> list[dict[str, Any]]:
        """Runs that Dagster's run retries started for a run."""
        return [run for run in self.runs() if run["tags"].get("dagster/parent_run_id") == run_id]

    def events(self, run_ids: Iterable[str]) -> dict[str, list[tuple[dg.DagsterEventType, float]]]:
        """What happened to runs, and when in seconds since 1970, in the order of its storing."""
        with self.variables(), dg.DagsterInstance.get() as instance:
            return {
                run_id: [
                    (entry.get_dagster_event().event_type, entry.timestamp)
                    for entry in instance.all_logs(run_id, of_type=_OF_RUNS)
                ]
                for run_id in run_ids
            }

    def failure(self, run_id: str) -> str:
        """Why a run failed, as the UI shows it."""
        events = self.graphql(_EVENTS, id=run_id)["runOrError"]["eventConnection"]["events"]
        return "\n".join(json.dumps(event, ensure_ascii=False) for event in events if "error" in event)

    def check(self, asset: str, name: str, run_id: str) -> dict[str, Any]:
        """How a run evaluated a check, as the UI shows it."""
        executed = self.graphql(_CHECKS, key={"path": [asset]}, name=name)["assetCheckExecutions"]
        (found,) = [one["evaluation"] for one in executed if one["runId"] == run_id]
        return dict(found)

    def launch(self, job: str) -> str:
        """Start a job without settings, as the UI does; return the run's id."""
        answer = self.graphql(_LAUNCH, job=job, location=self.location)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def force_end(self, run_id: str) -> None:
        """Cancel a run that waits for a worker, as the UI offers for such a run and nothing else."""
        answer = self.graphql(_FORCE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def pids(self, word: str) -> list[int]:
        """None beside those of the hosts and services, which end with their parents."""
        return []


def _surroundings() -> dict[str, str]:
    """What a service has besides its environment file."""
    kept = ("PATH", "PYTHONPATH", "HOME", "LANG", "TESTBENCH_CACHE_DIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONWARNINGS": "ignore"}


@contextlib.contextmanager
def cluster(
    folder: Path,
    localnet: LocalnetProcess,
    servers: dict[str, str],
    numbers: dict[str, str],
    configuration: dict[str, Any],
    keys: Mapping[str, str],
) -> Iterator[tuple[Cluster, Redis, ReplicaSet]]:
    """A started installation over its own Redis and replica set, and the servers that ``servers`` names.

    ``keys`` are variables that testbench.env does not name; where they name a server of S3, hosts reach it.
    """
    redis, base = Redis(folder / "redis"), folder / "hosts"
    redis.folder.mkdir()
    (folder / "mongo").mkdir()
    with contextlib.ExitStack() as stack:
        redis.start()
        stack.callback(redis.stop)
        mongo = stack.enter_context(replica_set(folder / "mongo"))
        postgres = {urlsplit(uri).port or 5432 for uri in servers.values()}
        others = {urlsplit(url).port or 0 for url in (localnet.url, keys.get("AWS_ENDPOINT_URL", ""))} - {0}
        made = Cluster(base / CONTROL / "etc", localnet, base=base, keys=keys)
        made.workers_at = stack.enter_context(hosts(base, [redis.port, *mongo.members, *postgres, *others]))
        uri = mongo.uri.replace("/?", "/testbench?")
        made.values = {
            **servers,
            **numbers,
            "TESTBENCH_MONGO_URI": uri,
            "TESTBENCH_REDIS_URL": redis.uri,
            "TESTBENCH_CODE_PORT": str(free_port()),
            "TESTBENCH_WEB_PORT": str(made.port),
        }
        made.install()
        made.configure(**configuration)
        stack.callback(made.stop)
        try:
            made.start()
            yield made, redis, mongo
        except BaseException:
            print(made.log())
            raise
