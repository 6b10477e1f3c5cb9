"""Runs in this process, recorded in the Dagster instance: what ``testbench run`` and ``demo`` do.

The same jobs and assets as the UI and the sensors start, so a run from the terminal shows in the lineage,
the partitions and the metadata like any other.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO, cast

import dagster as dg
import yaml

from testbench_dagster.config import HOME_ENV, Config
from testbench_dagster.coordination.processes import ignoring_alone
from testbench_dagster.core.errors import TestbenchError, causes
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.entry_points import WORKSPACE, code_origin
from testbench_dagster.defs.hosts import HOST_TAG, REQUESTED_BY_TAG, statement_tags
from testbench_dagster.defs.metadata import NOT_PUBLISHED, counts_in
from testbench_dagster.defs.partitions import SUPPLIER, pack_ranges, range_tags, suppliers_per_run
from testbench_dagster.stages.discover.roster import TO_REFRESH_ROSTER
from testbench_dagster.stages.service.probing import Probed
from testbench_dagster.stages.statements import evaluating, own_host, statement
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.disk import full_disk, is_full
from testbench_dagster.stores.files import create_folder, writing

_REPOSITORY = "__repository__"  # Dagster's name of definitions without one
#: Suppliers in one local run. Such runs follow each other, so those of the next wait for the slowest of this
#: one; the daemon's, which carry fewer, run side by side.
_SUPPLIERS_AT_ONCE = 500
#: What Dagster writes of errors that its storage raises to it, and raises on.
_TOLD_BY_DAGSTER = ("Exception while ", "Falling back to storing ")
#: Without these a range run of 1,000 partitions spends 36 s on events instead of 1 s (measured).
PROCESS_ENVIRONMENT = {
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
}

#: The settings of `dagster.yaml`; a test keeps both alike.
INSTANCE_SETTINGS: dict[str, Any] = {
    "storage": {
        "custom": {"module": "testbench_dagster.defs.storage", "class": "TestbenchStorage", "config": {}}
    },
    "run_coordinator": {
        "module": "testbench_dagster.defs.run_queue",
        "class": "TestbenchRunQueue",
        "config": {},
    },
    "concurrency": {
        "runs": {
            "max_concurrent_runs": 4,
            "tag_concurrency_limits": [
                {"key": "testbench/kind", "value": "evaluation", "limit": 2},
                {"key": "testbench/kind", "value": "service_probes", "limit": 1},
            ],
        },
        "pools": {"granularity": "run"},
    },
    "run_monitoring": {
        "enabled": True,
        "start_timeout_seconds": 180,
        "cancel_timeout_seconds": 120,
        "max_runtime_seconds": 21600,
        "poll_interval_seconds": 30,
    },
    "run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False},
    "sensors": {"use_threads": True, "num_workers": 4, "num_submit_workers": 2},
    "schedules": {"use_threads": True, "num_workers": 2, "num_submit_workers": 2},
    "backfills": {"use_threads": True, "num_workers": 2},
    "retention": {
        "schedule": {"purge_after_days": 90},
        "sensor": {"purge_after_days": {"skipped": 3, "failure": 30, "success": 30}},
        "auto_materialize": {"purge_after_days": {"skipped": 3, "failure": 30, "success": 30}},
    },
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
}


def dagster_environment(config: Config) -> dict[str, str]:
    """The variables every process needs that serves this installation in Dagster."""
    return {
        **PROCESS_ENVIRONMENT,
        "DAGSTER_HOME": str(config.dagster_home),
        "TESTBENCH_CONFIG": str(config.path),
        "TESTBENCH_HOME": str(config.home),
    }


def prepare_home(config: Config) -> dict[str, str]:
    """Create Dagster's home with its settings and workspace where missing; return the environment for it.

    Raises:
        StoreError: it cannot be created or written.
    """
    environment = dagster_environment(config)
    home = Path(environment["DAGSTER_HOME"])
    if config.home in home.parents:
        create_folder(config.home)
    variable = config.moves_dagster
    create_folder(home, variable, mode=0o777)
    remedies = (f"set {variable} to a folder {what}" for what in ("this user may write", "on another disk"))
    with writing(home, *remedies):
        if not os.access(home, os.W_OK | os.X_OK):  # Dagster's own error would be a page long
            raise PermissionError(None, "Permission denied")
        for path, wanted in ((home / "dagster.yaml", INSTANCE_SETTINGS), (workspace_file(home), WORKSPACE)):
            if not path.exists() or (wanted is INSTANCE_SETTINGS and _is_of_earlier_version(path)):
                partial = path.with_suffix(f".{os.getpid()}.tmp")
                partial.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
                partial.replace(path)
    return environment


def _is_of_earlier_version(path: Path) -> bool:
    """Whether a `dagster.yaml` is what an earlier version wrote, without the queue that tags runs."""
    earlier = {name: value for name, value in INSTANCE_SETTINGS.items() if name != "run_coordinator"}
    try:
        return bool(yaml.safe_load(path.read_text(encoding="utf-8")) == earlier)
    except (yaml.YAMLError, ValueError):  # Dagster says what is wrong with it
        return False


def workspace_file(home: Path | str) -> Path:
    """The file in Dagster's home that says where the code is and what its location is called."""
    return Path(home) / "workspace.yaml"


class Relayed(NamedTuple):
    """What an evaluation relayed: attempts sent, calls answered, and why suppliers were left, by key.

    ``outcomes`` counts the attempts by what they ended in. ``failed``: some supplier was asked and could have
    answered, and answered none of its calls. ``problems``: why the answers to tasks could not be scored.
    ``out_of_money`` are suppliers whose turn the budget of money ended, with how many calls wait for that.
    """

    sent: int
    final: int
    left: Mapping[str, str]
    outcomes: Counter[str]
    failed: bool
    problems: Mapping[str, str]
    out_of_money: Mapping[str, int]


class CheckVerdict(NamedTuple):
    """What an asset check found: whether it passed, whether it is an error else, and what was wrong."""

    passed: bool
    error: bool
    problem: str


@contextmanager
def opened_instance(config: Config) -> Iterator[dg.DagsterInstance]:
    """The installation's Dagster instance, created where missing.

    Dagster is told where its home is by the process's environment, which is put back at the end.

    Raises:
        ConfigError: ``DAGSTER_POSTGRES_URL`` names no database that can be used now.
        StoreError: Dagster's home cannot be created or written.
    """
    environment = prepare_home(config)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with _instance_at_once() as instance:
            yield instance
    except TestbenchError:
        raise
    except Exception as error:
        home = Path(environment["DAGSTER_HOME"])
        if not is_full(error, home / "storage"):
            raise
        variable = "DAGSTER_HOME" if before["DAGSTER_HOME"] else HOME_ENV
        raise full_disk(home, f"set {variable} to a folder on another disk") from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _instance_at_once() -> dg.DagsterInstance:
    """The instance of the environment: somebody waits for it, so an outage is told instead of sat out."""
    # loaded with the instance's storage anyway: 0.4 s
    from testbench_dagster.defs.postgres import POSTGRES_ENV, postgres_server

    url = os.environ.get(POSTGRES_ENV)
    with postgres_server(url).at_once() if url else nullcontext():
        return dg.DagsterInstance.get()


class LocalRuns:
    """Executes the jobs of an installation in this process, one after the other; a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        with ExitStack() as resources:
            resources.enter_context(ignoring_alone())
            # what is refused here is refused before Dagster's home is made
            resources.enter_context(evaluating(workspace))
            self._instance = resources.enter_context(opened_instance(workspace.config))
            self._definitions = build_definitions(workspace)
            own = statement(workspace.config, workspace.specs)
            self._tags = {**statement_tags(own), REQUESTED_BY_TAG: own_host(), HOST_TAG: own_host()}
            self._resources = resources.pop_all()
        #: By name the newest verdict on each asset check that was evaluated.
        self.checks: dict[str, CheckVerdict] = {}

    def __enter__(self) -> LocalRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)  # whoever words errors of Dagster's home has to see them

    def refresh_suppliers(self) -> None:
        """Materialize the roster; adds the supplier partitions."""
        self._execute("refresh_suppliers")

    def refresh_catalog(self, specs: Sequence[TaskSpec]) -> None:
        """Materialize datasets and prompts of the given tasks."""
        order = [spec.name for spec in self._workspace.specs]
        for start, end in pack_ranges(order, [spec.name for spec in specs], len(order)):
            self._execute("refresh_catalog", tags=range_tags(start, end))

    def evaluate(
        self,
        suppliers: Sequence[str],
        *,
        tasks: Sequence[str] | None = None,
        max_relays: int | None = None,
        retry_errors: bool = False,
        force: bool = False,
    ) -> Relayed:
        """Relay, score and summarize for the suppliers, in ranges; ``force`` asks again what is fresh."""
        order = list(self._instance.get_dynamic_partitions(SUPPLIER))
        sent = final = 0
        left_behind: dict[str, str] = {}
        problems: dict[str, str] = {}
        out_of_money: dict[str, int] = {}
        outcomes: Counter[str] = Counter()
        failed = False
        violated: dict[str, CheckVerdict] = {}  # what one range of suppliers violates, others do not mend
        for start, end in pack_ranges(order, suppliers, suppliers_per_run(_SUPPLIERS_AT_ONCE)):
            left = None if max_relays is None else max(0, max_relays - sent)
            relay_config = {
                "tasks": None if tasks is None else list(tasks),
                "max_relays": left,
                "retry_errors": retry_errors,
                "force": force,
            }
            result = self._execute(
                "evaluate_suppliers",
                tags=range_tags(start, end),
                ops={"relay_responses": {"config": relay_config}},
            )
            for event in result.asset_materializations_for_node("relay_responses")[:1]:
                sent += cast(int, event.metadata["sent"].value)
                final += cast(int, event.metadata["answered"].value)
                if "left" in event.metadata:
                    left_behind |= cast(dict[str, str], event.metadata["left"].value)
                if "out_of_money" in event.metadata:
                    out_of_money |= cast(dict[str, int], event.metadata["out_of_money"].value)
                outcomes += counts_in(cast(str, event.metadata["outcomes"].value))
                failed = failed or "failed" in event.metadata
            for event in result.asset_materializations_for_node("supplier_scores")[:1]:
                if "scorer_problems" in event.metadata:
                    problems |= cast(dict[str, str], event.metadata["scorer_problems"].value)
            violated |= {name: verdict for name, verdict in self.checks.items() if not verdict.passed}
            self.checks |= violated
        return Relayed(sent, final, left_behind, outcomes, failed, problems, out_of_money)

    def probe(self, suppliers: Sequence[str], *, force: bool = False) -> Probed:
        """Probe suppliers, in one run: what is due of them, or with ``force`` everything that is configured.

        Raises:
            TestbenchError: one of them has no partition.
        """
        order, wanted = list(self._instance.get_dynamic_partitions(SUPPLIER)), set(suppliers)
        if missing := sorted(wanted.difference(order)):
            raise TestbenchError(f"{missing[0]} has no partition yet; {TO_REFRESH_ROSTER}")
        place = {key: i for i, key in enumerate(order)}
        first, last = min(wanted, key=place.__getitem__), max(wanted, key=place.__getitem__)
        spanned = order[place[first] : place[last] + 1]
        config = {"force": force, "suppliers": None if wanted.issuperset(spanned) else sorted(wanted)}
        found: list[Probed] = []
        self._workspace.on_probed = found.append
        try:
            self._execute(
                "probe_service", tags=range_tags(first, last), ops={"service_probes": {"config": config}}
            )
        finally:
            self._workspace.on_probed = None
        return found[0]

    def refresh_summaries(self) -> str | None:
        """Materialize the identity groups and, with them, the leaderboard; why it was not published."""
        self._execute("refresh_identity")
        ranked = self._execute("refresh_summaries").asset_materializations_for_node("leaderboard")
        found = [one.metadata[NOT_PUBLISHED] for one in ranked if NOT_PUBLISHED in one.metadata]
        return str(found[0].value) if found else None

    def record_snapshots(self, day: date, taken: int) -> None:
        """Have Dagster know of the day's snapshots that were taken: its pages show no such day as missing."""
        self._instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "supplier_snapshots", partition=day.isoformat(), metadata={"suppliers": taken}
            )
        )

    def _execute(
        self, job: str, tags: dict[str, str] | None = None, ops: dict[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if ops:
            config["ops"] = ops
        try:
            with redirect_stderr(cast(TextIO, _ErrorsOnce(sys.stderr))):
                result = self._definitions.resolve_job_def(job).execute_in_process(
                    instance=self._instance, tags={**self._tags, **(tags or {})}, run_config=config
                )
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None  # what Ctrl-C is everywhere else, without Dagster's stack
        except TestbenchError:
            raise
        except Exception as error:
            if (known := _known(error)) is not None:
                raise known from None  # the user reads our message, not Dagster's stack
            raise
        self.checks |= {check.check_name: _verdict(check) for check in result.get_asset_check_evaluations()}
        _show_in_timeline(self._instance, result.run_id)
        return result


class _ErrorsOnce:
    """The standard error stream without what Dagster writes while it handles an error of ours.

    It writes one for every event that could not be stored (``Exception while writing logger call to event
    log: ...``), and raises it all the same: then it is told, in a line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what does not tell of an error that is being handled."""
        if text.startswith(_TOLD_BY_DAGSTER) and isinstance(sys.exc_info()[1], TestbenchError):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _known(error: BaseException) -> TestbenchError | None:
    """The error of ours that another one came of, or that it hides: Dagster could not even note the first."""
    return next((one for one in causes(error) if isinstance(one, TestbenchError)), None)


def _show_in_timeline(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say of a run that succeeded here which code it is of: the UI's first page shows no others.

    Of one that failed nothing is said, so that the sensor run_failure tells nobody what the terminal did.
    """
    # loaded with the instance's storage already
    from testbench_dagster.defs import dagster_internals as internals

    run = instance.get_run_by_id(run_id)
    if run is not None:
        repository = internals.RemoteRepositoryOrigin(code_origin(), _REPOSITORY)
        origin = internals.RemoteJobOrigin(repository, run.job_name)
        instance.run_storage.replace_job_origin(run, origin)


def _verdict(check: dg.AssetCheckEvaluation) -> CheckVerdict:
    """The verdict, with the first of what violates the check."""
    violations = check.metadata.get("offenders")
    named = violations.value if violations is not None else None
    problem = ""
    if isinstance(named, dict) and named:
        name, why = next(iter(named.items()))
        total = check.metadata.get("n_offenders")
        others = (total.value if total is not None and isinstance(total.value, int) else len(named)) - 1
        more = f" and {counted(others, 'other')}" if others > 0 else ""
        problem = f"{name}: {why}{more}"
    return CheckVerdict(check.passed, check.severity == dg.AssetCheckSeverity.ERROR, problem)
