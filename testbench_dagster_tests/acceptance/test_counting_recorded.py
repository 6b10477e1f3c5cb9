"""Recorded GSM8K systems that withhold what they would get wrong, by mixtures drawn anew: none gains by it.

Four systems answered all questions, and the authors' flags say which answers are right. Each is served
honestly and by withholders; what is published of a withholder is what is true of its system, or less.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.core.window import Window
from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import FAIL_MODES, Backend, Persona
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.withholding import ANSWER, WITHHOLDERS, Withholding, ahead, dark
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.counting import LIMITS, MOST_RUNS, OCCASIONS
from testbench_dagster_tests.tasks.layouts import shared_rows
from testbench_dagster_tests.tasks.signatures.simulated import served

pytestmark = [pytest.mark.slow(minutes=1), pytest.mark.usefixtures("shared")]

SYSTEMS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
DOCS = 30
SEED = 2  # of the mixtures
#: The order of the docs. One order in twenty begins with a doc to which a system's right answer has more
#: tokens than the task allows: the network cuts it, and its score is not the authors'.
DRAW = {"window": DOCS, "epoch_seed": 1}
#: What makes nobody wait for long; deadlines do.
QUICK = [mode for mode in FAIL_MODES if mode not in ("timeout", "429", "forged", "oversized")]


def recorded(system: str) -> list[Known]:
    """What a system answered, and whether the authors say that it is right."""
    rows = shared_rows("gsm8k/openai_model_solutions.jsonl.gz")
    return [
        Known(row["question"], recorded=row[system]["solution"], right=row[system]["is_correct"])
        for row in rows
    ]


def withholders(dice: random.Random) -> dict[str, tuple[Withholding, ...]]:
    """By name what suppliers of one system do, some of it by mixtures that nobody wrote down."""
    mixtures = [
        (Withholding(tuple(dice.choice([*QUICK, ANSWER]) for _ in range(dice.randint(2, 6)))),)
        for _ in range(2)
    ]
    return {
        "honest": (),
        "mixed-a": mixtures[0],
        "mixed-b": mixtures[1],
        "plain": WITHHOLDERS[dice.choice(QUICK)],
        "dark": dark(dice.uniform(0.01, 0.2), dice.choice(QUICK)),
        "ahead": ahead(dice.choice(QUICK)),
    }


@contextmanager
def played(folder: Path, seed: int) -> Iterator[tuple[Testbench, Workspace, dict[str, str]]]:
    """An installation over four networks, one per system; with the rules of each supplier, in words."""
    dice, urls, said = random.Random(seed), dict[str, str](), dict[str, str]()
    with ExitStack() as stack:
        for system in SYSTEMS:
            rules = {f"{system}-{name}".replace("_", "-"): r for name, r in withholders(dice).items()}
            model = Backend(system, latency_ms=1)
            people = [Persona(name, model, withholds=rule, names=("replay",)) for name, rule in rules.items()]
            net = stack.enter_context(served(people, answers=Answers(seed, recorded(system))))
            urls |= {name: f"{net.url}/{name}/v1" for name in rules}
            said |= {name: f"{system}: {rule}" for name, rule in rules.items()}
        planning = {"occasions_minutes": list(OCCASIONS)}
        settings = gsm8k.settings(urls, DOCS, relays=LIMITS, planning=planning, sampling=DRAW)
        path = folder / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(path)) as workspace:
            yield Testbench(workspace), workspace, said


def rows_of(workspace: Workspace) -> dict[str, Window]:
    return {row.address: row for row in windows(workspace) if row.primary}


def truths(workspace: Workspace) -> dict[str, float]:
    """By system the share of the released docs that it answered rightly."""
    where = {"task": gsm8k.TASK, "epoch": 1, "position": {"lt": DOCS}}
    docs = {prompt["doc_id"] for prompt in workspace.documents.find(PROMPTS, where)}
    assert len(docs) == DOCS
    return {system: sum(gsm8k.flags(system)[doc] for doc in docs) / DOCS for system in SYSTEMS}


def until_next(rows: Sequence[Window]) -> None:
    at = [row.next_attempt_at for row in rows if row.next_attempt_at is not None]
    if at:
        time.sleep(max(0.0, (min(at) - datetime.now(UTC)).total_seconds()))


def test_recorded_systems_gain_nothing_by_withholding(tmp_path: Path) -> None:
    with played(tmp_path, SEED) as (testbench, workspace, said):
        for number in range(MOST_RUNS):
            testbench.run()
            rows, true = rows_of(workspace), truths(workspace)
            for name, row in rows.items():
                truth = true[said[name].partition(":")[0]]
                assert row.n_released == DOCS
                assert row.score is None or row.score <= truth + 1e-12, (number, name, said[name])
            closed = {name for name, row in rows.items() if row.n_open == 0}
            if (
                number >= 3
                and len(closed) > len(rows) / 2
                and {n for n in rows if n.endswith("-honest")} <= closed
            ):
                break
            until_next(list(rows.values()))
        else:
            raise AssertionError(f"after {MOST_RUNS} runs only {sorted(closed)} have closed")
        scores: dict[str, Any] = {}
        for name, row in rows.items():
            system = said[name].partition(":")[0]
            truth = true[system]
            if name.endswith("-honest"):
                flags, made = gsm8k.flags(system), gsm8k.verdicts(workspace.documents, name)
                otherwise = {doc: value for doc, value in made.items() if value != flags[doc]}
                assert not otherwise, f"{name}: scored otherwise than the authors did"
                assert (row.n, row.score, row.status) == (DOCS, pytest.approx(truth), "ok"), name
            elif not row.n_open and not name.endswith(("-dark", "-ahead")):
                assert row.score == pytest.approx(truth), said[name]
            scores[name] = row.score
        print(scores)
