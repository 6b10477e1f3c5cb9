"""What people wait for at 5,000 suppliers and 100 tasks: every kind of page of the board, and an export.

    python benchmarks/board.py [--suppliers 5000] [--tasks 100] [--docs 75] [--large 10000] [--mongo]

A store is filled as the stages fill it: roster, windows and their packed answers, summaries by two
taxonomies, rankings, identity groups, changes, 365 days of history. Two suppliers have the facts behind all
their windows, and a task of ``--large`` docs besides; everybody else those of three docs, so that a doc has
many answers. Rows of windows are made of one supplier's facts and kept under every other's name.

``testbench board`` is then started as people start it: seconds to the first page, of CPU and of the wall.
Each kind of page is asked for ``--requests`` times, one after another: CPU time of the server per request,
wall time, bytes. At the end four clients ask for all of them at once. ``testbench export`` writes the answers
of both suppliers.

``--mongo`` measures a MongoDB that is started for it (or TESTBENCH_TEST_MONGO_URI): CPU time of the server of
the board, and beside it that of a MongoDB on this machine. ``--folder`` keeps what was filled there and uses
it the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import http.client
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import yaml
from pymongo import MongoClient

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reading import facts, snapshot
from windows import summarize

from testbench_dagster.board import links
from testbench_dagster.config import load_config
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.ids import attempt_document_id
from testbench_dagster.core.records.identity import MEMBERS_TOLD, ChangeRecord, IdentityGroupRecord
from testbench_dagster.core.records.rankings import SupplierSnapshotRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.ranking.entry import Board
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.rank import make_board, store_board, stored_entries
from testbench_dagster.stages.sample.catalogue import refresh_dataset
from testbench_dagster.stages.score.deadlines import deadline_s
from testbench_dagster.stages.score.window_answers import answers_id
from testbench_dagster.stages.score.window_cache import subject
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES, WINDOW_ANSWERS, WINDOWS
from testbench_dagster_tests.servers import mongo_database, mongo_server

START_S, PAGE_CPU_MS, PAGE_MS, PAGE_KB, RSS_MB, PAGES_PER_S, EXPORT_S = 2.0, 150, 300, 200, 400, 20, 120
LARGE = "large"
#: Of the first task the docs that everybody was asked.
COMMON = 3
GROUP, GROUPED, LARGEST = 4, 0.6, 200
CHANGES, DAYS = 2_000, 365
CLIENTS, TOGETHER_S = 4, 15.0
NOW = datetime.now(UTC).replace(microsecond=0)
TICK = os.sysconf("SC_CLK_TCK")


# -- filling ----------------------------------------------------------------------------------------------


def prepare(folder: Path, suppliers: int, tasks: int, large: int) -> Path:
    """Write the configuration: the roster, the tasks, and two taxonomies over all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    roster = [
        {"address": f"supplier{i:05}", "service": f"service-{i % 5}", "model": f"model-{i % 40}",
         "api": "chat", "base_url": f"https://host{i}.example.com/v1"}
        for i in range(suppliers)
    ]  # fmt: skip
    (folder / "roster.json").write_text(json.dumps({"suppliers": roster, "height": 1}), encoding="utf-8")
    names = [f"task{i:03}" for i in range(tasks)]
    for name in ("general", "other"):
        nodes = {f"{name} {i}": names[i::10] for i in range(min(10, tasks))}
        tree = {
            "name": name,
            "root": "all",
            "nodes": {"all": {"children": list(nodes)}, **{n: {"tasks": own} for n, own in nodes.items()}},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    settings = {
        "supplier_sources": [{"file": "roster.json"}],
        "tasks": [{"name": "starter_logic", "alias": name, "samples": "all"} for name in [*names, LARGE]],
        "taxonomies": ["general.yaml", "other.yaml"],
        "sampling": {"window": large},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def register(workspace: Workspace, docs: int, large: int) -> dict[str, Registration]:
    """Register every task, and read the roster."""
    registered, _ = refresh_dataset(workspace, workspace.specs[0])
    for spec in workspace.specs:
        n = large if spec.name == LARGE else docs
        task = replace(
            registered, task=spec.name, task_hash=f"{spec.name:0<40}", n_docs=n, splits={"test": n},
            n_fewshot=0,
        )  # fmt: skip
        made = (StoredDoc(i, f'{{"n": {i}}}', f"{i:064x}") for i in range(n))
        workspace.datasets.register(task, made, iter(()))
    refresh_roster(workspace)
    return {r.task: r for r in workspace.datasets.tasks()}


def store_facts(
    workspace: Workspace, supplier: str, registration: Registration, docs: int, *, odd: bool = False
) -> None:
    """Store prompts, attempts and scores of a supplier's first docs: some hundred an hour, back from now.

    Every thirteenth doc is refused at three occasions, every ninth is cut; an ``odd`` supplier is right where
    others are wrong in every eleventh.
    """
    late = timedelta(seconds=11 * (sum(registration.task.encode()) % 997))
    prompts: list[dict] = []
    attempts: list[dict] = []
    scores: list[dict] = []
    for prompt, attempt, score in facts(supplier, replace(registration, n_docs=docs)):
        doc = attempt["doc_id"]
        at = NOW - late - 20 * (NOW - attempt["finished_at"])
        prompts.append(prompt)
        attempt |= {"started_at": at, "finished_at": at}
        if doc % 13 == 7:
            attempts += _refused(attempt, at)
            continue
        if doc % 9 == 4:
            attempt |= {"fault": Fault.TRUNCATED.value, "finish_reason": "length"}
        attempts.append(attempt)
        if odd and doc % 11 == 5:
            score["metrics"] = {name: 1 - value for name, value in score["metrics"].items()}
        scores.append({**score, "answered_at": at, "scored_at": at, "truncated": doc % 9 == 4})
    for collection, documents in ((PROMPTS, prompts), (ATTEMPTS, attempts), (SCORES, scores)):
        workspace.documents.put_new(collection, documents)


def _refused(attempt: dict, at: datetime) -> Iterator[dict]:
    for number in (1, 2, 3):
        when = at - timedelta(hours=3 - number)
        id_ = attempt_document_id(attempt["supplier"], attempt["prompt_id"], 1, 0, 0, number)
        refused = {"_id": id_, "attempt": number, "occasion": number, "status": 500, "body": b"busy"}
        refused |= {"started_at": when, "finished_at": when, "error": "busy", "finish_reason": None}
        refused |= {"fault": Fault.SUPPLIER_HTTP.value, "owner": Fault.SUPPLIER_HTTP.row.owner.value}
        yield {**attempt, **refused, "prompt_tokens": None, "completion_tokens": None}


def store_groups(workspace: Workspace, suppliers: Sequence[Supplier]) -> None:
    """Put suppliers of one service into groups: one large one, others of four."""
    records = []
    for service in sorted({s.service for s in suppliers}):
        keys = [s.key for s in suppliers if s.service == service]
        grouped, start = keys[: int(len(keys) * GROUPED)], 0
        while start < len(grouped):
            size = LARGEST if start == GROUP and service == "service-0" else GROUP
            members = grouped[start : start + size]
            start += size
            records += [_member(service, key, members) for key in members]
    typed.upsert(workspace.documents, IdentityGroupRecord, records)


def _member(service: str, key: str, members: list[str]) -> IdentityGroupRecord:
    proxy = members[0]
    return IdentityGroupRecord(
        id=key, service=service, group=f"group of {proxy}", proxy=proxy,
        role="alone" if len(members) == 1 else "proxy" if key == proxy else "member",
        members=members[:MEMBERS_TOLD], n_members=len(members),
        since=NOW - timedelta(days=20), rotates_at=NOW + timedelta(days=10), compared_at=NOW,
        n_prompts=300, self_agreement=0.97, self_low=0.9, self_high=0.99, repeats=30,
        agreement=None if key == proxy else 0.96, distance=0.01, nearest=None, nearest_agreement=None,
        nearest_low=None, nearest_high=None, nearest_common=0, suspect=None,
        reason=f"answers like {len(members) - 1} others",
    )  # fmt: skip


def store_changes(workspace: Workspace, suppliers: Sequence[Supplier]) -> None:
    """Store detected changes, a dozen of them of the first supplier."""
    records = []
    for i in range(CHANGES):
        supplier = suppliers[0 if i % (CHANGES // 12) == 0 else i % len(suppliers)]
        at = NOW - timedelta(hours=4 * i)
        records.append(
            ChangeRecord(
                id=document_id("change", supplier.key, i), supplier=supplier.key, service=supplier.service,
                kind="score", task=None, at=at, detected_at=at + timedelta(hours=1), seen_at=at, cut=False,
                reason="its scores fell from 0.81 to 0.62", before_at=at - timedelta(hours=1), log_e=12.0,
                arl=1e5, observations=400, since_change=60, null_rate=0.8, rate_after=0.62, direction="down",
                certain=True,
            )
        )  # fmt: skip
    typed.upsert(workspace.documents, ChangeRecord, records)


def store_history(workspace: Workspace, suppliers: Sequence[Supplier], tasks: int) -> None:
    """A year of the first two suppliers, and a day each of others."""
    days = [(NOW.date() - timedelta(days=d)).isoformat() for d in range(DAYS)]
    for supplier in suppliers[:2]:
        typed.upsert(
            workspace.documents, SupplierSnapshotRecord, [snapshot(supplier.key, d, tasks) for d in days]
        )
    others = [snapshot(s.key, days[i % DAYS], tasks) for i, s in enumerate(suppliers[2:2_000])]
    typed.upsert(workspace.documents, SupplierSnapshotRecord, others)


def spread(workspace: Workspace, example: Supplier, others: Sequence[Supplier]) -> None:
    """Keep the rows of one supplier under others' names, and the packed answers to what is looked at."""
    (rows,) = workspace.documents.find(WINDOWS, {"_id": example.key})
    (common,) = workspace.documents.find(WINDOW_ANSWERS, {"_id": answers_id(example.key, "task000")})
    (large,) = workspace.documents.find(WINDOW_ANSWERS, {"_id": answers_id(example.key, LARGE)})
    for start in range(0, len(others), 250):
        batch = others[start : start + 250]
        workspace.documents.upsert(
            WINDOWS,
            ({**rows, "_id": s.key, "subject": subject(s, deadline_s(workspace, s))} for s in batch),
        )
        for packed in (common, large) if start == 0 else (common,):
            workspace.documents.upsert(
                WINDOW_ANSWERS,
                (
                    {
                        **packed,
                        "_id": answers_id(s.key, packed["task"]),
                        "supplier": s.key,
                        "service": s.service,
                    }
                    for s in batch
                ),
            )


def fill(workspace: Workspace, docs: int, large: int) -> None:
    """Fill the store."""
    registrations = register(workspace, docs, large)
    suppliers = active_suppliers(workspace)
    store_groups(workspace, suppliers)
    store_changes(workspace, suppliers)
    store_history(workspace, suppliers, len(registrations) - 1)
    for number, supplier in enumerate(suppliers[:2]):
        for registration in registrations.values():
            store_facts(workspace, supplier.key, registration, registration.n_docs, odd=number == 0)
    for supplier in suppliers[2:]:
        store_facts(workspace, supplier.key, registrations["task000"], COMMON)
    refresh_window_cache(workspace, [s.key for s in suppliers[:2]])
    spread(workspace, suppliers[1], suppliers[2:])
    made: list[Board] = []
    for what, work in (
        ("windows read and summaries of two taxonomies stored", lambda: summarize(workspace)),
        ("leaderboard: windows and summaries read, ranked", lambda: made.append(make_board(workspace))),
        ("leaderboard stored", lambda: store_board(workspace, made[0])),
        ("leaderboard read again", lambda: stored_entries(workspace)),
    ):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        print(
            f"{what:<55} {time.process_time() - cpu:7.1f} s CPU {time.perf_counter() - wall:7.1f} s wall",
            flush=True,
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB", flush=True)


# -- serving ----------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """The CPU seconds of a process and of its ended children, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def peak_mb(pid: int) -> float:
    """The largest resident size of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


@dataclass
class Server:
    """A board that runs, with a connection of its own for each thread that asks."""

    pid: int
    port: int

    def __post_init__(self) -> None:
        self._local = threading.local()

    def get(self, path: str) -> tuple[float, int]:
        """Milliseconds and bytes of a page; stops the benchmark where it is none."""
        took, body = self.read(path)
        return took, len(body)

    def next_page(self, path: str) -> str:
        """Where the link to what comes after a page leads."""
        found = re.search(r'href="([^"]*[?&;]after=[^"]*)"', self.read(path)[1].decode())
        if found is None:
            raise SystemExit(f"{path} is the only page; ask for more suppliers")
        return html.unescape(found[1])

    def read(self, path: str) -> tuple[float, bytes]:
        """Milliseconds and body of a page."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        start = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, f"{path}: {response.status} {body[:2000]!r}"
        return (time.perf_counter() - start) * 1000, body


@contextlib.contextmanager
def board(path: Path) -> Iterator[tuple[Server, float, float]]:
    """A running ``testbench board``, with seconds of CPU and of the wall to its first page."""
    program = "from testbench_dagster.cli import main; main()"
    command = [sys.executable, "-c", program, "-c", str(path), "board", "--port", "0"]
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"board: http://[^:]+:(\d+)", line):
                    break
            else:
                raise RuntimeError("".join(lines))
            server = Server(process.pid, int(found[1]))
            server.get("/")
            yield server, cpu_seconds(process.pid), time.perf_counter() - start
        finally:
            process.terminate()


def kinds(suppliers: Sequence[Supplier], large: int, tasks: int) -> dict[str, list[str]]:
    """By kind of page the addresses that are asked for in turn."""
    a, b = suppliers[0].key, suppliers[1].key
    some = [s.key for s in suppliers[:: max(1, len(suppliers) // 10)]]
    names = [f"task{i:03}" for i in range(min(tasks, 10))]
    group = quote(f"group of {a}")
    found = {
        "leaderboard": ["/"],
        "by taxonomy": ["/?taxonomy=other", "/?taxonomy=general"],
        "by model": [f"/?model=model-{i}" for i in range(5)],
        "by service": [f"/?service=service-{i}" for i in range(5)],
        "by group": [f"/?group={group}"],
        "by text": [f"/?q=supplier00{i}" for i in range(5)],
        "supplier": [links.supplier(key) for key in (a, b)],
        "supplier, others": [links.supplier(key) for key in some],
        "supplier, a year": [f"{links.supplier(a)}?since=1y"],
        "history of a score": [links.history(a, {"task": name}) for name in names],
        "task": [links.task(name) for name in names],
        "task by model": [links.task(name, model=f"model-{i}") for i, name in enumerate(names)],
        "answers": [links.answers(a, name) for name in names],
        "answers of a large task": [links.answers(a, LARGE, after=i * large // 12) for i in range(12)],
    }
    for kind in ("wrong", "right", "failed", "truncated", "different"):
        found[f"answers, {kind}"] = [links.answers(a, name, kind=kind) for name in names]
        found[f"answers of a large task, {kind}"] = [links.answers(a, LARGE, kind=kind)]
    return found | {
        "text in all answers": [links.answers(a, LARGE, q="answer is")],
        "text in one answer": [links.answers(a, LARGE, q=f"answer is {large - 1}.")],
        "text in no answer": [links.answers(a, LARGE, q="nobody says so")],
        "wrong, text in no answer": [links.answers(a, LARGE, kind="wrong", q="nobody says so")],
        "one answer": [links.answer(a, names[0], i) for i in range(10)],
        "doc": [links.doc(names[0], i) for i in range(COMMON)],
        "doc as JSON": [f"{links.doc(names[0], i)}.json" for i in range(COMMON)],
        "compare, to choose": ["/compare"],
        "compare": [links.compare(a=a, b=b)],
        "compare docs": [links.compare(a=a, b=b, task=name) for name in names],
        "compare docs of a large task": [links.compare(a=a, b=b, task=LARGE, kind="different")],
        "changes": ["/changes", f"/changes?supplier={quote(a)}"],
        "catalogue": ["/catalog", "/catalog?q=task01"],
    }


def measure(server: Server, pages: dict[str, list[str]], requests: int, database: int | None) -> None:
    """Print what each kind of page costs; ``database`` is the process of the document store, if any."""
    print("\n| page | CPU ms | database, CPU ms | median ms | p95 ms | KB | |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    for kind, paths in pages.items():
        first, _ = server.get(paths[0])
        before, took, sizes = cpu_seconds(server.pid), [], []
        before_there = cpu_seconds(database) if database else 0.0
        for path in itertools.islice(itertools.cycle(paths), requests):
            ms, size = server.get(path)
            took.append(ms)
            sizes.append(size)
        cpu = (cpu_seconds(server.pid) - before) / requests * 1000
        there = (cpu_seconds(database) - before_there) / requests * 1000 if database else None
        late = sorted(took)[int(len(took) * 0.95)]
        kb = max(sizes) / 1000
        missed = [
            name
            for name, over in (
                (f"CPU > {PAGE_CPU_MS}", cpu > PAGE_CPU_MS),
                (f"p95 > {PAGE_MS}", late > PAGE_MS),
                (f"KB > {PAGE_KB}", kb > PAGE_KB),
                (f"first {first:.0f} ms", first > 1000),
            )
            if over
        ]
        print(
            f"| {kind} | {cpu:.0f} | {'' if there is None else f'{there:.0f}'} "
            f"| {statistics.median(took):.0f} | {late:.0f} | {kb:.0f} | {', '.join(missed)} |",
            flush=True,
        )


def together(server: Server, pages: dict[str, list[str]]) -> None:
    """Print how many pages four clients get, all kinds in turn."""
    turns = [itertools.islice(itertools.cycle(paths), 10) for paths in pages.values()]
    paths = [path for turn in zip(*turns, strict=True) for path in turn]
    place, done = itertools.count(), [0] * CLIENTS
    end = time.perf_counter() + TOGETHER_S

    def ask(client: int) -> None:
        while time.perf_counter() < end:
            server.get(paths[next(place) % len(paths)])
            done[client] += 1

    before = cpu_seconds(server.pid)
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = cpu_seconds(server.pid) - before
    print(f"\n| {CLIENTS} clients, all kinds in turn | measured | target |\n|---|---|---|")
    print(f"| pages/s | {sum(done) / TOGETHER_S:.1f} | ≥ {PAGES_PER_S} |")
    print(f"| pages per CPU second | {sum(done) / max(cpu, 1 / TICK):.1f} | ≥ {PAGES_PER_S} |")
    print(f"| peak memory, MB | {peak_mb(server.pid):.0f} | < {RSS_MB} |")


# -- export -----------------------------------------------------------------------------------------------


def export(path: Path, folder: Path, suppliers: Sequence[Supplier]) -> None:
    """Print what ``testbench export`` of the answers of the two full suppliers costs."""
    # with pyarrow
    import pyarrow.parquet

    out = folder / "exported"
    program = "from testbench_dagster.cli import main; main()"
    command = [sys.executable, "-c", program, "-c", str(path), "export", "--out", str(out)]
    for supplier in suppliers[:2]:
        command += ["--supplier", supplier.key]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    n = pyarrow.parquet.read_metadata(out / "answers.parquet").num_rows
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print("\n| `testbench export` | measured | target |\n|---|---|---|")
    print(f"| answers, with prompts, attempts, scores, windows, items | {n:,} | |")
    print(f"| answers/s | {n / took:,.0f} | |")
    print(f"| answers per CPU second | {n / cpu:,.0f} | ≥ {1e6 / EXPORT_S:,.0f} |")


# -- all --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stores(mongo: bool) -> Iterator[int | None]:
    """Have the installation use a MongoDB of its own, or none; the process of one on this machine."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_POSTGRES_URI", "TESTBENCH_MONGO_URI", "TESTBENCH_CONFIG"):
        os.environ.pop(name, None)
    if not mongo:
        yield None
        return
    with mongo_server() as server, mongo_database(server) as uri:
        os.environ["TESTBENCH_MONGO_URI"] = uri
        with MongoClient[dict](uri) as client:
            pid = client.admin.command("serverStatus")["pid"]
        local = Path(f"/proc/{pid}/comm")
        yield int(pid) if local.exists() and local.read_text().startswith("mongod") else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=5_000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--docs", type=int, default=75, help="docs of a task")
    parser.add_argument("--large", type=int, default=10_000, help="docs of the large task")
    parser.add_argument("--requests", type=int, default=30, help="requests of a kind of page")
    parser.add_argument("--only", help="pages whose kind holds this text, and no export")
    parser.add_argument("--folder", type=Path, help="where the store lies, filled already or not")
    parser.add_argument("--mongo", action="store_true", help="a MongoDB in place of the embedded store")
    given = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name, stores(given.mongo) as database:
        folder = given.folder or Path(name) / "board"
        path, filled = folder / "testbench.yaml", folder / "filled"
        if not filled.exists():
            path = prepare(folder, given.suppliers, given.tasks, given.large)
            start = time.perf_counter()
            with Workspace(load_config(path)) as workspace:
                fill(workspace, given.docs, given.large)
            filled.touch()
            print(f"filled in {time.perf_counter() - start:.0f} s", flush=True)
        with Workspace(load_config(path)) as workspace:
            suppliers = active_suppliers(workspace)
        pages = kinds(suppliers, given.large, given.tasks)
        if given.only:
            pages = {kind: paths for kind, paths in pages.items() if given.only in kind}
        with board(path) as (server, cpu, wall):
            print("\n| start to the first page | measured | target |\n|---|---|---|")
            pages["leaderboard, next page"] = [server.next_page("/")]
            print(f"| CPU s | {cpu:.2f} | < {START_S} |\n| wall s | {wall:.2f} | < {START_S} |", flush=True)
            measure(server, pages, given.requests, database)
            together(server, pages)
        if not given.only:
            export(path, Path(name), suppliers)
    print(f"\nload average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
