"""Pages of answers over hand-made facts, on both document stores."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.core.records.scores import UNSCORABLE, ScoreRecord
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.read.answers import (
    CHOICES,
    SearchBound,
    answers,
    attempts,
    doc,
    every_answer,
    one_answer,
)
from testbench_dagster.stages.read.shown import TOGETHER
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stages.score.undecided import marked
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import SUPPLIERS, WINDOWS
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.reads import documents_read
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK = "starter_logic"
PEERS = ["one", "two", "three"]


@pytest.fixture(params=["sqlite", "mongo"])
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    suppliers = [
        {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": f"model-{name}", "api": api}
        for name, api in [("alpha", "chat"), ("beta", "completions"), *((peer, "chat") for peer in PEERS)]
    ]
    settings = {
        "suppliers": suppliers,
        "tasks": [
            {"name": TASK, "samples": "all"},
            {"name": "starter_choice", "samples": "all"},
            {"name": "identity", "framework": "signatures"},
        ],
        "sampling": {"max_age_days": 30},
    }
    with Workspace(configuration(tmp_path, settings)) as opened:
        yield opened


@pytest.fixture
def asked(workspace: Workspace) -> Asked:
    facts = Facts(workspace)
    return Asked(facts, facts.registration(TASK, n_docs=50))


def kinds(workspace: Workspace, **chosen: Any) -> list[tuple[int, str]]:
    return [(row.doc_id, row.kind) for row in answers(workspace, ALPHA, TASK, **chosen).rows]


def test_right_and_wrong_answers_are_shown_with_their_texts(workspace: Workspace, asked: Asked) -> None:
    asked.answer(3, 1.0, "<think>hm</think>It is yes.", extracted="yes")
    asked.answer(7, 0.0, "No\x1b[31m.", extracted="no", fault=Fault.TRUNCATED)
    page = answers(workspace, ALPHA, TASK)
    right, wrong = page.rows
    assert (right.doc_id, right.kind, right.value) == (3, "right", 1.0)
    assert (right.question, right.target) == ("Question 3?", "yes")
    assert (right.answer, right.reasoning, right.extracted) == ("It is yes.", "<think>hm</think>", "yes")
    assert (right.supplier, right.model, right.metric, right.filter) == (
        ALPHA,
        "model-alpha",
        "exact_match",
        "none",
    )
    assert (right.attempts, right.latency_ms, right.at, right.fault) == (1, 10.0, NOW, None)
    assert (wrong.kind, wrong.truncated, wrong.answer) == ("wrong", True, "No\x1b[31m.")
    assert page.after is None
    assert {name: n for name, n in page.counts.items() if n} == {"right": 1, "wrong": 1, "truncated": 1}
    assert tuple(page.counts) == CHOICES
    assert right.to_json()["at"] == NOW.isoformat()


def test_kinds_are_chosen_and_pages_follow_each_other(workspace: Workspace, asked: Asked) -> None:
    for doc_id in range(20):
        asked.answer(doc_id, float(doc_id % 2))
    assert kinds(workspace, kind="wrong", limit=3) == [(0, "wrong"), (2, "wrong"), (4, "wrong")]
    seen, after = [], None
    while True:
        page = answers(workspace, ALPHA, TASK, kind="right", after=after, limit=4)
        seen += [row.doc_id for row in page.rows]
        assert page.counts["right"] == 10
        after = page.after
        if after is None:
            break
    assert seen == list(range(1, 20, 2))
    assert answers(workspace, ALPHA, TASK, after=19).rows == []
    # a full last page says that it is the last one
    assert answers(workspace, ALPHA, TASK, kind="wrong", limit=10).after is None


def test_docs_without_a_score_are_shown_by_their_last_attempt(workspace: Workspace, asked: Asked) -> None:
    asked.answer(0, 1.0)
    asked.answer(1, None, "nobody scored it")
    id_ = asked.prompt(2)
    for number, occasion in enumerate((1, 2, 3), 1):
        asked.facts.attempt(
            asked.registration,
            2,
            Fault.SUPPLIER_HTTP,
            NOW - timedelta(days=2) + timedelta(hours=occasion),
            prompt_id=id_,
            number=number,
            occasion=occasion,
            lease=number,
        )
    asked.facts.attempt(asked.registration, 3, Fault.SUPPLIER_TIMEOUT, NOW, prompt_id=asked.prompt(3))
    found = {row.doc_id: row for row in answers(workspace, ALPHA, TASK).rows}
    assert (found[1].kind, found[1].answer, found[1].value) == ("unscored", "nobody scored it", None)
    assert found[2].kind in ("failed", "open")
    assert (found[2].fault, found[2].owner, found[2].attempts) == ("supplier_http", "supplier", 3)
    assert (found[2].question, found[2].answer) == ("Question 2?", None)
    assert (found[3].kind, found[3].fault, found[3].attempts) == ("open", "supplier_timeout", 1)
    assert answers(workspace, ALPHA, TASK, kind="open").counts["open"] >= 1


def test_what_the_scorer_could_not_digest_says_why(workspace: Workspace, asked: Asked) -> None:
    asked.answer(0, 1.0)
    asked.answer(1, None, "((((", error=f"{UNSCORABLE}too deep")
    asked.answer(2, None, "odd")
    template = next(typed.find(workspace.documents, ScoreRecord, {"doc_id": 1}))
    answer = next(typed.find(workspace.documents, AttemptRecord, {"doc_id": 2})).id
    values = {field.attribute: getattr(template, field.attribute) for field in ScoreRecord.fields}
    changed = {
        "doc_id": 2,
        "position": 2,
        "answer_id": answer,
        "error": "ValueError: odd",
        "attempt_ids": [answer],
    }
    typed.put_new(workspace.documents, ScoreRecord, [marked(ScoreRecord(**{**values, **changed}))])
    found = {row.doc_id: row for row in answers(workspace, ALPHA, TASK).rows}
    assert (found[1].kind, found[1].error, found[1].answer) == ("failed", "unscorable: too deep", "((((")
    assert (found[2].kind, found[2].error) == ("open", "ValueError: odd")


def test_a_text_is_searched_in_question_answer_and_target(workspace: Workspace, asked: Asked) -> None:
    for doc_id in range(12):
        asked.answer(doc_id, 1.0, "the CAPITAL" if doc_id % 3 == 0 else "nothing", target=f"target {doc_id}")
    assert [d for d, _ in kinds(workspace, search="Capital")] == [0, 3, 6, 9]
    assert [d for d, _ in kinds(workspace, search="QUESTION 7?")] == [7]
    assert [d for d, _ in kinds(workspace, search="target 11")] == [11]
    assert kinds(workspace, search="target 11", kind="wrong") == []
    first = answers(workspace, ALPHA, TASK, search="capital", limit=2)
    assert ([row.doc_id for row in first.rows], first.after) == ([0, 3], 3)
    rest = answers(workspace, ALPHA, TASK, search="capital", limit=2, after=3)
    assert [row.doc_id for row in rest.rows] == [6, 9]
    assert [row.doc_id for row in answers(workspace, ALPHA, TASK, search="capital", after=9).rows] == []
    assert answers(workspace, ALPHA, TASK, search="straße").after is None


def test_a_search_ends_at_its_bound_and_is_gone_on_with_from_there(workspace: Workspace) -> None:
    n = 2 * TOGETHER + 10
    facts = Facts(workspace)
    asked = Asked(facts, facts.registration(TASK, n_docs=n))
    for doc_id in range(n):
        asked.answer(doc_id, 1.0, "the capital" if doc_id in (3, n - 1) else "nothing")
    bound = SearchBound(docs=TOGETHER, seconds=60.0)
    first = answers(workspace, ALPHA, TASK, search="capital", bound=bound)
    assert [row.doc_id for row in first.rows] == [3]
    assert (first.after, first.looked, first.unread) == (TOGETHER - 1, TOGETHER, n - TOGETHER)
    found, after = [], first.after
    while after is not None:
        page = answers(workspace, ALPHA, TASK, search="capital", bound=bound, after=after)
        found, after = [*found, *page.rows], page.after
    assert [row.doc_id for row in found] == [n - 1] and (page.looked, page.unread) == (0, 0)
    at_once = answers(workspace, ALPHA, TASK, search="nowhere", bound=SearchBound(docs=n, seconds=0.0))
    assert (at_once.looked, at_once.unread) == (TOGETHER, n - TOGETHER), (
        "some are read whatever time it takes"
    )
    full = answers(workspace, ALPHA, TASK, search="capital", bound=bound, limit=1)
    assert (full.after, full.looked, full.unread) == (3, 0, 0), "a full page ended at no bound"
    unbound = answers(workspace, ALPHA, TASK, search="capital")
    assert [row.doc_id for row in unbound.rows] == [3, n - 1] and unbound.after is None


def test_several_samples_of_a_doc_are_one_answer(workspace: Workspace, asked: Asked) -> None:
    asked.answer(0, 0.5, texts=["first", "second"])
    [row] = answers(workspace, ALPHA, TASK).rows
    assert row.answer == "[1] first\n\n[2] second"
    assert (row.kind, row.value, row.attempts, row.latency_ms) == ("graded", 0.5, 2, 20.0)


def test_the_last_round_and_epoch_is_shown(workspace: Workspace, asked: Asked) -> None:
    asked.answer(0, 0.0, "old", at=NOW - timedelta(days=3))
    asked.answer(0, 1.0, "new", at=NOW - timedelta(days=1), round_=2)
    [row] = answers(workspace, ALPHA, TASK).rows
    assert (row.kind, row.answer, row.round) == ("right", "new", 2)
    asked.answer(0, 0.0, "newest", epoch=2)
    [row] = answers(workspace, ALPHA, TASK).rows
    assert (row.kind, row.answer, row.epoch) == ("wrong", "newest", 2)


# -- choices and signatures -------------------------------------------------------------------------------


def choose(workspace: Workspace, doc_id: int, logprobs: list[float], right: int) -> None:
    facts = Facts(workspace)
    registration = facts.registration(
        "starter_choice", n_docs=50, metrics={"acc": "mean"}, output_type="multiple_choice"
    )
    asked, options = Asked(facts, registration), ["nickel", "grape", "donkey"]
    requests = [
        {"type": "loglikelihood", "idx": i, "context": "Which is a fruit?", "continuation": f" {option}"}
        for i, option in enumerate(options)
    ]
    id_ = asked.prompt(doc_id, requests, right, api="completions")
    for idx, (request, logprob) in enumerate(zip(requests, logprobs, strict=True)):
        body = echoed(request["context"], request["continuation"], logprob)
        relay = Relay(
            supplier=BETA,
            service="external",
            task=registration.task,
            task_hash=registration.task_hash,
            epoch=1,
            round=1,
            prompt_id=id_,
            position=doc_id,
            doc_id=doc_id,
            idx=idx,
            repeat=0,
            request={},
            occasion=1,
            canary=False,
        )
        attempt = Attempt(Fault.OK, NOW, NOW, 10.0, status=200, body=body, body_bytes=len(body))
        typed.put_new(
            workspace.documents, AttemptRecord, [attempt_record(relay, 1, attempt, height=None, lease=None)]
        )
    chosen = max(range(3), key=logprobs.__getitem__)
    calls = [(idx, 0) for idx in range(3)]
    value = float(chosen == right)
    asked.score(doc_id, id_, value, 3, BETA, NOW, Fault.OK, str(chosen), None, calls=calls)


def echoed(context: str, continuation: str, logprob: float) -> bytes:
    logprobs = {
        "tokens": [context, continuation, "."],
        "token_logprobs": [None, logprob, -1.0],
        "top_logprobs": [None, {continuation: logprob}, {".": -1.0}],
        "text_offset": [0, len(context), len(context + continuation)],
    }
    text = f"{context}{continuation}."
    return orjson.dumps({"choices": [{"text": text, "logprobs": logprobs, "finish_reason": "length"}]})


def test_of_a_choice_the_options_are_shown_with_their_log_probabilities(workspace: Workspace) -> None:
    choose(workspace, 4, [-3.0, -0.25, -7.5], right=1)
    choose(workspace, 5, [-0.5, -2.0, -7.5], right=1)
    right, wrong = answers(workspace, BETA, "starter_choice").rows
    assert right.answer == "nickel: -3.0000\ngrape: -0.2500\ndonkey: -7.5000"
    assert (right.kind, right.extracted, right.target) == ("right", "grape", "grape")
    assert (right.question, right.attempts, right.latency_ms) == ("Which is a fruit?", 3, 30.0)
    assert (wrong.kind, wrong.extracted, wrong.target) == ("wrong", "nickel", "grape")


def test_of_a_signature_the_hash_is_what_was_extracted(workspace: Workspace) -> None:
    facts = Facts(workspace)
    registration = facts.registration("identity", n_docs=10, metrics={"signature": "none"})
    asked = Asked(facts, registration)
    asked.answer(0, None, "A shop.", metrics={"signature": "ab" * 32}, target=None)
    asked.score(
        0, asked.prompt(0), None, 1, ALPHA, NOW, Fault.OK, None, None, metrics={"signature": "ab" * 32}
    )
    [row] = answers(workspace, ALPHA, "identity").rows
    assert (row.kind, row.value, row.extracted) == ("graded", None, "ab" * 32)
    assert (row.answer, row.target) == ("A shop.", None)


# -- peers ------------------------------------------------------------------------------------------------


def keys() -> list[str]:
    return [f"{peer}@external" for peer in PEERS]


def cached(workspace: Workspace) -> None:
    refresh_window_cache(workspace, [s.key for s in active_suppliers(workspace)])


def test_different_is_what_most_peers_answered_otherwise(workspace: Workspace, asked: Asked) -> None:
    values = {ALPHA: [1.0, 0.0, 0.0, 1.0], **{key: [1.0, 1.0, 0.0, 0.0] for key in keys()}}
    values[keys()[0]] = [1.0, 1.0, 1.0, 1.0]
    for supplier, own in values.items():
        for doc_id, value in enumerate(own):
            asked.answer(doc_id, value, supplier=supplier)
    asked.answer(4, 0.0)  # which nobody else was asked
    cached(workspace)
    page = answers(workspace, ALPHA, TASK, kind="different")
    assert [row.doc_id for row in page.rows] == [1, 3]
    assert page.counts["different"] == 2


def test_an_identity_group_is_one_peer_and_ones_own_none(workspace: Workspace, asked: Asked) -> None:
    one, two, three = keys()
    for supplier, value in ((ALPHA, 1.0), (one, 0.0), (two, 0.0), (three, 1.0)):
        asked.answer(0, value, supplier=supplier)
    cached(workspace)
    assert [row.doc_id for row in answers(workspace, ALPHA, TASK, kind="different").rows] == [0]
    # as one supplier they are half of the peers, and no majority
    group(workspace, "g", one, two)
    assert answers(workspace, ALPHA, TASK, kind="different").rows == []
    # whoever answers alike is no peer: only one of the group is left, who says otherwise
    group(workspace, "h", ALPHA, three)
    assert [row.doc_id for row in answers(workspace, ALPHA, TASK, kind="different").rows] == [0]


def group(workspace: Workspace, name: str, *members: str) -> None:
    records = [
        IdentityGroupRecord(
            id=member,
            service="external",
            group=name,
            proxy=members[0],
            role="proxy" if member == members[0] else "member",
            members=list(members),
            since=NOW,
            rotates_at=None,
            compared_at=NOW,
            n_prompts=10,
            self_agreement=1.0,
            self_low=0.9,
            self_high=1.0,
            repeats=5,
            agreement=None,
            distance=None,
            nearest=None,
            nearest_agreement=None,
            nearest_low=None,
            nearest_high=None,
            nearest_common=0,
            suspect=None,
            reason="alike",
            cut_at=None,
            split_at=None,
        )
        for member in members
    ]
    typed.upsert(workspace.documents, IdentityGroupRecord, records)


# -- one doc ----------------------------------------------------------------------------------------------


def test_a_doc_shows_what_everybody_said(workspace: Workspace, asked: Asked) -> None:
    for number, supplier in enumerate((ALPHA, *keys())):
        asked.answer(5, float(number % 2), f"said {supplier}", supplier=supplier)
        asked.answer(6, 1.0, supplier=supplier)
    page = doc(workspace, TASK, 5)
    assert [row.supplier for row in page.answers] == sorted((ALPHA, *keys()))
    assert {row.answer for row in page.answers} == {f"said {key}" for key in (ALPHA, *keys())}
    assert (page.target, page.after) == ("yes", None)
    assert page.requests[0]["generation"] == {"until": ["\n\n"], "max_gen_toks": 32, "temperature": 0.0}
    first = doc(workspace, TASK, 5, limit=3)
    assert len(first.answers) == 3
    rest = doc(workspace, TASK, 5, limit=3, after=first.after)
    assert [row.supplier for row in (*first.answers, *rest.answers)] == sorted((ALPHA, *keys()))
    nothing = doc(workspace, TASK, 44)
    assert (nothing.requests, nothing.answers, nothing.target) == ((), (), None)


def test_attempts_show_the_request_as_it_was_sent(workspace: Workspace, asked: Asked) -> None:
    id_ = asked.prompt(2)
    [prompt] = workspace.documents.find(asked_prompts(), {"_id": id_})
    _, payload = build_payload(prompt["requests"][0], "chat", "model-alpha")
    body = orjson.dumps(payload)
    for number, (fault, sha) in enumerate(
        ((Fault.SUPPLIER_HTTP, hashlib.sha256(body).hexdigest()), (Fault.OK, "0" * 64)), 1
    ):
        asked.facts.attempt(
            asked.registration,
            2,
            fault,
            NOW + timedelta(seconds=number),
            prompt_id=id_,
            number=number,
            text="yes",
        )
        [stored] = typed.find(workspace.documents, AttemptRecord, {"attempt": number})
        values = {field.attribute: getattr(stored, field.attribute) for field in AttemptRecord.fields}
        typed.upsert(workspace.documents, AttemptRecord, [AttemptRecord(**{**values, "payload_sha256": sha})])
    first, second = attempts(workspace, ALPHA, TASK, 2)
    assert (first.fault, first.owner, first.text, first.attempt) == ("supplier_http", "supplier", None, 1)
    assert first.payload == body.decode()
    assert (second.fault, second.text, second.payload) == ("ok", "yes", None), "another body was sent"
    assert second.to_json()["started_at"] == (NOW + timedelta(seconds=2)).isoformat()
    assert attempts(workspace, ALPHA, TASK, 3) == []


def asked_prompts() -> Any:
    from testbench_dagster.stores.documents.collections import PROMPTS

    return PROMPTS


def test_one_answer_of_the_window(workspace: Workspace, asked: Asked) -> None:
    asked.answer(2, 1.0, "yes")
    found = one_answer(workspace, ALPHA, TASK, 2)
    assert found is not None
    assert found.answer == "yes"
    assert one_answer(workspace, ALPHA, TASK, 3) is None


def test_all_answers_stream(workspace: Workspace, asked: Asked) -> None:
    for supplier in (ALPHA, *keys()):
        for doc_id in range(60):
            asked.answer(doc_id % 50, float(doc_id % 2), supplier=supplier) if doc_id < 50 else None
    rows = list(every_answer(workspace, active_suppliers(workspace), workspace.specs))
    assert len(rows) == 200
    assert {(row.supplier, row.kind) for row in rows} == {
        (key, kind) for key in (ALPHA, *keys()) for kind in ("right", "wrong")
    }


# -- what is not there ------------------------------------------------------------------------------------


def test_what_is_not_there_is_named_with_what_is(workspace: Workspace, asked: Asked) -> None:
    with pytest.raises(
        ConfigError, match="'nobody@external' is not on the roster; on it are: alpha@external"
    ):
        answers(workspace, "nobody@external", TASK)
    with pytest.raises(ConfigError, match="task 'gsm8k' is not configured"):
        answers(workspace, ALPHA, "gsm8k")
    with pytest.raises(ConfigError, match=r"kind is 'bad'; give one of right, wrong, .*different, or None"):
        answers(workspace, ALPHA, TASK, kind="bad")
    # configured, and never prepared
    empty = answers(workspace, ALPHA, "starter_choice")
    assert (empty.rows, set(empty.counts.values()), empty.after) == ((), {0}, None)
    assert doc(workspace, "starter_choice", 0).answers == ()
    assert attempts(workspace, ALPHA, "starter_choice", 0) == []
    assert one_answer(workspace, ALPHA, "starter_choice", 0) is None


def test_answers_outlive_their_prompts_and_suppliers_that_left(workspace: Workspace, asked: Asked) -> None:
    asked.facts.score(asked.registration, 0, 1.0, NOW)
    [row] = answers(workspace, ALPHA, TASK).rows
    assert (row.kind, row.question, row.answer, row.attempts, row.prompt_id) == ("right", None, None, 0, None)
    gone = {
        "_id": "gone@external",
        "address": "gone",
        "service": "external",
        "status": "left",
        "joined_at": NOW,
        "left_at": NOW,
        "base_url": "http://127.0.0.1:9/v1",
        "api": "chat",
        "model": "m",
        "transport": "direct",
        "source": "configuration",
        "history": [],
    }
    workspace.documents.upsert(SUPPLIERS, [gone])
    asked.answer(1, 0.0, "from one who left", supplier="gone@external")
    [row] = answers(workspace, "gone@external", TASK).rows
    assert (row.kind, row.answer) == ("wrong", "from one who left")


def test_a_page_of_a_large_task_costs_as_much_as_of_a_small_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Facts(workspace)
    registration = facts.registration(TASK, n_docs=500)
    asked = Asked(facts, registration)
    for doc_id in range(40):
        asked.answer(doc_id, float(doc_id % 2))
    read = documents_read(workspace.documents, monkeypatch)

    def page(n: int) -> Counter[str]:
        """What a page reads while that many docs are scored."""
        read.clear()
        found = answers(workspace, ALPHA, TASK, limit=20)
        assert (found.counts["right"], found.counts["wrong"], len(found.rows)) == (n // 2, n // 2, 20)
        return read.copy()

    cached(workspace)
    small = page(40)
    for doc_id in range(40, 400):
        facts.score(registration, doc_id, float(doc_id % 2), NOW)
    workspace.documents.purge(WINDOWS, {"_id": {"in": [ALPHA]}})
    assert page(400)["scores"] >= 400, "from the facts"
    cached(workspace)
    assert page(400) == small


def test_prompts_are_read_once_for_all_who_were_asked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Facts(workspace)
    asked = Asked(facts, facts.registration(TASK, n_docs=20))
    for doc_id in range(20):
        asked.answer(doc_id, 1.0)
        for peer in PEERS:
            asked.answer(doc_id, 0.0, supplier=f"{peer}@external")
    read = documents_read(workspace.documents, monkeypatch)
    rows = list(every_answer(workspace, active_suppliers(workspace), workspace.specs, NOW))
    assert Counter(row.supplier for row in rows) == dict.fromkeys(
        (ALPHA, *(f"{peer}@external" for peer in PEERS)), 20
    )
    assert all(row.question for row in rows)
    assert read["prompts"] == 20
