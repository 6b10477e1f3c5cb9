"""What counts, where it takes longer: real times, signed answers, many docs, lm-eval itself beside it."""

from __future__ import annotations

import math
import random
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.localnet.answers import is_right
from testbench_dagster.localnet.personas import FAIL_MODES, Backend, Persona
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES
from testbench_dagster.tasks.starter import FOLDER
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.counting import (
    MOST_RUNS,
    OCCASIONS,
    TASK,
    docs_of,
    key,
    persona,
    playing,
)
from testbench_dagster_tests.pocketnet import APP, SERVICE, pocket_network

pytestmark = pytest.mark.slow(minutes=2)


#: What makes nobody wait for long.
QUICK = [mode for mode in FAIL_MODES if mode not in ("timeout", "429", "forged", "oversized")]
CHOICE, WORDS = "starter_choice", "starter_strings"


def drawn(dice: random.Random) -> Withholding:
    """A rule that nobody wrote down: other faults each time, answers among them, dark for moments or not."""
    how = tuple(dice.choice([*QUICK, "answer"]) for _ in range(dice.randint(1, 4)))
    return Withholding(
        how if set(how) != {"answer"} else ("500",),
        dice.choice(["wrong", "right_option", "right_option", "ahead"]),
        for_s=dice.choice([math.inf, math.inf, 1.0]),
        dark_s=dice.choice([0.0, 0.0, 0.0, 0.02, 0.1, 0.5]),
        after=dice.choice([3, 5]),
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rules_that_nobody_wrote_down_gain_nothing_in_choices_and_texts(
    tmp_path: Path, worker: FrameworkWorker, seed: int
) -> None:
    dice = random.Random(seed)
    people = [persona(f"p{n}", drawn(dice), api="completions") for n in range(16)]
    with playing(tmp_path, people, {CHOICE: 10, WORDS: 8}, worker=worker) as played:
        for number in range(5):
            played.evaluate()
            gains = played.gains()
            rules = {name: played.net.suppliers[name].persona.withholds for name, _, _ in gains}
            assert not gains, (number, gains, rules)
            if not played.until_next():
                break
        for (name, task), row in played.rows().items():
            (rule,) = played.net.suppliers[name].persona.withholds
            assert row.n_released == played.docs[task]
            if rule.when != "ahead" and not rule.dark_s and not row.n_open:
                assert row.score == pytest.approx(played.truth(name, task)), rule


def test_honest_suppliers_lose_no_tenth_of_a_point_in_many_docs(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    """One, five and twenty in a hundred of their attempts fail; one run, and the next occasions."""
    names = {
        f"f-{share}-{mode}": {mode: share}
        for share in (0.01, 0.05, 0.2)
        for mode in ("503", "reset", "garbage")
    }
    people = [persona(name, failures=failures) for name, failures in names.items()]
    with playing(tmp_path, people, {TASK: 150}, worker=worker, sampling={"window": 150}) as played:
        played.evaluate()
        for (name, _), row in played.rows().items():
            if not name.startswith("f-0.2"):
                assert row.score is not None and played.truth(name) - row.score <= 0.001, name
        for _ in range(MOST_RUNS):
            if not played.until_next():
                break
            played.evaluate()
        for (name, _), row in played.rows().items():
            assert (row.status, row.n, row.n_failed) == ("ok", 150, 0), name
            assert row.score == pytest.approx(played.truth(name))


def test_one_that_only_answers_429_among_eight_in_real_time(tmp_path: Path) -> None:
    """The others have scores within 30 s of their last relays, and the run ends within three minutes."""
    others = {f"s{n}": {} for n in range(4)} | {f"flaky-{m}": {m: 0.05} for m in ("503", "429", "garbage")}
    people = [persona(name, failures=rates) for name, rates in {"limited": {"429": 1.0}, **others}.items()]
    waits: list[Progress] = []
    # twenty a minute, the second half of its docs after the run has nothing else to do
    people.append(persona("slow-rate", Withholding(("429",), "rate", after=10, for_s=30.0)))
    with playing(tmp_path, people, {TASK: 20}, planning={}, relays={}) as played:
        played.run(on_progress=lambda progress: waits.append(progress) if progress.waits else None)
        ended = time.time()
        last: dict[str, datetime] = {}
        for attempt in played.workspace.documents.find(ATTEMPTS, {}):
            last[attempt["supplier"]] = max(
                attempt["finished_at"], last.get(attempt["supplier"], attempt["finished_at"])
            )
        scored = {s["supplier"]: s["scored_at"] for s in played.workspace.documents.find(SCORES, {})}
        for name in others:
            assert (scored[key(name)] - last[key(name)]).total_seconds() < 30, name
            row = played.row(name)
            assert (row.status, row.n, row.n_open) == ("ok", 20, 0), "failing now and then costs nothing"
        assert ended - max(last[key(name)] for name in others).timestamp() < 180
        assert waits and {w.supplier for p in waits for w in p.waits} == {key("limited"), key("slow-rate")}
        assert any(f"{key('limited')} was left: no answer in" in note for note in played.notes)
        assert played.row("limited").score is None
        rated = played.row("slow-rate")
        assert (rated.status, rated.n, rated.n_open) == ("ok", 20, 0), "all in the first run"


def test_forged_answers_where_it_would_be_wrong_gain_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker
) -> None:
    people = [
        Persona(name, Backend(f"model-of-{name}", 0.6, latency_ms=0), withholds=rules)
        for name, rules in (("honest", ()), ("forger", (Withholding(("forged",)),)), ("mixed", MIXED))
    ]
    with pocket_network(people) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        settings = {
            "simulation": True,
            "services": {SERVICE: net.service()},
            "tasks": [{"name": TASK, "samples": 16}],
            "planning": {"occasions_minutes": list(OCCASIONS)},
        }
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(path)) as workspace:
            workspace.worker = worker
            testbench = Testbench(workspace)
            keys = {f"{net.operator(person.address)}@{SERVICE}": person for person in people}
            for _ in range(4):
                testbench.run()
                rows = {row.supplier: row for row in windows(workspace) if row.primary}
                assert rows.keys() == keys.keys()
                for supplier, row in rows.items():
                    assert row.score is None or row.score <= truth(workspace, keys[supplier]) + 1e-12
                if not any(row.n_open for row in rows.values()):
                    break
                time.sleep(1)
            for supplier, row in rows.items():
                assert row.score == pytest.approx(truth(workspace, keys[supplier])), keys[supplier].address
            (forger,) = [rows[k] for k, person in keys.items() if person.address == "forger"]
            assert set(forger.errors) == {"supplier_signature"} and forger.n_failed


MIXED = (Withholding(("forged", "500", "garbage")),)


def test_lm_eval_itself_gives_empty_and_cut_answers_the_same_score(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    """On the very texts that were stored, doc by doc; failed docs are not among them."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Stored(LM):
        def __init__(self, said: dict[str, str]) -> None:
            super().__init__()
            self.said = said

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [self.said[request.doc["id"]] for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise AssertionError

        loglikelihood_rolling = loglikelihood

    rules = {
        "empty": (Withholding(("empty",)),),
        "cut": (Withholding(("cut", "answer")),),
        "fails": (Withholding(("filter",)),),
        "short": (),
    }
    people = [persona(name, *rule) for name, rule in rules.items()]
    with playing(tmp_path, people, {TASK: 40}, worker=worker) as played:
        played.evaluate()
        manager = TaskManager(include_defaults=False, include_path=str(FOLDER))
        for name in rules:
            row = played.row(name)
            texts = answers(played.workspace, key(name))
            assert len(texts) == row.n and (name != "fails" or row.n_failed > 0)

            results = lm_eval.simple_evaluate(
                Stored({docs_of(TASK)[doc]["id"]: text for doc, text in texts.items()}),
                tasks=[TASK],
                task_manager=manager,
                bootstrap_iters=0,
                samples={TASK: sorted(texts)},
            )
            assert row.score_answered == results["results"][TASK][f"{row.metric},{row.filter}"], name


def answers(workspace: Workspace, supplier: str) -> dict[int, str]:
    """By doc id the text of each answer, read from the stored body."""
    found = {}
    where = {"supplier": supplier, "fault": {"in": ["ok", "truncated"]}, "canary": False}
    for attempt in workspace.documents.find(ATTEMPTS, where):
        body = workspace.documents.get(ATTEMPTS, attempt["_id"])
        assert body is not None
        found[attempt["doc_id"]] = orjson.loads(body["body"])["choices"][0]["message"]["content"] or ""
    return found


def truth(workspace: Workspace, person: Persona) -> float:
    """The share of the released docs that a persona's model knows."""
    where = {"task": TASK, "epoch": 1, "position": {"lt": 16}}
    docs = {prompt["doc_id"] for prompt in workspace.documents.find(PROMPTS, where)}
    known = [Known(docs_of(TASK)[i]["question"], TASK, docs_of(TASK)[i]["id"]) for i in docs]
    return sum(is_right(0, person.backend, one) for one in known) / len(docs)
