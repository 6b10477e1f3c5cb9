"""Who is entered as a writer of facts, what that voids, and that no change of a document is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbench_dagster.coordination import writing
from testbench_dagster.coordination.heartbeats import Heartbeat, delete_expired
from testbench_dagster.coordination.writing import (
    FactWriter,
    living_writers,
    new_token,
    void_document,
    writing_facts,
)
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.windows import WindowRecord, WritingProcess
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.stores.documents.collections import HEARTBEATS, WINDOWS
from testbench_dagster_tests.coordination.test_heartbeats import beat, elsewhere
from testbench_dagster_tests.coordination.test_leases import Counted


def row(task: str) -> dict[str, Any]:
    return {"task": task, "score": 0.5}


def kept(store: DocumentStore, key: str, *tasks: str, writers: tuple[dict[str, Any], ...] = ()) -> None:
    """Keep rows of tasks for a supplier."""
    document = {
        **void_document(key).to_document(),
        "rows": [row(task) for task in tasks],
        "writers": list(writers),
    }
    store.put_new(WINDOWS, [document])


def found(store: DocumentStore, key: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The tasks with kept rows, and holder and tasks of each writer."""
    document = store.get(WINDOWS, key)
    assert document is not None
    writers = [(writer["holder"], writer["tasks"]) for writer in document["writers"]]
    return [r["task"] for r in document["rows"]], writers


OTHER = {"writer": "other/1", "holder": "other", "tasks": ["b"]}


def test_a_writer_voids_the_rows_of_its_tasks_alone_while_it_writes(local):
    kept(local, "s@x", "a", "b", writers=(OTHER,))
    with Heartbeat(local, "me") as heartbeat:
        with writing_facts(local, heartbeat) as writer:
            writer.enter({"s@x": ["a"], "new@x": ["a", "a", "c"]})
            assert found(local, "s@x") == (["b"], [("other", ["b"]), ("me", ["a"])])
            assert found(local, "new@x") == ([], [("me", ["a", "c"])])
            writer.enter({"s@x": ["c"]})
            assert found(local, "s@x") == (["b"], [("other", ["b"]), ("me", ["a", "c"])])
        assert found(local, "s@x") == (["b"], [("other", ["b"])])
        assert found(local, "new@x") == ([], [])
        assert local.count(HEARTBEATS) == 1


def test_each_change_has_a_token_of_its_own(local):
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50 and {len(token) for token in tokens} == {16}
    with Heartbeat(local, "me") as heartbeat:
        writers = [FactWriter(local, heartbeat) for _ in range(2)]
        seen = set()
        for writer in writers:
            writer.enter({"s@x": ["a"]})
            seen.add(local.get(WINDOWS, "s@x")["token"])
        assert [holder for holder, _ in found(local, "s@x")[1]] == ["me", "me"]  # one of a name, two writers
        for writer in writers:
            writer.leave()
            seen.add(local.get(WINDOWS, "s@x")["token"])
    assert len(seen) == 4 and found(local, "s@x") == ([], [])


def test_who_was_taken_for_dead_voids_what_was_kept_since(local):
    with Heartbeat(local, "me") as heartbeat, writing_facts(local, heartbeat) as writer:
        writer.enter({"s@x": ["a"]})
        local.upsert(
            WINDOWS,
            [{**void_document("s@x").to_document(), "rows": [row("a"), row("b")], "writers": [OTHER]}],
        )
    assert found(local, "s@x") == (["b"], [("other", ["b"])])


def test_a_check_is_cheap_while_the_heart_beats_and_enters_again_when_it_stopped(local):
    heartbeat = Heartbeat(local, "me")
    counted = Counted(local)
    with heartbeat:
        writer = FactWriter(counted, heartbeat)  # type: ignore[arg-type]
        writer.enter({"s@x": ["a"], "t@x": ["b"], "u@x": ["c"]})
        counted.calls.clear()
        writer.check()
        writer.check(["s@x"])
        assert counted.calls == []
    for key in ("s@x", "t@x", "u@x"):
        typed.upsert(local, WindowRecord, [void_document(key)])
    writer.check(["t@x", "unknown@x"])
    assert [found(local, key)[1] for key in ("s@x", "t@x", "u@x")] == [[], [("me", ["b"])], []]
    writer.check()
    assert [found(local, key)[1] for key in ("s@x", "t@x", "u@x")] == [
        [("me", ["a"])],
        [("me", ["b"])],
        [("me", ["c"])],
    ]


def test_only_writers_whose_heart_may_beat_count(local):
    local.put_new(HEARTBEATS, [elsewhere("silent", left_s=60), elsewhere("late", left_s=-60)])
    entered = tuple(
        WritingProcess(writer=f"{h}/1", holder=h, tasks=["a"]) for h in ("silent", "late", "gone", "me")
    )
    documents = [
        replace(void_document("s@x"), writers=entered),
        replace(void_document("t@x"), writers=entered[1:2]),
    ]
    with Heartbeat(local, "me"):
        living = living_writers(local, documents)
    assert {key: [w.holder for w in writers] for key, writers in living.items()} == {
        "s@x": ["silent", "me"],
        "t@x": [],
    }
    assert living_writers(local, [void_document("s@x")]) == {"s@x": ()}


@pytest.mark.parametrize(("number", "batches"), [(1, 1), (200, 1), (201, 2), (400, 2), (401, 3)])
def test_many_suppliers_are_changed_200_at_once(local, number, batches):
    counted = Counted(local)
    with Heartbeat(local, "me") as heartbeat:
        writer = FactWriter(counted, heartbeat)  # type: ignore[arg-type]
        writer.enter({f"s{n:03}@x": ["a"] for n in range(number)})
    assert counted.calls == ["find", "put_new"] * batches
    assert [len(document["writers"]) for document in local.find(WINDOWS)] == [1] * number


class Contested(Counted):
    """A store in which others are quicker at the first changes of some documents."""

    def __init__(self, store: DocumentStore, consecutive_failures: dict[str, int]) -> None:
        super().__init__(store)
        self.consecutive_failures = consecutive_failures
        self.claimed: list[str] = []

    def claim(self, collection: Any, where: Any, changes: Any) -> Any:
        key = where["_id"]
        self.claimed.append(key)
        if self.consecutive_failures.get(key, 0) > 0:
            self.consecutive_failures[key] -= 1
            self._store.upsert(WINDOWS, [{**self._store.get(WINDOWS, key), "token": new_token()}])
        return self._store.claim(collection, where, changes)


def test_only_what_others_changed_meanwhile_is_tried_again(local):
    for key in ("s@x", "t@x"):
        kept(local, key, "a", "b")
    contested = Contested(local, {"s@x": 2})
    with Heartbeat(local, "me") as heartbeat:
        FactWriter(contested, heartbeat).enter({"s@x": ["a"], "t@x": ["a"]})  # type: ignore[arg-type]
    assert contested.claimed == ["s@x", "t@x", "s@x", "s@x"]
    assert found(local, "s@x") == found(local, "t@x") == (["b"], [("me", ["a"])])


def test_who_loses_a_hundred_times_says_so(local, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(writing.time, "sleep", pauses.append)
    kept(local, "s@x", "a")
    contested = Contested(local, {"s@x": 99})
    with Heartbeat(local, "me") as heartbeat:
        writer = FactWriter(contested, heartbeat)  # type: ignore[arg-type]
        writer.enter({"s@x": ["a"]})
        assert len(contested.claimed) == 100 and len(pauses) == 99
        # up to 2 ms more each time, at most 50 ms, drawn so that two do not meet again and again
        assert all(0 < pause <= 0.002 * min(n, 25) for n, pause in enumerate(pauses, start=1))
        assert max(pauses) > 0.025 and len(set(pauses)) > 90
        contested.consecutive_failures["s@x"] = 100
        with pytest.raises(
            StoreError, match="windows of s@x: changed by others 100 times in a row; try again"
        ):
            writer.enter({"s@x": ["b"]})


def test_two_first_writers_of_a_supplier_are_both_entered(local):
    class Overtaken(Counted):
        def put_new(self, collection: Any, documents: Any) -> int:
            if not self.calls.count("overtaken"):
                self.calls.append("overtaken")
                kept(local, "s@x", "b", writers=(OTHER,))
            return self._store.put_new(collection, documents)

    with Heartbeat(local, "me") as heartbeat:
        FactWriter(Overtaken(local), heartbeat).enter({"s@x": ["a"], "t@x": ["a"]})  # type: ignore[arg-type]
    assert found(local, "s@x") == (["b"], [("other", ["b"]), ("me", ["a"])])
    assert found(local, "t@x") == ([], [("me", ["a"])])


def test_a_writer_that_cannot_leave_is_left_to_its_heartbeat(local, caplog):
    class Failing(Counted):
        def claim(self, collection: Any, where: Any, changes: Any) -> Any:
            raise StoreError("out of reach")

    with Heartbeat(local, "me") as heartbeat:
        with writing_facts(Failing(local), heartbeat) as writer:  # type: ignore[arg-type]
            writer.enter({"s@x": ["a"]})
        assert found(local, "s@x")[1] == [("me", ["a"])]
        assert delete_expired(local, beat(local))
        assert living_writers(local, typed.find(local, WindowRecord)) == {"s@x": ()}
    assert "cached windows stay void until the heartbeat of me ends: out of reach" in caplog.text
