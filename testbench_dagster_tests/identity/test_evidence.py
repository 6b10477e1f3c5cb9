"""What counts as evidence, and how much: short answers, boilerplate, repeats, cuts."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from testbench_dagster.identity import Answer, Evidence, IdentityError, IdentitySettings, find_groups
from testbench_dagster.identity.counts import agreements
from testbench_dagster.identity.evidence import NONE
from testbench_dagster.identity.kernel import kernel
from testbench_dagster.identity.pairs import Collisions, distance, majorities
from testbench_dagster_tests.identity.population import START, World, ask, phrase


def answer(
    supplier: str, prompt: str, answer_prefix: str, minute: int = 0, round: int = 0, family: str = "f"
) -> Answer:
    return Answer(supplier, prompt, family, START + timedelta(minutes=minute), round, answer_prefix)


def test_the_kernel_is_the_first_characters() -> None:
    assert kernel("a" * 19, 20) is None
    assert kernel("a" * 20 + "b", 20) == "a" * 20


def test_the_newest_informative_answer_counts() -> None:
    old, new = phrase("old"), phrase("new")
    evidence = Evidence.of(
        [
            answer("b", "q", new, minute=5, round=1),
            answer("b", "q", old, minute=1),
            answer("b", "q", "B", minute=9, round=2),  # too short to say anything
            answer("a", "q", new, minute=3),
            answer("a", "r", old, minute=3),
        ]
    )
    assert evidence.suppliers == ("a", "b") and evidence.prompts == ("q", "r")
    assert evidence.cells[0, 0] == evidence.cells[1, 0] != NONE
    assert evidence.cells[0, 1] != NONE == evidence.cells[1, 1]
    assert evidence.cells[0, 0] != evidence.cells[0, 1]
    assert (evidence.local[:, 1] == [0, NONE]).all()
    assert evidence.texts[evidence.answer_prefix[1, 0]] == new
    assert (evidence.repeats == [0, 1]).all() and (evidence.repeated == [0, 0]).all()


def test_answers_before_a_cut_do_not_count() -> None:
    given = [answer("a", "q", phrase(1), minute=1), answer("a", "r", phrase(2), minute=2)]
    evidence = Evidence.of(given, cut_at={"a": START + timedelta(minutes=1)}, suppliers=["z"])
    assert evidence.prompts == ("r",)
    assert evidence.suppliers == ("a", "z")


def test_repeats_are_of_different_rounds_and_successive() -> None:
    x, y = phrase("x"), phrase("y")
    given = [
        answer("a", "q", answer_prefix, minute=n, round=n)
        for n, answer_prefix in enumerate([x, x + "more", y, y, x])
    ]
    given.append(answer("a", "q", y, minute=9, round=4))  # the same round once more is no repeat
    evidence = Evidence.of(given)
    assert (evidence.repeats[0], evidence.repeated[0]) == (4, 2)


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(IdentityError, match="time zone"):
        Evidence.of([Answer("a", "q", "f", datetime(2026, 1, 1), 0, phrase(1))])
    with pytest.raises(IdentityError, match="cut_at of a"):
        Evidence.of([], cut_at={"a": datetime(2026, 1, 1)})


def test_no_answers_at_all() -> None:
    empty = Evidence.of([])
    assert find_groups(empty, now=START).groups == ()
    alone = find_groups(Evidence.of([], suppliers=["a", "b"]), now=START)
    assert [g.members for g in alone.groups] in ([("a",), ("b",)], [("b",), ("a",)])
    assert alone.pair("a", "b").relation == "too little evidence"
    assert alone.profiles["a"].reason == "no informative answers yet"


def test_how_common_a_prefix_is() -> None:
    boiler = "Let's think step by step. First"
    own = [answer("a", f"q{n}", f"{boiler} {phrase(n)}", family="cot") for n in range(8)]
    own += [answer("a", f"q{n}", phrase(n), family="cot") for n in (8, 9)]
    own += [answer("a", "other", boiler, family="free")]
    evidence = Evidence.of(own)
    common = dict(zip(evidence.prompts, evidence.common[0].tolist(), strict=True))
    assert common["q0"] == pytest.approx(0.8)  # 8 of the 10 answers to the family begin so
    assert common["q9"] == 0
    assert common["other"] == 0  # in another family it was said once


def test_several_templates_in_turn_are_as_common_as_one() -> None:
    letters = [answer("a", f"q{n}", f"({'ABCD'[n % 4]}) is the correct option here") for n in range(20)]
    assert Evidence.of(letters).common[0] == pytest.approx(np.ones(20))
    numbers = [answer("a", f"q{n}", f"The answer is {n * 731 % 997:03d}. Because") for n in range(20)]
    assert Evidence.of(numbers).common[0] == pytest.approx(np.ones(20))


def test_agreements_equal_a_count_by_hand() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(-1, 4, size=(9, 50)).astype(np.int16)
    common, agree = agreements(cells, cells)
    for i in range(9):
        for j in range(9):
            both = (cells[i] >= 0) & (cells[j] >= 0)
            assert common[i, j] == both.sum()
            assert agree[i, j] == (both & (cells[i] == cells[j])).sum()


def test_majorities_are_of_more_than_half() -> None:
    cells = np.array([[5, 1, -1, 7], [5, 2, -1, 8], [4, -1, -1, 9], [6, 3, 3, 9]])
    assert majorities(cells, np.array([0, 0, 0, 1]), 2).tolist() == [[5, -1, -1, -1], [6, 3, 3, 9]]


def test_collisions_count_other_groups_only() -> None:
    settings = IdentitySettings(prior_groups=2.0, prior_collision=0.25)
    profiles = np.array([[0], [0], [0], [1], [-1]])
    collisions = Collisions(profiles, settings)

    def share(cell: int, first: int, second: int) -> float:
        return float(
            collisions.shares(np.array([cell]), np.array([0]), np.array([first]), np.array([second]))[0]
        )

    assert share(0, 0, 1) == pytest.approx((1 + 0.5) / (2 + 2))  # groups 2 and 3 remain, 2 says it
    assert share(0, 0, 0) == pytest.approx((2 + 0.5) / (3 + 2))
    assert share(0, 4, 4) == pytest.approx((3 + 0.5) / (4 + 2))
    assert share(9, 0, 1) == pytest.approx(0.5 / 4)  # nobody says it


def test_distance_is_zero_for_one_source_and_its_interval_holds_the_truth() -> None:
    rng, held, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        rates, lows, highs = [], [], []
        for _ in range(2):
            k = rng.binomial(40, 0.96)
            from testbench_dagster.statistics.intervals import wilson

            low, high = wilson(int(k), 40)
            rates.append(k / 40)
            lows.append(low)
            highs.append(high)
        value, low, high = distance(int(rng.binomial(150, 0.6)), 150, tuple(rates), tuple(lows), tuple(highs))
        assert 0 <= low <= value <= high <= 1
        held += low <= 0.36 <= high
    assert held / runs >= 0.93
    assert distance(100, 100, (1.0, 1.0), (0.9, 0.9), (1.0, 1.0))[:2] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("null_floor", 1.0), ("merge_shares", ()), ("prefix_chars", 0), ("arl", 1.0), ("rotation_days", 0.0),
     ("lean_agreement", 0.7)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(IdentityError, match=field):
        IdentitySettings(**{field: value})  # type: ignore[arg-type]


def test_evidence_does_not_depend_on_the_order_of_answers() -> None:
    world = World(3)
    given = [a for n in range(6) for a in ask(world, f"s{n}", {n % 2: 1.0}, range(40), lambda t: START)]
    one, two = Evidence.of(given), Evidence.of(reversed(given))
    assert (one.cells == two.cells).all() and (one.common == two.common).all()
