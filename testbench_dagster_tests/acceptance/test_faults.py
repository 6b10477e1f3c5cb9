"""A fifth of the requests fails: each failure is recorded for what it was, and costs nothing but itself.

One supplier per way of failing, all in one run. What happened is read from the servers' logs, request by
request, and compared with what the store says happened. Docs that stay unanswered count as wrong: those
whose fault takes two occasions have failed for good (more of that supplier's requests fail, so that there are
some), the others are open and asked again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Answers, Installation, Replay, doc_ids_by_digest

SYSTEM = "175b_verification"
DOCS = 400
#: The configured most; the fault table has more for some faults, and fewer for others.
RETRIES = 2


@dataclass(frozen=True)
class Mode:
    """A way of failing: its fault, whose it is, the HTTP status, and what follows (design, section 5).

    ``attempts``: at each occasion at most. ``closes``: after so many occasions the doc has failed; those of
    faults that take two are both in the first run. ``rate``: share of the requests that fail like this.
    """

    fault: str
    owner: str
    status: int | None
    attempts: int
    closes: int = 3
    rate: float = 0.2


MODES = {
    "500": Mode("supplier_http", "supplier", 500, 1 + RETRIES),
    "429": Mode("rate_limited", "network", 429, 1 + RETRIES),
    "timeout": Mode("supplier_timeout", "supplier", None, 1 + 1),
    "reset": Mode("transport", "network", None, 1 + RETRIES),
    "garbage": Mode("supplier_protocol", "supplier", 200, 1 + 1, closes=2, rate=0.4),
    "empty": Mode("ok", "none", 200, 1),  # an empty answer is one
    "error200": Mode("supplier_http", "supplier", 200, 1 + RETRIES),  # it names status 500
}
LIMITS = {
    "connect_s": 20,
    "first_byte_s": 4,
    "idle_s": 4,
    "total_s": 4,
    "retries": RETRIES,
    "max_in_flight": 64,
}
NEXT_OCCASION = timedelta(minutes=15)
CANARIES = 3


def recorded_attempts(installation: Installation, mode: str) -> dict[int, list[Document]]:
    """The stored attempts of a supplier by doc id, in order."""
    by_doc: dict[int, list[Document]] = {}
    with installation.documents() as documents:
        where = {"supplier": f"fails-{mode}@external"}
        for attempt in documents.find(ATTEMPTS, where, sort=[("doc_id", 1), ("attempt", 1)]):
            by_doc.setdefault(attempt["doc_id"], []).append(attempt)
    return by_doc


def seen_outcomes(server: Replay, docs: dict[str, int]) -> dict[int, list[str]]:
    """What the server did with each doc's requests, in order of arrival."""
    deadline = time.monotonic() + 60
    while server.stats()["in_flight"] and time.monotonic() < deadline:
        time.sleep(0.05)  # it notices a little later that a client has given up
    by_doc: dict[int, list[str]] = {}
    for row in server.requests():
        by_doc.setdefault(docs[row["prompt_id"]], []).append(row["outcome"])
    return by_doc


@dataclass(frozen=True)
class Docs:
    """What became of a supplier's docs, by what it was seen to answer: ids by state, and the verdicts."""

    verdicts: dict[int, float]
    failed: set[int]
    open: set[int]

    @property
    def score(self) -> float:
        """Delivered quality: what is not answered counts as wrong."""
        return sum(self.verdicts.values()) / (len(self.verdicts) + len(self.failed) + len(self.open))


def without_canaries(tries: Mapping[int, list[Document]]) -> dict[int, list[Document]]:
    """The attempts at docs that had no answer yet."""
    return {doc: [a for a in made if not a["canary"]] for doc, made in tries.items()}


def assert_attempts(
    mode: Mode, tries: Mapping[int, list[Document]], happened: Mapping[int, list[str]]
) -> None:
    """The store says what the server did, and docs were asked as often as their fault has it."""
    told = {doc: [a["fault"] for a in made] for doc, made in tries.items()}
    assert told == {
        doc: ["ok" if outcome == "hit" else mode.fault for outcome in outcomes]
        for doc, outcomes in happened.items()
    }
    assert len(told) == DOCS
    for made in tries.values():
        assert [a["attempt"] for a in made] == list(range(1, len(made) + 1))
        for attempt in made:
            failed = attempt["fault"] == mode.fault
            assert attempt["owner"] == (mode.owner if failed else "none")
            assert attempt["status"] == (mode.status if failed else 200)
    asked = without_canaries(tries)
    proven = any(a["canary"] and a["fault"] == "ok" for made in tries.values() for a in made)
    for doc, made in asked.items():
        assert not any(a["canary"] for a in tries[doc][: len(made)]), "only what was answered is a canary"
        assert all(a["fault"] != "ok" for a in made[:-1])
        occasions = Counter(a["occasion"] for a in made)
        assert list(occasions) == list(range(1, len(occasions) + 1))
        unanswered = made[-1]["fault"] != "ok"
        assert all(n == mode.attempts for o, n in occasions.items() if unanswered or o < len(occasions))
        assert max(occasions.values()) <= mode.attempts
        if unanswered:
            assert len(occasions) == (2 if mode.closes == 2 and proven else 1)


def docs_of(mode: Mode, tries: Mapping[int, list[Document]], happened: Mapping[int, list[str]]) -> Docs:
    """State of every doc after the first run, and the authors' flag of the answered; no text is wrong."""
    truth = gsm8k.flags(SYSTEM)
    docs = Docs({}, set(), set())
    for doc, made in without_canaries(tries).items():
        if made[-1]["fault"] == "ok":
            docs.verdicts[doc] = truth[doc] if happened[doc][len(made) - 1] == "hit" else 0.0
        elif made[-1]["occasion"] == mode.closes:
            docs.failed.add(doc)
        else:
            docs.open.add(doc)
    return docs


def assert_window(row: dict[str, Any], mode: Mode, docs: Docs, *, late: Collection[int] = ()) -> None:
    """A row of ``scores`` says what became of the docs."""
    n, unanswered = len(docs.verdicts), len(docs.failed) + len(docs.open)
    correct = sum(docs.verdicts.values())
    assert n + unanswered == DOCS == row["n_planned"] == row["n_released"]
    assert (row["n"], row["n_failed"], row["n_open"]) == (n, len(docs.failed), len(docs.open))
    assert (row["n_void"], row["n_late"], row["failures"]) == (0, len(late), "as_worst")
    assert row["status"] == ("partial" if docs.open else "ok")
    assert row["errors"] == ({mode.fault: unanswered} if unanswered else {})
    assert row["coverage"] == pytest.approx(n / DOCS)
    assert row["score"] == row["score_errors_as_zero"] == pytest.approx(docs.score, abs=1e-12)
    assert row["score_answered"] == pytest.approx(correct / n, abs=1e-12)
    looked_up = sum(docs.verdicts[doc] for doc in late)
    assert row["bound_low"] == pytest.approx((correct - looked_up) / DOCS, abs=1e-12)
    assert row["bound_high"] == pytest.approx((correct + len(docs.open)) / DOCS, abs=1e-12)


@pytest.mark.slow(minutes=2.5)
def test_every_failure_is_recorded_and_costs_only_itself(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    recorded, docs = answers.gsm8k(SYSTEM), dict[str, Docs]()
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                Replay(
                    recorded,
                    tmp_path,
                    "--latency-ms",
                    "5",
                    "--fail-mode",
                    name,
                    "--fail-rate",
                    str(mode.rate),
                )
            )
            for name, mode in MODES.items()
        }
        ports = {name: server.port for name, server in servers.items()}
        urls = {f"fails-{name}": server.url for name, server in servers.items()}
        installation.configure(**gsm8k.settings(urls, DOCS, relays=LIMITS))
        # timeouts follow one another when the limit is down to one request in flight
        done = installation.run(timeout_s=60 + 2.5 * DOCS * MODES["timeout"].rate * 1.5)
        with installation.documents() as documents:
            by_digest = doc_ids_by_digest(documents, gsm8k.TASK)
        assert len(by_digest) == DOCS
        rows = installation.scores()
        for name, mode in MODES.items():
            happened = seen_outcomes(servers[name], by_digest)
            assert any(name in outcomes for outcomes in happened.values()), f"{name} never happened"
            tries = recorded_attempts(installation, name)
            assert_attempts(mode, tries, happened)
            docs[name] = docs_of(mode, tries, happened)
            row = gsm8k.primary(rows, f"fails-{name}")
            assert_window(row, mode, docs[name])
            if docs[name].open:
                ended = [without_canaries(tries)[doc][-1]["finished_at"] for doc in docs[name].open]
                assert datetime.fromisoformat(row["next_attempt_at"]) == min(ended) + NEXT_OCCASION
            with installation.documents() as documents:
                assert gsm8k.verdicts(documents, f"fails-{name}") == docs[name].verdicts, name
        print(f"{DOCS} docs, {len(MODES)} suppliers: {done.seconds:.1f} s")
        print({name: (len(became.failed), len(became.open)) for name, became in docs.items()})
    assert any(docs[name].open for name in MODES)
    assert docs["garbage"].failed or docs["garbage"].open

    with ExitStack() as stack:
        healthy = {
            name: stack.enter_context(Replay(recorded, tmp_path, "--latency-ms", "5", port=port))
            for name, port in ports.items()
        }
        installation.run()
        for name in MODES:
            assert seen_outcomes(healthy[name], by_digest) == {}, "no occasion has come yet"
        installation.run("--retry-errors")
        for name in MODES:
            happened, before = seen_outcomes(healthy[name], by_digest), docs[name]
            asked = {doc: outcomes for doc, outcomes in happened.items() if doc in before.open}
            assert asked == {doc: ["hit"] for doc in before.open}, "each open doc once"
            canaries = {doc: outcomes for doc, outcomes in happened.items() if doc not in before.open}
            assert canaries.keys() <= before.verdicts.keys(), "a doc that has failed is never asked again"
            assert sum(map(len, canaries.values())) == (CANARIES if before.open else 0)
    rows, truth = installation.scores(), gsm8k.flags(SYSTEM)
    for name, mode in MODES.items():
        late = docs[name].open
        after = Docs(docs[name].verdicts | {doc: truth[doc] for doc in late}, docs[name].failed, set())
        with installation.documents() as documents:
            assert gsm8k.verdicts(documents, f"fails-{name}") == after.verdicts, name
        row = gsm8k.primary(rows, f"fails-{name}")
        assert_window(row, mode, after, late=late)
        assert row["next_attempt_at"] is None
