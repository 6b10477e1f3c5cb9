"""Versions of what makes stored things: each has a number, and the source it stands for.

A stored thing names what made it, so that another version's is told apart: attempts the classifier that
decided their fault, scores the scorer, cached windows and plans the code that made them. A test takes the
hash of each source (of the syntax tree: names and statements, not comments, docstrings, formatting or where
an import comes from) and fails when it is another than it was. Then either the number has to be raised,
because something would be decided or computed otherwise than before, or only the test's hash is written
anew, because nothing would.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbench_dagster.core.registration import Registration


@dataclass(frozen=True)
class Version:
    """The ``number`` that stored things carry, and the ``sources`` it stands for.

    A source is a module, or one definition in it after a colon (``module:Class.method``).
    """

    number: int
    sources: tuple[str, ...]


#: Decides the fault of an attempt. 1 is also that of all attempts stored before they named it.
CLASSIFIER = Version(
    1,
    (
        "testbench_dagster.core.faults",
        "testbench_dagster.transports.answers",
        "testbench_dagster.transports.event_streams",
        "testbench_dagster.transports.http:_Running",
        "testbench_dagster.transports.http:_Decoder",
        "testbench_dagster.transports.http:_decoder",
        "testbench_dagster.transports.plain:PlainExchange",
        "testbench_dagster.transports.plain:PlainHttp.ask",
        "testbench_dagster.transports.outcome:broken",
        "testbench_dagster.transports.outcome:fault_of",
        "testbench_dagster.transports.direct.transport:DirectTransport.send",
        "testbench_dagster.transports.path.transport:GatewayHeaders",
        "testbench_dagster.transports.path.transport:PathTransport.send",
        "testbench_dagster.transports.path.transport:judge",
        "testbench_dagster.transports.path.transport:_doubt",
        "testbench_dagster.transports.path.transport:_gateway",
        "testbench_dagster.transports.path.transport:_broken",
        "testbench_dagster.transports.pocket.faults",
        "testbench_dagster.transports.pocket.replays",
        "testbench_dagster.transports.pocket.responses",
        "testbench_dagster.transports.pocket.streams",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._send",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._call",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._exchange",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._post",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._judged",
        "testbench_dagster.transports.pocket.transport:ShannonTransport._refused",
        "testbench_dagster.transports.pocket.transport:_is_stream",
        "testbench_dagster.transports.pocket.transport:_split",
        "testbench_dagster.transports.pocket.transport:_body",
        "testbench_dagster.transports.pocket.transport:_broken",
        "testbench_dagster.stages.relay.writer:fenced_out",
    ),
)

#: Our own part of what scores an answer; framework, its version and the task's configuration come besides.
SCORER = Version(
    2,
    (
        "testbench_dagster.transports.answers",
        "testbench_dagster.transports.event_streams",
        "testbench_dagster.stages.score.batch:score_batch",
        "testbench_dagster.stages.score.batch:_answers",
        "testbench_dagster.stages.score.batch:_answered",
        "testbench_dagster.stages.score.batch:_records",
        "testbench_dagster.stages.score.batch:_total",
        "testbench_dagster.tasks.lm_eval_adapter.building",
        "testbench_dagster.tasks.lm_eval_adapter.scoring",
        "testbench_dagster.tasks.lm_eval_adapter.values",
        "testbench_dagster.tasks.signatures.framework",
        "testbench_dagster.tasks.signatures.pages",
    ),
)

#: Makes windows of the facts; cached windows of another number are made anew.
WINDOWS = Version(
    1,
    (
        "testbench_dagster.core.faults",
        "testbench_dagster.stages.score.clusters",
        "testbench_dagster.stages.score.window_cache",
        "testbench_dagster.stages.score.pooled",
        "testbench_dagster.scoring.rows",
        "testbench_dagster.core.window:Sample",
        "testbench_dagster.stages.score.samples",
        "testbench_dagster.core.sampling:target_docs",
        "testbench_dagster.statistics.intervals",
    ),
)

#: Plans evaluations; cached plans of another number count as due.
PLANS = Version(
    1,
    (
        "testbench_dagster.planning.due",
        "testbench_dagster.planning.gates",
        "testbench_dagster.stages.plan.planner",
        "testbench_dagster.planning.schedule",
        "testbench_dagster.planning.supplier",
    ),
)


def scorer_version(registration: Registration) -> str:
    """Name what computed a score: framework, its version, the task configuration, our own revision."""
    framework = f"{registration.framework}-{registration.engine_version}"
    return f"{framework}/{registration.config_hash[:12]}/{SCORER.number}"
