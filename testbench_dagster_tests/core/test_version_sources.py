"""Whatever a versioned source uses is a source too, or it is said here why it decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbench_dagster.core import versions
from testbench_dagster.core.versions import Version
from testbench_dagster_tests.core.reaching import covered, used
from testbench_dagster_tests.test_architecture import modules

PINNED = {name: value for name, value in vars(versions).items() if isinstance(value, Version)}
PREFIX = "testbench_dagster."

#: Modules and definitions that no version has to notice, with the reason.
EVERYWHERE = {
    "core.errors": "what is raised, not when",
    "core.ids": "stored things are found by these hashes: another formula takes a migration",
    "core.prompt": "types that carry what others made",
    "core.records": "how facts are stored, which has a schema version",
    "core.registration": "a type that carries what others made",
    "core.supplier:CONFIG_SOURCE": "a name",
    "core.task": "a type that carries what is configured",
    "core.task_flags": "a type that carries what was registered",
    "core.versions": "the numbers themselves",
    "stages.discover.roster": "who is on the roster is a fact",
    "stores.documents": "reads and writes what is stored",
}
EXCLUDED: Mapping[str, Mapping[str, str]] = {
    "CLASSIFIER": {
        "coordination.processes:host_name": "which machine sent it: no answer depends on it",
        "core.relay": "types that carry what others made",
        "stages.relay.writer:attempt_id": "an id",
        "transports.addresses:AddressRefused": "which addresses are asked, before there is an answer",
        "transports.aiohttp_internals": "aiohttp's parser: its version is not ours to number",
        "transports.http:Exchange": "what is noted of an exchange, by those listed",
        "transports.http:HttpClient": "connects and sends",
        "core.remedies": "what an operator is told",
        "core.wording": "numbers in words",
        "transports.prepared": "where requests go, by which way, with which headers",
        "transports.stream_listener": "times of probes, which enter no score",
        "transports.http:TooLarge": "an exception without a rule",
        "transports.retry_after": "a wait",
        "transports.payload": "what is asked: PAYLOADS",
        "transports.plain:PlainHttp": "where a request goes, with which headers; its answer is a source",
        "transports.pocket.calls:Call": "what is asked: PAYLOADS",
        "transports.pocket.calls:USER_AGENT": "a header",
        "transports.pocket.chain.errors": "what is raised, not when",
        "transports.pocket.errors": "what is raised, not when",
        "transports.pocket.evidence": "evidence of a signature, which is verified by itself",
        "transports.pocket.services": "sessions and keys: what is sent at all",
    },
    "PAYLOADS": {
        "transports.plain:PlainExchange": "reads answers",
        "transports.plain:PlainHttp._request": "where a request goes, with which headers",
        "transports.pocket.calls:_field": "the envelope around the body",
        "transports.pocket.calls:_request_head": "the envelope around the body",
        "transports.pocket.calls:signed_request": "the envelope around the body",
        "transports.stream_listener": "times of probes, which enter no score",
    },
    "SCORER": {
        "core.wording": "numbers in words",
        "stages.score.answered:AnsweredDoc": "a type that carries what others made",
        "core.faults": "which answers there are: CLASSIFIER",
        "stages.sample.data:task_data": "docs as registered",
        "tasks.index": "where a definition lies; the configuration's hash has what it says",
        "tasks.lm_eval_adapter.code_eval": "runs code of tasks that do; CODE, which their hash has",
        "tasks.lm_eval_adapter.local_splits": "data as registered; the task hash has it",
        "tasks.resources": "puts files where lm-eval looks for them",
        "tasks.signatures.probes": "questions: a prompt holds those that were asked",
        "tasks.signatures.version": "the framework's version, which stands beside ours",
        "tasks.sources": "notices that files changed",
        "tasks.worker": "runs the scorer in a process of its own",
    },
    "CODE": {
        "core.wording": "numbers in words",
        "sandbox.attempts": "whether it holds at all, before anything runs",
        "sandbox.choice": "which of them holds here",
    },
    "TOOLS": {
        "tasks.adapter": "what every framework's adapter is made with: SCORER",
        "tasks.local_data": "rows as registered; the task hash has them",
        "tasks.tools.bfcl": "rows as registered; the task hash has them",
        "tasks.tools.starter": "rows as registered; the task hash has them",
        "tasks.tools.version": "this number, and that of requests, which the task hash has",
    },
    "TWINS": {},
    "PUBLIC_GAPS": {
        "core.wording": "numbers in words",
        "ranking.ranking": "who is one with whom: verdicts are made anew, counts are not",
        "stages.sample.epochs": "how many docs are asked, which is a fact of the epoch",
        "stages.score.groups": "who is one with whom: verdicts are made anew, counts are not",
        "stages.score.samples": "which docs failed: WINDOWS",
        "stages.score.states": "which docs failed: WINDOWS",
    },
    "SPLITS": {
        "core.faults": "how docs end: WINDOWS, whose number the hash has",
        "core.wording": "numbers in words",
        "identity.settings": "constants, which the hash has beside the number",
        "stages.identify.reading:_NAMED": "how many are asked for with one query",
        "stages.score.samples": "which docs failed: WINDOWS, whose number the hash has",
        "stages.score.states": "which docs failed: WINDOWS, whose number the hash has",
    },
    "FRESH": {
        "sandbox.landlock": "what a check may not do: none of those that are asked tries",
        "tasks.adapter": "what every framework's adapter is made with: SCORER",
        "tasks.fresh.version": "this number, and those of requests and package, which the task hash has",
    },
    "WINDOWS": {
        "scoring.costs": "money, at the price of now: nothing of it is stored",
        "core.text:escaped": "what a person is told",
        "tasks.worker:WorkerTimeout": "what is raised where a framework came to no end: no number then",
        "transports.payload:_generation": "what is asked: PAYLOADS",
        "transports.payload:_plain_payload": "what is asked: PAYLOADS",
        "stages.sample.data": "docs as registered",
        "coordination.writing": "whether a cached window is newer than what was written since",
        "core.columns": "names and types of columns",
        "core.window:Window": "a record of columns; without one in older bundles it is not compared",
        "scoring.groups": "rows of groups are made of those of tasks when they are read",
    },
    "PLANS": {
        "core.pairs:paired_order": "in which order docs are asked, of which prompts are facts",
        "core.price:from_micros": "an amount in another unit",
        "relays.money": "what may be sent while a run goes on",
        "stages.plan.costs:likely_costs": "what a run releases of its plans: none that is stored",
        "statistics.paired:paired_difference": "an interval; what follows from it is held by test_references",
        "core.wording": "numbers in words",
        "transports.payload:_generation": "what is asked: PAYLOADS",
        "transports.payload:_plain_payload": "what is asked: PAYLOADS",
        "coordination.budgets:BudgetLedger": "what is left of budgets is a fact",
        "coordination.pace:DayLedger": "what is left of a pace's day is a fact",
        "core.rules": "rules as configured, which a plan's fingerprint has",
        "relays.quotas": "what is left of budgets is a fact",
        "stages.plan.paces:paces_of": "paces as configured, which a plan's fingerprint has",
        "stages.sample.catalogue": "epochs and sequences are facts",
        "stages.sample.set_aside": "which tasks could be prepared is a fact",
        "stages.configured_taxonomies": "taxonomies as configured",
        "stages.summarize.refresh:configured_taxonomies": "taxonomies as configured",
        "transports.plug": "types that carry what is known of sessions",
        "transports.registry:transport": "a transport by name; its plug says whom sessions let wait",
    },
    "SCORE_STREAMS": {
        "core.doc_states:DocClock": "how far back is looked for what was written late",
        "core.faults": "which docs may have failed; whether they did: WINDOWS",
        "core.wording": "numbers in words",
        "identity.changes:Change": "carries what was seen",
        "identity.settings:IdentityError": "an error",
        "stages.plan.planner:PROXY_FAILURES": "whom not to compare with",
        "stages.score.samples": "which docs failed: WINDOWS",
        "stages.score.states": "which docs failed: WINDOWS",
    },
}


def missing(name: str) -> Iterator[str]:
    """What sources of a version use that is neither a source nor excluded."""
    sources = PINNED[name].sources
    known = (*sources, *(PREFIX + each for each in (*EVERYWHERE, *EXCLUDED[name])))
    for source in sources:
        for reached in sorted(used(source, modules())):
            if not covered(reached, known):
                yield f"{reached} (used by {source})"


@pytest.mark.parametrize("name", PINNED)
def test_what_a_source_uses_is_listed_or_excluded_with_a_reason(name: str) -> None:
    found = list(missing(name))
    assert not found, (
        f"{name} rests on what it does not list. Add it to the sources in core/versions.py, or say in "
        "EXCLUDED why it decides nothing that is stored:\n" + "\n".join(found)
    )


def test_every_exclusion_is_needed() -> None:
    reached = {name: {r for s in PINNED[name].sources for r in used(s, modules())} for name in PINNED}
    for name, excluded in EXCLUDED.items():
        for each in excluded:
            assert any(covered(r, (PREFIX + each,)) for r in reached[name]), f"strike out {name}: {each}"
    for each in EVERYWHERE:
        assert any(covered(r, (PREFIX + each,)) for of in reached.values() for r in of), f"strike out {each}"


def test_what_decided_unnoticed_once_is_a_source() -> None:
    prefixed = {name: {s.removeprefix(PREFIX) for s in value.sources} for name, value in PINNED.items()}
    assert "core.answer_prefix" in prefixed["CLASSIFIER"] & prefixed["SCORER"]
    assert "tasks.lm_eval_adapter.registration:REQUESTS" in prefixed["SCORER"]
    assert "transports.payload" in prefixed["PAYLOADS"]
    assert "core.sampling" in prefixed["PLANS"] and "core.sampling:common_docs" in prefixed["WINDOWS"]


# --------------------------------------------------------------------------------- what the walk sees

FILES = {
    "app": "from app.low import handed_on\n",
    "app.low": "LIMIT = 3\n\n\ndef handed_on(): ...\n\n\ndef other(): ...\n",
    "app.types": "class Kind: ...\n",
    "app.judge": (
        "from typing import TYPE_CHECKING\n"
        "from app import handed_on, low\n"
        "if TYPE_CHECKING:\n    from app.types import Kind\n"
        "_OWN = 1\n\n\n"
        "class Judge:\n"
        "    def verdict(self, kind: Kind) -> Kind:\n"
        "        return self._help(low.LIMIT)\n\n"
        "    def _help(self, n):\n"
        "        from app.low import other\n"
        "        return other(n) + _OWN\n\n\n"
        "def alone():\n    return handed_on()\n"
    ),
}


@pytest.fixture
def app(tmp_path: Path) -> dict[str, Path]:
    """A small package, by module."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return {name: tmp_path / f"{name}.py" for name in FILES}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("app.judge", {"app.low:LIMIT", "app.low:handed_on", "app.low:other"}),
        ("app.judge:alone", {"app.low:handed_on"}),
        ("app.judge:Judge", {"app.low:LIMIT", "app.low:other", "app.judge:_OWN"}),
        ("app.judge:Judge.verdict", {"app.low:LIMIT", "app.judge:Judge._help"}),
        ("app.judge:Judge._help", {"app.low:other", "app.judge:_OWN"}),
        ("app.judge:_OWN", set()),
    ],
)
def test_the_walk_sees_late_imports_constants_and_methods_but_no_annotations(
    source: str, expected: set[str], app: dict[str, Path]
) -> None:
    assert used(source, app) == expected


def test_a_module_covers_its_definitions_and_a_class_its_methods() -> None:
    assert covered("a.b:c", ("a.b",)) and covered("a.b:c", ("a",)) and covered("a.b:C.m", ("a.b:C",))
    assert not covered("a.bc:d", ("a.b",)) and not covered("a.b:c", ("a.b:c.m",))
