"""What ``testbench check`` tells of Dagster: its storage and schema, its daemon, and what launches runs.

Nothing is made where there is nothing yet. Belongs here: looking, and what to do about what is found. Does
not: mending it, and how Dagster stores (:mod:`.storage`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from testbench_dagster.config import Config
from testbench_dagster.config.settings import AutomationSettings, ScheduleSettings, SensorSettings
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import duration
from testbench_dagster.defs.local_runs import dagster_environment, opened_instance

if TYPE_CHECKING:
    from testbench_dagster.defs.dagster_internals import DaemonHeartbeat

STORAGE = "Dagster's storage"
DAEMON = "Dagster's daemon"
#: Heartbeats are written every half minute: of daemons that both live none is older.
_LIVELY_S = 90.0


def storage_findings(config: Config) -> Iterator[Finding]:
    """Look at Dagster's storage and at who works on it."""
    home = Path(dagster_environment(config)["DAGSTER_HOME"])
    on_server = bool(os.environ.get("DAGSTER_POSTGRES_URL"))
    if not on_server and not (home / "storage").is_dir() and not (home / "dagster.yaml").is_file():
        yield Finding(STORAGE, f"SQLite in {home}, made by the first run")
        return
    try:
        with opened_instance(config) as instance:
            if (problem := _schema_problem(instance)) is not None:
                yield Finding(STORAGE, problem, ok=False)
                return
            yield Finding(STORAGE, "PostgreSQL" if on_server else f"SQLite in {home}")
            yield _daemon_finding(instance, config.settings.automation)
            yield from _launcher_findings(instance)
    except TestbenchError as error:
        told = str(error).removeprefix(STORAGE).strip()
        yield Finding(STORAGE, told, ok=False)


def _launcher_findings(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """What tells what launches runs, if it is ours, as that for Celery is.

    Another's is not made: that for Kubernetes wants the token of its pod, which only daemon and UI have.
    """
    launcher = instance.get_ref().run_launcher_data
    if launcher is not None and launcher.module_name.partition(".")[0] == __name__.partition(".")[0]:
        of_launcher = getattr(instance.run_launcher, "findings", None)
        if of_launcher is not None:
            yield from of_launcher()


def _schema_problem(instance: dg.DagsterInstance) -> str | None:
    """What to do where the storage has another schema than the installed Dagster works with."""
    # loaded with the instance
    from testbench_dagster.defs import dagster_internals as internals

    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        found = storage.alembic_version() if storage is not None else None
        if found is None or found[0] == found[1]:
            continue
        stored, installed = found
        if stored is not None and not internals.knows_revision(stored):
            return (
                f"its schema {stored} is of a newer Dagster than {dg.__version__}, which is installed and "
                f"knows schemas up to {installed}; install the version that made it, or newer"
            )
        return (
            f"its schema {stored or 'of long ago'} is older than {installed}, which Dagster {dg.__version__} "
            "works with; end all that uses it, make a backup, and run `dagster instance migrate` (with "
            "DAGSTER_HOME set)"
        )
    return None


def _daemon_finding(instance: dg.DagsterInstance, automation: AutomationSettings) -> Finding:
    """Whether somebody evaluates by itself what is due, and whether it is one alone."""
    # loaded with the instance
    from testbench_dagster.defs.dagster_internals import get_daemon_statuses

    required = instance.get_required_daemon_types()
    beats = instance.get_daemon_heartbeats()
    if not beats:
        return Finding(DAEMON, "none has run yet: `testbench run` needs none, `testbench up` starts one")
    statuses = get_daemon_statuses(instance, required)
    age = time.time() - max(beat.timestamp for beat in beats.values())
    if len(lively_daemons(beats)) > 1:
        return Finding(DAEMON, TWO_DAEMONS, ok=False, warning=True)
    silent = sorted(name for name, status in statuses.items() if not status.healthy)
    failing = [beat for beat in beats.values() if beat.errors]
    if len(silent) == len(required) and not failing:
        told = f"none has been heard of for {duration(age)}"
        if not _anything_is_on(automation):
            return Finding(DAEMON, f"{told}; no sensor and no schedule is on that would need one")
        told += (
            ": sensors, schedules and backfills wait; `testbench up` starts one, `testbench run` needs none"
        )
        return Finding(DAEMON, told, ok=False, warning=True)
    for beat in failing:
        said = (beat.errors or [])[0].message.strip().splitlines()
        told = (
            f"its {beat.daemon_type.lower()} thread failed lately: {said[0] if said else 'no reason given'}"
        )
        return Finding(DAEMON, f"{told}; its log says more", ok=False, warning=True)
    if silent:
        told = f"its threads {', '.join(silent)} have not been heard of lately; start it anew"
        return Finding(DAEMON, told, ok=False, warning=True)
    return Finding(DAEMON, f"heard of {duration(age)} ago")


TWO_DAEMONS = (
    "two work on the same storage, which Dagster does not support: ticks and runs are started twice; end one "
    "of them (`testbench up`, `dagster dev`, `dagster-daemon run`)"
)


def lively_daemons(beats: Mapping[str, DaemonHeartbeat], since: float = 0.0) -> set[str]:
    """Ids of the daemons that the heartbeats of the threads name, of those after an instant and not old."""
    newest = max(since, time.time() - _LIVELY_S)
    return {beat.daemon_id for beat in beats.values() if beat.daemon_id and beat.timestamp > newest}


def _anything_is_on(automation: AutomationSettings) -> bool:
    parts = [getattr(automation, name) for name in type(automation).model_fields]
    return any(part.enabled for part in parts if isinstance(part, (SensorSettings, ScheduleSettings)))
