"""Numbers of identity worked out by hand or by plain loops from their definitions."""

from __future__ import annotations

import io
import math
import random
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaincinv

from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.identity import (
    Answer,
    AnswerTable,
    Assignment,
    Evidence,
    IdentityError,
    IdentitySettings,
    elect,
    find_changes,
    find_groups,
)
from testbench_dagster.identity.answers import instant
from testbench_dagster.identity.counts import agreements
from testbench_dagster.identity.evidence import NONE
from testbench_dagster.identity.kernel import kernel
from testbench_dagster.identity.mixtures import _one_sided
from testbench_dagster.identity.pairs import (
    SelfAgreement,
    distance,
    lean,
    log_merge,
)
from testbench_dagster.identity.plots import _short, agreement_matrix
from testbench_dagster.identity.streams import Compared, deviations
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster_tests.identity.population import START, phrase
from testbench_dagster_tests.pictures import assert_approved, figure_of
from testbench_dagster_tests.records import changeable

MINUTE = timedelta(minutes=1)


def answer(supplier: str, prompt: str, answer_prefix: str, minute: float = 0, round: int = 0) -> Answer:
    return Answer(supplier, prompt, "f", START + minute * MINUTE, round, answer_prefix)


# -------------------------------------------------------------------------------------------------- settings

SHARES = [
    "null_floor",
    "merge_alpha",
    "split_agreement",
    "split_alpha",
    "self_quantile",
    "noisy_below",
    "prior_collision",
    "template_share",
    "lean_agreement",
    "lineage_agreement",
    "mixture_explained",
    "mixture_share",
    "mixture_alpha",
    "mixture_ordered",
    "baseline_alpha",
    "election_tie",
]
OPEN = {"null_floor": 0.5, "lean_agreement": 0.6, "split_agreement": 0.7}  # room on either side of each


@pytest.mark.parametrize("name", SHARES)
def test_shares_lie_between_0_and_1(name: str) -> None:
    for value in (0.0, 1.0, -0.5, 1.5):
        with pytest.raises(
            IdentityError, match=f"{name} must lie between 0 and 1, both excluded; got {value}"
        ):
            IdentitySettings(**{name: value})
    if name not in OPEN:
        for value in (1e-9, 1 - 1e-9):
            assert getattr(IdentitySettings(**{name: value}), name) == value


@pytest.mark.parametrize("name", ["merge_shares", "split_ratios"])
def test_alternatives_lie_between_0_and_1(name: str) -> None:
    assert getattr(IdentitySettings(**{name: (1e-9, 1 - 1e-9)}), name)
    for values in ((), (0.5, 0.0), (0.5, 1.0)):
        with pytest.raises(IdentityError, match=f"{name} must be one or more numbers between 0 and 1"):
            IdentitySettings(**{name: values})


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        *((name, 1e-9, 0.0) for name in ("self_prior", "prior_groups", "near_days", "rotation_days")),
        *((name, 1, 0) for name in ("prefix_chars", "template_chars", "least_common")),
        ("arl", 1.0001, 1.0),
    ],
)
def test_the_least_of_each_number(name: str, inside: float, outside: float) -> None:
    assert getattr(IdentitySettings(**{name: inside}), name) == inside
    with pytest.raises(IdentityError, match=f"{name} must be .*got {outside}"):
        IdentitySettings(**{name: outside})


def test_a_pair_leans_between_what_distinct_models_and_one_model_show() -> None:
    assert IdentitySettings(lean_agreement=0.95, split_agreement=0.95)
    for floor, leaning, split in ((0.9, 0.9, 0.95), (0.75, 0.96, 0.95)):
        with pytest.raises(IdentityError, match=f"got {floor}, {leaning}, {split}"):
            IdentitySettings(null_floor=floor, lean_agreement=leaning, split_agreement=split)


def test_the_documented_constants() -> None:
    """Measured on public answers (see their comments): a change of one is a change of every claim."""
    documented = {
        "prefix_chars": 20, "null_floor": 0.75, "merge_shares": (0.4, 0.6, 0.8, 0.96), "merge_alpha": 0.01,
        "split_agreement": 0.95, "split_ratios": (0.1, 0.3, 0.5, 0.7, 0.85), "split_alpha": 0.05,
        "self_prior": 10.0, "self_quantile": 0.1, "noisy_below": 0.9, "prior_groups": 2.0,
        "prior_collision": 0.25, "template_chars": 12, "template_share": 0.1, "lean_agreement": 0.9,
        "lean_slack": 2.0, "least_common": 8, "lineage_agreement": 0.45, "mixture_explained": 0.9,
        "mixture_share": 0.1, "mixture_alpha": 0.05, "mixture_ordered": 0.95, "arl": 1e5,
        "baseline_alpha": 0.01, "near_days": 3.0, "rotation_days": 7.0, "election_tie": 0.02,
    }  # fmt: skip
    found = {field.name: field.default for field in fields(IdentitySettings)}
    assert {name: found[name] for name in documented} == documented


# ----------------------------------------------------------------------------------------------------- pairs


def test_what_is_compared_of_a_prefix() -> None:
    assert kernel("ab", 2) == "ab" and kernel("a", 2) is None and kernel("abc", 2) == "ab"


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=20), st.floats(0, 1))
def test_a_merge_is_an_average_of_likelihood_ratios(pairs: list[tuple[int, int]], habit: float) -> None:
    """Per agreement 1 + k (1 / q0 - 1) with q0 = floor + (1 - floor) b, per disagreement 1 - k."""
    conf = IdentitySettings()
    left, right = (np.array([[pair[side] for pair in pairs]]) for side in (0, 1))
    common = np.full(left.shape, habit)
    common[0, 0] = 0.1
    found = log_merge(left, right, common, lambda p, t, cells: np.where(t == 0, 0.6, 0.2), conf)
    parts = []
    for k in (0.4, 0.6, 0.8, 0.96):
        ratio = 1.0
        for t, (a, b) in enumerate(pairs):
            if a == NONE or b == NONE:
                continue
            null = 0.75 + 0.25 * max(0.1 if t == 0 else habit, 0.6 if t == 0 else 0.2)
            ratio *= 1 + k * (1 / null - 1) if a == b else 1 - k
        parts.append(ratio)
    assert found[0] == pytest.approx(math.log(sum(parts) / 4), abs=1e-6)


def test_how_plain_counts_lean() -> None:
    """agree ln(.9 / .75) + disagree ln(.1 / .25): nine agreements outweigh one disagreement, four do not."""
    found = lean(np.array([10, 6, 0]), np.array([9, 5, 0]), IdentitySettings())
    expected = [9 * math.log(1.2) + math.log(0.4), 5 * math.log(1.2) + math.log(0.4), 0.0]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] > 0 > expected[1]


def test_self_agreement_is_a_beta_posterior() -> None:
    """The prior is worth ten repeats at .95; noisy is who is below .9 with 97.5 % by Clopper and Pearson."""
    x, y = phrase("x"), phrase("y")
    said = {"a": [x] * 9, "b": [x, y] * 3, "c": [x], "d": [x] * 7 + [y, x]}
    evidence = Evidence.of(
        [answer(s, "q", text, minute=n, round=n) for s, texts in said.items() for n, text in enumerate(texts)]
    )
    selves = SelfAgreement.of(evidence)
    counts = {"a": (8, 8), "b": (5, 0), "c": (0, 0), "d": (8, 6)}
    for s, (n, k) in counts.items():
        i = evidence.index[s]
        assert (evidence.repeats[i], evidence.repeated[i]) == (n, k)
        posterior = stats.beta(9.5 + k, 0.5 + n - k)
        assert (selves.low[i], selves.high[i]) == pytest.approx((posterior.ppf(0.025), posterior.ppf(0.975)))
        assert selves.tested[i] == pytest.approx(posterior.ppf(0.1))
        assert selves.rate[i] == pytest.approx(k / n) if n else math.isnan(selves.rate[i])
        upper = 1.0 if k == n else stats.beta(k + 1, n - k).ppf(0.975)
        assert selves.noisy[i] == (upper < 0.9)
    assert selves.noisy[evidence.index["b"]]


def test_who_is_noisy_is_below_the_bound_and_not_at_it() -> None:
    """Six of eight repeats agree: the upper end by Clopper and Pearson is .968."""
    x, y = phrase("x"), phrase("y")
    given = [answer("d", "q", text, minute=n, round=n) for n, text in enumerate([x] * 7 + [y, x])]
    upper = float(betaincinv(7, 2, 0.975))
    assert upper == pytest.approx(0.968, abs=1e-3)
    for bound, noisy in ((upper, False), (math.nextafter(upper, 1), True)):
        found = SelfAgreement.of(Evidence.of(given, IdentitySettings(noisy_below=bound)))
        assert bool(found.noisy[0]) is noisy


def test_a_distance_by_hand() -> None:
    """Halves of self-agreements less the agreement; its bounds by MOVER from the three intervals."""
    low, high = wilson(60, 100)
    value, below, above = distance(60, 100, (1.0, 0.9), (0.95, 0.8), (1.0, 0.97))
    assert value == pytest.approx(0.35)
    assert below == pytest.approx(0.35 - math.sqrt(0.025**2 + 0.05**2 + (high - 0.6) ** 2))
    assert above == pytest.approx(0.35 + math.sqrt(0.0**2 + 0.035**2 + (0.6 - low) ** 2))
    assert distance(0, 9, (1.0, 1.0), (0.9, 0.9), (1.0, 1.0))[::2] == (1.0, 1.0)
    assert distance(9, 9, (0.9, 0.9), (0.8, 0.8), (1.0, 1.0))[:2] == (0.0, 0.0)


def test_where_nothing_was_answered() -> None:
    evidence = Evidence.of([answer("a", "q", phrase(1)), answer("b", "r", phrase(2), minute=3)])
    for empty in ((0, 1), (1, 0)):
        assert evidence.cells[empty] == evidence.local[empty] == evidence.answer_prefix[empty] == NONE == -1
        assert evidence.common[empty] == 0.0 and math.isnan(evidence.at[empty])
    assert evidence.at[1, 1] == (START + 3 * MINUTE).timestamp()
    assert evidence.index == {"a": 0, "b": 1} and evidence.cut_at == {}


def test_what_is_said_of_a_pair() -> None:
    """Two of three common prompts open alike."""
    a = [answer("a", "q1", phrase(1)), answer("a", "q2", phrase(2)), answer("a", "q3", "abcd" + phrase(3))]
    b = [answer("b", "q1", phrase(1)), answer("b", "q2", phrase(2)), answer("b", "q3", "abcd" + phrase(4))]
    evidence = Evidence.of([*a, *b, answer("a", "q4", phrase(5)), answer("c", "q5", phrase(6))])
    grouping = find_groups(evidence, now=START)
    pair = grouping.pair("a", "b")
    assert (pair.common, pair.agree, pair.agreement) == (3, 2, pytest.approx(2 / 3))
    assert (pair.low, pair.high) == pytest.approx(wilson(2, 3))
    assert pair.distance == pytest.approx(0.95 - 2 / 3)  # unknown self-agreements are taken for .95
    assert (pair.relation, pair.split) == ("too little evidence", False)
    none = grouping.pair("a", "c")
    assert (none.common, none.agreement, none.low, none.high, none.distance) == (0, None, 0.0, 1.0, None)
    assert none.log_merge == none.log_split == 0


def test_a_profile_names_the_nearest_other_group() -> None:
    given = [answer(s, f"q{n}", phrase(n)) for s in ("a", "b") for n in range(80)]
    given += [answer("c", f"q{n}", phrase(n) if n < 12 else phrase("c", n)) for n in range(28)]
    given += [answer("d", f"q{n}", phrase("d", n)) for n in range(7)]  # one too few to be compared
    grouping = find_groups(Evidence.of(given, suppliers=["e"]), now=START)
    together = grouping.group_of("a")
    assert together.members == ("a", "b") and grouping.group_of("c").members == ("c",)
    c = grouping.profiles["c"]
    assert (c.nearest, c.nearest_common, c.nearest_agreement) == (together.id, 28, pytest.approx(12 / 28))
    assert (c.nearest_low, c.nearest_high) == pytest.approx(wilson(12, 28))
    assert (c.answers, c.repeats, c.self_agreement) == (28, 0, None)
    assert c.reason == "answers like nobody else on 28 prompts"
    a = grouping.profiles["a"]
    assert a.reason == "answers like 1 other on 80 common prompts"
    assert (a.nearest, a.nearest_common) == (grouping.group_of("c").id, 28)
    d, e = grouping.profiles["d"], grouping.profiles["e"]
    assert (d.nearest, d.nearest_agreement, d.nearest_low, d.nearest_common) == (None, None, None, 0)
    assert (e.answers, e.reason) == (0, "no informative answers yet")
    third = [answer("z", f"q{n}", phrase(n)) for n in range(80)]
    three = find_groups(Evidence.of([*given, *third]), now=START)
    assert three.profiles["a"].reason == "answers like 2 others on 80 common prompts"


@pytest.mark.parametrize(("alike", "nearest"), [(86, "few"), (90, "many")])
def test_the_nearest_of_a_few_prompts_that_agree_and_of_many_that_mostly_do(alike: int, nearest: str) -> None:
    """(8 + 1/2) / (8 + 2) lies between (86 + 1/2) / (100 + 2) and (90 + 1/2) / (100 + 2)."""
    given = [answer("s", f"q{n}", phrase(n)) for n in range(108)]
    given += [answer("few", f"q{n}", phrase(n)) for n in range(100, 108)]
    given += [answer("many", f"q{n}", phrase(n) if n < alike else phrase("m", n)) for n in range(100)]
    found = find_groups(Evidence.of(given), now=START)
    assert len(found.groups) == 3
    assert found.profiles["s"].nearest == found.group_of(nearest).id


def test_a_distance_counts_how_each_of_the_two_repeats_itself() -> None:
    """Asked again once, one contradicted itself and one did not; what was assumed of both weighs more."""
    given = [answer(s, f"q{n}", phrase(s, n)) for s in "ab" for n in range(60)]
    given.append(answer("a", "q0", phrase("else"), minute=1, round=1))
    given.append(answer("b", "q0", phrase("b", 0), minute=1, round=1))
    evidence = Evidence.of(given, IdentitySettings(self_prior=1000.0))
    selves = SelfAgreement.of(evidence)
    assert 0 < selves.low[0] < selves.high[0] < 1 and 0 < selves.low[1] < selves.high[1] < 1
    pair = find_groups(evidence, now=START).pair("a", "b")
    # an interval holds the rate it is of
    lows, highs = (0.0, float(selves.low[1])), (float(selves.high[0]), 1.0)
    expected = distance(0, 60, (0.0, 1.0), lows, highs)
    assert (pair.distance, pair.distance_low, pair.distance_high) == pytest.approx(expected)
    swapped = find_groups(evidence, now=START).pair("b", "a")
    assert (swapped.distance_low, swapped.distance_high) == pytest.approx(expected[1:])


def test_a_supplier_that_contradicts_itself_is_noisy() -> None:
    given = [answer("a", f"q{n}", phrase(n, r % 2), minute=r, round=r) for n in range(4) for r in range(3)]
    found = find_groups(Evidence.of(given), now=START).profiles["a"]
    assert (found.self_agreement, found.repeats) == (0.0, 8)
    assert found.reason.startswith("repeats itself on 0% of 8 prompts asked again: too noisy")


def test_a_group_keeps_its_name_while_more_than_half_of_it_stays() -> None:
    def since(*members: str, group: str) -> list[Assignment]:
        return [Assignment(m, group, m, START - timedelta(days=9)) for m in members]

    def alike(*suppliers: str, kind: str = "x") -> list[Answer]:
        return [answer(s, f"q{n}", phrase(kind, n)) for s in suppliers for n in range(40)]

    evidence = Evidence.of([*alike("a", "b", "e"), *alike("c", "d", kind="y")])
    kept = find_groups(evidence, previous=since("a", "b", "c", group="old"), now=START)
    assert kept.group_of("a").id == "old" != kept.group_of("c").id
    assert kept.group_of("a").since == {
        "a": START - timedelta(days=9),
        "b": START - timedelta(days=9),
        "e": START,
    }
    assert kept.group_of("c").since == {"c": START, "d": START}
    half = find_groups(evidence, previous=since("a", "b", "c", "d", group="old"), now=START)
    assert "old" not in (half.group_of("a").id, half.group_of("c").id)  # neither has more than half
    fresh = half.group_of("a").id
    assert fresh.startswith("g-") and len(fresh) == 14
    bigger = find_groups(evidence, previous=since("a", "b", group="z") + since("e", group="y"), now=START)
    assert bigger.group_of("e").id == "z"  # of two names that of the larger part


def test_members_that_differ_part_before_there_is_enough_for_a_relation() -> None:
    """Six common prompts are two too few for a pair to lean anywhere; the split e-value tells already."""
    former = [Assignment(s, "old", "a", START) for s in "ab"]
    for kinds, members in (("xx", [("a", "b")]), ("xy", [("a",), ("b",)])):
        given = [answer(s, f"q{n}", phrase(k, n)) for s, k in zip("ab", kinds, strict=True) for n in range(6)]
        found = find_groups(Evidence.of(given), previous=former, now=START)
        assert sorted(group.members for group in found.groups) == members
        assert found.pair("a", "b").split is (kinds == "xy")


def test_kin_that_repeat_themselves_without_fail_do_not_merge() -> None:
    """They agree on 7 of 8 prompts: more than distinct models do, less than one model does with itself."""
    given = [answer("a", f"q{n}", phrase(n)) for n in range(800)]
    given += [answer("b", f"q{n}", phrase(n) if n % 8 else phrase("b", n)) for n in range(800)]
    again = [answer(a.supplier, a.prompt, a.answer_prefix, minute=9, round=1) for a in given]
    found = find_groups(Evidence.of([*given, *again]), now=START)
    assert len(found.groups) == 2
    pair = found.pair("a", "b")
    assert (pair.agreement, pair.split, pair.relation) == (0.875, True, "same lineage")
    assert pair.log_merge > math.log(1 / 0.01), "alone this would have merged them"
    assert found.contested == (("a", "b"),)


def test_a_supplier_joins_a_group_that_grew_after_it_was_first_looked_at() -> None:
    """a and b are one. d agrees with them on 33 prompts, which is too little, and with c on seven others.

    c agrees with a and with b on 25 prompts each: later in order than d, but enough with both together. With
    c in the group d has 40 prompts in common with it.
    """
    asked = {
        "shared": ("abd", 33),
        "ab": ("ab", 40),
        "ac": ("ac", 25),
        "bc": ("bc", 25),
        "cd": ("cd", 7),
    }
    given = [
        answer(s, f"{name}{n}", phrase(name, n))
        for name, (who, prompts) in asked.items()
        for s in who
        for n in range(prompts)
    ]
    without = find_groups(Evidence.of([a for a in given if a.supplier != "c"]), now=START)
    assert sorted(group.members for group in without.groups) == [("a", "b"), ("d",)]
    (group,) = find_groups(Evidence.of(given), now=START).groups
    assert group.members == ("a", "b", "c", "d")


@pytest.mark.parametrize("before", [0, 254, 255, 256, 257])
def test_a_contested_pair_is_named_once_wherever_it_stands(before: int) -> None:
    """One of the two contradicts itself and joins nobody; so many suppliers without answers come first."""
    given = [answer(s, f"q{n}", phrase(n)) for s in "yz" for n in range(80)]
    given += [answer("z", f"r{n}", phrase(n, r), minute=r, round=r) for n in range(9) for r in range(3)]
    evidence = Evidence.of(given, suppliers=[f"s{n:03}" for n in range(before)])
    assert find_groups(evidence, now=START).contested == (("y", "z"),)


@pytest.mark.parametrize(("alike", "known"), [(25, 2), (26, 1)])
def test_who_is_one_at_a_hundred_to_one_counts_once_among_those_who_open_alike(
    alike: int, known: int
) -> None:
    """a and b say the same; at 26 prompts, 26 ln(.9 / .75) = 4.7 nats, that is no longer two who do.

    c and d open seven prompts as these do. That is worth the less the more others do so, two more counting
    as if a quarter of them did.
    """
    given = [answer(s, f"q{n}", phrase(n)) for s in "ab" for n in range(alike)]
    given += [answer(s, f"q{n}", phrase(n)) for s in "cd" for n in range(7)]
    found = find_groups(Evidence.of(given), now=START).pair("c", "d")
    null = 0.75 + 0.25 * (known + 2 * 0.25) / (known + 2)
    ratios = [(1 + k * (1 / null - 1)) ** 7 for k in (0.4, 0.6, 0.8, 0.96)]
    assert found.log_merge == pytest.approx(math.log(sum(ratios) / 4), abs=1e-6)


def test_many_suppliers_are_compared_a_block_at_a_time() -> None:
    """Blocks of 256 suppliers and 8,192 pairs: nobody between two of them is left out."""
    names = [f"s{n:03}" for n in range(520)]
    answer_prefixes = [[phrase(group, prompt) for prompt in range(80)] for group in range(4)]
    given = [answer(s, f"q{p:02}", answer_prefixes[n % 4][p]) for n, s in enumerate(names) for p in range(80)]
    grouping = find_groups(Evidence.of(given), now=START)
    assert sorted(g.members for g in grouping.groups) == [tuple(names[g::4]) for g in range(4)]
    assert grouping.contested == () and grouping.suspects == ()
    rows = np.array([[n % 7, -1 if n % 5 == 0 else n % 3] for n in range(520)])
    common, agree = agreements(rows, rows)
    both = ((rows[:, None, :] != NONE) & (rows[None, :, :] != NONE)).sum(axis=2)
    alike = ((rows[:, None, :] == rows[None, :, :]) & (rows[:, None, :] != NONE)).sum(axis=2)
    assert (common == both).all() and (agree == alike).all()


# ------------------------------------------------------------------------------------------------- mixtures


@given(st.lists(st.sampled_from("abn"), min_size=1, max_size=12), st.randoms())
def test_one_sided_is_the_best_cut_in_time(said: list[str], rng: random.Random) -> None:
    n = len(said)
    times = np.array(rng.sample(range(100), n), dtype=float)
    ordered = [kind for _, kind in sorted(zip(times, said, strict=True))]
    total = sum(kind != "n" for kind in said)
    best = max(
        sum(k == first for k in ordered[:cut]) + sum(k == second for k in ordered[cut:])
        for cut in range(n + 1)
        for first, second in ("ab", "ba")
    )
    a, b = (np.array([kind == which for kind in said]) for which in "ab")
    assert _one_sided(a, b, times) == pytest.approx(best / total if total else 0.0)


def test_a_suspect_by_hand() -> None:
    """Thirty-six answers of one group, twenty-four of another, in turns, on prompts where these differ."""
    given = [answer(s, f"q{n}", phrase("xy"[s > "b"], n)) for s in "abcd" for n in range(60)]
    given += [answer("m", f"q{n}", phrase("x" if n % 5 < 3 else "y", n), minute=n) for n in range(60)]
    grouping = find_groups(Evidence.of(given), now=START)
    (suspect,) = grouping.suspects
    shares = dict(zip(suspect.groups, suspect.shares, strict=True))
    assert shares == {grouping.group_of("a").id: 0.6, grouping.group_of("c").id: 0.4}
    assert (suspect.supplier, suspect.prompts, suspect.explained, suspect.kind) == ("m", 60, 1.0, "mixture")
    assert suspect.explained_low == pytest.approx(wilson(60, 60, 0.9)[0])
    # one lone supplier, one pair of the two other groups: 5 % in two shares, one-sided
    lows = {36: wilson(36, 60, 0.95)[0], 24: wilson(24, 60, 0.95)[0]}
    found = dict(zip((round(60 * s) for s in suspect.shares), suspect.shares_low, strict=True))
    assert found == pytest.approx(lows)
    assert "60%" in suspect.wording and "40% of 60 prompts, in no order of time" in suspect.wording


@pytest.mark.parametrize(
    ("name", "at", "beyond"),
    [
        ("mixture_explained", wilson(60, 60, 0.9)[0], math.nextafter(wilson(60, 60, 0.9)[0], 1)),
        ("mixture_share", wilson(24, 60, 0.95)[0], math.nextafter(wilson(24, 60, 0.95)[0], 1)),
        ("least_common", 60, 61),
        ("prefix_chars", 40, 41),  # answer prefixes of 40 characters
    ],
)
def test_a_suspect_at_the_bounds(name: str, at: float, beyond: float) -> None:
    given = [answer(s, f"q{n}", phrase("xy"[s > "b"], n)) for s in "abcd" for n in range(60)]
    given += [answer("m", f"q{n}", phrase("x" if n % 5 < 3 else "y", n), minute=n) for n in range(60)]
    for value, suspects in ((at, 1), (beyond, 0)):
        evidence = Evidence.of(given, IdentitySettings(**{name: value}))  # type: ignore[arg-type]
        assert len(find_groups(evidence, now=START).suspects) == suspects


@pytest.mark.parametrize(("ordered", "kind"), [(57, "change"), (56, "mixture")])
def test_nineteen_in_twenty_in_order_of_time_are_a_change(ordered: int, kind: str) -> None:
    """Of 60 answers: thirty of one group, then thirty of the other, but for some that are out of order."""
    given = [answer(s, f"q{n}", phrase("xy"[s > "b"], n)) for s in "abcd" for n in range(60)]
    odd = {2 * n for n in range(60 - ordered)}
    given += [answer("m", f"q{n}", phrase("xy"[(n >= 30) != (n in odd)], n), minute=n) for n in range(60)]
    (suspect,) = find_groups(Evidence.of(given), now=START).suspects
    assert suspect.kind == kind
    assert ("one after the other: its model may have changed" in suspect.wording) is (kind == "change")


# -------------------------------------------------------------------------------------------------- changes


def test_a_change_in_repeats_by_hand() -> None:
    """One prompt a minute, asked again and again; from minute 60 on it opens otherwise each time."""
    given = [answer("s", "q", phrase("x") if m < 60 else phrase(m), minute=m, round=m) for m in range(80)]
    (change,) = find_changes(given)
    assert (change.kind, change.stream, change.direction, change.certain) == (
        "repeat",
        "openings",
        "down",
        True,
    )
    assert change.at == START + 60 * MINUTE and change.before_at == START + 59 * MINUTE
    assert change.rate_after == 0.0
    after = int((change.detected_at - change.at) / MINUTE) + 1
    assert (change.since_change, change.observations) == (
        after,
        59 + after,
    )  # the first answer repeats nothing
    assert change.arl == 1e5 and change.log_e >= math.log(1e5)
    share = f"before on at least {change.null_rate:.0%}"
    assert change.wording.startswith(
        "since 2026-01-01 01:00 it answers like its own earlier answers on 0% of"
    )
    assert change.wording.endswith(f"{after} prompts, {share}")


def test_only_another_round_repeats_and_short_answers_say_nothing() -> None:
    same = [answer("s", "q", phrase(m), minute=m, round=0) for m in range(90)]
    assert find_changes(same) == []
    short = [answer("s", "q", "A" if m % 2 else "B", minute=m, round=m) for m in range(90)]
    assert find_changes(short) == []
    gone = [answer("s", "q", phrase("x") if m < 60 else "A", minute=m, round=m) for m in range(90)]
    assert [c.at for c in find_changes(gone)] == [START + 60 * MINUTE]


@pytest.mark.parametrize(("witnessed", "found"), [(4, [("a", False), ("b", False)]), (6, [("b", True)])])
def test_whose_evidence_is_twice_that_of_the_other_changed(
    witnessed: int, found: list[tuple[str, bool]]
) -> None:
    """a and b part after 60 prompts, which may be either's doing.

    On some prompts before, c agreed with b, so that more is known of what b was like: the evidence that b
    changed is 0.68 nats above that of a with four such prompts, 1.00 with six; ln 2 is 0.69.
    """
    given = [answer(s, f"x{n}", phrase(n), minute=n) for n in range(witnessed) for s in "bc"]
    given += [answer("a", f"q{n}", phrase("q", n), minute=100 + n) for n in range(72)]
    given += [answer("b", f"q{n}", phrase("q" if n < 60 else "b", n), minute=100 + n) for n in range(72)]
    changes = find_changes(given, groups=["abc"])
    assert [(change.supplier, change.certain) for change in changes] == found


def test_short_answers_that_give_way_to_text_are_a_difference() -> None:
    """Of two prompts in turn one always had text, from which the baseline is learnt."""
    given = [answer("s", "q", phrase("x"), minute=m, round=m) for m in range(90)]
    given += [answer("s", "r", "A" if m < 60 else phrase("y"), minute=m + 0.5, round=m) for m in range(90)]
    (change,) = find_changes(given)
    assert change.at == START + 60.5 * MINUTE and change.rate_after < 0.6
    # nothing is said of the short ones: 59 repeats of text until then
    assert change.observations - change.since_change == 59 + 1


@pytest.mark.parametrize(("apart_days", "compared"), [(3.0, True), (3.001, False)])
def test_members_are_compared_with_what_was_said_within_three_days(apart_days: float, compared: bool) -> None:
    given = []
    for n in range(70):
        day = START + timedelta(days=20 * n)
        for s in "ab":
            given.append(Answer(s, f"q{n}", "f", day, 0, phrase("x", n)))
        given.append(Answer("c", f"q{n}", "f", day + timedelta(days=apart_days), 0, phrase("xc"[n >= 40], n)))
    found = find_changes(given, groups=[["a", "b", "c"]])
    assert [c.supplier for c in found] == (["c"] if compared else [])
    if compared:
        assert found[0].kind == "group" and found[0].certain
        assert found[0].at == START + timedelta(days=20 * 40 + 3)
        assert "like the rest of its group on 0%" in found[0].wording


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.dictionaries(st.integers(0, 12), st.sampled_from("xyz"), min_size=1, max_size=3),
        min_size=2,
    ),
    st.integers(0, 5),
)
def test_the_others_majority_is_of_their_nearest_answers(drawn: dict[str, dict[int, str]], near: int) -> None:
    """Of each other member the answer nearest in time, the earlier of two; more than half must agree."""
    names = sorted(drawn)
    expected = []
    for place, member in enumerate(names):
        for at, text in drawn[member].items():
            votes = []
            for other in names:
                nearest = min(drawn[other], key=lambda t: (abs(t - at), t))
                if other != member and abs(nearest - at) <= near:
                    votes.append((nearest, drawn[other][nearest]))
            for usual in {opened for _, opened in votes}:
                alike = [t for t, opened in votes if opened == usual]
                if 2 * len(alike) > len(votes):
                    expected.append((place, at, max(at, *alike), text == usual))
    given_ = AnswerTable.of(
        Answer(m, "q", "t", START + t * MINUTE, 0, 20 * text) for m in names for t, text in drawn[m].items()
    )
    found = deviations(Compared(given_, 20).answers(names), np.zeros(4, dtype=np.int64), near * 60_000_000)
    told = [
        (owner, *((instant(at) - START) // MINUTE for at in times), agreed)
        for owner, *times, agreed in zip(
            *(of.tolist() for of in (found.owner, found.at, found.known_at, found.agreed)), strict=True
        )
    ]
    assert told == sorted(expected)


def test_answers_at_a_cut_belong_to_the_era_before() -> None:
    given = [answer("s", "q", phrase("x") if m < 60 else phrase(m), minute=m, round=m) for m in range(80)]
    assert len(find_changes(given, cut_at={"s": START - MINUTE})) == 1
    assert find_changes(given, cut_at={"s": START + 59 * MINUTE}) == []
    evidence = Evidence.of(
        [answer("s", "q", phrase(1), minute=1), answer("s", "r", phrase(2), minute=1.001)],
        cut_at={"s": START + MINUTE},
    )
    assert evidence.prompts == ("r",)
    former = Assignment("s", "old", "s", START + MINUTE)
    for cut, kept in ((START + MINUTE, True), (START + 1.001 * MINUTE, False)):
        found = find_groups(
            Evidence.of([answer("s", "q", phrase(1), minute=9)], cut_at={"s": cut}),
            previous=[former],
            now=START,
        )
        assert (found.group_of("s").id == "old") is kept


def test_how_common_a_prefix_is_by_its_first_dozen_characters() -> None:
    """Equal beginnings of a tenth of the answers to a family are its template, of less are chance."""

    def commonness(alike: int, of: int, chars: int = 12) -> float:
        given = [answer("a", f"q{n:03}", "t" * chars + phrase(n)) for n in range(alike)]
        given += [answer("a", f"q{n:03}", phrase(n)) for n in range(alike, of)]
        return float(Evidence.of(given).common[0, 0])

    assert commonness(2, 20) == pytest.approx(0.1)
    assert commonness(2, 21) == 0.0
    assert commonness(1, 5) == 0.0
    assert commonness(5, 20, chars=11) == 0.0


# -------------------------------------------------------------------------------------------------- proxies


def test_a_member_2_percent_below_the_best_may_be_drawn_and_no_other() -> None:
    def drawn(availability: dict[str, float]) -> set[str]:
        return {
            elect(
                sorted(availability),
                availability=availability,
                self_agreement={"a": 1.0, "b": 1.0},
                alive=availability,
                previous=None,
                now=START,
                rng=random.Random(seed),
            ).proxy
            for seed in range(40)
        }

    assert drawn({"a": 1.0, "b": 0.981}) == {"a", "b"}
    assert drawn({"a": 1.0, "b": 0.979}) == {"a"}
    assert drawn({"a": 0.5, "b": 0.4905}) == {"a", "b"}  # of the best, whatever that is
    assert drawn({"a": 0.96, "c": 1.0}) == {"a", "c"}  # an unknown self-agreement is taken for .95
    assert drawn({"a": 0.99, "c": 1.0}) == {"a"}


# --------------------------------------------------------------------------------------------------- picture


def placed(name: str, service: str, group: str, self_agreement: float | None) -> IdentityGroupRecord:
    """A record of ``identity_groups``; what the picture does not show is that of a supplier alone."""
    return IdentityGroupRecord(
        id=name,
        service=service,
        group=group,
        proxy=name,
        role="alone",
        members=[name],
        since=START,
        rotates_at=None,
        compared_at=START,
        n_prompts=30,
        self_agreement=self_agreement,
        self_low=0.0,
        self_high=1.0,
        repeats=0,
        agreement=None,
        distance=None,
        nearest=None,
        nearest_agreement=None,
        nearest_low=None,
        nearest_high=None,
        nearest_common=0,
        suspect=None,
        reason="",
    )


def matrix(groups: list[str], services: list[str] | None = None, **own: float | None) -> bytes:
    """The picture of suppliers that answer alike within a group and nowhere else."""
    n = len(groups)
    names = [f"s{i:02}" for i in range(n)]
    given = [answer(names[i], f"q{q}", phrase(groups[i], q)) for i in range(n) for q in range(30)]
    grouping = find_groups(Evidence.of(given), now=START)
    records = [
        placed(name, services[i] if services else "x", groups[i], own.get(name, 0.95))
        for i, name in enumerate(names)
    ]
    return agreement_matrix(records, {"x": grouping, "y": grouping}, "who $x$")


def picture(groups: list[str], services: list[str] | None = None, **own: float) -> np.ndarray:
    """The same as an array of pixels from 0 to 255."""
    from matplotlib import image

    png = matrix(groups, services, **own)
    return (image.imread(io.BytesIO(png))[..., :3] * 255).round()


def pixels(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour, but for rounding."""
    return int((np.abs(image - np.array(colour)).max(axis=-1) <= 2).sum())


YELLOW, PURPLE, RED, GREY = (253, 231, 37), (68, 1, 84), (214, 39, 40), (217, 217, 217)


def test_the_matrix_as_it_was_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, services = ["g", "g", "h", "i"], ["x", "x", "x", "y"]
    figure = figure_of(lambda: matrix(groups, services, s00=1.0, s01=0.6, s02=0.61, s03=None), monkeypatch)
    assert_approved(figure, Path(__file__).with_name("matrix.txt"))


def test_a_matrix_shows_agreement_groups_and_what_is_not_known() -> None:
    """Viridis from purple for 0 to yellow for 1; a frame around groups of several; grey between services."""
    image = picture(["g", "g", "h", "i"], s00=1.0)
    # 2.4 inches and 0.24 a supplier, 0.9 more for the bar, 80 dots an inch
    assert image.shape[:2] == (int((2.4 + 0.24 * 4) * 80), int((2.4 + 0.24 * 4 + 0.9) * 80))
    assert pixels(image, YELLOW) > 100 and pixels(image, PURPLE) > 100
    assert pixels(image, RED) > 50
    alone = picture(["g", "h", "i", "j"])
    assert pixels(alone, RED) == 0
    apart = picture(["g", "g"], services=["x", "y"])
    assert pixels(apart, GREY) > 100 + 2 * pixels(image, GREY)


@pytest.mark.parametrize(("suppliers", "numbers"), [(14, 14 * 14), (15, 0)])
def test_numbers_are_written_while_there_is_room(
    suppliers: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(lambda: matrix([f"g{i}" for i in range(suppliers)]), monkeypatch)
    assert len(figure.axes[0].texts) == numbers


def test_long_names_are_cut_in_the_middle() -> None:
    assert _short("a" * 28) == "a" * 28
    assert _short("0123456789abc" + "-" * 5 + "0123456789abcd") == "0123456789ab…0123456789abcd"


def test_records_stay_what_they_are() -> None:
    assert changeable("testbench_dagster.identity") <= {"IdentityReport"}
