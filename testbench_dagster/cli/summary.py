"""The last line of ``testbench run``: what came of it, how long it took, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from testbench_dagster.core.wording import counted, duration

if TYPE_CHECKING:
    from testbench_dagster.defs.local_evaluation import RunReport


def summary_line(report: RunReport, config: str | None = None) -> str:
    """How many docs were scored, failed, are open and void, calls due, changes, checks, time, next command.

    ``config``: the configuration that was named on the command line, which the next command needs too.
    """
    return f"{came_to(report)}; next: {_next(report, config)}"


def came_to(report: RunReport) -> str:
    """The same without the next command."""
    tally = report.tally
    owners = ", ".join(f"{owner} {n}" for owner, n in tally.failed.items())
    told = [
        f"scored {tally.scored}",
        f"failed {tally.n_failed}{f' ({owners})' if owners else ''}",
        f"open {tally.open}",
        f"void {tally.void}",
        f"still due {tally.still_due}",
        f"changes {tally.changes}",
        f"checks {_checks(report)}",
    ]
    if report.probed is not None:
        told.insert(-1, f"probes {report.probed.report.answered} of {report.probed.report.done} answered")
    begun = "interrupted: " if report.interrupted else ""
    return f"{begun}{', '.join(told)}; {duration(report.seconds)}"


def _checks(report: RunReport) -> str:
    found = [(len(report.errors), "error"), (len(report.warnings), "warning")]
    return ", ".join(counted(n, what) for n, what in found if n) or "ok"


def _next(report: RunReport, config: str | None) -> str:
    tally = report.tally
    command = ["testbench", *(["-c", config] if config else [])]
    if tally.failed_of:
        supplier, task = next(iter(tally.failed_of))
        command += ["answers", "-s", supplier, "-t", task, "--failed"]
    elif report.problem and not report.nothing_allowed:
        command += ["check"]
    elif report.interrupted or tally.still_due:
        command += ["run"]
    elif tally.open:
        command += ["run", "--wait"]
    else:
        command += ["scores"]
    return shlex.join(command)
