"""Versions of what makes stored things: each has a number, the source it stands for, and its hash.

A stored thing names what made it, so that another version's is told apart: attempts the classifier that
decided their fault, scores the scorer, kept windows and plans the code that made them. A test computes the
hashes anew (of the syntax tree: names and statements, not comments, docstrings, formatting or where an import
comes from) and fails when one is not what stands here. Then either the number has to be raised, because
something would be decided or computed otherwise than before, or only the hash is written anew, because
nothing would.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """The ``number`` that stored things carry, and the ``sources`` it stands for with their ``sha256``.

    A source is a module, or one definition in it after a colon (``module:Class.method``).
    """

    number: int
    sources: tuple[str, ...]
    sha256: str


#: Decides the fault of an attempt. 1 is also that of all attempts stored before they named it.
CLASSIFIER = Version(
    1,
    (
        "testbench_dagster.relays.faults",
        "testbench_dagster.relays.answers",
        "testbench_dagster.relays.event_streams",
        "testbench_dagster.relays.http:Exchange",
        "testbench_dagster.relays.http:_Decoder",
        "testbench_dagster.relays.http:_decoder",
        "testbench_dagster.relays.http:fault_of",
        "testbench_dagster.relays.direct:DirectTransport.send",
        "testbench_dagster.relays.path:Told",
        "testbench_dagster.relays.path:PathTransport.send",
        "testbench_dagster.relays.path:judge",
        "testbench_dagster.relays.path:_doubt",
        "testbench_dagster.relays.path:_gateway",
        "testbench_dagster.relays.path:_broken",
        "testbench_dagster.relays.shannon.faults",
        "testbench_dagster.relays.shannon.replays",
        "testbench_dagster.relays.shannon.responses",
        "testbench_dagster.relays.shannon.streams",
        "testbench_dagster.relays.shannon.transport:ShannonTransport._send",
        "testbench_dagster.relays.shannon.transport:ShannonTransport._post",
        "testbench_dagster.relays.shannon.transport:ShannonTransport._judged",
        "testbench_dagster.relays.shannon.transport:ShannonTransport._refused",
        "testbench_dagster.relays.shannon.transport:_is_stream",
        "testbench_dagster.relays.shannon.transport:_split",
        "testbench_dagster.relays.shannon.transport:_body",
        "testbench_dagster.relays.writer:disowned",
    ),
    "16949106f82375a4ee7276dcff3cf8e2923029d631fd50ec6e305b23fc19ced1",
)

#: Our own part of what scores an answer; framework, its version and the task's configuration come besides.
SCORER = Version(
    2,
    (
        "testbench_dagster.relays.answers",
        "testbench_dagster.relays.event_streams",
        "testbench_dagster.scoring.score:score_batch",
        "testbench_dagster.scoring.score:_answers",
        "testbench_dagster.scoring.score:_answered",
        "testbench_dagster.scoring.score:_documents",
        "testbench_dagster.scoring.score:_total",
        "testbench_dagster.tasks.lm_eval_adapter.building",
        "testbench_dagster.tasks.lm_eval_adapter.scoring",
        "testbench_dagster.tasks.lm_eval_adapter.values",
        "testbench_dagster.tasks.signatures.framework",
        "testbench_dagster.tasks.signatures.pages",
    ),
    "095c5c03000ca388d25f5cc4e098abcf2caf2db52eb1b704588331474eeb206c",
)

#: Makes windows of the facts; kept windows of another number are made anew.
WINDOWS = Version(
    1,
    (
        "testbench_dagster.relays.faults",
        "testbench_dagster.scoring.clusters",
        "testbench_dagster.scoring.kept",
        "testbench_dagster.scoring.pooled",
        "testbench_dagster.scoring.rows",
        "testbench_dagster.scoring.samples",
        "testbench_dagster.planning.due:target_docs",
        "testbench_dagster.statistics.intervals",
    ),
    "1510db7972df79a5f5f6568c53e11435de6df5c78bb8eb304078004663fc385e",
)

#: Plans evaluations; kept plans of another number count as due.
PLANS = Version(
    1,
    (
        "testbench_dagster.planning.due",
        "testbench_dagster.planning.gates",
        "testbench_dagster.planning.planner",
        "testbench_dagster.planning.schedule",
        "testbench_dagster.planning.supplier",
    ),
    "5e32d55c26c742c08ed6daecd284e61ceae8a10edb807c5eccb1d7531ea8d32d",
)
