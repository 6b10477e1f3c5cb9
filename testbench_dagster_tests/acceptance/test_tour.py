"""docs/tour.md says what is so: every command works, every way over the board leads to what is promised."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbench_dagster.board.pages.compare import TASKS as ROWS_OF_A_PAGE
from testbench_dagster_tests.acceptance.clicks import Page, Reader
from testbench_dagster_tests.acceptance.documents import (
    Done,
    blocks_of,
    broken_links,
    document,
    run_blocks,
    shell_environment,
)
from testbench_dagster_tests.servers import free_port

TOUR = document("docs/tour.md")
#: Where the documented network listens; the test takes a free port in its place.
DOCUMENTED = "127.0.0.1:8711"
CLICKS = 3
_STEP = re.compile(r"^## (?P<n>\d+)\. .*\n(?P<text>(?:(?!^## ).*\n)*)", re.M)
_WAY = re.compile(r"^- On the board: (.*)$", re.M)
_INTERVAL = re.compile(r"[-−]?\d\.\d+(–| to )[-−]?\d\.\d+")


@dataclass
class Step:
    """One of the tasks: its number, its text, what its commands said, and the pages its clicks led to."""

    n: int
    text: str
    done: list[Done] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """Its blocks that end."""
        return [b.text for b in blocks_of(self.text) if b.language == "bash" and not b.background]

    @property
    def ways(self) -> list[str]:
        """Its ways over the board."""
        return _WAY.findall(self.text)


def steps(text: str = TOUR) -> list[Step]:
    return [Step(int(m["n"]), m["text"]) for m in _STEP.finditer(text)]


def test_there_are_twelve_tasks_each_with_a_command_or_a_way() -> None:
    assert [step.n for step in steps()] == list(range(1, 13)) == sorted(PROMISES)
    for step in steps():
        assert step.commands or step.ways, step
        assert all(way.count("→") < CLICKS for way in step.ways), step.ways


def test_links_lead_somewhere() -> None:
    assert not broken_links("docs/tour.md")


def _line(table: str, beginning: str) -> str:
    (line,) = [line for line in table.splitlines() if line.startswith(beginning)]
    return line


def _cells(table: str) -> list[list[str]]:
    """The rows of a table on the terminal."""
    lines = [line for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


# What the steps promise -------------------------------------------------------------------------------------


def five_wrong(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    listed = re.findall(r"^doc (\d+) · (\w+)", done.out, re.M)
    assert len(listed) == 5 and {kind for _, kind in listed} == {"wrong"}
    shown = re.findall(r'<article class="answer (\w+)">', page.html)
    assert len(shown) >= 5 and set(shown) == {"wrong"}
    assert [f"doc {n}" for n, _ in listed] == [h for h in page.headings if h.startswith("doc ")][:5]
    for name in ("expected", "answered", "extracted"):
        assert len(re.findall(rf"^  {name}\b", done.out, re.M)) == 5
        assert page.html.count(f"<dt>{name.capitalize()}</dt>") >= 4  # an empty answer has no part


def prompt_as_sent(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    assert '"messages":[{"role":"system","content":"Decide from' in done.out
    (question,) = re.findall(r"^  question   Question: (.*)$", done.out, re.M)
    assert "Prompt as sent" in page.headings
    assert question[:60] in page.text.partition("Prompt as sent")[2]


def best_of_a_model(step: Step) -> None:
    (page,) = step.pages
    rows = [row for row in page.rows if row[0].endswith("@simulation")]
    assert {row[0] for row in rows} == {"sim-01@simulation", "sim-03@simulation"}
    assert {row[1] for row in rows} == {"simulated-granite"}
    scores = [float(row[2]) for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.7
    assert "best first" in page.text


def how_sure(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    assert all(name in done.out for name in ("rank_low", "rank_high", "ci_low", "ci_high"))
    titles, *rows = page.rows
    by_name = [dict(zip(titles, row, strict=True)) for row in rows]
    assert len(by_name) == 7 and all(_INTERVAL.fullmatch(row["95 %"]) for row in by_name)
    best = [float(row["Best"].removesuffix("%")) for row in by_name if row["Best"]]
    assert len(best) == 6 and abs(sum(best) - 100) < 2


def compared(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    titles, *rows = page.rows
    on_board = {row[0]: row[titles.index("Verdict")] for row in rows}
    at = [cell.strip() for cell in re.findall(r"[^┃]+", _line(done.out, "┃ task "))].index("verdict")
    said = {cells[0]: cells[at] for cells in _cells(done.out)}
    assert {"starter_logic", "starter_reading", "starter_strings"} <= on_board.keys()
    assert on_board.keys() <= said.keys() - {"overall"}
    assert len(on_board) == len(said) - 1 or len(on_board) == ROWS_OF_A_PAGE, "a page of them"
    assert all(verdict.startswith(said[task]) for task, verdict in on_board.items())  # a note may follow
    assert {said["overall"], *said.values()} <= {"A better", "B better", "equal", "undecided", "no data"}
    assert sum(bool(_INTERVAL.fullmatch(row[titles.index("95 %")])) for row in rows) >= 7


def alike(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines()]
    group = {
        row[0]: row[2:5] for row in cells if row and row[0] in ("sim-01@simulation", "sim-03@simulation")
    }
    assert len({name for name, _, _ in group.values()}) == 1
    assert {role for _, role, _ in group.values()} == {"proxy", "member"}
    assert len({proxy for _, _, proxy in group.values()} & group.keys()) == 1
    listed = [re.search(r"sim-\d\d@simulation", row[1]) for row in page.rows[1:]]
    assert {found and found[0] for found in listed} == group.keys()


def disputed(step: Step) -> None:
    (done,), (page,) = step.done, step.pages
    assert "EQUAL: every hash" in done.out + done.err
    assert "testbench evidence --supplier sim-04@simulation --task starter_logic --doc" in page.text
    assert any(link.text == "raw body" for link in page.links)


def supplier_added(step: Step) -> None:
    (done,) = step.done
    assert re.search(r"^ok +supplier new-01@simulation: chat at \S+ answers", done.out, re.M)
    assert not re.search(r"^FAIL", done.out, re.M)


def task_added(step: Step) -> None:
    (done,) = step.done
    assert len(re.findall(r"^│ \S+@simulation +│ [^│]+│ logic_alone +│ \w+ +│ +100 │", done.out, re.M)) == 8


def bought(step: Step) -> None:
    asked, _run = step.done
    (told,) = re.findall(r"([\d,]+) relays would be sent now.*, of a budget of 5000", asked.err)
    assert 400 < int(told.replace(",", "")) <= 5000
    assert "new-01@simulation" in asked.out and "buys" in asked.out
    assert re.search(
        r"new-01@simulation +│ [^│]+│ starter_reading +│ due +│ +\d+ │.* 0\.\d{4} │ +\d+ │$", asked.out, re.M
    )


def fallen(step: Step) -> None:
    (done,), (course, changes) = step.done, step.pages
    (when,) = re.findall(r"^  change +(\d{4}-\d\d-\d\d \d\d:\d\d) UTC", done.out, re.M)
    # by its scores or by its answers to the same questions, whichever shows it first: with numbers
    (why,) = re.findall(r"^  change +.* UTC[^:]*: (.+)$", done.out, re.M)
    assert re.search(r"\d", why), why
    assert "Detected changes" in course.headings
    for page in (course, changes):
        assert why[:30] in page.text and when in page.text
    assert any(row[0] == "sim-05@simulation" for row in changes.rows)


def paused(step: Step) -> None:
    (done,) = step.done
    assert "0 relays are left of today's budget" in done.err
    assert "0 relays would be sent now" in done.err
    assert "@simulation" not in done.out


PROMISES: dict[int, Callable[[Step], None]] = {
    1: five_wrong,
    2: prompt_as_sent,
    3: best_of_a_model,
    4: how_sure,
    5: compared,
    6: alike,
    7: disputed,
    8: supplier_added,
    9: task_added,
    10: bought,
    11: fallen,
    12: paused,
}


# The tour ---------------------------------------------------------------------------------------------------


@pytest.mark.slow(minutes=2)
def test_every_step_does_what_it_says(tmp_path: Path) -> None:
    beginning, _, rest = TOUR.partition("In that folder")
    folder = tmp_path / "empty"
    folder.mkdir()
    run_blocks(beginning, folder, shell_environment(), {})

    folder = folder / ".testbench" / "demo"
    network, board = free_port(), free_port()
    environment = shell_environment(TESTBENCH_LOCALNET_URL=f"http://127.0.0.1:{network}")
    configuration = folder / "testbench.yaml"
    demo = configuration.read_text(encoding="utf-8")  # its port may be another's by now
    configuration.write_text(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{network}", demo), encoding="utf-8")
    listed = _a_wrong_answer(folder, environment)
    rest = rest.replace(DOCUMENTED, f"127.0.0.1:{network}").replace("--doc 2", f"--doc {listed}")
    rest = rest.replace("below doc 2", f"below doc {listed}")

    waiting, reader = steps(rest), Reader(f"http://127.0.0.1:{board}")

    def follow(done: Done) -> None:
        """Walk the ways of a task once its last command ended, and of those before it without any."""
        for step in waiting:
            if done.text in step.commands:
                step.done.append(done)
        while waiting and len(waiting[0].done) == len(waiting[0].commands):
            step = waiting.pop(0)
            for way in step.ways:
                page, clicks = reader.follow(way)
                assert clicks <= CLICKS, way
                step.pages.append(page)
            PROMISES[step.n](step)

    background = {
        "testbench board": (f"testbench board --port {board}", board),
        "testbench localnet up": (f"testbench localnet up --port {network} --latency-ms 5", network),
    }
    run_blocks(rest, folder, environment, background, follow)
    assert not waiting, waiting[0]


def _a_wrong_answer(folder: Path, environment: dict[str, str]) -> int:
    """The first doc that the first task of the tour lists: every installation draws others."""
    command = ["testbench", "answers", "-s", "sim-04@simulation", "-t", "starter_logic", "--wrong"]
    done = subprocess.run(
        [*command, "--limit", "1", "--format", "json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=True,
    )
    return int(json.loads(done.stdout)[0]["doc_id"])
