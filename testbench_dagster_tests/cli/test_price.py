"""What the commands and pages show of costs: a column where there is one, and nothing where there is none."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from testbench_dagster.board.published import render_page
from testbench_dagster.cli import cli
from testbench_dagster.core.faults import Fault
from testbench_dagster.ranking.feeds import feed
from testbench_dagster_tests.ranking.boards import board
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA

PRICE = {"prompt": 2.0, "completion": 10.0}
#: Of ten docs with 100 tokens and 5 of their answers, of which eight are right.
COST = 10 * (100 * 2 + 5 * 10) / 1e6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    made = Stage(tmp_path, {})
    for doc in range(DOCS):
        made.facts.score(made.registrations[GATED], doc, float(doc < 8), NOW)
        prompt = f"{GATED}-1-chat-{doc}"
        made.facts.attempt(
            made.registrations[GATED], doc, at=NOW, prompt_id=prompt, text="x", tokens=(100, 5)
        )
    made.facts.attempt(made.registrations[GATED], 0, Fault.OK, NOW, prompt_id="other", text="x")
    made.workspace.close()
    return tmp_path


def run(folder: Path, *arguments: str, price: dict[str, Any] | None = PRICE) -> Result:
    path = folder / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["suppliers"][0] = {**settings["suppliers"][0], "price": price}
    path.write_text(yaml.safe_dump(settings), "utf-8")
    done = CliRunner().invoke(cli, ["-c", str(path), *arguments])
    assert done.exit_code == 0, done.output
    return done


def test_scores_have_costs_where_a_supplier_has_a_price(folder: Path) -> None:
    shown = run(folder, "scores").stdout
    assert "cost_per_1000_right" in shown and "0.00250" in shown and "0.312" in shown
    assert "cost" not in run(folder, "scores", price=None).stdout
    rows = json.loads(run(folder, "scores", "--format", "json").stdout)
    found = {(r["supplier"], r["task"]): (r["cost"], r["cost_per_1000_right"]) for r in rows if r["primary"]}
    assert found.pop((ALPHA, GATED)) == (pytest.approx(COST), pytest.approx(COST / 8 * 1000))
    assert set(found.values()) == {(None, None)}
    (row,) = csv.DictReader(
        io.StringIO(run(folder, "scores", "-s", ALPHA, "-t", GATED, "--format", "csv").stdout)
    )
    assert float(row["cost"]) == pytest.approx(COST) and row["n_unmetered"] == "0"


def test_a_plan_says_about_what_it_costs_and_what_is_in_no_sum(folder: Path) -> None:
    done = run(folder, "plan")
    assert re.search(r"^┃.* cost +┃", done.stdout, re.M)
    assert re.search(
        r"about 0\.00\d+ in all, an estimate, of 1 row by the longest answers allowed; not in it: "
        r"20 relays without a known cost",
        done.stderr,
    )
    rows = json.loads(run(folder, "plan", "--format", "json").stdout)
    assert {r["cost_from"] for r in rows if r["supplier"] == BETA} == {None}
    without = run(folder, "plan", price=None)
    assert "cost" not in without.stdout and "in all" not in without.stderr


def test_a_supplier_has_its_price_and_what_its_days_took(folder: Path) -> None:
    shown = run(folder, "show", ALPHA).stdout
    assert "  price      prompts 2.00, completions 10.00, per million tokens\n" in shown
    assert re.search(
        r"^  spent      \d{4}-\d\d-\d\d: 11 attempts, 1,000 prompt tokens, 50 completion tokens, 0\.00250; "
        r"1 answer more without a count$",
        shown,
        re.M,
    )
    assert "price" not in run(folder, "show", ALPHA, price=None).stdout


def test_the_published_page_and_the_feed_have_costs() -> None:
    made = board(["alpha", "beta"], ["gsm8k"], ["general"])
    assert "Per 1,000 right" not in render_page(made)
    (first, *rest) = made.windows["alpha@external"]
    costs = {"cost": 0.0001234, "cost_per_1000_right": 1234.5}
    priced = replace(made, windows={**made.windows, "alpha@external": [replace(first, **costs), *rest]})
    page = render_page(priced)
    assert "Per 1,000 right" in page and "0.000123<" in page and "1,234.50<" in page
    (alpha,) = [one for one in feed(priced)["suppliers"] if one["supplier"] == "alpha@external"]
    told = alpha["tasks"]["gsm8k"]
    assert {name: told[name] for name in costs} == costs


def test_a_plan_tells_of_the_budget_of_money(folder: Path) -> None:
    path = folder / "testbench.yaml"
    settings = yaml.safe_load(path.read_text("utf-8")) | {"budget": {"money_per_day": 0.01}}
    path.write_text(yaml.safe_dump(settings), "utf-8")
    told = run(folder, "plan").stderr
    # ten answers that report their tokens are stored, and have cost what the budget counts from then on
    assert re.search(
        r"^external: 0\.00750 of 0\.0100 is left of today's budget of money, about 0\.00\d+ of it is needed "
        "now$",
        told,
        re.M,
    )
    assert f"external: 1 supplier without a price that counts costs nothing of it: {BETA}\n" in told
