"""How long does it take to compare all suppliers of a service with each other?

    python benchmarks/identity.py [--suppliers 1000 5000 50000] [--backends 150] [--prompts 300]

Suppliers answer at temperature 0 for so many backends, twins alike on .95 of prompts, unrelated ones on .106.
Timed, each part on its own: reading answers into the matrix, groups of all suppliers from nothing, and the
replay of all answers for changes; then the whole stage over 1,000 suppliers' attempts in the embedded store,
twice: the second time groups are known and watched. Target: 1,000 suppliers x 300 prompts in under 60 s. The
peer is the straightforward comparison pair by pair, as the original does it, on some pairs and scaled
up.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations, islice
from pathlib import Path

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.identity import Answer, AnswerTable, Evidence, Grouping, find_changes, find_groups
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.identify.identify import refresh_identity
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import ATTEMPTS

START = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = 60.0
PEER_PAIRS = 2_000


def answers(suppliers: int, backends: int, prompts: int, seed: int = 7) -> Iterator[Answer]:
    """Answers of suppliers to common prompts, a tenth of the prompts asked twice."""
    rng = random.Random(seed)
    habits = [f"{rng.random():.18f}" + " habit" for _ in range(prompts)]
    said = [
        [habits[t] if rng.random() < 0.106**0.5 else f"{rng.random():.18f} said" for t in range(prompts)]
        for _ in range(backends)
    ]
    for s in range(suppliers):
        usual = said[s % backends]
        for t in range(prompts):
            for again in range(2 if t % 10 == 0 else 1):
                prefix = usual[t] if rng.random() < 0.95**0.5 else f"{rng.random():.18f} slip"
                at = START + timedelta(minutes=5 * t + 1, days=again, seconds=s % 240)
                yield Answer(f"s{s:05d}", f"p{t:04d}", f"task{t % 4}", at, again, prefix)


def peak() -> float:
    """The most memory that this process held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peer(given: AnswerTable, suppliers: int) -> float:
    """Seconds that a loop over all pairs of suppliers takes, measured on some of them."""
    prefixes: dict[str, dict[str, str]] = {}
    for name in given.suppliers[: PEER_PAIRS + 1]:
        prefixes[name] = {a.prompt: a.answer_prefix[:20] for a in given.of_supplier(name)}
    pairs = list(islice(combinations(prefixes.values(), 2), PEER_PAIRS))
    start = time.perf_counter()
    for a, b in pairs:
        common = a.keys() & b.keys()
        sum(a[t] == b[t] for t in common)
    return (time.perf_counter() - start) / len(pairs) * suppliers * (suppliers - 1) / 2


def check(grouping: Grouping, backends: int) -> tuple[int, int]:
    """Pairs merged wrongly, and twins merged, by the made-up truth."""
    wrong = right = 0
    for group in grouping.groups:
        kinds = [int(m[1:]) % backends for m in group.members]
        same = sum(n * (n - 1) // 2 for n in (kinds.count(k) for k in set(kinds)))
        right += same
        wrong += len(kinds) * (len(kinds) - 1) // 2 - same
    return wrong, right


def stage(given: list[Answer], folder: Path) -> list[float]:
    """Seconds of two refreshes of an installation whose store holds these answers."""
    names = sorted({answer.supplier for answer in given})
    suppliers = [{"address": n, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for n in names]
    tasks = [{"name": "identity", "framework": "signatures"}]
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump({"suppliers": suppliers, "tasks": tasks}), encoding="utf-8")
    newest = max(answer.at for answer in given)
    seconds = []
    with Workspace(load_config(path)) as workspace:
        refresh_roster(workspace)
        for start in range(0, len(given), 5_000):
            batch = given[start : start + 5_000]
            workspace.documents.put_new(ATTEMPTS, [_attempt(a, start + i) for i, a in enumerate(batch)])
        for _ in range(2):
            start_at = time.perf_counter()
            refresh_identity(workspace, now=newest + timedelta(minutes=1))
            seconds.append(time.perf_counter() - start_at)
    return seconds


def _attempt(answer: Answer, number: int) -> Document:
    return dict.fromkeys(ATTEMPTS.fields) | {
        "_id": f"a{number:07}",
        "supplier": f"{answer.supplier}@external",
        "service": "external",
        "task": "identity",
        "task_hash": "h",
        "epoch": 1,
        "round": answer.round + 1,
        "prompt_id": answer.prompt,
        "position": int(answer.prompt[1:]),
        "doc_id": int(answer.prompt[1:]),
        "idx": 0,
        "repeat": 0,
        "attempt": 1,
        "fault": "ok",
        "owner": "none",
        "finished_at": answer.at,
        "latency_ms": 200.0,
        "answer_prefix": answer.answer_prefix,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suppliers", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--backends", type=int, default=150)
    parser.add_argument("--prompts", type=int, default=300)
    chosen = parser.parse_args()
    print("CPU seconds of one core, and the most memory until then, MB")
    print("| suppliers | answers | made and read | matrix | groups | changes | pairwise loop (scaled) |")
    print("|---|---|---|---|---|---|---|")
    lines = []
    for suppliers in chosen.suppliers:
        begun = time.process_time()
        given = AnswerTable.of(answers(suppliers, chosen.backends, chosen.prompts))
        start, peak_read = time.process_time(), peak()
        evidence = Evidence.of(given)
        read, peak_matrix = time.process_time(), peak()
        grouping = find_groups(evidence, now=START)
        grouped, peak_groups = time.process_time(), peak()
        members = [g.members for g in grouping.groups if len(g.members) > 1]
        changes = find_changes(given, groups=members)
        done, peak_changes = time.process_time(), peak()
        slow = peer(given, suppliers)
        print(
            f"| {suppliers:,} | {len(given):,} | {start - begun:.1f}; {peak_read:,.0f} | "
            f"{read - start:.1f}; {peak_matrix:,.0f} | {grouped - read:.1f}; {peak_groups:,.0f} | "
            f"{done - grouped:.1f}; {peak_changes:,.0f} | {slow:.1f} |",
            flush=True,
        )
        wrong, right = check(grouping, chosen.backends)
        sizes = [
            suppliers // chosen.backends + (k < suppliers % chosen.backends) for k in range(chosen.backends)
        ]
        twins = sum(n * (n - 1) // 2 for n in sizes)
        total = grouped - start
        verdict = (
            f", target {TARGET:.0f} s {'met' if total < TARGET else 'MISSED'}" if suppliers == 1000 else ""
        )
        lines.append(
            f"{suppliers:,}: {len(grouping.groups)} groups, {wrong} pairs merged wrongly, {right:,} of "
            f"{twins:,} twin pairs merged, {len(changes)} changes, matrix and groups {total:.1f} s{verdict}"
        )
    stored = list(answers(min([1000, *chosen.suppliers]), chosen.backends, chosen.prompts))
    with tempfile.TemporaryDirectory() as folder:
        first, second = stage(stored, Path(folder))
    lines.append(
        f"stage over the embedded store, {len(stored):,} attempts: {first:.1f} s, then {second:.1f} s"
    )
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
