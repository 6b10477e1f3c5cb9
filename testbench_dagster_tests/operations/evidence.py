"""What a platform stored, held against what the simulated suppliers wrote down: the same, relay by relay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Api
from testbench_dagster.localnet.requests import Ask, parse
from testbench_dagster.localnet.supplier import prompt_digest
from testbench_dagster.stages.relay.probe import ECHO_REQUEST, PROBE_TASK
from testbench_dagster.stores.documents import Document, Group
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.operations.harness import Platform

DURABLE_S = 1.0
"""An answer is in the store within this time of its arrival, on a machine that keeps up."""
_ROUNDING = timedelta(milliseconds=2)  # stores keep whole milliseconds
_ANSWERED = [fault.value for fault in Fault if fault.answered]


@dataclass(frozen=True)
class Lost:
    """A request that a supplier received and of which nothing is stored."""

    supplier: str
    at: float  # seconds since 1970, when it arrived
    outcome: str


def asked_in(made: Platform) -> dict[tuple[str, int], Ask | None]:
    """By prompt and number of a request what a simulated supplier reads in it; None where it gets a page."""
    found: dict[tuple[str, int], Ask | None] = {}
    with made.documents() as documents:
        for prompt in documents.find(PROMPTS):
            for idx, request in enumerate(prompt["requests"]):
                page = request["type"] == "get"
                found[prompt["_id"], idx] = None if page else as_read(request, prompt["api"])
    return found


def as_read(request: Mapping[str, Any], api: Api) -> Ask:
    """What a simulated supplier reads in a request."""
    _, body = build_payload(request, api, "any")
    return parse(orjson.dumps(body), api)


def _digest(ask: Ask) -> str:
    """How the suppliers' logs call a request."""
    return prompt_digest(ask.prompts).hex()


def lost_requests(made: Platform) -> list[Lost]:
    """Give each stored attempt the one request that it is of, and return the requests left over.

    An attempt's request is of the same prompt and arrived between the attempt's start and end. Fails when an
    attempt has none. Pages stand in no log: their suppliers only count them (:func:`lost_pages`).
    """
    asked = asked_in(made)
    probe = as_read(ECHO_REQUEST, "completions")
    stored: dict[tuple[str, str], list[Document]] = defaultdict(list)
    with made.documents() as documents:
        for attempt in documents.find(ATTEMPTS):
            call = attempt["prompt_id"], attempt["idx"]
            ask = probe if attempt["task"] == PROBE_TASK else asked[call]
            if ask is not None:
                stored[attempt["supplier"], _digest(ask)].append(attempt)
    lost = []
    for address in made.localnet.stats():
        key = f"{address}@simulation"
        received: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
        for request in made.localnet.requests(address):
            at = datetime.fromisoformat(request["at"])
            received[request["digest"]].append((at, request["outcome"]))
        for digest, requests in received.items():
            left = sorted(requests)
            for attempt in sorted(stored.pop((key, digest), []), key=lambda a: a["started_at"]):
                own = next((r for r in left if _is_of(r[0], attempt)), None)
                assert own is not None, f"{key} never got the request of {attempt['_id']}; {left}"
                left.remove(own)
            lost += [Lost(key, at.timestamp(), outcome) for at, outcome in left]
    assert not stored, f"attempts at prompts that no supplier was ever asked: {list(stored)[:5]}"
    return lost


def lost_pages(made: Platform) -> int:
    """How many pages were served of which nothing is stored. Fails when an attempt's was never served."""
    pages = {call for call, ask in asked_in(made).items() if ask is None}
    stored = Counter(a["supplier"] for a in made.attempts() if (a["prompt_id"], a["idx"]) in pages)
    served = Counter(
        {f"{address}@simulation": sum(s["pages"].values()) for address, s in made.localnet.stats().items()}
    )
    assert stored - served == Counter(), "attempts at pages that no supplier served"
    return (served - stored).total()


def _is_of(arrived: datetime, attempt: Document) -> bool:
    return bool(attempt["started_at"] - _ROUNDING <= arrived <= attempt["finished_at"] + _ROUNDING)


def assert_scored_once(made: Platform) -> None:
    """Every answered doc of every round has one score per filter and scorer, and nothing else has any."""
    with made.documents() as documents:
        by = ["supplier", "task", "task_hash", "doc_id", "epoch", "round", "filter", "scorer_version"]
        repeated = [row for row in documents.group(SCORES, Group(by=by)) if row["count"] != 1]
        assert repeated == []
        answered = Counter(
            (a["supplier"], a["task"], a["doc_id"], a["epoch"], a["round"], a["idx"], a["repeat"])
            for a in documents.find(ATTEMPTS, {"fault": {"in": _ANSWERED}})
            # a doc answered before, asked again on purpose; and what is no doc
            if not a["canary"] and a["task"] != PROBE_TASK
        )
        twice = [call for call, count in answered.items() if count > 1]
        assert twice == [], "answered again in the same round"
        known = {a["_id"] for a in documents.find(ATTEMPTS, fields=["_id"])}
        scored = set()
        for score in documents.find(SCORES):
            assert score["error"] is None, score
            assert set(score["attempt_ids"]) <= known, f"scored without an attempt: {score['_id']}"
            scored.add((score["supplier"], score["task"], score["doc_id"], score["epoch"], score["round"]))
        assert scored == {(*doc,) for *doc, _, _ in answered}


def assert_one_at_a_time(made: Platform) -> int:
    """No supplier was ever relayed to under two leases at once; return how many leases were used."""
    with made.documents() as documents:
        attempts = list(documents.find(ATTEMPTS))
    times: dict[str, dict[int, list[datetime]]] = defaultdict(lambda: defaultdict(list))
    for attempt in attempts:
        assert attempt["lease"] is not None
        times[attempt["supplier"]][attempt["lease"]] += [attempt["started_at"], attempt["finished_at"]]
    for supplier, leases in times.items():
        spans = sorted((min(t), max(t), lease) for lease, t in leases.items())
        for (_, end, before), (start, _, after) in pairwise(spans):
            assert end <= start, f"{supplier}: lease {after} began at {start}, {before} ended at {end}"
            assert before < after, f"{supplier}: lease {after} came after {before}"
    return sum(len(leases) for leases in times.values())


def docs_scored(made: Platform) -> Counter[str]:
    """How many docs of all tasks have a score, by supplier."""
    scored = {(score["supplier"], score["task"], score["doc_id"]) for score in made.scores()}
    return Counter(supplier for supplier, _, _ in scored)
