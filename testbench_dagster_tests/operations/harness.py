"""A platform that runs by itself (`dagster dev`, the simulated network, short intervals), seen from outside.

Everything is looked at as an operator or a supplier would: through GraphQL, through the stores, and in the
simulated suppliers' own logs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

import testbench_dagster
from testbench_dagster.config import load_config
from testbench_dagster.coordination.heartbeats import is_gone
from testbench_dagster.coordination.leases import COUNTER
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.defs.entry_points import LOCATION
from testbench_dagster.defs.local_runs import prepare_home, workspace_file
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document, DocumentStore, open_documents, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, LEASES, PLANS, SCORES
from testbench_dagster_tests.servers import ends_with_us, free_port, show_log

ROOT = Path(testbench_dagster.__file__).parent.parent
INTERVAL_S = 5
"""Between the ticks of every sensor in these tests."""
STARTS_WITHIN_S = 600.0
#: `dagster dev` gives each of its services a minute to end, and looks every five seconds.
ENDS_WITHIN_S = 90.0
"""How long `dagster dev` takes to notice that one of its services died, and to end itself."""
DAY = 86_400.0
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
"""Statuses of runs."""
SENSORS = {
    name: {"every_s": INTERVAL_S}
    for name in ("new_suppliers", "stale_catalog", "stale_scores", "lost_runs", "summaries_sensor")
}
"""Settings by which everything happens soon."""

_RUNS = """
query Runs($filter: RunsFilter, $limit: Int) {
  runsOrError(filter: $filter, limit: $limit) {
    __typename
    ... on Runs { results { runId status jobName creationTime startTime endTime tags { key value } } }
    ... on PythonError { message }
  }
}
"""
_PARTITIONS = """
query Partitions($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      partitionKeys
      assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } }
    }
  }
}
"""
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}
"""
_BACKFILL_STATUS = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status numPartitions } }
}
"""
_TERMINATE = """
mutation Terminate($id: String!) {
  terminateRun(runId: $id) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
  }
}
"""
_LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries { loadStatus locationOrLoadError { __typename ... on PythonError { message } } }
    }
  }
}
"""
_TICKS = """
query Ticks($selector: InstigationSelector!) {
  instigationStateOrError(instigationSelector: $selector) {
    ... on InstigationState { status ticks(limit: 50) { status skipReason runIds error { message } } }
  }
}
"""


def wait_until(what: str, look: Callable[[], Any], within_s: float, every_s: float = 0.5) -> Any:
    """Look until there is something; fail, saying what was waited for, when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:.0f} s in vain for {what}; last seen: {found!r}")
        time.sleep(every_s)


@dataclass
class Platform:
    """An installation over a localnet, with `dagster dev` beside it."""

    folder: Path
    localnet: LocalnetProcess
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    location: str = LOCATION
    """What Dagster calls the code location."""
    run_monitoring: dict[str, int] = field(default_factory=dict)
    """Settings of Dagster's run monitoring that differ from `dagster.yaml`, such as shorter times."""

    # -- configuration ----------------------------------------------------------------------------------

    def configure(self, **changes: Any) -> None:
        """Write testbench.yaml: the localnet's roster as the only source, small tasks, short intervals."""
        settings: dict[str, Any] = {
            "simulation": True,
            "supplier_sources": [
                {"url": f"{self.localnet.url}/roster", "name": "localnet", "allow_private_networks": True}
            ],
            "tasks": [
                {"name": name, "samples": {"min": 8, "max": 8, "half_width": None}}
                for name in ("starter_logic", "starter_units")
            ],
            "taxonomies": ["builtin:starter"],
            "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "retries": 1},
            "automation": SENSORS,
            "planning": {"retry_minutes": 0.25},
            **changes,
        }
        self.config_path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    @property
    def config_path(self) -> Path:
        return self.folder / "testbench.yaml"

    @contextlib.contextmanager
    def variables(self) -> Iterator[None]:
        """This installation's environment in the present process, for reading its stores."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """The installation opened beside the running platform."""
        with self.variables(), Workspace.open(self.config_path) as opened:
            yield opened

    # -- processes --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start `dagster dev` in a session of its own and wait until it answers."""
        with self.variables():
            config = load_config(self.config_path)
            environment = {**os.environ, **prepare_home(config), "PYTHONWARNINGS": "ignore"}
        if self.run_monitoring:
            instance = Path(environment["DAGSTER_HOME"]) / "dagster.yaml"
            settings = yaml.safe_load(instance.read_text(encoding="utf-8"))
            settings["run_monitoring"] |= self.run_monitoring
            instance.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        workspace = workspace_file(environment["DAGSTER_HOME"])
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace)]
        command += ["-h", "127.0.0.1", "-p", str(self.port)]
        show_log("dagster dev", self.folder / "dagster.log")
        log = (self.folder / "dagster.log").open("ab")
        ends_with_tests = ends_with_us(signal.SIGTERM)

        def arrange() -> None:
            # SIGINT is inherited as ignored from shells that start jobs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
            ends_with_tests()

        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=arrange,
        )
        log.close()
        wait_until("the webserver", self._answers, STARTS_WITHIN_S)

    def stop(self) -> None:
        """End everything this platform started."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_everything(self) -> None:
        """SIGKILL to every process at once, as when the machine loses power."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in self.pids(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None

    def kill(self, pids: Iterable[int]) -> float:
        """SIGKILL to some processes at once; return when that was, in seconds since 1970."""
        at = time.time()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return at

    def start_again(self) -> None:
        """What a service manager does: start `dagster dev` anew once it ended.

        It ends by itself when its daemon or webserver dies, and starts a dead code server itself.
        """
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_WITHIN_S)
        assert self.process.poll() is not None, f"dagster dev goes on without a service: {self.log()}"
        self.start()

    def pids(self, word: str) -> list[int]:
        """Processes of this platform whose command line contains a word, children of killed ones included."""
        home = f"DAGSTER_HOME={self.folder / '.testbench' / 'dagster'}"
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                ours = home.encode() in (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if ours and word in line:
                    found.append(int(entry.name))
        return sorted(found)

    def log(self) -> str:
        """The end of what Dagster's processes said."""
        path = self.folder / "dagster.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    # -- GraphQL ----------------------------------------------------------------------------------------

    def graphql(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL answer; errors fail the test."""
        response = httpx.post(
            f"http://127.0.0.1:{self.port}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        response.raise_for_status()
        answer = response.json()
        assert not answer.get("errors"), answer["errors"]
        return answer["data"]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"dagster dev ended: {self.log()}"
        try:
            entries = self.graphql(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except (httpx.HTTPError, KeyError):
            return False
        loaded = [entry["locationOrLoadError"] for entry in entries if entry["loadStatus"] == "LOADED"]
        for location in loaded:
            assert location["__typename"] == "RepositoryLocation", location
        return bool(loaded)

    def partitions(self, asset: str = "relay_responses") -> list[str]:
        """Keys of the asset's partitions, as the UI lists them."""
        return list(self.graphql(_PARTITIONS, key={"path": [asset]})["assetNodeOrError"]["partitionKeys"])

    def materialized(self, asset: str = "taxonomy_summaries") -> set[str]:
        """Partitions of an asset that are materialized, as the UI paints them."""
        node = self.graphql(_PARTITIONS, key={"path": [asset]})["assetNodeOrError"]
        return set(node["assetPartitionStatuses"]["materializedPartitions"])

    def runs(self, *statuses: str, limit: int = 500) -> list[dict[str, Any]]:
        """Runs, newest first; ``tags`` as a mapping."""
        found = self.graphql(_RUNS, filter={"statuses": list(statuses)} if statuses else {}, limit=limit)
        results = found["runsOrError"]["results"]
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in results]

    def at_rest(self) -> bool:
        """Whether nothing is due and no run is queued or at work."""
        with self.workspace() as workspace:
            due = due_suppliers(workspace)
        return not due and not self.runs(*UNFINISHED)

    def backfill(self, keys: list[str], tags: dict[str, str] | None = None) -> str:
        """Launch a backfill of the evaluation of some suppliers, as the UI's dialog does."""
        assets = ("relay_responses", "supplier_scores", "taxonomy_summaries")
        params: dict[str, Any] = {
            "assetSelection": [{"path": [name]} for name in assets],
            "partitionNames": keys,
            "tags": [{"key": k, "value": v} for k, v in (tags or {}).items()],
        }
        answer = self.graphql(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def backfill_status(self, id_: str) -> str:
        """Status of a backfill."""
        return str(self.graphql(_BACKFILL_STATUS, id=id_)["partitionBackfillOrError"]["status"])

    def terminate(self, run_id: str) -> None:
        """Cancel a run, as the UI's button does."""
        answer = self.graphql(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """The newest ticks of a sensor."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": self.location,
            "name": sensor,
        }
        state = self.graphql(_TICKS, selector=selector)["instigationStateOrError"]
        return list(state["ticks"])

    # -- stores -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def documents(self) -> Iterator[DocumentStore]:
        """The document store, opened beside the platform."""
        with self.variables():
            store = open_documents(self.folder / ".testbench", os.environ.get("TESTBENCH_MONGO_URI"))
        with contextlib.closing(store):
            yield store

    def attempts(self, **where: Any) -> list[Document]:
        """Declared fields of the stored attempts."""
        with self.documents() as documents:
            return list(documents.find(ATTEMPTS, where, fields=["_id", *ATTEMPTS.fields]))

    def scores(self, **where: Any) -> list[Document]:
        """Declared fields of the stored scores."""
        with self.documents() as documents:
            return list(documents.find(SCORES, where, fields=["_id", *SCORES.fields]))

    def workers(self) -> dict[str, int]:
        """The living processes of runs: run id → process id."""
        with self.documents() as documents:
            return {b.id: b.pid for b in typed.find(documents, HeartbeatRecord) if not is_gone(b)}

    def leases(self) -> dict[str, str]:
        """Who relays to whom: supplier → run id."""
        with self.documents() as documents:
            return {d["_id"]: d["holder"] for d in documents.find(LEASES) if d["_id"] != COUNTER}

    def plans(self) -> dict[str, Document]:
        """The kept plans by supplier."""
        with self.documents() as documents:
            return {plan["_id"]: plan for plan in documents.find(PLANS)}


@contextlib.contextmanager
def platform(
    folder: Path,
    suppliers: int,
    environment: dict[str, str] | None = None,
    *,
    latency_ms: float = 5,
    run_monitoring: dict[str, int] | None = None,
    **changes: Any,
) -> Iterator[Platform]:
    """A configured platform, not yet started; ended with everything it left behind."""
    with LocalnetProcess(suppliers=suppliers, latency_ms=latency_ms, fail_rate=0.0) as localnet:
        made = Platform(folder, localnet, environment or {}, run_monitoring=run_monitoring or {})
        made.configure(**changes)
        try:
            yield made
        except BaseException:
            print(made.log())
            raise
        finally:
            made.stop()
            for pid in made.pids(""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
