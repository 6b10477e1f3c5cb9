"""Command ``plan``: what would be relayed now, why the rest is not due, and what a budget buys."""

from __future__ import annotations

from collections.abc import Iterator

import click

from testbench_dagster.api import Plan, Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note
from testbench_dagster.core.wording import are, counted, money
from testbench_dagster.stages.service.outlook import ProbesADay

_COLUMNS = (
    "supplier",
    "model",
    "task",
    "state",
    "docs",
    "calls",
    "due_at",
    "reason",
    "fresh",
    "open",
    "target",
    "half_width",
    "buys",
    "canaries",
    "cost",
)

#: Tasks that are told by name.
_TOLD = 10


@click.command(short_help="What would be asked now, and why not more")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@click.option(
    "--budget",
    type=click.IntRange(min=0),
    metavar="N",
    help="Share N relays fairly and show the interval widths they buy (default: what is left of the day's).",
)
@click.option("--due", "only_due", is_flag=True, help="Leave out what is not due.")
@model_option
@format_option
@click.pass_obj
def plan(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    budget: int | None,
    only_due: bool,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show what would be relayed now, and why each other task is not due. Sends nothing.

    `half_width` is that of the present 95 % interval of the primary score, `buys` the one to expect once the
    planned docs are answered at the present score. `open` docs were asked in vain and wait for their next
    occasion; `canaries` are docs of the task that were answered before, asked again with them. What tasks
    that are not prepared yet will ask is estimated: their docs by their rules, and options of a choice
    as most tasks have. `cost` is an estimate, of suppliers with a price: by the tokens of earlier answers
    (`cost_from`: `own`, or `others` of the same task), else by the prompts' length and the longest answers
    (`prompts`). JSON and CSV say which.
    """
    with Testbench.open(config) as testbench:
        planned = testbench.plan(suppliers or None, tasks or None, models=models or None, budget=budget)
    if planned.drift is not None:
        note(f"none of it would be relayed from here: {planned.drift}")
    if budget is None:
        for service, left in planned.left.items():
            note(f"{service}: {counted(left, 'relay')} {are(left)} left of today's budget")
        for service, own in planned.money.items():
            note(f"{service}: {own.words}, about {money(own.needed)} of it is needed now")
            if own.who_is_free:
                note(f"{service}: {own.who_is_free}")
    for text in planned.paces.values():
        note(text)
    for name, text in planned.schedules.items():
        note(f"schedule {name}: {text}")
    rows = [row for row in planned.rows if row["docs"] or row["unpriced"]] if only_due else planned.rows
    priced = any(row["cost"] is not None for row in planned.rows)
    emit(rows, format_, _COLUMNS if priced else _COLUMNS[:-1], "Plan")
    if format_ == "table":
        of = "" if budget is None else f", of a budget of {budget}"
        canaries = sum(row["canaries"] for row in planned.rows)
        among = f", {canaries} of them canaries" if canaries else ""
        note(f"{counted(planned.calls, 'relay')} would be sent now{among}{of}")
        if planned.cost is not None:
            note(_costs(planned, planned.cost))
        for text in _unprepared(planned):
            note(text)
        if planned.probes is not None:
            note(_probes(planned.probes))


def _costs(planned: Plan, cost: float) -> str:
    """Say about what a plan costs, and what of it is in no sum."""
    lengths = sum(row["cost_from"] == "prompts" for row in planned.rows)
    by = f", of {counted(lengths, 'row')} by the longest answers allowed" if lengths else ""
    without = (
        f"; not in it: {counted(planned.uncosted, 'relay')} without a known cost" if planned.uncosted else ""
    )
    return f"about {money(cost)} in all, an estimate{by}{without}"


def _probes(day: ProbesADay) -> str:
    """Say what service probes come to in a day, which no row of the plan holds."""
    if not day.suppliers:
        return "service probes: none of these suppliers is probed"
    prompts = counted(round(day.prompt_tokens), "token", ",")
    answers = counted(round(day.completion_tokens), "token", ",")
    told = (
        f"service probes: besides, about {counted(round(day.relays), 'relay', ',')} a day to "
        f"{counted(day.suppliers, 'supplier', ',')}, with prompts of {prompts}; answers have up to {answers}"
    )
    if day.cost is None:
        return told
    whose = "" if day.priced == day.suppliers else f" for the {day.priced} with a price"
    return f"{told}: up to {money(day.cost)}{whose}"


def _unprepared(planned: Plan) -> Iterator[str]:
    """Say what of a plan is an estimate, and what is in no number of it."""
    tasks = {row["task"] for row in planned.rows if row["estimated"]}
    if not tasks:
        return
    told = (
        f"{counted(len(tasks), 'task')} {are(len(tasks))} not prepared yet; `testbench run` begins with that"
    )
    if planned.estimated:
        whole = "" if planned.estimated == planned.calls else f" of {planned.estimated} of them"
        told = f"an estimate{whole}: {told}"
    yield told
    unpriced = list(dict.fromkeys(row["task"] for row in planned.rows if row["unpriced"]))
    if unpriced:
        more = f" and {counted(len(unpriced) - _TOLD, 'more task')}" if len(unpriced) > _TOLD else ""
        yield (
            f"left out of that number: {', '.join(unpriced[:_TOLD])}{more}; all their docs are wanted, "
            "and how many they have is known once they are prepared"
        )
