"""Versions of what makes stored things: each has a number, and the source it stands for.

A stored thing names what made it, so that another version's is told apart: attempts the classifier that
decided their fault and what built their request, scores the scorer, windows and cached plans the code that
made them. What a source uses is listed too, or a test says why it need not be. Another test takes the hash of
each source (of the syntax tree: names and statements, not comments, docstrings, formatting or where
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


#: Decides the fault of an attempt, and what is kept of its answer. 1 is also that of all attempts stored
#: before they named it.
CLASSIFIER = Version(
    3,
    (
        "testbench_dagster.core.answer_hash",
        "testbench_dagster.core.answer_prefix",
        "testbench_dagster.core.chat_message",
        "testbench_dagster.core.faults",
        "testbench_dagster.core.generation",
        "testbench_dagster.core.remedies:PROXY_FAILED",
        "testbench_dagster.core.remedies:PROXY_WANTS_CREDENTIALS",
        "testbench_dagster.core.text",
        "testbench_dagster.transports.answers",
        "testbench_dagster.transports.content_encodings",
        "testbench_dagster.transports.event_streams",
        "testbench_dagster.transports.lenient_json",
        "testbench_dagster.transports.readings",
        "testbench_dagster.transports.reasoning",
        "testbench_dagster.transports.statuses",
        "testbench_dagster.transports.json_values",
        "testbench_dagster.transports.logprobs",
        "testbench_dagster.transports.spelling",
        "testbench_dagster.transports.http:_Running",
        "testbench_dagster.transports.http:TRUNCATED_EVIDENCE_BYTES",
        "testbench_dagster.transports.plain:PlainExchange",
        "testbench_dagster.transports.plain:PlainHttp.ask",
        "testbench_dagster.transports.outcome",
        "testbench_dagster.transports.redaction",
        "testbench_dagster.transports.direct.transport:DirectTransport.send",
        "testbench_dagster.transports.path.transport",
        "testbench_dagster.transports.pocket.calls:header_bytes",
        "testbench_dagster.transports.pocket.faults",
        "testbench_dagster.transports.pocket.messages",
        "testbench_dagster.transports.pocket.protobuf",
        "testbench_dagster.transports.pocket.replays",
        "testbench_dagster.transports.pocket.responses",
        "testbench_dagster.transports.pocket.secp256k1",
        "testbench_dagster.transports.pocket.streams",
        "testbench_dagster.transports.pocket.transport",
        "testbench_dagster.stages.relay.writer:attempt_record",
        "testbench_dagster.stages.relay.writer:fenced_out",
    ),
)

#: Builds the bodies of requests. 1 is also that of all attempts stored before they named it.
PAYLOADS = Version(
    1,
    (
        "testbench_dagster.core.generation",
        "testbench_dagster.transports.payload",
        "testbench_dagster.transports.plain:PlainHttp.ask",
        "testbench_dagster.transports.pocket.calls:Call.from_relay",
    ),
)

#: Our own part of what scores an answer; framework, its version and the task's configuration come besides.
SCORER = Version(
    2,
    (
        "testbench_dagster.core.answer_prefix",
        "testbench_dagster.core.chat_message",
        "testbench_dagster.core.generation",
        "testbench_dagster.core.remedies:PROXY_FAILED",
        "testbench_dagster.core.remedies:PROXY_WANTS_CREDENTIALS",
        "testbench_dagster.core.text",
        "testbench_dagster.transports.answers",
        "testbench_dagster.transports.event_streams",
        "testbench_dagster.transports.lenient_json",
        "testbench_dagster.transports.readings",
        "testbench_dagster.transports.reasoning",
        "testbench_dagster.transports.payload:MAX_CHAT_STOPS",
        "testbench_dagster.transports.statuses",
        "testbench_dagster.transports.json_values",
        "testbench_dagster.transports.logprobs",
        "testbench_dagster.transports.spelling",
        "testbench_dagster.stages.score.batch",
        "testbench_dagster.stages.score.scorer",
        "testbench_dagster.stages.score.undecided",
        "testbench_dagster.tasks.adapter",
        "testbench_dagster.tasks.given",
        "testbench_dagster.tasks.lm_eval_adapter.building",
        "testbench_dagster.tasks.lm_eval_adapter.definitions",
        "testbench_dagster.tasks.lm_eval_adapter.doc_json",
        "testbench_dagster.tasks.lm_eval_adapter.internals",
        "testbench_dagster.tasks.lm_eval_adapter.outages",
        "testbench_dagster.tasks.lm_eval_adapter.registration:REQUESTS",
        "testbench_dagster.tasks.lm_eval_adapter.requests",
        "testbench_dagster.tasks.lm_eval_adapter.scoring",
        "testbench_dagster.tasks.lm_eval_adapter.values",
        "testbench_dagster.tasks.lm_eval_framework:LmEval.score",
        "testbench_dagster.core.extracted",
        "testbench_dagster.tasks.chat_choice.convert:LETTERS",
        "testbench_dagster.tasks.chat_choice.extract",
        "testbench_dagster.tasks.chat_choice.options",
        "testbench_dagster.tasks.chat_choice.phrases",
        "testbench_dagster.tasks.chat_choice.scoring",
        "testbench_dagster.tasks.chat_choice.writing",
        "testbench_dagster.tasks.signatures.framework",
        "testbench_dagster.tasks.signatures.pages",
    ),
)

#: Scores tool calls and structured answers, beside SCORER; it is the version of that framework.
TOOLS = Version(
    1,
    (
        "testbench_dagster.core.chat_message",
        "testbench_dagster.core.extracted",
        "testbench_dagster.core.offers",
        "testbench_dagster.tasks.tools.adapter",
        "testbench_dagster.tasks.tools.calls",
        "testbench_dagster.tasks.tools.fences",
        "testbench_dagster.tasks.tools.matching",
        "testbench_dagster.tasks.tools.metrics",
        "testbench_dagster.tasks.tools.rows",
        "testbench_dagster.tasks.tools.schemas",
    ),
)

#: Scores answers to public questions and their twins, beside SCORER; it is the version of that framework.
TWINS = Version(
    1,
    (
        "testbench_dagster.core.extracted",
        "testbench_dagster.tasks.chat_choice.convert:LETTERS",
        "testbench_dagster.tasks.chat_choice.writing",
        "testbench_dagster.tasks.twins.scoring",
    ),
)

#: Reads and judges answers to fresh items, beside SCORER; it is the version of that framework.
FRESH = Version(
    1,
    (
        "testbench_dagster.core.extracted",
        "testbench_dagster.tasks.chat_choice.writing:read",
        "testbench_dagster.tasks.chat_choice.writing:_THOUGHT",
        "testbench_dagster.tasks.chat_choice.writing:_TURN",
        "testbench_dagster.tasks.chat_choice.writing:HEAD_CHARS",
        "testbench_dagster.tasks.chat_choice.writing:TAIL_CHARS",
        "testbench_dagster.tasks.fresh.adapter",
        "testbench_dagster.tasks.fresh.answers",
        "testbench_dagster.tasks.fresh.generators",
        "testbench_dagster.tasks.fresh.items",
        "testbench_dagster.tasks.fresh.judge",
        "testbench_dagster.tasks.fresh.judge_child",
    ),
)

#: Runs code that the model wrote, beside SCORER: part of the configuration's hash of tasks that do.
CODE = Version(
    1,
    (
        "testbench_dagster.sandbox.bubblewrap",
        "testbench_dagster.sandbox.inside",
        "testbench_dagster.sandbox.landlock",
        "testbench_dagster.sandbox.landlocked",
        "testbench_dagster.sandbox.programs",
        "testbench_dagster.sandbox.running",
        "testbench_dagster.sandbox.seccomp",
        "testbench_dagster.sandbox.surroundings",
        "testbench_dagster.tasks.lm_eval_adapter.code_eval",
    ),
)

#: Makes windows of the facts; cached windows of another number are made anew.
WINDOWS = Version(
    9,
    (
        "testbench_dagster.core.clock",
        "testbench_dagster.core.applicability",
        "testbench_dagster.core.capabilities",
        "testbench_dagster.core.doc_answer:AnswerKind",
        "testbench_dagster.core.faults",
        "testbench_dagster.core.sampling:Measured",
        "testbench_dagster.scoring.reliability",
        "testbench_dagster.core.doc_states",
        "testbench_dagster.scoring.bounds",
        "testbench_dagster.scoring.failures",
        "testbench_dagster.scoring.delivered",
        "testbench_dagster.stages.score.states",
        "testbench_dagster.transports.payload:request_shape",
        "testbench_dagster.core.sampling:common_docs",
        "testbench_dagster.core.sampling:GATE_ROUND",
        "testbench_dagster.core.sampling:named_docs",
        "testbench_dagster.core.sampling:Slots",
        "testbench_dagster.core.sampling:kept_docs",
        "testbench_dagster.core.sampling:_drawn",
        "testbench_dagster.core.sampling:_wilson_half_width",
        "testbench_dagster.core.sampling:_Z",
        "testbench_dagster.core.window:Sample",
        "testbench_dagster.core.window:OK",
        "testbench_dagster.core.window:PARTIAL",
        "testbench_dagster.core.window:REFUSED",
        "testbench_dagster.core.window:SCORED_STATUSES",
        "testbench_dagster.core.window:TASK",
        "testbench_dagster.core.window:UNREACHABLE",
        "testbench_dagster.core.window:NO_DATA",
        "testbench_dagster.core.window:NOT_APPLICABLE",
        "testbench_dagster.core.window:UNSUPPORTED",
        "testbench_dagster.scoring.rows",
        "testbench_dagster.scoring.slots",
        "testbench_dagster.stages.attempts:last_by_call",
        "testbench_dagster.stages.sample.epochs",
        "testbench_dagster.stages.score.clusters",
        "testbench_dagster.stages.score.deadlines",
        "testbench_dagster.transports.payload:DEFAULT_MAX_TOKENS",
        "testbench_dagster.stages.score.empty",
        "testbench_dagster.stages.score.groups",
        "testbench_dagster.stages.score.samples",
        "testbench_dagster.stages.score.undecided:undecided_docs",
        "testbench_dagster.stages.score.undecided:undecided_version",
        "testbench_dagster.stages.score.undecided:_UNDECIDED",
        "testbench_dagster.stages.score.window_answers",
        "testbench_dagster.stages.score.window_cache",
        "testbench_dagster.stages.score.windows",
        "testbench_dagster.statistics.betting",
        "testbench_dagster.statistics.intervals",
        "testbench_dagster.statistics.quantiles:nearest_rank",
        "testbench_dagster.statistics.quantiles:_SAME",
        "testbench_dagster.statistics.quantiles:_check",
    ),
)

#: Plans evaluations; cached plans of another number count as due.
PLANS = Version(
    10,
    (
        "testbench_dagster.core.clock",
        "testbench_dagster.coordination.budgets:period_start",
        "testbench_dagster.core.applicability",
        "testbench_dagster.core.capabilities",
        "testbench_dagster.core.faults",
        "testbench_dagster.core.sampling",
        "testbench_dagster.identity.power",
        "testbench_dagster.identity.references:ALPHA",
        "testbench_dagster.identity.references:SCORES_ALPHA",
        "testbench_dagster.identity.references:TWINS_DIFFER",
        "testbench_dagster.identity.references:_MOST_DOCS",
        "testbench_dagster.identity.references:docs_to_be_alike",
        "testbench_dagster.identity.settings",
        "testbench_dagster.planning.audits",
        "testbench_dagster.planning.canaries",
        "testbench_dagster.planning.due",
        "testbench_dagster.planning.gates",
        "testbench_dagster.core.doc_states",
        "testbench_dagster.planning.release",
        "testbench_dagster.stages.plan.lives",
        "testbench_dagster.transports.payload:request_shape",
        "testbench_dagster.planning.schedule",
        "testbench_dagster.planning.shares",
        "testbench_dagster.planning.supplier",
        "testbench_dagster.core.window:Sample",
        "testbench_dagster.scoring.bounds",
        "testbench_dagster.scoring.failures",
        "testbench_dagster.scoring.rows:counted_samples",
        "testbench_dagster.scoring.rows:is_finite",
        "testbench_dagster.scoring.rows:measured",
        "testbench_dagster.scoring.rows:primary_pair",
        "testbench_dagster.scoring.rows:value_of",
        "testbench_dagster.scoring.slots",
        "testbench_dagster.stages.attempts",
        "testbench_dagster.stages.plan.measured",
        "testbench_dagster.stages.plan.planner",
        "testbench_dagster.stages.plan.remaining",
        "testbench_dagster.stages.plan.sessions",
        "testbench_dagster.stages.plan.task_gates",
        "testbench_dagster.stages.sample.epochs",
        "testbench_dagster.stages.score.deadlines",
        "testbench_dagster.transports.payload:DEFAULT_MAX_TOKENS",
        "testbench_dagster.stages.score.samples",
        "testbench_dagster.stages.score.states",
        "testbench_dagster.stages.score.undecided:undecided_docs",
        "testbench_dagster.stages.score.undecided:undecided_version",
        "testbench_dagster.stages.score.undecided:_UNDECIDED",
        "testbench_dagster.stages.trusted",
        "testbench_dagster.statistics.evalues",
        "testbench_dagster.statistics.multiplicity",
        "testbench_dagster.statistics.sequential",
    ),
)

#: Reads the values that changes of scores show in, and folds them; cached streams of another number are read
#: anew, but for those of 2, which differ in that nothing was folded.
SCORE_STREAMS = Version(
    3,
    (
        "testbench_dagster.core.clock",
        "testbench_dagster.identity.folded_scores",
        "testbench_dagster.identity.score_changes",
        "testbench_dagster.identity.score_differences",
        "testbench_dagster.identity.score_folding",
        "testbench_dagster.scoring.bounds",
        "testbench_dagster.scoring.failures",
        "testbench_dagster.scoring.rows:is_finite",
        "testbench_dagster.scoring.rows:primary_pair",
        "testbench_dagster.stages.identify.folded_streams",
        "testbench_dagster.stages.identify.score_streams",
        "testbench_dagster.statistics.mean_change",
        "testbench_dagster.statistics.predictions",
    ),
)

#: Compares the scores of members with their proxy's; what another number compared is compared again.
SPLITS = Version(
    1,
    (
        "testbench_dagster.identity.content:GradedAnswer",
        "testbench_dagster.identity.content:graded_by_supplier",
        "testbench_dagster.identity.splits",
        "testbench_dagster.scoring.bounds",
        "testbench_dagster.scoring.failures",
        "testbench_dagster.scoring.rows:is_finite",
        "testbench_dagster.scoring.rows:primary_pair",
        "testbench_dagster.scoring.rows:value_of",
        "testbench_dagster.stages.identify.reading:UNANSWERED",
        "testbench_dagster.stages.identify.reading:read_failed",
        "testbench_dagster.stages.identify.reading:read_graded",
        "testbench_dagster.stages.identify.reading:said_of",
        "testbench_dagster.stages.identify.reading:question_of",
        "testbench_dagster.stages.identify.splits",
        "testbench_dagster.statistics.divergence",
    ),
)

#: Counts pairs of public and fresh questions; what is stored by another number is counted anew.
PUBLIC_GAPS = Version(
    1,
    (
        "testbench_dagster.core.pairs",
        "testbench_dagster.scoring.rows:is_finite",
        "testbench_dagster.scoring.rows:primary_pair",
        "testbench_dagster.scoring.rows:value_of",
        "testbench_dagster.stages.score.samples:outcomes_since",
        "testbench_dagster.stages.identify.public_gaps",
        "testbench_dagster.statistics.multiplicity:holm",
        "testbench_dagster.statistics.twins",
    ),
)


def scorer_version(registration: Registration) -> str:
    """Name what computed a score: framework, its version, the task configuration, our own revision."""
    framework = f"{registration.framework}-{registration.engine_version}"
    return f"{framework}/{registration.config_hash[:12]}/{SCORER.number}"
