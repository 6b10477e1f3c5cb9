"""What counts, through the whole product: withholding gains nothing, and honest trouble costs nothing.

Suppliers of the simulated network do what `docs/counting.md` is about, and `testbench run` evaluates them
again and again. 72 hours are thirty seconds here, so that every run is an occasion.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.finding import Finding
from testbench_dagster.core.window import Window
from testbench_dagster.localnet.withholding import WITHHOLDERS, Withholding, ahead, dark
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.counting import (
    MOST_RUNS,
    PATIENT,
    TASK,
    Played,
    docs_of,
    key,
    meanwhile,
    outages,
    persona,
    playing,
)
from testbench_dagster_tests.servers import free_port

pytestmark = pytest.mark.slow

OTHER, CHOICE = "starter_strings", "starter_choice"
DOCS = {TASK: 14, OTHER: 3, CHOICE: 8}
#: The order of the docs; of how many runs a row takes it must not be drawn anew.
DRAW = {"epoch_seed": 6}
#: What a supplier says that answered nothing yet, and is taken at its word: the run asks it no further.
AT_ITS_WORD = ("400", "401", "402", "403", "404", "quota")
HONEST = {"honest": 0.6, "better": 1.0}
#: Fails so many of its requests, whatever they are.
FLAKY = {"flaky-1": 0.01, "flaky-5": 0.05, "flaky-20": 0.2}
POSITION = itemgetter("position")
#: What all three of these do to everybody's doc, to a parameter, and to a task.
REFUSES_A_TASK = (Withholding(("400",), "always", only=OTHER),)
#: Those whose rows close within a few runs: they answer others at once.
CLOSE = sorted(WITHHOLDERS.keys() - {"refuses-a-parameter", "429", "right-option", "timeout"} | {"slow-500"})
#: Rows of which it is told what they come to: so long the runs go on.
AWAITED = [(name, TASK) for name in (*CLOSE, *HONEST, *FLAKY, "refuses-a-task")]
AWAITED += [("refuses-a-task", OTHER), ("right-option", CHOICE)]


@dataclass
class Seen:
    """What was seen after each run: gains, rows, and what was said."""

    played: Played
    gains: list[dict[tuple[str, str, str], float]] = field(default_factory=list)
    rows: list[dict[tuple[str, str], Window]] = field(default_factory=list)
    by_the_clock_alone: dict[tuple[str, str], str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def last(self, name: str, task: str = TASK) -> Window:
        return self.rows[-1][name, task]


def counts(row: Window) -> tuple[Any, ...]:
    """What a row says of its docs, without the clock."""
    return row.status, row.score, row.n, row.n_failed, row.n_open, row.n_void


def everybody() -> Iterator[Any]:
    for name, rules in WITHHOLDERS.items():
        if name not in ("right-option", "timeout"):
            yield persona(name, *rules)
    yield persona("right-option", *WITHHOLDERS["right-option"], api="completions")
    yield persona("dark", *dark(0.05))
    yield persona("dark-401", *dark(0.05, "401"))
    yield persona("ahead", *ahead())
    yield persona("again-at-once", Withholding(("500",), for_s=0.0))
    yield persona("refuses-a-task", *REFUSES_A_TASK)
    for name, accuracy in HONEST.items():
        yield persona(name, accuracy=accuracy)
    yield persona("slow", latency_ms=150.0)
    yield persona("slow-500", *WITHHOLDERS["500"], latency_ms=150.0)
    for name, share in FLAKY.items():
        yield persona(name, failures={"503": share})


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Everybody at once, run after run until all that is awaited has closed."""
    limits = {name: {"max_in_flight": 1} for name in ("slow", "slow-500")}
    folder = tmp_path_factory.mktemp("everybody")
    with playing(folder, list(everybody()), DOCS, limits=limits, sampling=DRAW) as played:
        found = Seen(played)
        for number in range(MOST_RUNS):
            played.run()
            found.gains.append(played.gains())
            found.rows.append(played.rows())
            if number == 0:
                later = played.rows(timedelta(hours=80))
                found.by_the_clock_alone = {
                    subject: f"{row.status} became {later[subject].status}"
                    for subject, row in found.rows[0].items()
                    if counts(row) != counts(later[subject])
                }
            if not any(found.rows[-1][row].n_open for row in AWAITED) or not played.until_next():
                break
        found.findings = played.testbench.check(suppliers=False)
        yield found


# ---------------------------------------------------------------------------------------------- withholders


def test_nobody_is_shown_above_what_is_true_of_it_at_any_time(seen: Seen) -> None:
    for number, gains in enumerate(seen.gains):
        assert not gains, number


@pytest.mark.parametrize("name", CLOSE)
def test_who_withholds_by_any_fault_or_mixture_comes_out_as_it_is(seen: Seen, name: str) -> None:
    row, truth = seen.last(name), seen.played.truth(name)
    assert (row.status, row.n_open) == ("ok", 0)
    assert row.score == pytest.approx(truth)
    assert row.ci_low is not None and row.ci_high is not None
    assert row.ci_low < truth < row.ci_high
    assert row.score_answered is not None and row.score_answered >= truth
    better = seen.last("better").score
    assert better == 1.0 and (row.score < better or truth == 1.0)


def first_questions(played: Played, n: int) -> list[str]:
    """The first so many questions in the order in which they are asked."""
    asked = played.workspace.documents.find(PROMPTS, {"task": TASK, "epoch": 1})
    return [docs_of(TASK)[prompt["doc_id"]]["question"] for prompt in sorted(asked, key=POSITION)[:n]]


def test_who_is_taken_at_its_word_from_its_first_doc_on_comes_out_as_it_is(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    """Be it that it withholds what it does not know, its first docs among them, or refuses just these."""
    people = [persona(f"withholds-{kind}", *WITHHOLDERS[kind], accuracy=0.3) for kind in AT_ITS_WORD]
    filters = [persona(f"filters-{kind}", accuracy=0.9) for kind in AT_ITS_WORD]
    with playing(tmp_path, [*people, *filters], {TASK: 14}, worker=worker, sampling=DRAW) as played:
        played.prepare()
        first = first_questions(played, 8)
        for one, kind in zip(filters, AT_ITS_WORD, strict=True):
            rules = tuple(Withholding((kind,), "always", only=question) for question in first)
            played.net.suppliers[one.address].persona = replace(one, withholds=rules)
        played.evaluate()
        unscored = [name for (name, _), row in played.rows().items() if row.score is None]
        assert len(unscored) > len(filters), "some withhold from the first doc on"
        for _ in range(MOST_RUNS):
            assert not played.gains()
            if not played.until_next():
                break
            played.evaluate()
        for (name, _), row in played.rows().items():
            assert (row.status, row.n_open) == ("ok", 0), name
            if name.startswith("filters"):
                assert (row.n, row.n_failed) == (6, 8), name
            else:
                assert row.score == pytest.approx(played.truth(name)), name


def test_who_is_mended_after_it_refused_its_first_docs_loses_none(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    """What it answers later is no witness of runs before, by a clock whose gap is longer than that."""
    people = [persona(f"mended-{kind}") for kind in AT_ITS_WORD]
    clock = {"occasions_minutes": [0, 0.05, 0.1, 0.2, 0.5, 1, 2]}
    with playing(tmp_path, people, {TASK: 14}, worker=worker, planning=clock, sampling=DRAW) as played:
        for one, kind in zip(people, AT_ITS_WORD, strict=True):
            refuses_all = (Withholding((kind,), "always"),)
            played.net.suppliers[one.address].persona = replace(one, withholds=refuses_all)
        for _ in range(2):
            played.evaluate()
            assert all(row.score is None for row in played.rows().values())
            assert played.until_next()
        for one in people:
            played.net.suppliers[one.address].persona = one
        for _ in range(MOST_RUNS):
            played.evaluate()
            if not played.until_next():
                break
        for (name, _), row in played.rows().items():
            assert counts(row) == ("ok", pytest.approx(played.truth(name)), 14, 0, 0, 0), name


def test_of_a_choice_each_call_counts(seen: Seen) -> None:
    row, truth = seen.last("right-option", CHOICE), seen.played.truth("right-option", CHOICE)
    assert row.score == pytest.approx(truth) and row.n + row.n_failed == DOCS[CHOICE]
    assert bool(row.n_failed) is (truth < 1.0) and row.score_answered == 1.0


@pytest.mark.parametrize("name", ["dark", "dark-401", "ahead", "429"])
def test_who_goes_dark_or_stops_while_ahead_comes_out_below(seen: Seen, name: str) -> None:
    for rows in seen.rows:
        row = rows[name, TASK]
        assert row.n_released == DOCS[TASK]
        assert row.score is None or row.score <= seen.played.truth(name)
        assert row.status in ("ok", "partial", "unreachable", "no_data")
    assert seen.rows[0]["ahead", TASK].score is not None


def test_one_task_of_many_alike_that_is_refused_counts_as_nothing(seen: Seen) -> None:
    row = seen.last("refuses-a-task", OTHER)
    assert (row.score, row.n, row.status) == (0.0, 0, "ok")
    assert row.n_failed == DOCS[OTHER] and row.errors == {"client_request": DOCS[OTHER]}
    assert seen.last("refuses-a-task").score == pytest.approx(seen.played.truth("refuses-a-task"))


def test_a_parameter_that_is_refused_everywhere_is_no_score(seen: Seen) -> None:
    for rows in seen.rows:
        row = rows["refuses-a-parameter", TASK]
        assert (row.status, row.score, row.n_failed) == ("refused", None, 0)
    told = {f.what: f.detail for f in seen.findings if f.warning}
    assert "because of temperature" in told[f"answers of {key('refuses-a-parameter')} to {TASK}"]


def test_who_takes_long_or_looks_up_what_it_does_not_know(tmp_path: Path, worker: FrameworkWorker) -> None:
    """No rule prevents that answers are looked up, but it is told. Silence until the deadline is a fault."""
    people = [
        persona("looks-up", *WITHHOLDERS["500"]),
        persona("silent", *WITHHOLDERS["timeout"]),
        persona("honest"),
    ]
    limits = {"silent": {"first_byte_s": 1.5, "total_s": 1.5}}
    with playing(
        tmp_path, people, {TASK: 10}, worker=worker, limits=limits, planning=PATIENT, sampling=DRAW
    ) as played:
        played.evaluate()
        first = played.rows()
        for name in ("looks-up", "silent"):
            row, knows = first[name, TASK], sum(played.knows(name))
            assert (row.n, row.n_failed, row.n_open) == (knows, 0, 10 - knows) and 0 < knows < 10, name
        looks_up = played.net.suppliers["looks-up"]
        knows_all = replace(looks_up.persona.backend, accuracy=1.0)
        truth = played.truth("looks-up")
        looks_up.persona = replace(looks_up.persona, backend=knows_all, withholds=())
        for _ in range(MOST_RUNS):
            if not played.until_next():
                break
            played.evaluate()
        rows = played.rows()
        for name in ("silent", "honest"):
            row = rows[name, TASK]
            assert (row.status, row.n_open) == ("ok", 0)
            assert row.score == pytest.approx(played.truth(name))
        assert rows["silent", TASK].errors == {"supplier_timeout": first["silent", TASK].n_open}
        row = rows["looks-up", TASK]
        assert (row.score, row.n, row.n_late) == (1.0, 10, first["looks-up", TASK].n_open)
        assert row.bound_low == pytest.approx(truth)
        told = {f.what: f.detail for f in played.testbench.check(suppliers=False) if f.warning}
        assert f"{row.n_late} of {row.n} docs" in told[f"answers of {key('looks-up')} to {TASK}"]
        assert f"answers of {key('honest')} to {TASK}" not in told


def test_empty_answers_are_answers_and_those_our_limit_cut_are_told_of(seen: Seen) -> None:
    for name in ("empty", "null", "cut"):
        row = seen.last(name)
        assert (row.n, row.n_failed, row.errors) == (DOCS[TASK], 0, {})
        assert row.score == row.score_answered == pytest.approx(seen.played.truth(name))
    assert seen.last("cut").truncated and not seen.last("empty").truncated
    told = {f.what for f in seen.findings if "cut at our token limit" in f.detail}
    assert f"answers of {key('cut')} to {TASK}" in told
    assert told <= {f"answers of {key('cut')} to {task}" for task in DOCS}


# ------------------------------------------------------------------------------------------------- honest


@pytest.mark.parametrize("name", [*HONEST, *FLAKY])
def test_honest_suppliers_lose_nothing_by_failing_now_and_then(seen: Seen, name: str) -> None:
    row = seen.last(name)
    assert (row.status, row.n, row.n_failed) == ("ok", DOCS[TASK], 0)
    assert row.score == row.score_answered == pytest.approx(seen.played.truth(name))


def test_who_takes_long_to_answer_is_asked_all_in_the_first_run(seen: Seen) -> None:
    """One answer takes a quarter of an hour by this clock, and none is under way beside it."""
    assert counts(seen.rows[0]["slow", TASK]) == ("ok", seen.played.truth("slow"), DOCS[TASK], 0, 0, 0)


def test_one_run_and_nothing_for_80_hours_leaves_every_row_as_it_was(seen: Seen) -> None:
    assert seen.by_the_clock_alone == {}


def test_the_run_says_who_was_left_and_what_is_open(seen: Seen) -> None:
    notes = seen.played.notes
    assert any(
        note.startswith(f"evaluation: {key('refuses-a-parameter')} was left: it refuses") for note in notes
    )
    failed = next(note for note in notes if " failed: " in note)
    assert re.match(r"evaluation: \d+ docs have failed: \d+ of ", failed) and "count as wrong" in failed
    last = next(note for note in notes if "open:" in note)
    assert re.match(r"evaluation: \d+ docs are open: \d+ of ", last)
    assert "they count as wrong until they close" in last and "testbench run --wait" in last


def test_outages_and_refusals_of_all_lose_no_doc_and_blame_nobody(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    """From the third answer to the end of the run, by every kind of fault."""
    modes = {f"out-{mode}": mode for mode in ("503", "reset", "429", "401", "quota", "400", "garbage")}
    # two at a time, and each for long enough that what begins after the third answer meets the outage
    people = [*(persona(name, latency_ms=100.0) for name in modes), persona("well")]
    limits = {name: {"max_in_flight": 2} for name in modes}
    with playing(tmp_path, people, {TASK: 10}, worker=worker, limits=limits) as played:
        played.prepare()
        over = threading.Event()
        with meanwhile(lambda: outages(played.net.suppliers, modes, 3, over)):
            try:
                played.evaluate()
            finally:
                over.set()
        first = played.rows()
        assert first["well", TASK].n == 10, "the others are scored at once"
        for name in modes:
            row = first[name, TASK]
            assert (row.status, row.n_failed) == ("partial", 0) and 3 <= row.n < 10, name
        for _ in range(MOST_RUNS):
            if not played.until_next():
                break
            played.evaluate()
        for (name, _), row in played.rows().items():
            assert counts(row) == ("ok", pytest.approx(played.truth(name)), 10, 0, 0, 0), name
            assert row.score_answered == row.score


def test_a_doc_that_all_refuse_is_void_until_somebody_answers_it(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    names = ["one", "two", "three"]
    with playing(tmp_path, [*map(persona, names), persona("late")], {TASK: 8}, worker=worker) as played:
        played.prepare()
        nets = played.net.suppliers
        question = docs_of(TASK)[played.released(TASK)[0]]["question"]
        refuses = (Withholding(("400",), "always", only=question),)
        for name in names:
            nets[name].persona = replace(nets[name].persona, withholds=refuses)
        well = nets["late"].persona
        nets["late"].persona = replace(well, failures={"503": 1.0})
        played.evaluate()
        rows = played.rows()
        for name in names:
            row = rows[name, TASK]
            assert (row.status, row.n, row.n_void, row.n_failed, row.n_open) == ("ok", 7, 1, 0, 0), name
            assert row.score == row.score_answered
        assert rows["late", TASK].n_void == 0
        nets["late"].persona = well
        for _ in range(MOST_RUNS):  # its docs have their next occasions one after the other
            played.until_next()
            played.evaluate()
            rows = played.rows()
            if not rows["late", TASK].n_open:
                break
        for name in names:
            assert (rows[name, TASK].n_void, rows[name, TASK].n_failed) == (0, 1), "one answer prevents it"
        assert rows["late", TASK].n == 8


JUDGED = """task: judged
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{n}}:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64}
process_results: !function judge.check
metric_list: [{metric: liked, aggregation: mean, higher_is_better: true}]
"""
JUDGE = """import urllib.request


def check(doc, results):
    with urllib.request.urlopen("http://127.0.0.1:PORT/", timeout=5) as said:
        return {"liked": float(said.read())}
"""


class Liking(BaseHTTPRequestHandler):
    """A service that likes everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"1")

    def log_message(self, *_: Any) -> None:
        pass


def test_while_the_service_of_a_metric_is_down_nothing_is_lost_or_asked_again(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    port = free_port()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/judged.yaml").write_text(JUDGED, encoding="utf-8")
    (tmp_path / "mine/judge.py").write_text(JUDGE.replace("PORT", str(port)), encoding="utf-8")
    docs = "".join(json.dumps({"n": n, "answer": "x"}) + "\n" for n in range(6))
    (tmp_path / "docs.jsonl").write_text(docs, encoding="utf-8")
    task = {"name": "judged", "data": {"test": "docs.jsonl"}, "samples": "all"}
    more = {"tasks": [task], "task_paths": ["mine"]}
    with playing(tmp_path, [persona("one"), persona("two")], {}, worker=worker, **more) as played:
        for _ in range(2):
            played.evaluate()
            for row in played.rows().values():
                assert (row.n, row.n_failed, row.n_open, row.score) == (0, 0, 0, None)
        service = ThreadingHTTPServer(("127.0.0.1", port), Liking)
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        try:
            played.evaluate()
        finally:
            service.shutdown()
            service.server_close()
            thread.join()
        for row in played.rows().values():
            assert (row.status, row.n, row.n_failed, row.score) == ("ok", 6, 0, 1.0)
        assert all(supplier.requests == 6 for supplier in played.net.suppliers.values()), "each doc once"
