"""The board in a browser: hostile text does nothing, nothing is loaded or overflows, all can be read."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from testbench_dagster.board.app import make_app
from testbench_dagster.board.site import Site
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.board.installations import NOW, Names, filled, hostile_names
from testbench_dagster_tests.board.test_app import pages
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.operations.browser import chromium

pytestmark = pytest.mark.slow(minutes=2)

#: Contrast of every text with what lies behind it, as WCAG counts it; the worst first.
_CONTRAST = """
const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = rgb => { const [r, g, b] = rgb.map(v => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b };
const back = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length && (c.length < 4 || c[3] > 0)) return c.slice(0, 3) } return [255, 255, 255] };
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  if (!walk.currentNode.data.trim() || !box.width || box.right < 0 || style.visibility === 'hidden') continue;
  const svg = e instanceof SVGElement, ink = parse(svg ? style.fill : style.color).slice(0, 3);
  const [a, b] = [light(ink), light(back(e))].sort((x, y) => y - x);
  found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 40), e.className.toString()]);
}
found.sort((x, y) => x[0] - y[0]);
return found.slice(0, 3);
"""


@contextmanager
def serving(workspace: Workspace) -> Iterator[str]:
    """The address of a board over an installation, as of the instant of its facts."""
    site = Site(workspace)
    site.prepare()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(site, clock=lambda: NOW), log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with server_or_skip(chromium(tmp_path_factory.mktemp("profile"))) as found:
        yield found


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with filled(tmp_path_factory.mktemp("tame")) as workspace, serving(workspace) as address:
        yield address


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with filled(tmp_path_factory.mktemp("wild"), hostile_names()) as workspace, serving(workspace) as address:
        yield address


@contextmanager
def shown_as(driver: webdriver.Chrome, scheme: str, width: int) -> Iterator[None]:
    """A colour scheme and a width of the window, for a while."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("name", pages(Names()))
def test_hostile_text_does_nothing(driver: webdriver.Chrome, wild: str, name: str) -> None:
    driver.get_log("browser")
    with shown_as(driver, "light", 390):
        driver.get(f"{wild}{pages(hostile_names())[name]}")
        assert driver.title.endswith("· testbench")
        assert driver.execute_script("return document.scripts.length + document.images.length") == 0
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert [entry for entry in loaded if "/board.css?" not in entry] == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert driver.execute_script("return document.querySelectorAll('h1').length") == 1
    said = [entry for entry in driver.get_log("browser") if "404" not in entry["message"]]
    assert said == [], "no reports of the policy, no errors"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", pages(Names()))
def test_pages_can_be_read_in_both_schemes_and_on_a_phone(
    driver: webdriver.Chrome, tame: str, name: str, scheme: str
) -> None:
    with shown_as(driver, scheme, 390):
        driver.get(f"{tame}{pages(Names())[name]}")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        worst = driver.execute_script(_CONTRAST)
        assert worst and worst[0][0] >= 4.5, json.dumps(worst)


def test_everything_is_reached_by_keyboard(driver: webdriver.Chrome, tame: str) -> None:
    driver.get(f"{tame}/supplier/good@external")
    seen = set()
    body = driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to content"
    for _ in range(120):
        element = driver.switch_to.active_element
        seen.add((element.tag_name, element.get_attribute("href") or element.get_attribute("aria-label")))
        element.send_keys(Keys.TAB)
    wanted = {e.get_attribute("href") for e in driver.find_elements(By.CSS_SELECTOR, "main a")}
    assert wanted <= {what for tag, what in seen if tag == "a"}
    assert ("summary", None) in seen, "the numbers behind a drawing open by keyboard"


def test_five_wrong_answers_are_three_clicks_from_the_front_page(driver: webdriver.Chrome, tame: str) -> None:
    driver.get(f"{tame}/")
    for link in (
        "//th/a[.='bad@external']",
        "//section[@aria-labelledby='tasks']//th/a[.='logic']",
        "//nav/a[starts-with(., 'wrong')]",
    ):
        driver.find_element(By.XPATH, link).click()
    assert len(driver.find_elements(By.CSS_SELECTOR, "article.wrong")) >= 5


def test_forms_lead_where_they_say(driver: webdriver.Chrome, tame: str) -> None:
    driver.get(f"{tame}/")
    field = driver.find_element(By.NAME, "q")
    field.send_keys("half")
    driver.find_element(By.CSS_SELECTOR, "form button").click()
    WebDriverWait(driver, 30).until(lambda page: "q=half" in page.current_url)
    rows = driver.find_elements(By.CSS_SELECTOR, "tbody th")
    assert [row.text for row in rows] == ["half@external"]
