"""Suppliers compared with the reference of their model, from stored answers and scores, on both stores."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.stages.discover.roster import active_suppliers, cut_windows, refresh_roster
from testbench_dagster.stages.identify import references
from testbench_dagster.stages.identify.identify import refresh_identity
from testbench_dagster.stages.identify.references import (
    as_reference,
    drawn_by_both,
    reference_remarks,
    refresh_references,
)
from testbench_dagster.stages.publish.export import write_references
from testbench_dagster.stages.trusted import references_of
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, PLANS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, answer, key
from testbench_dagster_tests.stages.identify.town import LOGIC, MINUTE, TASKS, UNITS, Town
from testbench_dagster_tests.stages.score.facts import Facts

Open = Callable[..., Town]
#: Docs of each of two tasks.
DOCS = range(240)


@pytest.fixture
def town(open_installation: Callable[..., Workspace]) -> Open:
    def build(*suppliers: dict[str, Any], **blocks: Any) -> Town:
        tasks = [{**t, "samples": {"min": 240, "max": 240, "half_width": None}} for t in TASKS[:2]]
        blocks["sampling"] = {"window": 240}
        workspace = open_installation(*suppliers, tasks=[*tasks, *TASKS[2:]], **blocks)
        refresh_roster(workspace)
        return Town(workspace)

    return build


def supplier(name: str, **changes: Any) -> dict[str, Any]:
    return {"address": name, "model": "m", **changes}


def test_who_is_alike_who_differs_and_who_is_not_known_yet(town: Open) -> None:
    place = town(
        supplier("maker", reference=True),
        supplier("twin"),
        supplier("worse"),
        supplier("newcomer"),
        supplier("stranger", model="another"),
    )
    for name in ("maker", "twin", "stranger"):
        place.probes(name, "a")
        place.docs(name, DOCS)
    place.probes("worse", "a")
    place.docs("worse", DOCS, right=lambda task, doc: doc % 5 not in (0, 1))
    place.docs("newcomer", range(10))
    found = {one.id: one for one in refresh_references(place.workspace, now=NOW)}
    assert {name: one.as_reference for name, one in found.items()} == {
        key("twin"): "yes",
        key("worse"): "no",
        key("newcomer"): "not yet known",
    }
    twin, worse = found[key("twin")], found[key("worse")]
    assert (twin.reference, twin.model, twin.n_docs, twin.difference) == (key("maker"), "m", 480, 0.0)
    assert worse.difference == pytest.approx(-0.2)
    assert worse.difference_low < -0.2 < worse.difference_high < 0
    assert worse.finding.startswith("scores differ from the reference: -20.0 points")
    assert as_reference(place.workspace) == {
        **{name: one.as_reference for name, one in found.items()},
        key("maker"): "reference",
    }


def test_verdicts_have_one_row_each_in_python_and_in_parquet(town: Open, tmp_path: Path) -> None:
    place = town(supplier("maker", reference=True), supplier("one"), supplier("two", model="m"))
    place.docs("maker", range(80))
    place.docs("one", range(80))
    place.docs("two", range(80), right=lambda task, doc: False)
    refresh_references(place.workspace, now=NOW)
    testbench = Testbench(place.workspace)
    table = testbench.references()
    assert list(table.columns) == list(table.rows[0]) and table.columns["compared_at"] is datetime
    assert [(row["supplier"], row["as_reference"]) for row in table.rows] == [
        (key("two"), "no"),
        (key("one"), "not yet known"),
    ]
    assert table.to_pandas()["compared_at"][0] == NOW
    assert [row["supplier"] for row in testbench.references([key("one")]).rows] == [key("one")]
    path = tmp_path / "references.parquet"
    assert write_references(path, place.workspace) == 2
    (two, _) = pq.read_table(path).to_pylist()
    assert (two["reference"], two["difference"], two["compared_at"]) == (
        key("maker"),
        pytest.approx(-0.8),
        NOW,
    )
    shown = testbench.supplier(key("two")).to_json()["reference"]
    assert shown["finding"] == table.rows[0]["finding"]


def test_only_what_was_evaluated_is_compared_anew_and_who_has_no_reference_is_forgotten(town: Open) -> None:
    place = town(supplier("maker", reference=True), supplier("one"), supplier("two"))
    assert {one.id for one in refresh_references(place.workspace, [key("one")])} == {key("one")}
    assert {one.id for one in refresh_references(place.workspace, [key("maker")])} == {key("one"), key("two")}
    typed.upsert(
        place.workspace.documents,
        ReferenceRecord,
        [
            ReferenceRecord(**{**vars_of(one), "id": key("gone")})
            for one in typed.find(place.workspace.documents, ReferenceRecord, {"_id": key("one")})
        ],
    )
    assert key("gone") in as_reference(place.workspace)
    refresh_references(place.workspace, [])
    assert key("gone") not in as_reference(place.workspace)


def vars_of(record: ReferenceRecord) -> dict[str, Any]:
    return {f.attribute: getattr(record, f.attribute) for f in ReferenceRecord.fields}


def test_other_names_of_a_model_are_patterns(town: Open) -> None:
    place = town(
        supplier("maker", model="maker-70b", reference=["*/maker-70b*", "maker-70b"]),
        supplier("a", model="hosted/maker-70b-fp8"),
        supplier("b", model="maker-70b"),
        supplier("c", model="maker-7b"),
    )
    found = references_of(place.workspace, active_suppliers(place.workspace))
    assert {name: one.key for name, one in found.items()} == {
        key("a"): key("maker"),
        key("b"): key("maker"),
    }


def test_without_a_reference_nothing_is_compared(town: Open) -> None:
    place = town(supplier("one"), supplier("two"))
    assert refresh_references(place.workspace) == [] and as_reference(place.workspace) == {}


@pytest.mark.parametrize("said", [7, [""], {"model": "m"}])
def test_what_is_no_reference_is_refused(open_installation: Callable[..., Workspace], said: object) -> None:
    with pytest.raises(ConfigError, match="reference"):
        open_installation(supplier("maker", reference=said))


def said(place: Town) -> dict[str, ReferenceRecord]:
    return {one.id.partition("@")[0]: one for one in refresh_references(place.workspace, now=NOW)}


@pytest.mark.slow
def test_nobody_passes_by_copying_a_part(town: Open) -> None:
    """Attempts at a `yes` that is none: each is like the reference in what is looked at first."""
    names = ("opener", "turncoat", "patchwork", "silent", "router")
    place = town(supplier("maker", reference=True), *map(supplier, names))
    for name in ("maker", *names):
        place.probes(name, "a")
    place.docs("maker", DOCS)
    # answers begin alike and are as good, but are others
    place.docs("opener", DOCS, text="model b")
    # the newest docs are answered otherwise, and as well
    place.docs("turncoat", DOCS[:210])
    place.docs("turncoat", DOCS[210:], NOW - 40 * HOUR, text="model b")
    # much better in one task, as much worse in the other: nothing on the whole
    place.docs("patchwork", DOCS, tasks=[LOGIC], right=lambda task, doc: doc % 10 != 0)
    place.docs("patchwork", DOCS, tasks=[UNITS], right=lambda task, doc: doc % 10 not in (0, 1, 5))
    # no answer to what the reference gets wrong, which costs no point
    place.docs("silent", [doc for doc in DOCS if doc % 5], tasks=[LOGIC])
    place.docs("silent", DOCS, tasks=[UNITS])
    for number, doc in enumerate(DOCS[::5]):
        Facts(place.workspace).fail(
            place.tasks[LOGIC], doc, at=NOW - 49 * HOUR + number * MINUTE, supplier=key("silent")
        )
    # a third of one task goes elsewhere, where answers are others and as good
    place.docs("router", [doc for doc in DOCS if doc % 3])
    place.docs("router", DOCS[::3], tasks=[LOGIC], text="model b")
    place.docs("router", DOCS[::3], tasks=[UNITS])
    found = said(place)
    assert {name: one.as_reference for name, one in found.items()} == {
        "opener": "not yet known",
        "turncoat": "not yet known",
        "patchwork": "no",
        "silent": "not yet known",
        "router": "not yet known",
    }
    assert found["turncoat"].finding.count("0 of 30 of the newest docs") == 1
    assert found["patchwork"].difference == pytest.approx(0.0)
    assert "scores differ from the reference in starter_" in found["patchwork"].finding
    assert (found["silent"].difference, found["silent"].n_unanswered) == (0.0, 48)
    assert "too many docs have no answer" in found["silent"].finding
    assert found["silent"].n_whole - found["silent"].n_equal == 48


def noisy_probes(place: Town, name: str, backend: str, draws: int, seed: int) -> None:
    """Sixty prompts asked several times of who answers each time by one of three beginnings, or of two."""
    rng = random.Random(seed)
    for draw in range(draws):
        for prompt in range(60):
            answer(
                place.workspace,
                name,
                [prompt],
                f"{backend}{rng.choice([0, 1, 2])}",
                NOW - (90 - 10 * draw) * HOUR + prompt * MINUTE,
                round_=draw + 1,
            )


@pytest.mark.slow
def test_the_honest_are_not_told_to_differ(town: Open) -> None:
    """Attempts at a `no` that is none: an outage of the reference, heat, silence that is not over."""
    names = ("hot", "slow", "other_form")
    place = town(
        supplier("maker", reference=True),
        *(supplier(name, api="completions" if name == "other_form" else "chat") for name in names),
    )
    place.probes("maker", "a")
    place.docs("maker", DOCS[:200])
    facts = Facts(place.workspace)
    # the reference is out of order at 40 docs of each task, which the others answer well
    for number, doc in enumerate(DOCS[200:]):
        for task in place.tasks.values():
            facts.fail(task, doc, at=NOW - 40 * HOUR + number * MINUTE, supplier=key("maker"))
    for name in ("hot", "slow", "other_form"):
        place.docs(name, DOCS if name != "slow" else [doc for doc in DOCS if doc % 40 != 39])
    # each draws its answers, the reference does not
    noisy_probes(place, "hot", "a", 3, 1)
    place.probes("slow", "a")
    for doc in DOCS[39::40]:
        facts.attempt(place.tasks[LOGIC], doc, Fault.SUPPLIER_REFUSED, NOW - MINUTE, supplier=key("slow"))
    place.probes("other_form", "b")
    found = said(place)
    assert {name: one.as_reference for name, one in found.items()} == dict.fromkeys(names, "not yet known")
    assert found["hot"].n_docs == 400, "docs that the reference left unanswered are none"
    assert found["hot"].finding.split("; ")[1] == "it does not repeat itself, so answers say little"
    assert found["other_form"].finding.startswith("not comparable: it is asked by completions")


@pytest.mark.slow
def test_who_draws_answers_is_told_to_differ_from_one_that_draws_others(town: Open) -> None:
    names = ("same", "another")
    place = town(supplier("maker", reference=True), *map(supplier, names))
    for seed, (name, backend) in enumerate((("maker", "a"), ("same", "a"), ("another", "b"))):
        noisy_probes(place, name, backend, 3, seed)
    found = said(place)
    assert {name: one.as_reference for name, one in found.items()} == {
        "same": "not yet known",
        "another": "no",
    }


@pytest.mark.slow
def test_after_a_change_of_the_reference_only_newer_answers_are_compared(town: Open) -> None:
    """The maker goes to a new model; who follows it was not asked again yet."""
    place = town(supplier("maker", reference=True), supplier("follower"))
    place.probes("follower", "a")
    place.docs("follower", DOCS)
    changed = NOW - 10 * HOUR
    cut_windows(place.workspace, key("maker"), changed, "its maker said so")
    place.probes("maker", "b", changed + HOUR)
    place.docs("maker", DOCS, changed + HOUR, text="model b", right=lambda task, doc: doc % 10 == 0)
    (before,) = said(place).values()
    assert (before.as_reference, before.n_docs, before.n_prompts, before.n_whole) == (
        "not yet known",
        0,
        0,
        0,
    )
    place.probes("follower", "b", changed + 2 * HOUR)
    place.docs(
        "follower", DOCS, changed + 2 * HOUR, text="model b", right=lambda task, doc: doc % 10 == 0, round_=2
    )
    (after,) = said(place).values()
    assert (after.as_reference, after.n_docs, after.difference) == ("yes", 480, 0.0)


def test_what_keeps_a_reference_from_being_one_is_told(town: Open) -> None:
    place = town(
        supplier("second", reference=True),
        supplier("first", reference=True),
        supplier("lonely", model="rare", reference=True),
        supplier("chatty"),
        supplier("raw", model="big", api="completions"),
        supplier("partial", model="big"),
        supplier("hot", model="big", generation={"temperature": 0.7}),
        supplier("maker", model="big", reference=True, tasks=[LOGIC, "identity"]),
    )
    told: dict[str, list[str]] = {}
    for name, remark in reference_remarks(place.workspace):
        told.setdefault(name.partition("@")[0], []).append(remark)
    assert set(told) == {"first", "lonely", "raw", "partial", "hot"}
    assert told["first"][0].startswith(
        "it is a reference of 1 supplier, such as chatty@external, of which second@external is one too"
    )
    assert told["lonely"][0].startswith("nobody else names its model 'rare'")
    assert "asked by completions, the reference by chat" in told["raw"][0]
    assert told["partial"] == [
        "its reference maker@external is not asked 1 task that it is asked, such as starter_units: they take "
        "no part in the comparison"
    ]
    assert told["hot"][1].startswith("its generation settings are not those of its reference")
    # in the order of the configuration
    assert references_of(place.workspace, active_suppliers(place.workspace))[key("chatty")].key == key(
        "second"
    )


def test_a_reference_stands_for_its_group_while_it_answers(town: Open) -> None:
    """So members are asked docs that it is asked, and each of their relays is one to compare the two on."""
    place = town(supplier("one"), supplier("maker", reference=True), supplier("two"))
    for name in ("maker", "one", "two"):
        place.probes(name, "a")
        place.docs(name, range(30))
    documents = place.workspace.documents
    for _ in range(3):  # whoever is drawn by lot otherwise
        refresh_identity(place.workspace, now=NOW)
        placed = {one["_id"]: one for one in documents.find(IDENTITY_GROUPS)}
        assert {one["proxy"] for one in placed.values()} == {key("maker")}
        assert {one["rotates_at"] for one in placed.values()} == {None}, "nobody else's turn comes"
    failed = {"_id": key("maker"), "service": "external", "planned_at": NOW, "failures": 3, "due_calls": 0}
    documents.upsert(PLANS, [failed])
    refresh_identity(place.workspace, now=NOW)
    (placed_again,) = documents.find(IDENTITY_GROUPS, {"_id": key("maker")})
    assert placed_again["proxy"] in (key("one"), key("two")), "who does not answer stands for nobody"


def test_verdicts_are_the_same_one_by_one_and_together(town: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked out of many suppliers at once is what would be of each alone."""
    names = [f"s{number}" for number in range(7)]
    place = town(supplier("maker", reference=True), *map(supplier, names))
    for number, name in enumerate(["maker", *names]):
        place.probes(name, "a" if number < 5 else "b")
        place.docs(
            name,
            DOCS[: 60 + 20 * number],
            text="model a" if number % 3 else "model b",
            right=lambda task, doc, number=number: doc % (3 + number) != 0,
        )
    together = refresh_references(place.workspace, now=NOW)
    monkeypatch.setattr(references, "_TOGETHER", 1)
    alone = refresh_references(place.workspace, now=NOW)
    assert [vars_of(one) for one in together] == [vars_of(one) for one in alone]
    assert len({one.difference for one in alone}) > 4, "each is another"


def test_draws_are_taken_in_the_order_in_which_both_have_them() -> None:
    def at(*texts: str, start: int = 0) -> list[tuple[datetime, str]]:
        return [(NOW + (start + number) * HOUR, text) for number, text in enumerate(texts)]

    ours = {("t", "1"): at("a", "b", "c"), ("t", "2"): at("d", "e"), ("t", "3"): at("f")}
    theirs = {
        ("t", "1"): at("A", "B", "C", start=5),
        ("t", "2"): at("D", "E", "F"),
        ("t", "3"): at("G", "H"),
    }
    found = drawn_by_both(ours, theirs)
    assert found.first[2] == [(["d", "e"], ["D", "E"]), (["a", "b"], ["A", "B"])]
    assert found.first[4] == found.first[8] == []
    assert found.parts == {"in t": [(["a", "b", "c"], ["A", "B", "C"]), (["d", "e"], ["D", "E", "F"])]}, (
        "too few for newest ones"
    )


def noisy(place: Town, name: str, seed: int, said: Callable[[int, int], str]) -> None:
    """Sixty prompts asked eight times: nine of ten times the first of two beginnings."""
    rng = random.Random(seed)
    for draw in range(8):
        for prompt in range(60):
            backend = f"{said(draw, prompt)}{int(rng.random() < 0.1)}"
            start = NOW - (90 - 10 * draw) * HOUR + prompt * MINUTE
            answer(place.workspace, name, [prompt], backend, start, round_=draw + 1)


@pytest.mark.slow
def test_two_that_draw_alike_are_a_yes_and_no_imitation_is(town: Open) -> None:
    """The reference draws its answers: who is like it, and four that try to look so."""
    names = ("twin", "router", "prefixes", "turncoat", "worse")
    place = town(supplier("maker", reference=True), *map(supplier, names))
    coin = random.Random(5)
    says: dict[str, Callable[[int, int], str]] = {
        "router": lambda draw, prompt: "ab"[coin.random() < 0.4],
        "turncoat": lambda draw, prompt: "ab"[draw >= 6],
    }
    for seed, name in enumerate(("maker", *names)):
        noisy(place, name, seed, says.get(name, lambda draw, prompt: "a"))
        place.docs(
            name,
            DOCS,
            text="model b" if name == "prefixes" else "model a",
            right=lambda task, doc, name=name: doc % 5 != 0 and (name != "worse" or doc % 7 != 0),
        )
    found = said(place)
    verdicts = {name: one.as_reference for name, one in found.items()}
    assert verdicts["twin"] == "yes" and "alike beyond doubt" in found["twin"].finding, found["twin"].finding
    assert verdicts["worse"] == "no"
    assert {verdicts[name] for name in ("router", "prefixes", "turncoat")}.isdisjoint({"yes"})
    assert "whole answers were drawn too seldom, or are others" in found["prefixes"].finding


@pytest.mark.slow
def test_published_answers_of_the_reference_make_no_yes(town: Open) -> None:
    """Two that look up what the reference answered to the docs of the last epoch: of half, and of most."""
    names = ("half", "most")
    place = town(supplier("maker", reference=True), *map(supplier, names))
    for name in ("maker", *names):
        place.probes(name, "a")
    place.docs("maker", DOCS)
    for name, known in (("half", 120), ("most", 205)):
        place.docs(name, DOCS[:known])
        place.docs(name, DOCS[known:], NOW - 40 * HOUR, text="model b")
    found = said(place)
    assert {one.as_reference for one in found.values()} == {"not yet known"}
    assert "of the newest docs" in found["most"].finding
