"""The board over filled stores: every page, what others wrote there, what it refuses, that it only reads."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from starlette.testclient import TestClient

from testbench_dagster.board import links
from testbench_dagster.board.app import POLICY, make_app
from testbench_dagster.board.pages import answers as answers_page
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.config import load_config
from testbench_dagster.core.records.attempts import AttemptId
from testbench_dagster.core.records.every import RECORDS
from testbench_dagster.stages.read import answers as read_answers
from testbench_dagster.stages.read.answers import SearchBound
from testbench_dagster.stages.read.service import recent_service
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.board.installations import DOCS, NOW, Names, filled, hostile_names

GOOD, HALF, TWIN, BAD = Names().suppliers
LOGIC, SUMS = Names().tasks
MOST_BYTES = 200_000
READING = re.compile(r"https?:")


class Elements(HTMLParser):
    """Tags with their attributes, the text of a page, and where its links and forms lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [given[attribute] or "" for _, given in self.tags if attribute in given]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def client(workspace: Workspace, *, with_answers: bool = True) -> TestClient:
    site = Site(workspace, with_answers=with_answers)
    site.prepare()
    app = make_app(site, hosts=allowed_hosts("127.0.0.1"), clock=lambda: NOW)
    return TestClient(app, base_url="http://127.0.0.1:3001", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with filled(tmp_path_factory.mktemp("tame")) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with filled(tmp_path_factory.mktemp("wild"), hostile_names()) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def board(tame: Workspace) -> Iterator[TestClient]:
    with client(tame) as found:
        yield found


def pages(names: Names) -> dict[str, str]:
    """An address of every page, each in its fullest form; by what it is."""
    a, b, _, bad = names.suppliers
    task = names.tasks[0]
    return {
        "leaderboard": "/",
        "filtered": links.with_query("/", {"model": names.models[0], "q": names.text(0), "group": "g"}),
        "group": links.with_query("/", {"group": f"g-{names.text(0)}"[:80]}),
        "supplier": links.supplier(a),
        "failing supplier": links.supplier(bad),
        "history": links.history(bad, {"task": task}),
        "service": links.service(a),
        "failing service": links.service(bad, since="1y"),
        "answers": links.answers(bad, task),
        "wrong": links.answers(bad, task, kind="wrong"),
        "failed": links.answers(bad, task, kind="failed"),
        "search": links.answers(bad, task, q=names.text(1)),
        "answer": links.answer(bad, task, 1),
        "failed answer": links.answer(bad, task, 0),
        "doc": links.doc(task, 1),
        "task": links.task(task),
        "task of a model": links.task(task, model=names.models[0]),
        "catalog": "/catalog",
        "searched catalog": links.with_query("/catalog", {"q": names.text(0)}),
        "compare": "/compare",
        "compared": links.compare(a=a, b=b),
        "doc by doc": links.compare(a=a, b=b, task=task),
        "different docs": links.compare(a=a, b=b, task=task, kind="different"),
        "changes": "/changes",
        "changes of one": links.with_query("/changes", {"supplier": a}),
        "twins": "/twins",
        "not found": "/nothing",
        "unknown supplier": links.supplier(names.text(0)),
    }


def page(board: TestClient, path: str, status: int = 200) -> Elements:
    found = board.get(path)
    assert found.status_code == status, (path, found.text[:500])
    return Elements(found.text)


def own_tags(board: TestClient) -> set[str]:
    """The tags of the board's own templates."""
    return {tag for path in pages(Names()).values() for tag, _ in Elements(board.get(path).text).tags}


# ------------------------------------------------------------------------------------------------ all pages


@pytest.mark.parametrize("name", pages(Names()))
def test_every_page_is_whole(board: TestClient, name: str) -> None:
    found = board.get(pages(Names())[name])
    assert found.status_code == (404 if name in ("not found", "unknown supplier") else 200), found.text
    assert found.headers["Content-Security-Policy"] == POLICY
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Referrer-Policy"] == "no-referrer"
    assert len(found.content) < MOST_BYTES
    elements = Elements(found.text)
    assert elements.count("script") == elements.count("img") == 0
    assert not [a for a in {a for _, given in elements.tags for a in given} if a.startswith("on")]
    assert "style" not in {a for _, given in elements.tags for a in given}, "the policy forbids them"
    assert elements.count("h1") == 1 and elements.count("main") == 1
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    assert set(elements.values("aria-labelledby")) <= set(ids)
    labels = elements.count("label")
    fields = [given for tag, given in elements.tags if tag in ("input", "select")]
    assert labels == sum(given.get("type") != "hidden" for given in fields), "each field has its label"
    assert all("scope" in given for tag, given in elements.tags if tag == "th")


@pytest.mark.parametrize("name", pages(Names()))
def test_links_stay_on_the_board_and_lead_somewhere(board: TestClient, name: str) -> None:
    elements = Elements(board.get(pages(Names())[name]).text)
    for address in {*elements.values("href"), *elements.values("action")}:
        assert address.startswith(("/", "#")) and not address.startswith("//"), address
        if address.startswith("/"):
            assert board.get(address.partition("#")[0]).status_code == 200, address


@pytest.mark.parametrize("name", pages(Names()))
def test_nothing_that_others_wrote_becomes_markup(wild: Workspace, board: TestClient, name: str) -> None:
    names = hostile_names()
    with client(wild) as found:
        answer = found.get(pages(names)[name])
    assert answer.status_code == (404 if name in ("not found", "unknown supplier") else 200), answer.text
    assert len(answer.content) < MOST_BYTES
    elements = Elements(answer.text)
    assert {tag for tag, _ in elements.tags} <= own_tags(board)
    attributes = {(tag, attribute) for tag, given in elements.tags for attribute in given}
    assert not {
        a for _, a in attributes if a.startswith("on") or a in ("style", "src", "srcdoc", "autofocus")
    }
    for address in {*elements.values("href"), *elements.values("action")}:
        assert address.startswith(("/", "#")) and not address.startswith("//"), address
        assert urlsplit(address).scheme == urlsplit(address).netloc == ""
    assert {c for c in answer.text if not c.isprintable()} <= {"\n", "\t"}, "no directions, no controls"
    assert "49" not in re.findall(r"mine\S*(49)", answer.text), "braces of others are no template"


@pytest.mark.parametrize("name", ["supplier", "answers", "answer", "doc", "task", "doc by doc"])
def test_hostile_names_lead_where_they_say(wild: Workspace, name: str) -> None:
    with client(wild) as found:
        elements = Elements(found.get(pages(hostile_names())[name]).text)
        for address in elements.values("href"):
            if address.startswith("/"):
                assert found.get(address.partition("#")[0]).status_code == 200, address


# ------------------------------------------------------------------------------------------------ leaderboard


def test_a_group_has_one_place_with_its_members_inside(board: TestClient) -> None:
    elements = page(board, "/")
    assert [g["class"] for t, g in elements.tags if t == "tr" and "class" in g] == ["member"]
    assert "2 members" in elements.text
    order = [elements.text.index(key) for key in (GOOD, TWIN, HALF, BAD)]
    assert order == sorted(order)
    shares = [float(share) for share in re.findall(r"([\d.]+) %", best_column(board))]
    assert sum(shares) == pytest.approx(100.0)


def test_members_of_a_group_have_its_place_and_its_share_together(board: TestClient) -> None:
    group = "/?group=g-What+is+the+answer%3F"
    assert re.findall(r"([\d.]+) %", best_column(board, group)) == ["100.0"], "once, not for each"
    text = page(board, group).text
    assert "2 suppliers in 1 place" in text and "count among all 3 places" in text
    assert "same place" in text


@pytest.mark.parametrize("query", ["model=basalt", "q=bad", "service=external", "model=granite"])
def test_shares_under_a_filter_say_what_they_are_of(board: TestClient, query: str) -> None:
    assert "“Best” count among all 3 places" in page(board, f"/?{query}").text
    whole = dict(shares(board, "/"))
    for supplier, share in shares(board, f"/?{query}"):
        assert share == whole[supplier], "a filter changes nobody's chance"


def test_a_group_of_many_pages_has_its_share_once(board: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbench_dagster.board.pages.leaderboard.ROWS", 1)
    first = board.get("/?group=g-What+is+the+answer%3F").text
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following
    second = html.unescape(following[1])
    assert [key for key, _ in shares(board, second)] == [TWIN]
    assert "%" not in best_column(board, second) and "same place" in board.get(second).text


def shares(board: TestClient, path: str) -> list[tuple[str, str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", board.get(path).text, re.S)[1:]
    return [
        (
            unquote(re.findall(r'href="/supplier/([^"]+)"', row)[0]),
            re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)[5],
        )
        for row in rows
    ]


def best_column(board: TestClient, path: str = "/") -> str:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", board.get(path).text, re.S)[1:]
    return " ".join(re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)[5] for row in rows)


def test_ages_count_from_now_not_from_the_making(tame: Workspace) -> None:
    site = Site(tame)
    later = make_app(site, clock=lambda: NOW.replace(day=4))
    with TestClient(later, base_url="http://127.0.0.1") as found:
        assert "3 d ago" in Elements(found.get("/").text).text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("model=basalt", {HALF}),
        ("model=granite", {GOOD, TWIN}),
        ("service=external", {GOOD, HALF, TWIN, BAD}),
        ("service=other", set()),
        ("q=BAD", {BAD}),
        ("q=chalk", {BAD}),
        ("group=g-What+is+the+answer%3F", {GOOD, TWIN}),
    ],
)
def test_filters_choose_rows(board: TestClient, query: str, shown: set[str]) -> None:
    heads = re.findall(r'<th scope="row"><a href="/supplier/([^"]+)"', board.get(f"/?{query}").text)
    assert {unquote(head) for head in heads} == shown


def test_a_ranking_that_there_is_not_is_not_found(board: TestClient) -> None:
    assert "no ranking" in page(board, "/?taxonomy=none", 404).text


# ------------------------------------------------------------------------------------------------ supplier


def test_the_supplier_page_tells_all_of_it(board: TestClient) -> None:
    text = page(board, links.supplier(GOOD)).text
    for said in (
        "rank, 95 %",
        "granite",
        "Attempts by hour",
        "answers like 1 other",
        "2 members",
        "its scores fell",
    ):
        assert said in text, said
    good = board.get(links.supplier(GOOD)).text
    assert "Price of a million tokens: prompts 1.50, completions 6.00." in good
    assert "Per 1,000 right" in good and good.count("<td>0.00252</td>") == 2, "of 30 docs of each task"
    assert "Per 1,000 right" not in board.get(links.supplier(BAD)).text
    bad = page(board, links.supplier(BAD)).text
    states, by_hour = bad.split("Attempts by hour", 1)
    assert states.count("supplier_refused 6") == 2, "docs of each task"
    assert sum(int(n) for n in re.findall(r"supplier_refused (\d+)", by_hour)) == 2 * 6 * 3, "each attempt"


def test_history_is_drawn_and_stands_in_a_table(board: TestClient) -> None:
    elements = page(board, links.history(GOOD, {"task": LOGIC}))
    assert elements.count("svg") == 1 and elements.count("polyline") == 1 and elements.count("polygon") == 1
    for day in ("2026-02-27", "2026-02-28", "2026-03-01"):
        assert day in elements.text
    assert "its scores fell" in elements.text
    assert page(board, links.history(GOOD, {"task": "unknown"}), 404)


# ------------------------------------------------------------------------------------------------ service


def test_the_page_of_a_supplier_shows_its_speed_and_uptime(board: TestClient, tame: Workspace) -> None:
    rows = {row.workload: row for row in recent_service(tame, NOW, [GOOD])}
    elements = page(board, links.supplier(GOOD))
    own = elements.text.split(" Service ", 1)[1].split(" Tasks ", 1)[0]
    assert "100.0 %" in own and "101/101" in own
    for workload in ("short", "1k"):
        row = rows[workload]
        assert f"{workload} {row.n}/{row.n} {row.ttft_ms['p50']:.0f} ms {row.ttft_ms['p90']:.0f} ms" in own
    assert "context 1/1 – –" in own, "of one probe no median is told"
    assert "Longest prompt read to its end: 32,000 of 32,000 tokens, it claims 35,000." in own
    assert "context: tokens of 100.0 % of the answers are estimated." in own
    dots = [given for tag, given in elements.tags if tag == "circle" and given.get("cy") == "9"]
    assert len(dots) >= 6, "three medians of two workloads, each on its interval"
    text = page(board, links.supplier(BAD)).text
    assert "answered in part rate limited" not in text and "8/15" in text
    assert "Service" not in page(board, links.supplier(HALF)).text.replace("service external", "")


def test_hours_are_drawn_by_state(board: TestClient) -> None:
    elements = page(board, links.supplier(BAD))
    kinds = [given["class"] for tag, given in elements.tags if tag == "rect"]
    assert kinds.count("supplier") >= 2 and {"network", "ours", "answered"} <= set(kinds)


def test_every_day_of_the_service_stands_in_a_table(board: TestClient) -> None:
    elements = page(board, links.service(GOOD))
    assert elements.count("polyline") == 4, "first token and speed of two workloads"
    for day in ("2026-02-27", "2026-02-28", "2026-03-01"):
        assert f"{day} short" in elements.text and f"{day} all" in elements.text
    bad = page(board, links.service(BAD)).text
    assert "rate_limited 1" in bad and "unavailable 4" in bad
    assert "It was not probed in this period." in page(board, links.service(HALF)).text
    assert page(board, links.service(GOOD, since="never"), 400)
    assert page(board, links.service("nobody@x"), 404)


def test_the_leaderboard_has_columns_of_service(board: TestClient) -> None:
    heads = page(board, "/").text
    assert "First token" in heads and "Tokens/s" in heads and "Uptime" in heads


# ------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize(
    ("key", "kind", "docs"),
    [
        (HALF, "right", list(range(1, DOCS, 2))),
        (HALF, "wrong", list(range(0, DOCS, 2))),
        (BAD, "failed", list(range(0, DOCS, 5))),
        (BAD, "truncated", list(range(1, DOCS, 5))),
        (GOOD, "wrong", []),
    ],
)
def test_chips_choose_answers_and_count_them(board: TestClient, key: str, kind: str, docs: list[int]) -> None:
    found = board.get(links.answers(key, LOGIC, kind=kind)).text
    assert [int(n) for n in re.findall(r"<h2>doc (\d+)</h2>", found)] == docs[:20]
    assert f"{kind} <span>{len(docs)}</span>" in found


def test_pages_of_answers_follow_each_other_without_a_gap(board: TestClient) -> None:
    seen: list[int] = []
    path: str | None = links.answers(GOOD, LOGIC)
    while path:
        found = board.get(path).text
        seen += [int(n) for n in re.findall(r"<h2>doc (\d+)</h2>", found)]
        following = re.search(r'rel="next" href="([^"]+)"', found)
        path = html.unescape(following[1]) if following else None
        assert len(seen) <= DOCS
    assert seen == list(range(DOCS))


def test_a_text_is_searched_for(board: TestClient) -> None:
    found = board.get(links.answers(GOOD, LOGIC, q="question 7:")).text
    assert re.findall(r"<h2>doc (\d+)</h2>", found) == ["7"]
    assert "No answer of this kind" in board.get(links.answers(GOOD, LOGIC, q="nowhere")).text


def test_a_long_search_is_gone_on_with_from_where_it_came_to(
    board: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_page, "SEARCH", SearchBound(docs=12, seconds=60.0))
    monkeypatch.setattr(read_answers, "TOGETHER", 12)
    path: str | None = links.answers(GOOD, LOGIC, kind="right", q="question 29:")
    told = []
    while path is not None:
        text = board.get(path).text
        told.append(
            re.findall(r"None of the 12 answers|18 answers are left|6 answers are left|<h2>doc 29</h2>", text)
        )
        further = re.search(r'rel="next" href="([^"]+)">Search further', text)
        path = html.unescape(further[1]) if further else None
        if path is not None:
            assert "q=question+29" in path and "kind=right" in path and "after=" in path
    assert told == [
        ["None of the 12 answers", "18 answers are left"],
        ["None of the 12 answers", "6 answers are left"],
        ["<h2>doc 29</h2>"],
    ]


def test_an_answer_shows_prompt_attempts_and_evidence(board: TestClient) -> None:
    elements = page(board, links.answer(BAD, LOGIC, 0))
    text = elements.text
    assert "Question 0: What is the answer?" in text and "refused: What is the answer?" in text
    assert text.count("raw body") == 3, "each attempt at the doc that failed"
    assert "testbench evidence --supplier bad@external --task logic --doc 0" in text
    right = page(board, links.answer(GOOD, LOGIC, 1)).text
    for said in ("thought What", "answer What", "took What", "target What", "120 ms"):
        assert said in right, said
    assert page(board, links.answer(GOOD, LOGIC, 999), 404)


def test_raw_bodies_are_files_of_plain_text(board: TestClient, tame: Workspace) -> None:
    [attempt] = typed.find(tame.documents, AttemptId, {"supplier": GOOD, "task": LOGIC, "doc_id": 1})
    found = board.get(links.raw(attempt.id))
    assert found.headers["Content-Type"].startswith("text/plain")
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Content-Disposition"].startswith("attachment;")
    assert json.loads(found.content)["choices"][0]["message"]["content"].startswith("answer ")
    assert page(board, links.raw("none"), 404)


def test_a_doc_says_what_everybody_said_as_a_page_and_as_json(board: TestClient) -> None:
    text = page(board, links.doc(LOGIC, 1)).text
    assert "4 suppliers" in text and all(key in text for key in (GOOD, HALF, TWIN, BAD))
    found = board.get(f"{links.doc(LOGIC, 1)}.json")
    assert found.headers["Content-Type"] == "application/json"
    told = found.json()
    assert (told["task"], told["doc_id"], told["next"]) == (LOGIC, 1, None)
    assert {a["supplier"]: a["kind"] for a in told["answers"]} == {
        GOOD: "right", HALF: "right", TWIN: "right", BAD: "wrong"
    }  # fmt: skip
    assert told["requests"][0]["messages"][0]["content"] == "Question 1: What is the answer?"


def test_five_wrong_answers_are_three_clicks_away(board: TestClient) -> None:
    path = "/"
    for click in (r'href="(/supplier/bad@external)"', r'href="(/supplier/bad@external/task/logic)"',
                  r'href="([^"]+kind=wrong)"'):  # fmt: skip
        found = re.search(click, board.get(path).text)
        assert found is not None, click
        path = html.unescape(found[1])
    assert board.get(path).text.count('<article class="answer wrong">') >= 5


# ------------------------------------------------------------------------------------------------ compare


def test_the_best_of_a_model_at_a_task_is_three_clicks_away(board: TestClient) -> None:
    assert links.task(LOGIC) in page(board, "/catalog").values("href")
    of_the_model = f"{links.task(LOGIC, model='granite')}#suppliers"
    assert of_the_model in page(board, links.task(LOGIC)).values("href")
    found = page(board, of_the_model.partition("#")[0])
    assert "best first" in found.text
    shown = {key for key in (GOOD, HALF, TWIN, BAD) if links.answers(key, LOGIC) in found.values("href")}
    assert shown == {GOOD, TWIN}


def test_two_suppliers_are_compared_per_task_and_per_doc(board: TestClient) -> None:
    text = page(board, links.compare(a=GOOD, b=HALF)).text
    assert "A better verdict" in text or "verdict A better" in text
    found = board.get(links.compare(a=GOOD, b=HALF, task=LOGIC, kind="different")).text
    assert [int(n) for n in re.findall(r">doc (\d+)</a></h2>", found)] == list(range(0, DOCS, 2))[:10]
    assert "A better <span>15</span>" in found and "B better <span>0</span>" in found
    assert "same <span>15</span>" in found
    assert "choose two suppliers" in page(board, links.compare(a=GOOD, b=GOOD)).text
    assert page(board, links.compare(a=GOOD, b="nobody"), 404)


def test_the_page_of_a_supplier_shows_it_against_the_reference(board: TestClient) -> None:
    found = page(board, links.supplier(HALF))
    text = found.text.partition("Against the reference")[2]
    assert text.startswith(" as the reference no difference, -0.600 to -0.400 -0.500 common docs 1,230"), text
    assert "trigger F1, 0.800–0.880 0.840 calls that fit; the reference's 91" in text
    assert "scores differ from the reference: " in text and "620 of 1,240 docs" in text
    assert "4 docs that the reference answered; they count as wrong" in text
    assert links.compare(a=HALF, b=GOOD) in found.values("href")
    assert "Against the reference" not in page(board, links.supplier(GOOD)).text
    both = page(board, links.compare(a=GOOD, b=HALF)).text
    assert "as the reference of its model: no . scores differ from the reference" in both
    (link,) = [
        h for h in page(board, links.compare(a=HALF, b=TWIN)).values("href") if f"b={quote(GOOD)}" in h
    ]
    assert link == links.compare(a=HALF, b=GOOD)


def test_suspicions_stand_on_the_pages_of_both_and_of_their_group(board: TestClient) -> None:
    for page in (links.supplier(GOOD), links.supplier(TWIN), "/?group=g-What+is+the+answer%3F"):
        shown = Elements(board.get(page).text).text
        assert "it got slower and faster with another" in shown, page
        assert "no score, rank or group follows from it" in shown
        assert "evidence 21.3 nats, told from 13.8" in shown
    for page in (links.supplier(HALF), links.supplier(BAD), "/"):
        assert "Suspicions" not in board.get(page).text, page


def test_changes_are_paged_newest_first(board: TestClient) -> None:
    first = board.get("/changes").text
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following
    second = board.get(html.unescape(following[1])).text
    assert (first.count('<td class="prose">'), second.count('<td class="prose">')) == (50, 10)


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "key", ["a/b@x", "50%@x", "a/task/b@x", "a:b@c", "..@x", "a?b#c@x", "%2F@x", "é ü@x"]
)
def test_keys_of_any_kind_have_an_address(tmp_path: Path, key: str) -> None:
    names = Names(suppliers=(key, "half@external", "twin@external", "bad@external"))
    with filled(tmp_path, names) as workspace, client(workspace) as found:
        [path] = {
            address
            for address in Elements(found.get("/").text).values("href")
            if address.startswith("/supplier/")
            and address not in {links.supplier(k) for k in names.suppliers[1:]}
        }
        assert path == links.supplier(key)
        assert f"<bdi>{html.escape(key)}</bdi>" in found.get(path).text.replace("&#39;", "&#x27;")
        answers = found.get(links.answers(key, LOGIC, kind="right"))
        assert answers.status_code == 200 and "doc 0" in answers.text
        assert found.get(links.answer(key, LOGIC, 3)).status_code == 200
    assert quote(key, safe="@:") in path or set(key) <= set(".@x")


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/supplier/good@external", "/nothing"])
def test_only_reading_is_possible(board: TestClient, method: str, path: str) -> None:
    found = board.request(method, path)
    assert found.status_code == 405
    assert found.headers["Content-Security-Policy"] == POLICY
    assert set(found.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}


def test_head_is_get_without_a_body(board: TestClient) -> None:
    got, head = board.get("/catalog"), board.head("/catalog")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_other_names_are_refused_on_the_loopback_interface(board: TestClient) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example"):
        found = board.get("/", headers={"Host": f"{name}:3001"})
        assert found.status_code == 421 and GOOD not in found.text
    for name in ("localhost:3001", "127.0.0.1", "[::1]:3001"):
        assert board.get("/", headers={"Host": name}).status_code == 200
    assert allowed_hosts("0.0.0.0") is None
    assert "board.example" in (allowed_hosts("127.0.0.1", ["Board.Example"]) or ())


def test_without_answers_no_page_shows_any(tame: Workspace) -> None:
    [attempt] = typed.find(tame.documents, AttemptId, {"supplier": GOOD, "task": LOGIC, "doc_id": 1})
    hidden = {
        "answers",
        "wrong",
        "failed",
        "search",
        "answer",
        "failed answer",
        "doc",
        "doc by doc",
        "different docs",
    }
    with client(tame, with_answers=False) as found:
        for name, path in pages(Names()).items():
            answer = found.get(path)
            assert (answer.status_code == 403) == (name in hidden), name
            for secret in ("Question", "thought", "took", "target What", "refused: What"):
                assert secret not in answer.text, (name, secret)
            for address in Elements(answer.text).values("href"):
                assert found.get(address.partition("#")[0]).status_code != 403, (name, address)
        for path in (f"{links.doc(LOGIC, 1)}.json", links.raw(attempt.id)):
            assert found.get(path).status_code == 403
        assert "--no-answers" in found.get(links.doc(LOGIC, 1)).text


def fingerprint(workspace: Workspace) -> str:
    digest = hashlib.sha256()
    for record in RECORDS:
        for document in sorted(typed.whole(workspace.documents, record), key=lambda d: str(d["_id"])):
            digest.update(repr(sorted(document.items(), key=str)).encode("utf-8", "surrogatepass"))
    digest.update(repr(workspace.datasets.tasks()).encode())
    return digest.hexdigest()


def test_no_page_writes(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        with client(workspace) as found:
            before = fingerprint(workspace)
            home = workspace.config.home
            sizes = {p: p.stat().st_size for p in home.rglob("*") if p.is_file() and "-shm" not in p.name}
            for path in pages(Names()).values():
                found.get(path)
            assert fingerprint(workspace) == before
            after = {p: p.stat().st_size for p in home.rglob("*") if p.is_file() and "-shm" not in p.name}
        assert after == sizes


# ---------------------------------------------------------------------------------------------- empty, broken


def test_an_empty_installation_says_what_to_run(tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text(
        "suppliers: [{address: a, base_url: 'http://127.0.0.1:9/v1', model: m}]\n"
        "tasks: [{name: starter_logic}]\n",
        encoding="utf-8",
    )
    with Workspace(load_config(path)) as workspace, client(workspace) as found:
        text = page(found, "/").text
        assert "no leaderboard yet" in text and "testbench run" in text and "a@external" in text
        for address in ("/catalog", "/changes", "/compare", "/supplier/a@external", "/task/starter_logic"):
            assert found.get(address).status_code == 200, address
        assert "Service" not in page(found, "/supplier/a@external").text.replace("service external", "")
        assert "Nothing was asked yet" in page(found, links.answers("a@external", "starter_logic")).text
        assert found.get("/doc/starter_logic/1").status_code == 404
        assert found.get("/task/unknown").status_code == 404


def test_an_error_of_the_stores_is_told_in_a_sentence(tmp_path: Path) -> None:
    workspace = filled(tmp_path)
    with client(workspace) as found:
        workspace.documents.close()
        answer = found.get("/changes")
        assert answer.status_code == 503 and "the store is closed" in answer.text
        assert "Traceback" not in answer.text
    workspace.close()


@pytest.mark.slow
def test_the_same_pages_stand_on_mongodb(
    tmp_path: Path, mongo_database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBENCH_MONGO_URI", mongo_database_uri)
    with filled(tmp_path) as workspace, client(workspace) as found:
        for name, path in pages(Names()).items():
            expected = 404 if name in ("not found", "unknown supplier") else 200
            assert found.get(path).status_code == expected, name
        before = fingerprint(workspace)
        found.get(links.supplier(BAD))
        assert fingerprint(workspace) == before
