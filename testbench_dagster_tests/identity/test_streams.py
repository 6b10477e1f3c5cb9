"""Streams of observations and the changes in them: the arrays find what a loop over the answers finds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.identity import Answer, AnswerTable, IdentitySettings, changes, find_changes, streams
from testbench_dagster.identity.answers import instant
from testbench_dagster.identity.kernel import kernel
from testbench_dagster.identity.streams import Compared, Observations
from testbench_dagster_tests.identity import plain_changes
from testbench_dagster_tests.identity.plain_changes import Era, Seen
from testbench_dagster_tests.identity.plain_changes import plain_changes as by_a_loop
from testbench_dagster_tests.identity.population import START, phrase

NAMES = ("a", "b", "c", "d", "e")
#: Near are three days; the steps meet its bounds, and instants that are as near to two.
TIMES = st.sampled_from([0, 1, 2, 12, 36, 71, 72, 73, 74, 144, 145, 216])
TEXTS = st.sampled_from(["x" * 20, "x" * 20, "y" * 20, "z" * 20, "yes", "no"])
ANSWERS = st.lists(
    st.builds(
        lambda who, prompt, hours, us, round_, text: Answer(
            who, prompt, "task", START + timedelta(hours=hours, microseconds=us), round_, text
        ),
        st.sampled_from(NAMES),
        st.sampled_from(["p", "q", "o"]),
        TIMES,
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 0, 1, 2]),
        TEXTS,
    ),
    max_size=40,
)


def eras(answers: Sequence[Answer]) -> dict[str, Era]:
    found: dict[str, list[tuple[Answer, str]]] = {name: [] for name in NAMES}
    for answer in answers:
        found[answer.supplier].append((answer, kernel(answer.answer_prefix, 20) or ""))
    for era in found.values():
        era.sort(key=lambda pair: (pair[0].at, pair[0].prompt, pair[0].round))
    return found


def told(found: Observations) -> dict[str, list[Seen]]:
    """The observations of each supplier."""
    assert sorted(found.owner.tolist()) == found.owner.tolist()
    told: dict[str, list[Seen]] = {}
    for place, name in enumerate(NAMES):
        one = found.of(place)
        rows = zip(one.at.tolist(), one.known_at.tolist(), one.agreed.tolist(), strict=True)
        told[name] = [Seen(instant(at), instant(known_at), float(value)) for at, known_at, value in rows]
    return told


@given(ANSWERS)
def test_repeats_are_those_of_a_loop(answers: list[Answer]) -> None:
    given_ = Compared(AnswerTable.of(answers), 20).answers(NAMES)
    expected = {name: plain_changes.repeats(era) for name, era in eras(answers).items()}
    assert told(streams.repeats(given_)) == expected


@given(ANSWERS, st.sampled_from([[*NAMES], ["a", "b"], ["c", "d", "e"]]), st.sampled_from([0.5, 1, 36, 72]))
def test_deviations_are_those_of_a_loop(answers: list[Answer], others: list[str], hours: float) -> None:
    """Two groups at once: the others of one of them, and those that are left."""
    near = timedelta(hours=hours)
    groups = np.array([name in others for name in NAMES]).astype(np.int64)
    rest = [name for name in NAMES if name not in others]
    expected = plain_changes.deviations(others, eras(answers), {}, near)
    expected |= plain_changes.deviations(rest, eras(answers), {}, near)
    given_ = Compared(AnswerTable.of(answers), 20).answers(NAMES)
    with pytest.MonkeyPatch.context() as patch:
        for at_once in (1_000, 3):
            patch.setattr(streams, "_AT_ONCE", at_once)
            assert told(streams.deviations(given_, groups, near // timedelta(microseconds=1))) == expected


def history(rng: random.Random) -> tuple[list[Answer], dict[str, datetime], list[list[str]]]:
    """Suppliers of a few backends in groups of any size, of which some change, or said little or nothing."""
    names = [f"s{n:02d}" for n in range(rng.randint(2, 14))]
    noise, prompts = rng.choice([0.02, 0.1, 0.3]), rng.randint(8, 40)
    found = []
    for name in names:
        changes_at = rng.choice([10**6, 10**6, rng.randint(10, 100)])
        asked_again, step = rng.choice([0, 0.2, 1.0]), rng.choice([1, 7])
        rounds: Counter[int] = Counter()
        for t in range(rng.choice([0, 40, 110, 110, 110])):
            prompt = t % prompts if rng.random() < asked_again else t
            backend = 2 if t >= changes_at else 0
            said = phrase("slip", rng.random()) if rng.random() < noise else phrase(backend, prompt)
            at = START + timedelta(hours=t * step, seconds=rng.choice([0, 0, 30]))
            short = prompt % 9 == 0
            round_ = rounds[prompt] - (rng.random() < 0.05)
            rounds[prompt] += 1
            found.append(Answer(name, f"p{prompt:03d}", "t", at, round_, said[: 3 if short else 40]))
    cuts = {name: START + timedelta(hours=rng.randint(0, 60)) for name in names if rng.random() < 0.1}
    rng.shuffle(names)
    sizes = rng.choice([[2, 2, 2], [3, 9], [14], [1, 5]])
    groups = [names[sum(sizes[:n]) :][:size] for n, size in enumerate(sizes)]
    rng.shuffle(found)
    return found, cuts, [group for group in groups if group]


@pytest.mark.parametrize(
    "seeds",
    [range(4, 20), pytest.param(range(20, 120), marks=pytest.mark.slow(minutes=1))],
    ids=["few", "many"],
)
def test_changes_are_exactly_those_of_a_loop(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same changes with the same instants and evidence, in batches of any size."""
    kinds: Counter[tuple[str, bool, bool]] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        answers, cuts, groups = history(rng)
        levels = IdentitySettings(arl=rng.choice([5.0, 300.0, 1e5]), near_days=rng.choice([0.2, 3.0]))
        expected = by_a_loop(answers, levels, cuts, groups)
        at_once = rng.choice([1, 300, 1_000_000])
        monkeypatch.setattr(changes, "_AT_ONCE", at_once)
        monkeypatch.setattr(streams, "_AT_ONCE", at_once)
        assert find_changes(answers, levels, cut_at=cuts, groups=groups) == expected
        kinds.update((change.kind, change.certain, change.confirmed) for change in expected)
    assert sum(kinds.values()) > len(seeds) and len(kinds) > 2, kinds


def test_instants_of_other_zones_are_the_same_instants() -> None:
    east = timezone(timedelta(hours=5))
    answers = [
        Answer("s", f"p{m % 10}", "t", (START + timedelta(minutes=m)).astimezone(east), m // 10, said)
        for m in range(200)
        for said in [phrase(m % 10, m > 120)]
    ]
    (change,) = find_changes(answers)
    assert change.at == START + timedelta(minutes=121) and change.at.tzinfo is UTC


def test_suppliers_without_answers_are_no_observations() -> None:
    compared = Compared(AnswerTable.of([]), 20)
    nothing: Mapping[str, list[Seen]] = {name: [] for name in NAMES}
    assert told(streams.repeats(compared.answers(NAMES))) == nothing
    assert told(streams.deviations(compared.answers(NAMES), np.zeros(5, dtype=np.int64), 1)) == nothing
    assert find_changes([], groups=[["a", "b"]]) == []
