"""Sensor ``change_alerts``: the alert webhook is told what changed without any run failing, each thing once.

That are detected changes of suppliers' models, and tasks that are set aside or prepared again
(:mod:`.task_alerts`). A change is told when it was recorded, whichever run found it; its date is that of the
answers. Delivery is at least once: the cursor moves only after the webhook took the message.
"""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.records.identity import ToldChange
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import sensor_status
from testbench_dagster.defs.operations.alerts import post
from testbench_dagster.defs.operations.task_alerts import TaskAlerts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: How far back each tick looks for changes that another process recorded with an earlier time of its clock.
_OVERLAP = timedelta(minutes=10)
#: Seconds after which a tick begins no further message: one that Dagster cuts short would tell all again.
_TICK_S = 30.0


def change_alerts_sensor(automation: AutomationSettings) -> dg.SensorDefinition:
    """The hook on what is recorded; the webhook's URL is a secret and only read from the environment."""

    @dg.sensor(
        name="change_alerts",
        minimum_interval_seconds=automation.change_alerts.every_s,
        default_status=sensor_status(automation.change_alerts),
        description="Posts every detected change of a supplier's model, and every task that is set aside or "
        "prepared again, to the webhook of automation.alert_webhook_env.",
    )
    def change_alerts(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SkipReason:
        name = automation.alert_webhook_env
        if name is None:
            return dg.SkipReason("automation.alert_webhook_env names no variable: nobody is told")
        url = os.environ.get(name)
        if not url:
            return dg.SkipReason(f"automation.alert_webhook_env names {name}, which is not set; export it")
        since, told, tasks = _read_cursor(context.cursor)
        now = datetime.now(UTC)
        since = min(since, now)  # a change that was dated ahead does not keep others from being told
        tasks.look(workspace, now)
        where = {"detected_at": {"gte": since - _OVERLAP}}
        fresh = [
            change
            for change in typed.find(workspace.documents, ToldChange, where, sort=[("detected_at", 1)])
            if change.id not in told
        ]
        problem = None
        n_changes = n_tasks = 0
        until = time.monotonic() + _TICK_S
        for change in fresh:
            if time.monotonic() > until:
                break
            problem = post(url, change_alert(change), automation.alert_proxy_env)
            if problem:
                break
            n_changes += 1
            told[change.id] = change.detected_at
            since = max(since, change.detected_at)
        while tasks.waiting and problem is None and time.monotonic() <= until:
            problem = post(url, tasks.waiting[0], automation.alert_proxy_env)
            if problem is None:
                n_tasks += 1
                del tasks.waiting[0]
        kept = {key: at.isoformat() for key, at in told.items() if at >= since - _OVERLAP}
        cursor = {"since": since.isoformat(), "told": kept, "tasks": tasks.to_cursor()}
        context.update_cursor(json.dumps(cursor))
        if problem:
            return dg.SkipReason(
                f"the alert webhook of {name} failed: {problem}; told again at the next tick"
            )
        parts = [counted(n, noun) for n, noun in ((n_changes, "change"), (n_tasks, "task")) if n]
        return dg.SkipReason(f"{' and '.join(parts)} told" if parts else "nothing new")

    return change_alerts


def change_alert(change: ToldChange) -> dict[str, Any]:
    """What is told of a change; ``text`` alone is what chat services show."""
    followed = "its window was cut there" if change.cut else "reported only"
    kind = ", ".join(filter(None, (change.kind, change.task)))
    text = (
        f"testbench: {change.supplier} answers differently since {change.at:%Y-%m-%d %H:%M} UTC "
        f"({kind}): {change.reason}; {followed}"
    )
    return {
        "text": text,
        "change": change.id,
        "supplier": change.supplier,
        "kind": change.kind,
        "at": change.at.isoformat(),
        "detected_at": change.detected_at.isoformat(),
        "reason": change.reason,
        "cut": change.cut,
    }


def _read_cursor(cursor: str | None) -> tuple[datetime, dict[str, datetime], TaskAlerts]:
    """Where the last tick ended: the newest change told, those told of late, and the tasks; at first, now.

    Cursors of earlier versions know nothing of tasks.
    """
    if cursor is None:
        return datetime.now(UTC), {}, TaskAlerts()
    kept = json.loads(cursor)
    told = {key: datetime.fromisoformat(at) for key, at in kept["told"].items()}
    return datetime.fromisoformat(kept["since"]), told, TaskAlerts.from_cursor(kept.get("tasks", {}))
