"""A fifth of the requests fails: each failure is recorded for what it was, and costs nothing but itself.

One supplier per way of failing, all in one run. What happened is read from the servers' logs, request by
request, and compared with what the store says happened.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Answers, Installation, Replay, doc_ids_by_digest

SYSTEM = "175b_verification"
DOCS = 400
RETRIES = 2
RATE = 0.2
#: Way of failing → fault (design, section 5), owner, HTTP status, whether it is retried.
MODES: dict[str, tuple[str, str, int | None, bool]] = {
    "500": ("supplier_http", "supplier", 500, False),
    "429": ("rate_limited", "network", 429, True),
    "timeout": ("supplier_timeout", "supplier", None, False),
    "reset": ("transport", "network", None, True),
    "garbage": ("supplier_protocol", "supplier", 200, False),
    "empty": ("empty", "supplier", 200, False),
    "error200": ("supplier_protocol", "supplier", 200, False),
}
LIMITS = {
    "connect_s": 2,
    "first_byte_s": 2,
    "idle_s": 2,
    "total_s": 2,
    "retries": RETRIES,
    "max_in_flight": 64,
}


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
    deadline = time.monotonic() + 10
    while server.stats()["in_flight"] and time.monotonic() < deadline:
        time.sleep(0.05)  # it notices a little later that a client has given up
    by_doc: dict[int, list[str]] = {}
    for row in server.requests():
        by_doc.setdefault(docs[row["prompt_id"]], []).append(row["outcome"])
    return by_doc


def assert_window(row: dict[str, Any], docs: int, last: dict[int, Document]) -> None:
    """A row of ``scores`` agrees with the last attempts it was made from."""
    truth = gsm8k.flags(SYSTEM)
    answered = [doc for doc, attempt in last.items() if attempt["fault"] == "ok"]
    correct = sum(truth[doc] for doc in answered)
    n = len(answered)
    errors = Counter(attempt["fault"] for attempt in last.values() if attempt["fault"] != "ok")
    assert row["n"] == n
    assert row["errors"] == dict(errors)
    assert row["n"] + sum(row["errors"].values()) == docs == row["n_planned"]
    assert row["coverage"] == pytest.approx(n / docs)
    assert row["score"] == pytest.approx(correct / n, abs=1e-12)
    blamed = sum(count for fault, count in errors.items() if Fault(fault).owner is Owner.SUPPLIER)
    assert row["score_errors_as_zero"] == pytest.approx(correct / (n + blamed), abs=1e-12)
    assert row["bound_low"] == pytest.approx(correct / docs, abs=1e-12)
    assert row["bound_high"] == pytest.approx((correct + docs - n) / docs, abs=1e-12)


@pytest.mark.slow
def test_every_failure_is_recorded_and_costs_only_itself(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    docs, recorded = DOCS, answers.gsm8k(SYSTEM)
    truth = gsm8k.flags(SYSTEM)
    with ExitStack() as stack:
        servers = {
            mode: stack.enter_context(
                Replay(recorded, tmp_path, "--latency-ms", "5", "--fail-mode", mode, "--fail-rate", str(RATE))
            )
            for mode in MODES
        }
        ports = {mode: server.port for mode, server in servers.items()}
        urls = {f"fails-{mode}": server.url for mode, server in servers.items()}
        installation.configure(**gsm8k.settings(urls, docs, relays=LIMITS))
        # timeouts follow one another when the limit is down to one request in flight
        done = installation.run(timeout_s=60 + 2.5 * docs * RATE * 1.5)
        with installation.documents() as documents:
            by_digest = doc_ids_by_digest(documents, gsm8k.TASK)
        assert len(by_digest) == docs
        attempts = {mode: recorded_attempts(installation, mode) for mode in MODES}
        rows = installation.scores()
        for mode, (fault, owner, status, retried) in MODES.items():
            happened = seen_outcomes(servers[mode], by_digest)
            told = {doc: [a["fault"] for a in tries] for doc, tries in attempts[mode].items()}
            names = {mode: fault, "hit": "ok"}
            assert told == {doc: [names[o] for o in outcomes] for doc, outcomes in happened.items()}, mode
            assert len(told) == docs
            assert any(fault in faults for faults in told.values()), f"{mode} never happened"
            for doc, tries in attempts[mode].items():
                assert [a["attempt"] for a in tries] == list(range(1, len(tries) + 1))
                for attempt in tries:
                    failed = attempt["fault"] == fault
                    assert attempt["owner"] == (owner if failed else "none")
                    assert attempt["status"] == (status if failed else 200)
                # a retry follows a failure that is not the supplier's, and nothing else
                assert all(a["fault"] == fault for a in tries[:-1])
                if not retried:
                    assert len(tries) == 1, (mode, doc)
                elif tries[-1]["fault"] == fault:
                    assert len(tries) == 1 + RETRIES, (mode, doc)
            last = {doc: tries[-1] for doc, tries in attempts[mode].items()}
            assert_window(gsm8k.primary(rows, f"fails-{mode}"), docs, last)
            with installation.documents() as documents:
                stored = gsm8k.verdicts(documents, f"fails-{mode}")
            assert stored == {doc: truth[doc] for doc, a in last.items() if a["fault"] == "ok"}, mode
        print(f"{docs} docs, {len(MODES)} suppliers: {done.seconds:.1f} s")

    failed = {
        mode: {doc for doc, tries in by_doc.items() if tries[-1]["fault"] != "ok"}
        for mode, by_doc in attempts.items()
    }
    with ExitStack() as stack:
        healthy = {
            mode: stack.enter_context(Replay(recorded, tmp_path, "--latency-ms", "5", port=port))
            for mode, port in ports.items()
        }
        # Without the option only what failed by nobody's or the network's fault is due.
        installation.run()
        for mode, (_, owner, _, _) in MODES.items():
            due = failed[mode] if owner == "network" else set()
            assert set(seen_outcomes(healthy[mode], by_digest)) == due, mode
        installation.run("--retry-errors")
        for mode in MODES:
            happened = seen_outcomes(healthy[mode], by_digest)
            assert happened == {doc: ["hit"] for doc in failed[mode]}, "each failed doc once, no other"
    rows = installation.scores()
    for mode in MODES:
        row = gsm8k.primary(rows, f"fails-{mode}")
        assert (row["n"], row["errors"], row["coverage"]) == (docs, {}, 1.0)
        with installation.documents() as documents:
            stored = gsm8k.verdicts(documents, f"fails-{mode}")
        assert stored == {doc: truth[doc] for doc in by_digest.values()}
        assert row["score"] == pytest.approx(sum(stored.values()) / docs, abs=1e-12)
