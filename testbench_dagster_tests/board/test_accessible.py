"""axe-core finds nothing that keeps people from using a page: every kind of page, in both colour schemes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from testbench_dagster.board.published import render_page
from testbench_dagster.stages.rank import make_board
from testbench_dagster_tests.board.installations import NOW, Names, filled
from testbench_dagster_tests.board.test_app import pages
from testbench_dagster_tests.board.test_in_browser import serving, shown_as
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.operations.browser import chromium
from testbench_dagster_tests.ranking.boards import board

pytestmark = pytest.mark.slow(minutes=2)

#: What axe calls an obstacle; it finds "moderate" and "minor" ones too.
SERIOUS = {"serious", "critical"}
_RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  found => done({violations: found.violations.map(v => ({
    rule: v.id, impact: v.impact, at: v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))})),
    passes: found.passes.length}),
  error => done({error: String(error)}));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with server_or_skip(chromium(tmp_path_factory.mktemp("profile"))) as found:
        found.set_script_timeout(60)
        yield found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a board, and the published page of the same installation."""
    folder = tmp_path_factory.mktemp("shown")
    with filled(folder / "installation") as workspace, serving(workspace) as address:
        page = folder / "leaderboard.html"
        page.write_text(render_page(make_board(workspace, now=NOW)), encoding="utf-8")
        yield address, page


def violations(driver: webdriver.Chrome, *, scheme: str = "light", width: int = 1280) -> list[dict[str, Any]]:
    """What axe-core finds on the page shown, beginning with the worst; scripts of a driver heed no policy."""
    with shown_as(driver, scheme, width):
        driver.execute_script(resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        found = driver.execute_async_script(_RUN)
    assert "error" not in found, found
    assert found["passes"] > 10, "it looked at the page"
    return [one for one in found["violations"] if one["impact"] in SERIOUS]


@pytest.mark.parametrize("name", pages(Names()))
def test_pages_of_the_board(driver: webdriver.Chrome, shown: tuple[str, Path], name: str) -> None:
    driver.get(f"{shown[0]}{pages(Names())[name]}")
    for scheme in ("light", "dark"):
        assert violations(driver, scheme=scheme) == [], json.dumps(
            violations(driver, scheme=scheme), indent=1
        )


def test_the_published_page(driver: webdriver.Chrome, shown: tuple[str, Path], tmp_path: Path) -> None:
    larger = tmp_path / "leaderboard.html"
    larger.write_text(
        render_page(board([f"s{i}" for i in range(5)], ["a", "b"], ["general", "maths"])), encoding="utf-8"
    )
    for page in (shown[1], larger):
        for scheme in ("light", "dark"):
            driver.get(page.as_uri())
            driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
            assert violations(driver, scheme=scheme) == [], json.dumps(
                violations(driver, scheme=scheme), indent=1
            )


def test_it_would_find_something(driver: webdriver.Chrome, shown: tuple[str, Path]) -> None:
    driver.get(f"{shown[0]}/")
    driver.execute_script("document.querySelector('label').replaceWith(document.querySelector('select'))")
    driver.execute_script("document.documentElement.removeAttribute('lang')")
    assert {"html-has-lang", "select-name"} <= {one["rule"] for one in violations(driver)}
