"""Public questions beside fresh ones, from stored answers: what counts, who is judged, what is kept."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.pairs import is_public, paired_order
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.stages.discover.roster import cut_windows, refresh_roster
from testbench_dagster.stages.identify.public_gaps import (
    BETTER,
    first_outcomes,
    newest_gaps,
    public_gaps,
    refresh_public_gaps,
)
from testbench_dagster.stages.rank import leaderboard
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, key
from testbench_dagster_tests.stages.score.facts import Facts

TASK = "twins_starter"
PAIRS = 80
#: With it chance makes fresh questions no harder for the honest than public ones, as far as a verdict takes.
_SALT = 26
PARROT = "parrot"
HONEST = tuple(f"honest{n}" for n in range(7))
_FAULT = Fault.SUPPLIER_HTTP
Open = Callable[..., "Town"]
ON_SQLITE = pytest.mark.parametrize("open_installation", ["sqlite"], indirect=True)


class _Held:
    """Documents that are written together: one by one they take a minute."""

    def __init__(self) -> None:
        self.held: dict[Any, list[Any]] = {}

    def put_new(self, collection: Any, documents: Iterable[Any]) -> int:
        new = list(documents)
        self.held.setdefault(collection.name, [collection, []])[1].extend(new)
        return len(new)

    def write(self, workspace: Workspace) -> None:
        for collection, documents in self.held.values():
            assert workspace.documents.put_new(collection, documents) == len(documents)
        self.held.clear()


class Town:
    """An installation whose suppliers were asked pairs."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.facts = workspace, Facts(workspace)
        plain = self.facts.registration(
            TASK, n_docs=2 * PAIRS, metrics={"exact": "mean"}, filters=("flexible",)
        )
        flags = replace(plain.flags, pairs=True, questions_of_epoch=True)
        self.registration = replace(plain, flags=flags, task_hash="of twins", framework="twins")
        docs = list(workspace.datasets.docs(plain.task_hash))
        workspace.datasets.register(self.registration, docs, [])
        stored = workspace.datasets.current(TASK)
        assert stored is not None and stored.flags.pairs
        self.registration = stored

    def epoch(self, number: int) -> EpochRecord:
        """Start an epoch, a day long."""
        seed = f"seed {number}"
        record = EpochRecord(
            id=document_id("epoch", TASK, number),
            task=TASK,
            epoch=number,
            started_at=self.start(number),
            seed=seed,
            seed_sha256=hashlib.sha256(seed.encode()).hexdigest(),
        )
        typed.put_new(self.workspace.documents, EpochRecord, [record])
        return record

    @staticmethod
    def start(number: int) -> Any:
        return NOW - 240 * HOUR + number * 24 * HOUR

    def answer(
        self,
        name: str,
        epoch: int,
        *,
        share: float = 0.7,
        memorised: float = 0.0,
        docs: Iterable[int] | None = None,
        failing: Callable[[int, bool], bool] = lambda doc, public: False,
        round_: int = 1,
    ) -> None:
        """Answers to the docs of an epoch, right by chance; ``failing`` docs are left unanswered for good."""
        chance, seed = random.Random(f"{name} {epoch} {round_} {_SALT}"), f"seed {epoch}"
        held = _Held()
        facts = Facts(SimpleNamespace(documents=held))  # type: ignore[arg-type]
        at = self.start(epoch) + round_ * timedelta(minutes=30)
        for doc in sorted(range(2 * PAIRS) if docs is None else docs):
            public = is_public(seed, doc)
            right = chance.random() < share or (public and chance.random() < memorised)
            where = {"supplier": key(name), "epoch": epoch, "round_": round_}
            if failing(doc, public):
                prompt = f"{TASK}-{epoch}-{doc}"
                facts.fail(self.registration, doc, _FAULT, at + 3 * HOUR, prompt_id=prompt, **where)
            else:
                metrics = {"flexible": {"exact": float(right)}}
                facts.score(self.registration, doc, at=at, metrics=metrics, **where)
        held.write(self.workspace)

    def answered(self, *epochs: int, **parrots: Any) -> None:
        for epoch in epochs:
            self.epoch(epoch)
            for name in HONEST:
                self.answer(name, epoch)
            self.answer(PARROT, epoch, **{"memorised": 1.0, **parrots})

    def refresh(self) -> dict[tuple[str, int], PublicGapRecord]:
        found = refresh_public_gaps(self.workspace, NOW)
        return {(one.supplier.partition("@")[0], one.epoch): one for one in found}


@pytest.fixture
def town(open_installation: Callable[..., Workspace]) -> Open:
    def build(*names: str, n_docs: int = 2 * PAIRS, **blocks: Any) -> Town:
        task = {"name": TASK, "framework": "twins", "samples": {"max": n_docs, "half_width": None}}
        blocks = {"sampling": {"window": 2 * PAIRS}, **blocks}
        suppliers = ({"address": name} for name in names or (*HONEST, PARROT))
        workspace = open_installation(*suppliers, tasks=[task], **blocks)
        refresh_roster(workspace)
        return Town(workspace)

    return build


def better(found: dict[tuple[str, int], PublicGapRecord]) -> set[tuple[str, int]]:
    return {where for where, one in found.items() if one.verdict == "better"}


@pytest.mark.parametrize(
    "open_installation", ["sqlite", pytest.param("mongo", marks=pytest.mark.slow)], indirect=True
)
def test_who_knows_the_public_questions_is_better_in_each_epoch_and_flagged_in_the_second(town: Open) -> None:
    place = town()
    place.answered(1, 2)
    found = place.refresh()
    assert better(found) == {(PARROT, 1), (PARROT, 2)}
    assert {where for where, one in found.items() if one.flagged} == {(PARROT, 2)}
    told = found[PARROT, 2]
    assert (told.n_pairs, told.n_open, told.peers, told.final) == (PAIRS, 0, 7, True)
    assert told.both + told.public_only + told.fresh_only + told.neither == PAIRS
    assert told.public_share == 1.0 and told.fresh_share is not None and told.fresh_share < 0.85
    assert told.excess is not None and told.excess_low is not None and 0 < told.excess_low < told.excess
    assert told.excess_high is None and told.p is not None and told.p < 0.01
    assert told.peers_public_share is not None and abs(told.peers_public_share - 0.7) < 0.1
    assert told.finding.startswith(f"{BETTER}: 100% of public and ")
    assert "in 80 pairs" in told.finding and "beside 7 peers" in told.finding
    assert public_gaps(place.workspace)[key(PARROT)] == "better"
    assert "better" not in {said for who, said in public_gaps(place.workspace).items() if who != key(PARROT)}


@ON_SQLITE
def test_in_one_epoch_nobody_is_flagged(town: Open) -> None:
    place = town()
    place.answered(1)
    assert better(place.refresh()) == {(PARROT, 1)}
    assert public_gaps(place.workspace)[key(PARROT)] == "no verdict", "told is what two epochs say"
    assert not any(one.flagged for one in newest_gaps(place.workspace))


@ON_SQLITE
def test_one_supplier_alone_has_no_verdict(town: Open) -> None:
    place = town(PARROT)
    for epoch in (1, 2):
        place.epoch(epoch)
        place.answer(PARROT, epoch, memorised=1.0)
    found = place.refresh()
    assert {one.verdict for one in found.values()} == {"no verdict"}
    assert found[PARROT, 2].why == "0 peers of other groups answered pairs; it takes 5"
    assert found[PARROT, 2].public_share == 1.0, "what it answered is shown all the same"
    assert public_gaps(place.workspace) == {key(PARROT): "no verdict"}


@ON_SQLITE
def test_members_of_its_own_group_are_no_peers(town: Open) -> None:
    place = town()
    place.answered(1)
    members = sorted(key(name) for name in (PARROT, *HONEST[:3]))
    groups = [
        {"_id": one, "service": "external", "group": "g", "proxy": members[0], "role": "member",
         "members": members, "cut_at": None}
        for one in members
    ]  # fmt: skip
    place.workspace.documents.upsert(IDENTITY_GROUPS, groups)
    found = place.refresh()
    assert found[PARROT, 1].peers == 4 and found[PARROT, 1].verdict == "no verdict"
    assert found[HONEST[5], 1].peers == 4, "three others and the group, which counts once"


@ON_SQLITE
def test_whoever_fails_the_fresh_ones_is_found_as_if_it_had_answered_wrongly(town: Open) -> None:
    """It knows the public questions by heart, and leaves what it does not know unanswered."""
    place = town()
    place.answered(1, share=0.0, failing=lambda doc, public: not public)
    told = place.refresh()[PARROT, 1]
    assert (told.failed_public, told.failed_fresh, told.n_open) == (0, PAIRS, 0)
    assert (told.public_only, told.verdict) == (PAIRS, "better")


@pytest.mark.slow
@ON_SQLITE
def test_whoever_fails_now_and_then_is_not_accused(town: Open) -> None:
    """An outage falls on whatever is asked then: on halves of both kinds."""
    place = town()
    order = paired_order("seed 1", 2 * PAIRS)
    during = set(order[40:90])
    place.answered(1, memorised=0.0, failing=lambda doc, public: doc in during)
    told = place.refresh()[PARROT, 1]
    assert told.failed_public + told.failed_fresh == 50 and told.n_pairs == PAIRS
    assert told.verdict in ("not better", "no verdict")


@ON_SQLITE
def test_a_supplier_that_has_docs_open_waits_until_they_close_or_the_epoch_is_over(town: Open) -> None:
    place = town()
    place.epoch(1)
    for name in HONEST:
        place.answer(name, 1)
    fresh = [doc for doc in range(2 * PAIRS) if not is_public("seed 1", doc)]
    place.answer(PARROT, 1, memorised=1.0, docs=set(range(2 * PAIRS)) - set(fresh[:20]))
    for doc in fresh[:20]:  # asked once, in vain
        place.facts.attempt(
            place.registration, doc, _FAULT, place.start(1) + HOUR, supplier=key(PARROT),
            prompt_id=f"{TASK}-1-{doc}", lease=1,
        )  # fmt: skip
    told = place.refresh()[PARROT, 1]
    assert (told.verdict, told.n_open, told.n_pairs, told.final) == ("no verdict", 20, PAIRS - 20, False)
    assert told.why == "the epoch is not over, and 20 pairs wait"
    place.epoch(2)
    told = place.refresh()[PARROT, 1]
    assert (told.n_pairs, told.failed_fresh, told.final) == (PAIRS, 20, True), "open for good is failed"
    assert told.verdict == "better"


@pytest.mark.slow
@ON_SQLITE
def test_the_first_outcome_of_a_doc_counts(town: Open) -> None:
    """Whoever is asked again in an epoch may have learnt the fresh questions meanwhile."""
    place = town()
    place.answered(1)
    first = place.refresh()[PARROT, 1]
    place.answer(PARROT, 1, share=1.0, round_=2)
    typed.purge(place.workspace.documents, PublicGapRecord, {"task": TASK})
    again = place.refresh()[PARROT, 1]
    assert (again.public_only, again.fresh_only) == (first.public_only, first.fresh_only)
    assert first_outcomes([], over=True) == {}


@ON_SQLITE
def test_only_what_was_answered_after_a_change_of_the_model_counts(town: Open) -> None:
    place = town()
    place.answered(1)
    place.refresh()
    cut_windows(place.workspace, key(PARROT), place.start(1) + 2 * HOUR, "another model")
    found = place.refresh()
    assert (PARROT, 1) not in found
    place.answer(PARROT, 1, share=0.7, round_=6)  # later than the change
    told = place.refresh()[PARROT, 1]
    assert told.n_pairs == PAIRS and told.verdict != "better"


@pytest.mark.slow
@ON_SQLITE
def test_counts_that_are_final_are_not_read_again_and_old_epochs_stay_as_told(
    town: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = town()
    place.answered(1, 2)
    before = place.refresh()
    read: list[str] = []
    module = "testbench_dagster.stages.identify.public_gaps.outcomes_since"
    monkeypatch.setattr(module, lambda workspace, supplier, *_: read.append(supplier.key) or {TASK: []})
    after = place.refresh()
    assert not read and {w: one.verdict for w, one in before.items()} == {
        w: o.verdict for w, o in after.items()
    }
    monkeypatch.undo()
    place.answered(3)
    assert {epoch for _, epoch in place.refresh()} == {2, 3}
    assert len(Testbench(place.workspace).twins(every_epoch=True).rows) == 3 * 8


@pytest.mark.slow
@ON_SQLITE
def test_with_other_data_pairs_begin_anew(town: Open) -> None:
    place = town()
    place.answered(1, 2)
    place.refresh()
    changed = replace(place.registration, task_hash="of other twins")
    place.workspace.datasets.register(changed, list(place.workspace.datasets.docs("of twins")), [])
    assert refresh_public_gaps(place.workspace, NOW) == [] and newest_gaps(place.workspace) == []
    assert public_gaps(place.workspace) == {}


@ON_SQLITE
def test_without_pairs_nothing_is_compared(open_installation: Callable[..., Workspace]) -> None:
    workspace = open_installation({"address": "a"})
    Facts(workspace).registration("starter_logic")
    assert refresh_public_gaps(workspace) == [] and public_gaps(workspace) == {}
    assert Testbench(workspace).twins(refresh=True).rows == []


@pytest.mark.slow
@ON_SQLITE
def test_rows_are_shown_flagged_first_and_the_leaderboard_says_it_in_a_word(town: Open) -> None:
    place = town()
    place.answered(1, 2)
    place.refresh()
    testbench = Testbench(place.workspace)
    table = testbench.twins()
    assert table.rows[0]["supplier"] == key(PARROT) and len(table.rows) == 8
    assert list(table.columns) == list(table.rows[0]) and table.rows[0]["flagged"] is True
    assert [row["supplier"] for row in testbench.twins([key(HONEST[0])]).rows] == [key(HONEST[0])]
    assert testbench.supplier(key(PARROT)).to_json()["public_gaps"][0]["verdict"] == "better"
    told = {entry.supplier: entry.public_gap for entry in leaderboard(place.workspace)}
    assert told.get(key(PARROT), "better") == "better"
