"""An installation on Celery: a control host, and workers on others; from the files of deploy/celery."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
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
    UNFINISHED,
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

    def install(self) -> None:
        """Make the folders of all hosts."""
        for name in (CONTROL, *NAMES):
            environment = units.install(self.base / name, self.values)
            if name == CONTROL:
                self.environment = environment

    def configure(self, **changes: Any) -> None:
        """Write testbench.yaml, the same on all hosts."""
        super().configure(**changes)
        for name in NAMES:
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

    def relaying_on(self, name: str) -> str | None:
        """A run on a host that has a request in flight at this moment."""
        runs, leases = self.runs_on(name), self.leases()
        asked = [f"{a}@simulation" for a, s in self.localnet.stats().items() if s["in_flight"]]
        return next((leases[key] for key in asked if leases.get(key) in runs), None)

    def taken_by(self, name: str) -> int:
        """How many runs a host's workers have begun, by their own log."""
        return self.host(name).log().count("Task execute_job[") // 2  # received, and how it ended

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as it is now."""
        return next(run for run in self.runs() if run["runId"] == run_id)

    def repeats(self, run_id: str) -> list[dict[str, Any]]:
        """Runs that Dagster's run retries started for a run."""
        return [run for run in self.runs() if run["tags"].get("dagster/parent_run_id") == run_id]

    def starts(self, run_ids: Iterable[str]) -> dict[str, int]:
        """How often each run began, by its events."""
        with self.variables(), dg.DagsterInstance.get() as instance:
            return {
                run_id: len(instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START))
                for run_id in run_ids
            }

    def force_end(self, run_id: str) -> None:
        """Cancel a run that waits for a worker, as the UI offers for such a run and nothing else."""
        answer = self.graphql(_FORCE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def at_work(self) -> list[dict[str, Any]]:
        """Runs that hold a slot: not those that wait in the queue, or are just being put there."""
        return self.runs(*(status for status in UNFINISHED if status not in ("QUEUED", "NOT_STARTED")))

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
) -> Iterator[tuple[Cluster, Redis, ReplicaSet]]:
    """A started installation over its own Redis and replica set, and PostgreSQL as ``servers`` says."""
    redis, base = Redis(folder / "redis"), folder / "hosts"
    redis.folder.mkdir()
    (folder / "mongo").mkdir()
    with contextlib.ExitStack() as stack:
        redis.start()
        stack.callback(redis.stop)
        mongo = stack.enter_context(replica_set(folder / "mongo"))
        postgres = {urlsplit(uri).port or 5432 for uri in servers.values()}
        ports = [urlsplit(localnet.url).port or 0, redis.port, *mongo.members, *postgres]
        made = Cluster(base / CONTROL / "etc", localnet, base=base)
        made.workers_at = stack.enter_context(hosts(base, ports))
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
