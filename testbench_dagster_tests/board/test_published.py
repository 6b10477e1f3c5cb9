"""The published page: whole, inert, bounded; and in a real browser sorted, filtered, without network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from testbench_dagster.board.published import MAX_BYTES, render_page
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.operations.browser import chromium
from testbench_dagster_tests.ranking.boards import ABILITIES, HOSTILE, board

NAMES = [f"operator-{i:02d}" for i in range(12)]


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_names_cannot_become_markup() -> None:
    tasks = ["gsm8k", *HOSTILE[:2]]
    tame, wild = (
        Elements(render_page(board(names, tasks, [taxonomy], groups=[taxonomy])))
        for names, taxonomy in ((NAMES[: len(HOSTILE)], "general"), (HOSTILE, HOSTILE[0]))
    )
    assert [tag for tag, _ in tame.tags] == [tag for tag, _ in wild.tags]
    attributes = {name for _, given in wild.tags for name in given}
    assert not {name for name in attributes if name.startswith("on")}, "no handlers"
    assert not attributes & {"src", "action", "srcdoc", "style"}, "nothing to load"
    links = [given["href"] for tag, given in wild.tags if tag == "a"]
    assert links and all(re.fullmatch(r"#(s\d+|main)", str(link)) for link in links)
    assert {c for words in wild.words for c in words if not c.isprintable()} <= {"\n", " "}


def test_tasks_set_aside_are_told_and_cannot_become_markup() -> None:
    made = board(NAMES, ["gsm8k"], ["general", "other"])
    assert "set aside" not in render_page(made).lower()
    aside = dict(zip(HOSTILE, reversed(HOSTILE), strict=True)) | {"lost": "a.jsonl does not exist"}
    page = render_page(replace(made, set_aside=aside, lacking={"general": list(aside), "other": []}))
    elements = Elements(page)
    assert elements.count("script") == 1
    assert elements.count("img") == 0
    assert not {name for _, given in elements.tags for name in given if name.startswith("on")}
    assert elements.count("li") == len(aside)
    words = "".join(elements.words)
    assert "lost: a.jsonl does not exist" in words
    assert "<script>document.title='taken'</script>: &lt;b&gt;&amp;" in words
    general, other = (page[page.index(f'id="{i}"') :].partition("</section>")[0] for i in ("t0", "t1"))
    assert "Set aside, so that new answers to them are missing here: " in general
    assert "Set aside" not in other


def test_a_page_with_thousands_of_tasks_set_aside_stays_bounded() -> None:
    made = board(NAMES, ["gsm8k"], ["general"])
    aside = {f"task-{i}" + "&" * 200: "<" * 1000 for i in range(3000)}
    page = render_page(replace(made, set_aside=aside, lacking={"general": list(aside)}), max_bytes=600_000)
    assert len(page.encode()) <= 600_000
    assert "2950 more are left out here" in page
    assert "and 2988 more." in page
    assert f'<a href="#s{len(NAMES) - 1}">' in page, "the rankings have their place"


def test_the_page_leads_to_the_board_where_there_is_one() -> None:
    names = ["a/b", "50%", *HOSTILE]
    made = board(names, ["gsm8k"], ["general"])
    page = Elements(render_page(replace(made, url="https://board.example.org")))
    links = [str(given["href"]) for tag, given in page.tags if tag == "a"]
    outside = [link for link in links if not link.startswith("#")]
    ways = [f"https://board.example.org{path}" for path in ("/", "/catalog", "/compare", "/changes", "/")]
    assert outside[:5] == ways, "the board's own ways, and once more in the text"
    assert {
        "https://board.example.org/supplier/a%2Fb@external",
        "https://board.example.org/supplier/50%25@external",
    } <= {*outside}
    assert all(re.fullmatch(r"https://board\.example\.org/[A-Za-z0-9/@:._~%-]*", link) for link in outside)
    assert len(outside) == len(ways) + len(names)


#: What names are made of to break out: of markup, of the page's templates and patterns, of lines and cells.
PIECES = st.sampled_from(
    [
        "<",
        ">",
        '"',
        "'",
        "&",
        "/",
        "=",
        "%s",
        "%",
        "{{",
        "}}",
        "{%",
        "{#",
        "-->",
        "\0",
        "\n",
        "script",
        "on",
        "x",
        " ",
    ]
)
NAME = st.text(max_size=12) | st.lists(PIECES, max_size=12).map("".join)


def drawn(names: Sequence[str], tasks: Sequence[str], taxonomy: str, ability: str, group: str) -> Elements:
    """A page of these suppliers, of which two form a group and one changed."""
    made = board(names, tasks, [taxonomy])
    entries = [replace(entry, group=group, proxy=group) for entry in made.rankings[taxonomy]]
    nodes = {key: {**nodes, ability: nodes["reasoning"]} for key, nodes in made.nodes.items()}
    windows = {
        key: [replace(row, cut_at=row.last_sample_at, errors={group: 1}) for row in rows]
        for key, rows in made.windows.items()
    }
    return Elements(render_page(replace(made, rankings={taxonomy: entries}, nodes=nodes, windows=windows)))


@pytest.mark.slow
@given(st.lists(NAME, min_size=3, max_size=3, unique=True), st.tuples(NAME, NAME), NAME, NAME, NAME)
@settings(max_examples=60, deadline=None)
def test_no_name_yields_a_tag_or_an_attribute(names, tasks, taxonomy, ability, group) -> None:
    assume(ability not in (taxonomy, *ABILITIES) and tasks[0] != tasks[1])
    tame = drawn(["a", "b", "c"], ["d", "e"], "f", "g", "h")
    wild = drawn(names, tasks, taxonomy, ability, group)
    shape = [(tag, sorted(given)) for tag, given in tame.tags]
    assert [(tag, sorted(given)) for tag, given in wild.tags] == shape
    assert {c for words in wild.words for c in words if not c.isprintable()} <= {"\n"}


def test_everything_is_on_the_page_without_a_script() -> None:
    page = Elements(render_page(board(NAMES, ["gsm8k", "ifeval"], ["general", "maths"])))
    words = " ".join(page.words)
    assert all(words.count(f"{name}@external") == 3 for name in NAMES), "two rankings and its details"
    assert "Simulation" in words and "2026-11-24 12:00:00 UTC" in words
    drawn = [given.get("class") for tag, given in page.tags if tag == "svg"]
    # in each ranking, and of each supplier a root and four abilities by two taxonomies, and two tasks
    assert drawn.count("ci") == (len(NAMES) - 1) * (2 + 2 * 5 + 2), "one drawing for every score"
    assert page.count("section") == 3
    assert words.count("empty 1, transport 2") == 2 * (len(NAMES) - 1)
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {f"#{i}" for i in ids} >= {given["href"] for tag, given in page.tags if tag == "a"}


def test_the_label_of_a_simulation_is_only_where_due() -> None:
    assert "imulat" not in " ".join(Elements(render_page(board(NAMES, ["a"], ["t"], simulation=False))).words)


def test_an_empty_board_is_a_page_too() -> None:
    empty = replace(board(NAMES, [], ["t"]), suppliers=[], rankings={"t": []}, nodes={}, windows={})
    assert "No suppliers yet." in render_page(empty)


@pytest.mark.parametrize("limit", [60_000, 120_000, 2_500_000])
def test_the_size_is_bounded_and_what_is_missing_is_said(limit: int) -> None:
    names = [f"operator-{i}" for i in range(200)]
    page = render_page(board(names, ["a", "b", "c"], ["t", "u"]), limit)
    assert len(page.encode()) <= limit
    shown = page.count("<details id=")
    told = re.search(r"(\d+) suppliers are left out here", page)
    assert (int(told[1]) if told else 0) == 200 - shown
    rows = [int(n) for n in re.findall(r"Only the first (\d+) of 200", page)]
    ranked = page.partition('<section id="suppliers">')[0].count('<svg class="ci"')
    assert ranked == (398 if not rows else sum(rows)), "the last one is unscored and cut first"
    assert limit > 60_000 or rows
    assert limit < 2_500_000 or (shown == 200 and "reasoning" in page)


@pytest.mark.slow
def test_five_thousand_suppliers_stay_below_ten_megabytes() -> None:
    names = [f"pokt1{i:038d}" for i in range(5000)]
    page = render_page(board(names, [f"mmlu_{i}" for i in range(20)], ["general", "maths", "chat"]))
    assert len(page.encode()) <= MAX_BYTES < 10_000_000
    assert page.count("<tr><td>") + page.count("<tr><td class") == 3 * 5000, "every ranking is whole"
    assert "speeds and uptimes are left out here" in page and ">Uptime<" not in page.rpartition("<section")[0]


# --------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with server_or_skip(chromium(tmp_path_factory.mktemp("profile"))) as found:
        yield found


def column(driver: webdriver.Chrome, number: int) -> list[str]:
    script = """return [...document.querySelectorAll('section:not([hidden]) table.ranking tbody tr')]
        .filter(row => !row.hidden).map(row => row.cells[arguments[0]].textContent)"""
    found: list[str] = driver.execute_script(script, number)
    return found


def show(driver: webdriver.Chrome, folder: Path, page: str) -> None:
    path = folder / "leaderboard.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    driver.get(path.as_uri())


@pytest.mark.slow
def test_columns_sort_by_keyboard_and_say_so(driver: webdriver.Chrome, tmp_path: Path) -> None:
    show(driver, tmp_path, render_page(board(NAMES, ["gsm8k"], ["general"])))
    before = column(driver, 1)
    heads = driver.find_elements(By.CSS_SELECTOR, "thead th[aria-sort]")
    names, newest = heads[1], next(h for h in heads if h.text.startswith("Newest"))
    names.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(driver, 1) == sorted(before)
    assert names.get_attribute("aria-sort") == "ascending"
    assert heads[0].get_attribute("aria-sort") == "none"
    names.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert column(driver, 1) == sorted(before, reverse=True)
    button = newest.find_element(By.TAG_NAME, "button")
    sizes = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    index = int(str(newest.get_property("cellIndex")))
    for _ in range(2):
        button.send_keys(Keys.ENTER)
        shown = column(driver, index)
        assert shown[-1] == "–", "unknown is last in both directions"
        ages = [int(number) * sizes[unit] for number, unit in (s.split(" ") for s in shown[:-1])]
        descending = newest.get_attribute("aria-sort") == "descending"
        assert ages == sorted(ages, reverse=descending)
    heads[0].find_element(By.TAG_NAME, "button").click()
    assert heads[0].get_attribute("aria-sort") == "ascending"


@pytest.mark.slow
def test_tabs_filter_and_details_work(driver: webdriver.Chrome, tmp_path: Path) -> None:
    show(driver, tmp_path, render_page(board(NAMES, ["gsm8k"], ["general", "maths"])))
    tabs = driver.find_elements(By.CSS_SELECTOR, "[role=tab]")
    assert [t.get_attribute("aria-selected") for t in tabs] == ["true", "false"]
    tabs[0].send_keys(Keys.ARROW_RIGHT)
    assert driver.switch_to.active_element == tabs[1]
    assert (
        driver.find_element(By.ID, "t1").is_displayed()
        and not driver.find_element(By.ID, "t0").is_displayed()
    )
    driver.find_element(By.NAME, "q").send_keys("OPERATOR-07")
    assert column(driver, 1) == ["operator-07@external"]
    assert driver.find_element(By.ID, "shown").text == "1 of 12"
    link = driver.find_element(By.CSS_SELECTOR, "section:not([hidden]) tbody tr:not([hidden]) a")
    details = driver.find_element(
        By.CSS_SELECTOR, str(link.get_attribute("href")).partition("/leaderboard.html")[2]
    )
    link.click()
    driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert details.get_property("open") is True and "gsm8k" in details.text
    # closed again, the same link opens it again
    driver.execute_script("arguments[0].open = false", details)
    link.click()
    driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert details.get_property("open") is True


@pytest.mark.slow
def test_a_model_is_chosen_and_a_place_moves_as_a_whole(driver: webdriver.Chrome, tmp_path: Path) -> None:
    made = board(NAMES, ["gsm8k"], ["general"])
    together = {0, 3, 4}
    entries = [
        replace(
            entry,
            model="granite" if i in together else "basalt",
            unit="g" if i in together else None,
            group="g" if i in together else None,
            proxy=made.rankings["general"][0].supplier if i in together else None,
        )
        for i, entry in enumerate(made.rankings["general"])
    ]
    members = [entries[i].supplier for i in sorted(together)]
    suppliers = [replace(s, model="granite" if s.key in members else "basalt") for s in made.suppliers]
    show(driver, tmp_path, render_page(replace(made, suppliers=suppliers, rankings={"general": entries})))
    names = [name.removesuffix("3 members").strip() for name in column(driver, 1)]
    assert names[:3] == members, "members behind who stands for them"
    assert column(driver, 6)[1:3] == ["", ""], "they have their chance together"
    heads = driver.find_elements(By.CSS_SELECTOR, "thead th[aria-sort]")
    heads[2].find_element(By.TAG_NAME, "button").click()
    names = [name.removesuffix("3 members").strip() for name in column(driver, 1)]
    assert names[-3:] == members, "by model they come last, still together"
    Select(driver.find_element(By.NAME, "model")).select_by_visible_text("granite")
    assert [name.removesuffix("3 members").strip() for name in column(driver, 1)] == members
    assert driver.find_element(By.ID, "shown").text == "3 of 12"
    shown = [one for one in driver.find_elements(By.CSS_SELECTOR, "#suppliers>details") if one.is_displayed()]
    assert len(shown) == 3
    assert not driver.get_log("browser")


@pytest.mark.slow
def test_hostile_names_do_nothing_in_a_browser(driver: webdriver.Chrome, tmp_path: Path) -> None:
    show(driver, tmp_path, render_page(board(HOSTILE, ["gsm8k"], list(HOSTILE[:3]))))
    assert driver.title == "Leaderboard (simulation) · testbench"
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.find_elements(By.CSS_SELECTOR, "table img, td h1, details script") == []
    assert len(driver.find_elements(By.CSS_SELECTOR, "[role=tab]")) == 3, "the page's own script runs"
    # even markup that slipped through would be inert: the policy names the page's own script only
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = 1';"
        "document.body.append(s)"
    )
    assert driver.title == "Leaderboard (simulation) · testbench"
    refused = driver.get_log("browser")
    assert len(refused) == 1 and "Content Security Policy" in refused[0]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_windows_scroll_only_inside_of_tables(
    driver: webdriver.Chrome, tmp_path: Path, scheme: str
) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        show(driver, tmp_path, render_page(board([*NAMES, "x" * 120], ["gsm8k"], ["general"])))
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
        ink, back = driver.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
        lightness = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (ink, back)]
        assert (lightness[0] < lightness[1]) == (scheme == "light")
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
