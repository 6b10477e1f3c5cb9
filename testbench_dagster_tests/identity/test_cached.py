"""Cached answers: repeats that come back at once and to the letter; honest repeats are left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from testbench_dagster.identity import Call, IdentityError, find_cached
from testbench_dagster.identity.cached import CacheSettings

START = datetime(2026, 1, 8, tzinfo=UTC)
Change = Callable[[Call, Call | None, random.Random], Call]


def history(seed: int, change: Change = lambda call, before, chance: call, docs: int = 60) -> list[Call]:
    """Suppliers a and b: a doc a quarter of an hour, every fourth again two hours later; a's changed.

    ``change`` gets each call of a, the one that it repeats, if any, and a source of chance. Answers take
    20 ms a token and up to twice that, and half of them differ when asked again.
    """
    chance = random.Random(seed)
    calls = []
    for supplier in ("a@x", "b@x"):
        first: list[Call] = []
        for doc in range(docs):
            at = START + doc * timedelta(minutes=15)
            asked: list[Call | None] = [None]
            if doc >= 8 and doc % 4 == 0:
                asked.append(first[doc - 8])
            for before in asked:
                tokens = chance.randint(20, 120) if before is None else (before.tokens or 0)
                text = f"{supplier}{doc}" if before is None or chance.random() < 0.5 else str(before.said)
                call = Call(
                    supplier,
                    f"p{doc}" if before is None else before.prompt,
                    "1/0",
                    at if before is None else at + timedelta(minutes=1),
                    True,
                    tokens * 20 * chance.uniform(1, 2),
                    tokens,
                    100,
                    1,
                    text,
                    "task",
                )
                if supplier == "a@x":
                    call = change(call, before, chance)
                if before is None:
                    first.append(call)
                calls.append(call)
    return calls


def kept(call: Call, before: Call | None, chance: random.Random) -> Call:
    """What was answered before, to the letter, in the time of a look."""
    return call if before is None else replace(call, said=before.said, latency_ms=chance.uniform(5, 15))


def test_kept_answers_are_found() -> None:
    [cached] = find_cached(history(1, kept))
    assert (cached.supplier, cached.repeats, cached.hits) == ("a@x", 13, 13)
    assert cached.speedup > 50
    assert cached.others_vary == pytest.approx(0.5, abs=0.35)
    assert cached.log_e > cached.threshold
    assert "others vary on" in cached.wording


def test_suppliers_that_count_no_tokens_are_compared_within_a_task() -> None:
    def uncounted(call: Call, before: Call | None, chance: random.Random) -> Call:
        return replace(kept(call, before, chance), tokens=None)

    assert [one.supplier for one in find_cached(history(2, uncounted))] == ["a@x"]


def same(call: Call, before: Call | None, chance: random.Random) -> Call:
    return call if before is None else replace(call, said=before.said)


def quicker(call: Call, before: Call | None, chance: random.Random) -> Call:
    """Half the time, and the same answer: what is kept of the prompt, as servers do, saves so much here."""
    return call if before is None else replace(call, said=before.said, latency_ms=call.latency_ms / 2)


def quick_but_new(call: Call, before: Call | None, chance: random.Random) -> Call:
    return call if before is None else replace(call, said=f"{chance.random()}", latency_ms=10.0)


def faster_machine(call: Call, before: Call | None, chance: random.Random) -> Call:
    """From the fifth hour on ten times as fast with everything, and deterministic."""
    fast = call.at > START + timedelta(hours=5)
    new = replace(call, latency_ms=call.latency_ms / 10) if fast else call
    return new if before is None else replace(new, said=before.said)


def short(call: Call, before: Call | None, chance: random.Random) -> Call:
    """Letters: no time that could be saved."""
    return replace(kept(call, before, chance), tokens=2)


def long_prompts(call: Call, before: Call | None, chance: random.Random) -> Call:
    """A server that keeps what it read of a long prompt, and writes a few words anew."""
    return replace(kept(call, before, chance), prompt_tokens=20_000)


def alone(call: Call, before: Call | None, chance: random.Random) -> Call:
    """First answers came while thirty requests were under way, repeats one at a time."""
    return replace(kept(call, before, chance), beside=30) if before is None else kept(call, before, chance)


@pytest.mark.parametrize(
    "change",
    [same, quicker, quick_but_new, faster_machine, short, long_prompts, alone],
    ids=lambda f: f.__name__,
)
def test_what_has_another_reason_is_left_alone(change: Change) -> None:
    assert find_cached(history(3, change)) == []


def test_nothing_is_found_in_little() -> None:
    assert find_cached([]) == []
    assert find_cached(history(4, kept, docs=12)) == []


def test_settings_have_a_range() -> None:
    with pytest.raises(IdentityError, match="alpha must lie between 0 and 1"):
        CacheSettings(alpha=2)
    with pytest.raises(IdentityError, match="want 0 < least_comparable <= comparable"):
        CacheSettings(comparable=3)
    with pytest.raises(IdentityError, match="times and length_ratio must be 1 or more"):
        CacheSettings(times=0.5)


@pytest.mark.slow
def test_honest_repeats_are_never_accused() -> None:
    """2,000 histories with repeats as slow as first answers, a third of them with heavy tails: none."""

    def tailed(call: Call, before: Call | None, chance: random.Random) -> Call:
        new = same(call, before, chance)
        return replace(new, latency_ms=new.latency_ms * chance.lognormvariate(0, 1))

    for seed in range(2000):
        assert find_cached(history(seed, tailed if seed % 3 else same)) == []
