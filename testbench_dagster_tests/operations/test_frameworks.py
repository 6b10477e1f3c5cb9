"""Tasks of every framework under Dagster's daemon: the run is killed in the middle, and nobody repairs it.

The simulated network plays suppliers of every kind: with tools used well and badly, with echoed
log-probabilities, a reference with a twin, a quantised one and a pretender. In the end every doc is answered
and scored once, as who they are says; groups, references, pages and files know of it; and bundles are
computed again where nothing of the installation is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from testbench_dagster.api import Testbench
from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.localnet.answers import Answers, chosen_answer, starter_index
from testbench_dagster.localnet.personas import Backend, Persona, default_population, quantised
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.requests import Ask
from testbench_dagster.localnet.supplier import cut
from testbench_dagster.localnet.tool_use import known_of, tool_answer
from testbench_dagster.stages.relay.probe import PROBE_TASK
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.tasks.tools import read_docs
from testbench_dagster_tests.acceptance.harness import Installation
from testbench_dagster_tests.board.test_app import Elements
from testbench_dagster_tests.operations.evidence import (
    Lost,
    asked_in,
    assert_scored_once,
    docs_scored,
    lost_pages,
    lost_requests,
)
from testbench_dagster_tests.operations.harness import ROOT, SENSORS, Platform, platform, wait_until

pytestmark = pytest.mark.slow(minutes=3)

DOCS, PROBES = 24, 40
TEXTS, ECHOED, CHOICE = "starter_arithmetic", "starter_choice", "starter_choice~chat"
ONE_FITS, NONE_FITS, FORMED = "tools_several", "tools_none", "tools_schema"
METRICS = {
    TEXTS: ("exact_match", "extract"),
    ECHOED: ("acc", "none"),
    CHOICE: ("letter_acc", "flexible"),
    ONE_FITS: ("exact", "none"),
    NONE_FITS: ("exact", "none"),
    FORMED: ("exact", "none"),
}
"""The tasks with a score, and what it is by."""
OPTIONS = 4  # of a doc of ECHOED, each with a request of its own
CALLS = dict.fromkeys(METRICS, DOCS) | {ECHOED: DOCS * OPTIONS, "identity": PROBES, "config": 1}
"""Requests of each task to whoever is asked it."""
CHATS = {TEXTS, CHOICE, ONE_FITS, NONE_FITS, FORMED, "identity", "config"}
COMPLETES = {TEXTS, ECHOED, "identity", "config"}
SHOWN = {"lm_eval": TEXTS, "chat_choice": CHOICE, "tools": ONE_FITS, "signatures": "identity"}
"""A task of each framework that chats are asked."""
LATENCY_MS, IN_FLIGHT = 40, 6
OVERTAKEN = 3 * IN_FLIGHT
"""A request on its way may be overtaken, on a busy machine by several rounds of those beside it."""
WITHIN_S = 240.0

_NET = {one.address: one for one in default_population(6, 0)}
_MAKER = _NET["sim-01"].backend
MAKER, TWIN, CHEAP, PRETENDER = "sim-01", "sim-03", "cheap", "pretender"
COMPARED = {TWIN, CHEAP, PRETENDER}
"""Who names the maker's model."""
JOINING = {
    CHEAP: Persona(CHEAP, quantised(_MAKER)),
    PRETENDER: Persona(PRETENDER, _MAKER),
    "quiet": Persona("quiet", Backend("silent", 0.8), tool_use="no_tools"),
    "writing": Persona("writing", Backend("literal", 0.8), tool_use="calls_as_text"),
}
ANSWERING = {
    **_NET,
    **JOINING,
    # under the maker's name, without a word
    PRETENDER: replace(JOINING[PRETENDER], backend=Backend("other", 0.2)),
}
"""Who answers at each address."""
VERIFY = """
import json, sys
from testbench_dagster import rescore
from testbench_dagster.tasks.worker import FrameworkWorker
if __name__ == "__main__":
    with FrameworkWorker() as worker:
        print(json.dumps([rescore(path, worker=worker).to_json() for path in sys.argv[1:]]))
"""


# ------------------------------------------------------------------------------------------ who is asked what


def settings(roster: list[dict[str, Any]]) -> dict[str, object]:
    suppliers = [
        {
            **{name: one[name] for name in ("address", "service", "base_url", "api", "model")},
            "reference": one["address"] == MAKER,
        }
        for one in roster
    ]
    choice = {"name": ECHOED, "samples": DOCS}
    tools = [{"name": name, "framework": "tools", "samples": DOCS} for name in METRICS if "tools" in name]
    return {
        "suppliers": suppliers,
        "supplier_sources": [],
        "tasks": [
            {"name": TEXTS, "samples": DOCS},
            choice,
            {**choice, "mode": "chat_choice"},
            *tools,
            *({"name": name, "framework": "signatures"} for name in ("identity", "config")),
        ],
        "sampling": {"epoch_seed": 14},
        "taxonomies": [],
        "automation": {**SENSORS, "summaries": {"cron": "* * * * *"}},
        "identity": {"probes": PROBES, "reference_margin": 0.1},
        "relays": {"connect_s": 10, "first_byte_s": 30, "total_s": 60, "max_in_flight": IN_FLIGHT},
    }


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Platform]:
    monitoring = {"start_timeout_seconds": 60, "poll_interval_seconds": 5}
    with platform(tmp_path, len(_NET), latency_ms=LATENCY_MS, run_monitoring=monitoring) as made:
        for one in JOINING.values():
            base = one.backend.base
            made.localnet.join(
                one.address,
                backend=(base or one.backend).name,
                accuracy=None if one.backend is _MAKER or base else one.backend.accuracy,
                tools=one.tool_use,
                quantised=base is not None,
            )
        other = ANSWERING[PRETENDER].backend
        made.localnet.swap(PRETENDER, backend=other.name, accuracy=other.accuracy)
        made.configure(**settings(made.localnet.roster()))
        made.start()
        yield made


def key_of(address: str) -> str:
    return f"{address}@simulation"


def tasks_of(address: str) -> set[str]:
    return CHATS if ANSWERING[address].api == "chat" else COMPLETES


# ------------------------------------------------------------------------------------------ what is the truth


@dataclass
class Truth:
    """What the suppliers' personas say of every request, whatever the platform makes of it."""

    asked: Mapping[tuple[str, int], Ask | None]
    answers: Answers

    def known(self, prompt: str) -> Known:
        ask = self.asked[prompt, 0]
        assert ask is not None
        found = known_of(ask) if ask.tools or ask.wants_json else starter_index().find(ask.prompts[0])
        assert found is not None, "a question that the simulated suppliers do not know"
        return found

    def right(self, address: str, task: str, prompt: str) -> bool:
        """Whether a supplier's answer to a prompt is right: its model knows, and its server passes it on."""
        who = ANSWERING[address]
        knows = self.answers.is_right(who.backend, self.known(prompt))
        if task == NONE_FITS:  # what is no call is right
            always = {"no_tools": True, "calls_as_text": True, "ignores_irrelevance": False}
            return always.get(who.tool_use, knows)
        if task == ONE_FITS:
            return knows and who.tool_use in ("good", "ignores_irrelevance")
        if task == FORMED:  # a fence around the value is not the form, but it is the value
            return knows and who.tool_use in ("good", "ignores_irrelevance", "calls_as_text")
        return knows

    def said(self, address: str, task: str, prompt: str) -> object:
        """What a supplier that chats answers to a prompt, without the words around it."""
        who, ask = ANSWERING[address], self.asked[prompt, 0]
        assert ask is not None
        if ask.tools or ask.wants_json:
            said = tool_answer(self.answers, who.backend, who.tool_use, ask)
            return said.calls if ask.tools else said.content
        if task == "identity":
            return cut(self.answers.reply(who.backend, ask.prompts[0]), ask)
        return chosen_answer(self.answers.seed, who.backend, self.known(prompt))


# ------------------------------------------------------------------------------------------------- the kill


def killed_in_the_middle(running: Platform) -> tuple[str, float]:
    """Kill the process that relays once a third of all is asked; return its run, and when."""
    everything = sum(CALLS[task] for address in ANSWERING for task in tasks_of(address))

    def received() -> int:
        return sum(stats["requests"] for stats in running.localnet.stats().values())

    def relaying() -> list[tuple[str, int]]:
        leases = set(running.leases().values()) if received() >= everything // 3 else set()
        return [(run, pid) for run, pid in running.workers().items() if run in leases]

    ((run, pid),) = wait_until("relays", relaying, WITHIN_S, every_s=0.05)
    at = running.kill([pid])
    asked = received()
    print(f"killed after {asked} of {everything} requests")
    assert asked < everything * 0.9, "nearly all was asked before the kill: nothing was tested"
    return run, at


def test_every_framework_goes_on_after_a_kill(running: Platform, tmp_path: Path) -> None:
    began = time.time()
    killed, killed_at = killed_in_the_middle(running)
    print(f"killed {killed_at - began:.1f} s after the start")
    wanted = {
        key_of(address): sum(CALLS[t] // (OPTIONS if t == ECHOED else 1) for t in tasks_of(address))
        for address in ANSWERING
    }
    wait_until("all scores", lambda: docs_scored(running) == wanted, WITHIN_S)
    print(f"complete {time.time() - killed_at:.1f} s after the kill")
    wait_until("rest", running.at_rest, WITHIN_S)
    runs = {run["runId"]: run for run in running.runs()}
    assert runs[killed]["status"] == "FAILURE"
    again = [run for run in runs.values() if run["tags"].get("dagster/parent_run_id") == killed]
    assert [run["status"] for run in again] == ["SUCCESS"], "the daemon started it once more"

    truth = Truth(asked_in(running), Answers(0))
    assert_each_call_is_stored_once(running, killed_at)
    assert_scores_are_true(running, truth)
    wait_until("the twins' group", lambda: TWINS in groups(running), WITHIN_S)
    print(f"groups {time.time() - killed_at:.1f} s after the kill")
    assert groups(running) == {TWINS}
    assert_references_are_true(running, truth, tmp_path)
    with running.workspace() as workspace:
        assert_pages_show(workspace)
        assert_files_have_each(workspace, tmp_path)
        bundles = written_bundles(workspace, tmp_path)
    running.stop()
    (tmp_path / ".testbench").rename(tmp_path / "gone")
    assert_bundles_hold_elsewhere(bundles, tmp_path / "elsewhere")


# --------------------------------------------------------------------------------------------- what is stored


def assert_each_call_is_stored_once(running: Platform, killed_at: float) -> None:
    """Every planned call has one attempt, every request is of one; but for what was lost at the kill."""
    attempts = [a for a in running.attempts() if a["task"] != PROBE_TASK]
    assert {a["fault"] for a in attempts} <= {"ok", "truncated"}
    calls = Counter((a["supplier"], a["task"], a["prompt_id"], a["idx"]) for a in attempts)
    assert set(calls.values()) == {1}
    planned = {(key_of(one), task): CALLS[task] for one in ANSWERING for task in tasks_of(one)}
    assert Counter((supplier, task) for supplier, task, _, _ in calls) == planned
    assert_scored_once(running)
    lost, stats = lost_requests(running), running.localnet.stats()
    received = sum(one["requests"] + sum(one["pages"].values()) for one in stats.values())
    pages = lost_pages(running)
    assert len(running.attempts()) == received - len(lost) - pages
    print(f"lost: {len(lost)} of {received} requests, {pages} pages")
    assert_last_before_the_kill(running, lost, killed_at)


def assert_last_before_the_kill(running: Platform, lost: list[Lost], killed_at: float) -> None:
    """What was lost is the end of what the killed run asked: nothing that it asked much later is stored."""
    started: dict[str, list[float]] = defaultdict(list)
    with running.documents() as documents:
        for attempt in documents.find(ATTEMPTS):
            started[attempt["supplier"]].append(attempt["started_at"].timestamp())
    for one in lost:
        later = [at for at in started[one.supplier] if at > one.at]
        again = [at for at in later if at > killed_at]
        assert len(later) - len(again) <= OVERTAKEN, one
        assert again, "nobody went on asking"


def assert_scores_are_true(running: Platform, truth: Truth) -> None:
    """Each score is what the persona says, and each row their mean."""
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    prompts = {(a["supplier"], a["task"], a["doc_id"]): a["prompt_id"] for a in running.attempts()}
    with running.documents() as documents:
        scores = list(documents.find(SCORES, {"task": {"in": sorted(METRICS)}}))
    for score in scores:
        metric, filter_ = METRICS[score["task"]]
        if score["filter"] in (filter_, "strict"):
            address = score["supplier"].partition("@")[0]
            prompt = prompts[score["supplier"], score["task"], score["doc_id"]]
            true = truth.right(address, score["task"], prompt)
            assert score["metrics"][metric] == float(true), score
            if score["filter"] == filter_:
                right[address, score["task"]].append(true)
    with running.workspace() as workspace:
        rows = {(row.address, row.task): row for row in windows(workspace) if row.primary}
    for (address, task), values in right.items():
        row = rows[address, task]
        assert (row.status, row.n, len(values)) == ("ok", DOCS, DOCS), row
        assert row.score == pytest.approx(sum(values) / DOCS), row
    means = {pair: sum(values) / DOCS for pair, values in right.items()}
    assert means["sim-06", ONE_FITS] == means["quiet", ONE_FITS] == means["writing", ONE_FITS] == 0
    assert means["sim-04", NONE_FITS] == 0 and means["quiet", NONE_FITS] == 1
    for task in METRICS:
        every = [mean for (_, of), mean in means.items() if of == task]
        assert any(0 < mean < 1 for mean in every), f"{task} tells nobody apart"


# -------------------------------------------------------------------------------- what is made of the answers


TWINS = frozenset(map(key_of, (MAKER, TWIN)))


def groups(running: Platform) -> set[frozenset[str]]:
    with running.documents() as documents:
        placed = list(typed.find(documents, IdentityGroupRecord))
    return {frozenset(one.members) for one in placed if one.role != "alone"}


def assert_references_are_true(running: Platform, truth: Truth, folder: Path) -> None:
    """Verdicts on whoever names the maker's model, and the figures behind them, down to each equal answer."""
    done = Installation(folder).command("references", "--format", "json")
    assert done.code == 0, done
    rows = {row["supplier"].partition("@")[0]: row for row in json.loads(done.out)}
    verdicts = {address: row["as_reference"] for address, row in rows.items()}
    print(f"references: {verdicts}")
    assert verdicts.keys() == COMPARED
    assert (verdicts[TWIN], verdicts[PRETENDER]) == ("yes", "no")
    assert verdicts[CHEAP] != "yes"
    graded = sorted(CHATS & METRICS.keys())
    prompts = {
        (a["task"], a["prompt_id"])
        for a in running.attempts(supplier=key_of(MAKER))
        if a["task"] in graded or a["task"] == "identity"
    }
    for address, row in rows.items():
        equal = sum(truth.said(address, *asked) == truth.said(MAKER, *asked) for asked in prompts)
        assert (row["n_equal"], row["n_whole"]) == (equal, len(prompts)), row
        differences = [
            truth.right(address, task, prompt) - truth.right(MAKER, task, prompt)
            for task, prompt in prompts
            if task in graded
        ]
        assert row["n_docs"] == len(differences) == DOCS * len(graded)
        assert row["difference"] == pytest.approx(sum(differences) / len(differences)), row


# ------------------------------------------------------------------------------------------ who else knows it


def assert_pages_show(workspace: Workspace) -> None:
    """Every page about a task and a doc of each framework; calls stand there as people write them."""
    site = Site(workspace)
    site.prepare()
    with TestClient(make_app(site, hosts=allowed_hosts("127.0.0.1")), base_url="http://127.0.0.1:1") as board:

        def page(address: str) -> str:
            response = board.get(address)
            assert response.status_code == 200, address
            return Elements(response.text).text

        for task in {*METRICS, "identity", "config"}:
            address = "sim-02" if task == ECHOED else MAKER
            shown = page(links.task(task))
            assert all(key_of(one) in shown for one in ANSWERING if task in tasks_of(one)), task
            row = Testbench(workspace).answers(key_of(address), task, limit=1).rows[0]
            for place in (
                links.doc(task, row["doc_id"]),
                links.answer(key_of(address), task, row["doc_id"]),
                links.answers(key_of(address), task),
            ):
                assert " ".join(row["answer"].split())[:200] in page(place), (place, row)
            said = board.get(f"{links.doc(task, row['doc_id'])}.json").json()["answers"]
            assert {one["supplier"] for one in said} >= {key_of(address)}, task
        for row in Testbench(workspace).answers(key_of(MAKER), ONE_FITS, kind="right", limit=3).rows:
            shown = page(links.doc(ONE_FITS, row["doc_id"]))
            for call in read_docs(ONE_FITS)[row["doc_id"]]["gold"]["calls"]:
                assert f"{call['name']}({json.dumps(call['arguments'])})" in shown


def assert_files_have_each(workspace: Workspace, folder: Path) -> None:
    """Parquet and JSON of who was asked what."""
    written = {path.name: path for path in Testbench(workspace).export(folder / "exports")}
    rows = {name: pq.read_table(written[f"{name}.parquet"]).to_pylist() for name in ("answers", "windows")}
    docs = Counter((row["supplier"], row["task"]) for row in rows["answers"])
    assert docs == {
        (key_of(one), task): CALLS[task] // (OPTIONS if task == ECHOED else 1)
        for one in ANSWERING
        for task in tasks_of(one)
    }
    assert {row["framework"] for row in rows["windows"]} == SHOWN.keys()
    told = {
        row["supplier"]: row["as_reference"]
        for row in pq.read_table(written["references.parquet"]).to_pylist()
    }
    assert told.keys() == {key_of(one) for one in (TWIN, CHEAP, PRETENDER)}
    scores = {(row["supplier"], row["task"]): row for row in Installation(folder).scores() if row["primary"]}
    for row in rows["windows"]:
        if row["primary"]:
            assert scores[row["supplier"], row["task"]]["score"] == row["score"]


def written_bundles(workspace: Workspace, folder: Path) -> dict[Path, tuple[str, int]]:
    """Evidence for a task of each framework, and for one answer of each: by file which, of how many docs."""
    found: dict[Path, tuple[str, int]] = {}
    for task in (*SHOWN.values(), ECHOED):
        key = key_of("sim-02" if task == ECHOED else MAKER)
        first = Testbench(workspace).answers(key, task, limit=1).rows[0]["doc_id"]
        for docs in (None, [first]):
            path = folder / f"{len(found)}.zip"
            Testbench(workspace).evidence(key, path, tasks=[task], docs=docs)
            found[path] = task, 1 if docs else PROBES if task == "identity" else DOCS
    return found


def assert_bundles_hold_elsewhere(bundles: Mapping[Path, tuple[str, int]], elsewhere: Path) -> None:
    """Computed again by another process, in another home, with an empty environment."""
    elsewhere.mkdir()
    moved = [path.rename(elsewhere / path.name) for path in bundles]
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, *map(str, moved)],
        cwd=elsewhere,
        env={"HOME": str(elsewhere), "PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (task, n), report in zip(bundles.values(), json.loads(done.stdout), strict=True):
        # a row follows from all its docs, so that it cannot be made from one
        assert report["verdict"] == ("incomplete" if n == 1 else "equal"), (task, report)
        assert report["findings"] == []
        (one,) = report["tasks"]
        assert (one["task"], one["docs"], one["equal"]) == (task, n, n), one
