"""Public questions beside fresh ones: the test, its rules, and what simulated suppliers make of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from testbench_dagster.statistics import twins
from testbench_dagster.statistics.twins import (
    ALPHA,
    FLAG_AMONG,
    LEAST_PEER_PAIRS,
    Pairs,
    Shift,
    Verdict,
    excess_of,
    is_flagged,
    judge,
    log_odds,
    p_value,
    shift_of,
    tails,
    usual,
)
from testbench_dagster_tests.acceptance.documents import document

#: Standard deviation of the difficulties of questions, in logits.
SPREAD = 1.5
#: Shares of right answers of the five peers.
PEERS = (0.66, 0.75, 0.85, 0.9, 0.93)


@cache
def ability(share: float, slope: float = 1.0) -> float:
    """The ability with this share of right answers to questions of :data:`SPREAD`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        right = weights @ (1 / (1 + np.exp(-slope * (middle - SPREAD * nodes)))) / weights.sum()
        low, high = (middle, high) if right < share else (low, middle)
    return low


class Rasch:
    """Suppliers that answer pairs of questions as a Rasch model says, all of them the same ones."""

    def __init__(self, seed: int, epochs: int, pairs: int, shift: float = 0.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.public = self.rng.normal(0, SPREAD, (epochs, pairs))
        self.fresh = self.public + shift

    def answers(
        self, share: float, memorised: float = 0.0, slope: float = 1.0, failing: float = 0.0
    ) -> list[Pairs]:
        """A supplier's pairs by epoch; it has learnt a share of the public questions it would miss."""
        theta = ability(share, slope)

        def right(difficulty: NDArray[np.float64]) -> NDArray[np.bool_]:
            chance = 1 / (1 + np.exp(-slope * (theta - difficulty)))
            said: NDArray[np.bool_] = self.rng.random(difficulty.shape) < chance
            return said

        public, fresh = right(self.public), right(self.fresh)
        if memorised:
            public |= self.rng.random(public.shape) < memorised
        if failing:
            public &= self.rng.random(public.shape) >= failing
            fresh &= self.rng.random(fresh.shape) >= failing
        counts = [(a & b).sum(1) for a in (public, ~public) for b in (fresh, ~fresh)]
        return [Pairs(*map(int, row)) for row in zip(*counts, strict=True)]


def alarms(own: Sequence[Pairs], peers: Sequence[Sequence[Pairs]], alpha: float = ALPHA) -> float:
    """How often the test alone rejects, without the rules on when there is a verdict."""
    epochs = zip(*peers, strict=True)
    return float(
        np.mean([p_value(one, shift_of(others)) <= alpha for one, others in zip(own, epochs, strict=True)])
    )


# ---------------------------------------------------------------------------------------------- arithmetic


def test_pairs_are_counted_by_their_halves() -> None:
    pairs = Pairs.from_answers([(True, True), (True, False), (True, False), (False, True), (False, False)])
    assert pairs == Pairs(1, 2, 1, 1) and (pairs.n, pairs.discordant) == (5, 3)
    assert (pairs.public_share, pairs.fresh_share) == (0.6, 0.4)
    assert Pairs().public_share is None and Pairs().fresh_share is None


def test_log_odds_of_no_pair_are_0_and_turn_with_the_halves() -> None:
    assert log_odds(0, 0) == 0.0 and log_odds(3, 1) == pytest.approx(math.log(3.5 / 1.5))
    assert Pairs(9, 7, 2, 1).log_odds == -Pairs(9, 2, 7, 1).log_odds
    with pytest.raises(ValueError, match="want counts of pairs, got -1 and 2"):
        log_odds(-1, 2)


def test_half_a_pair_in_each_cell_leaves_log_odds_and_their_excess_without_bias() -> None:
    """Over all counts of 20 and of 60 half right pairs, at odds of e to the .3: no hundredth is lost."""
    share = 1 / (1 + math.exp(-0.3))
    mean = {
        n: sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) * log_odds(k, n - k) for k in range(n + 1))
        for n in (20, 60)
    }
    assert abs(mean[20] - 0.3) < 0.01 and abs(mean[60] - 0.3) < 0.001


def test_tails_are_those_of_a_binomial_count_where_the_odds_are_certain() -> None:
    share = 1 / (1 + math.exp(-0.4))
    chance = [math.comb(12, k) * share**k * (1 - share) ** (12 - k) for k in range(13)]
    upper, lower = tails(Pairs(0, 9, 3, 0), 0.4, 0.0)
    assert upper == pytest.approx(sum(chance[10:]) + chance[9] / 2)
    assert lower == pytest.approx(sum(chance[:9]) + chance[9] / 2)
    assert tails(Pairs(5, 0, 0, 5), 0.4, 0.1) == (0.5, 0.5)


def test_an_uncertain_shift_makes_alarms_rarer() -> None:
    own = Pairs(0, 16, 4, 0)
    found = [tails(own, 0.0, error)[0] for error in (0.0, 0.2, 0.4, 0.8)]
    assert found == sorted(found) and found[0] < 0.01 < found[-1]


def test_shifts_are_those_of_all_pairs_together_and_less_certain_where_units_differ() -> None:
    alike = shift_of([Pairs(0, 10, 10, 0)] * 4)
    apart = shift_of([Pairs(0, 18, 2, 0), Pairs(0, 2, 18, 0)] * 2)
    assert (alike.public_only, alike.fresh_only, alike.units) == (40, 40, 4)
    assert alike.log_odds == apart.log_odds == 0.0
    assert alike.error == pytest.approx(math.sqrt(2 / 40.5))
    assert apart.error > 2 * alike.error
    # Pearson's chi square over 3: 4 units, each 8 from the 10 of 20 that are expected
    assert apart.overdispersion == pytest.approx(4 * 64 / (20 * 0.25) / 3)
    assert shift_of([]) == Shift(0, 0, 0)


def test_the_interval_holds_what_the_test_does_not_refute() -> None:
    peers = shift_of([Pairs(0, 20, 21, 0)] * 6)
    own = Pairs(100, 30, 10, 60)
    found = excess_of(own, peers)
    assert found.low is not None and found.high is not None
    assert found.low < found.excess < found.high
    for bound, place in ((found.low, 0), (found.high, 1)):
        assert tails(own, peers.log_odds + bound, peers.error)[place] == pytest.approx(0.025, abs=1e-6)
    # who knows all public questions has no upper end
    assert excess_of(Pairs(100, 30, 0, 60), peers).high is None
    assert excess_of(Pairs(100, 0, 30, 60), peers).low is None


def test_flagged_is_who_was_better_in_two_of_the_last_four_verdicts() -> None:
    better, not_, none = Verdict.BETTER, Verdict.NOT_BETTER, Verdict.NONE
    assert FLAG_AMONG == 4
    for verdicts, flagged in (
        ([better], False),
        ([better, better], True),
        ([better, none, none, none, none, better], True),
        ([better, not_, not_, better], True),
        ([better, not_, not_, not_, better], False),
        ([none, better, not_, better], True),
        ([], False),
    ):
        assert is_flagged(verdicts) is flagged, verdicts


# ------------------------------------------------------------------------------------------------- verdicts


def honest(n: int = 6, discordant: int = 60) -> dict[str, Pairs]:
    """Suppliers that are as good on both kinds, nearly."""
    return {
        f"h{k}": Pairs(100, discordant // 2 + k % 2, discordant // 2 - k % 2, 40 - k % 2) for k in range(n)
    }


PARROT = Pairs(120, 60, 5, 15)


def test_who_knows_public_questions_is_better_and_nobody_else() -> None:
    found = judge({**honest(), "parrot": PARROT}, {}, {})
    assert {key for key, one in found.items() if one.verdict is Verdict.BETTER} == {"parrot"}
    assert {one.verdict for key, one in found.items() if key != "parrot"} == {Verdict.NOT_BETTER}
    assert found["parrot"].shift.units == 6 and found["parrot"].p is not None


def test_without_five_peers_of_other_units_there_is_no_verdict() -> None:
    alone = judge({"parrot": PARROT}, {}, {})["parrot"]
    assert (alone.verdict, alone.p) == (Verdict.NONE, None) and alone.why is not None
    assert alone.why.startswith("0 peers of other groups answered pairs; it takes 5")
    four = judge({**honest(4), "parrot": PARROT}, {}, {})["parrot"]
    assert four.verdict is Verdict.NONE and str(four.why).startswith("4 peers")
    assert judge({**honest(5), "parrot": PARROT}, {}, {})["parrot"].verdict is Verdict.BETTER
    # six suppliers of two owners are two peers
    owners = {f"h{k}": f"owner {k % 2}" for k in range(6)}
    assert judge({**honest(6), "parrot": PARROT}, owners, {})["parrot"].verdict is Verdict.NONE


def test_nobody_is_compared_with_its_own_group_nor_with_who_answered_next_to_nothing() -> None:
    own = {**honest(5), "parrot": PARROT, "copy": PARROT}
    found = judge(own, {"parrot": "g", "copy": "g"}, {})
    assert found["parrot"].shift.units == found["copy"].shift.units == 5
    assert found["parrot"].verdict is Verdict.BETTER
    few = {f"new{k}": Pairs(LEAST_PEER_PAIRS // 3, 4, 4, 4) for k in range(9)}
    assert judge({**honest(4), **few, "parrot": PARROT}, {}, {})["parrot"].verdict is Verdict.NONE


def test_where_fresh_questions_are_harder_for_all_there_is_no_verdict() -> None:
    hard = {f"h{k}": Pairs(100, 40 + k, 20, 40 - k) for k in range(8)}
    found = judge({**hard, "parrot": PARROT}, {}, {})
    assert {one.verdict for one in found.values()} == {Verdict.NONE}
    assert "for its peers fresh ones are harder too" in str(found["parrot"].why)
    easy = {f"h{k}": Pairs(100, 20, 40 + k, 40 - k) for k in range(8)}
    assert "public ones are harder too" in str(judge({**easy, "x": PARROT}, {}, {})["x"].why)


def test_where_the_peers_shift_is_hardly_known_there_is_no_verdict_until_more_epochs_tell() -> None:
    own = {**honest(6, discordant=8), "parrot": PARROT}
    found = judge(own, {}, {})["parrot"]
    assert found.verdict is Verdict.NONE and "is known to 0.29 logits only" in str(found.why)
    earlier = {"parrot": [Shift(6, 60, 60)]}
    assert judge(own, {}, {}, earlier)["parrot"].verdict is Verdict.BETTER
    # what earlier epochs know to be harder is so, however this one came out
    harder = {"parrot": [Shift(6, 200, 120)]}
    assert "harder" in str(judge(own, {}, {}, harder)["parrot"].why)


def test_few_half_right_pairs_say_nothing() -> None:
    found = judge({**honest(), "x": Pairs(190, 7, 0, 3)}, {}, {})["x"]
    assert found.verdict is Verdict.NONE and "7 of 200 pairs are half right" in str(found.why)


def test_who_differs_from_the_others_is_no_measure_of_what_is_normal() -> None:
    """Three parrots among nine would hide each other; and a liar would make all others look like parrots."""
    parrots = {f"p{k}": PARROT for k in range(3)}
    units = {**honest(6), **parrots}
    assert set(usual(units)) == set(honest(6))
    found = judge(units, {}, {})
    assert {key for key, one in found.items() if one.verdict is Verdict.BETTER} == set(parrots)
    liar = {"liar": Pairs(10, 2, 150, 38)}
    found = judge({**honest(6), **liar}, {}, {})
    assert not [key for key, one in found.items() if one.verdict is Verdict.BETTER]
    assert found["h0"].verdict is Verdict.NOT_BETTER and found["h0"].shift.units == 5


def test_where_most_know_the_public_questions_nobody_is_accused() -> None:
    """What is normal is then not known: as many as one likes make no innocent look guilty."""
    found = judge({**honest(3), **{f"p{k}": PARROT for k in range(9)}}, {}, {})
    assert {found[f"h{k}"].verdict for k in range(3)} <= {Verdict.NONE, Verdict.NOT_BETTER}


def test_p_values_are_adjusted_over_the_suppliers_of_a_service() -> None:
    own = {**honest(20), "x": Pairs(100, 43, 18, 39)}
    alone = judge(own, {}, {key: key for key in own})["x"]
    together = judge(own, {}, {})["x"]
    assert alone.p is not None and together.p is not None
    assert together.p == pytest.approx(21 * alone.p)
    assert (alone.verdict, together.verdict) == (Verdict.BETTER, Verdict.NOT_BETTER)


def test_suppliers_of_other_services_are_peers_and_only_candidates_are_judged() -> None:
    own = {**honest(6), "parrot": PARROT}
    assert set(judge(own, {}, {}, candidates=["parrot"])) == {"parrot"}


# ---------------------------------------------------------------------------------------------- simulations

#: Alarms at 1 % of `frameworks.md`, section 4: by ability, pairs and share memorised of what it would miss.
TABLE: Mapping[float, Mapping[int, tuple[float, float, float]]] = {
    0.66: {100: (0.13, 0.59, 1.0), 200: (0.28, 0.92, 1.0), 400: (0.60, 1.0, 1.0)},
    0.9: {100: (0.02, 0.08, 0.18), 200: (0.06, 0.31, 0.97), 400: (0.15, 0.70, 1.0)},
}
SHARES = (0.25, 0.5, 1.0)


def table_of(epochs: int, seed: int) -> dict[tuple[float, int, float], float]:
    found = {}
    for share, rows in TABLE.items():
        for pairs in rows:
            for memorised in SHARES:
                rasch = Rasch(seed, epochs, pairs)
                own = rasch.answers(share, memorised)
                found[share, pairs, memorised] = alarms(own, [rasch.answers(peer) for peer in PEERS])
    return found


def check_table(found: Mapping[tuple[float, int, float], float], tolerance: float) -> None:
    for (share, pairs, memorised), alarm in found.items():
        wanted = TABLE[share][pairs][SHARES.index(memorised)]
        if (share, pairs) == (0.9, 100) and memorised > 0.25:
            # n01 is 0 or nearly, where the normal approximation of the table's own test has no power
            assert alarm > wanted, (pairs, memorised, alarm)
        else:
            assert alarm == pytest.approx(wanted, abs=tolerance), (share, pairs, memorised, alarm)


def test_the_power_is_that_of_the_table() -> None:
    check_table(table_of(250, seed=1), tolerance=0.11)


@pytest.mark.slow
def test_the_power_is_that_of_the_table_more_precisely() -> None:
    found = table_of(4_000, seed=2)
    check_table(found, tolerance=0.075)
    assert found[0.9, 100, 1.0] > 0.8
    told = re.findall(r"^\| (\d+) \| (\.\d+) \| (\S+) \| (\S+) \| (\S+) \|$", document("docs/twins.md"), re.M)
    assert len(told) == 6
    for pairs, share, *alarms_ in told:
        for memorised, alarm in zip(SHARES, alarms_, strict=True):
            assert f"{found[float(share), int(pairs), memorised]:.2f}".removeprefix("0") == alarm


@pytest.mark.parametrize(
    "epochs", [pytest.param(250, id="short"), pytest.param(4_000, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("share", [0.5, 0.66, 0.95])
def test_peers_of_another_ability_accuse_nobody(share: float, epochs: int) -> None:
    """Where the difference in differences of shares alarms in half of the cases: at a shift of .8 logits."""
    rasch = Rasch(int(share * 100), epochs, 200, shift=0.8)
    own, peers = rasch.answers(share), [rasch.answers(0.93) for _ in range(5)]
    found = alarms(own, peers)
    assert found <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / epochs)
    if share == 0.66:
        differences = [
            (one.public_share or 0)
            - (one.fresh_share or 0)
            - np.mean([(p.public_share or 0) - (p.fresh_share or 0) for p in others])
            for one, others in zip(own, zip(*peers, strict=True), strict=True)
        ]
        errors = [math.sqrt(one.discordant) / one.n for one in own]
        naive = np.mean(np.array(differences) / np.array(errors) > 2.33)
        assert naive > 0.2, "the mean difference accuses the innocent here"


@pytest.mark.parametrize(
    "epochs", [pytest.param(60, id="short"), pytest.param(1_500, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.1, 0.2, 0.3, 0.8])
def test_peers_of_other_slopes_accuse_nobody_as_large_shifts_have_no_verdict(
    shift: float, epochs: int
) -> None:
    """The worst of the slopes: steep itself, its peers flat on the whole. Told is the share of all epochs."""
    rasch = Rasch(int(10 * shift) + 50, epochs, 200, shift)
    slopes = dict(zip(PEERS, (0.7, 1.0, 1.4, 0.8, 1.2), strict=True))
    everybody = {"steep": rasch.answers(0.66, slope=1.6)}
    everybody |= {str(share): rasch.answers(share, slope=slope) for share, slope in slopes.items()}
    better = verdicts = 0
    for epoch in range(epochs):
        one = judge({key: pairs[epoch] for key, pairs in everybody.items()}, {}, {"steep": "alone"})["steep"]
        better += one.verdict is Verdict.BETTER
        verdicts += one.verdict is not Verdict.NONE
    assert better / epochs <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / epochs)
    if shift == 0.8:
        assert verdicts == 0
    if shift == 0.0 and epochs > 100:
        assert verdicts / epochs > 0.4


@pytest.mark.parametrize("failing", [0.1, 0.4])
def test_who_fails_by_chance_is_not_accused(failing: float) -> None:
    """Docs left unanswered are wrong, and fall on both halves alike, for who cannot tell them apart."""
    rasch = Rasch(7, 250, 200)
    found = alarms(rasch.answers(0.8, failing=failing), [rasch.answers(share) for share in PEERS])
    assert found <= 0.03


def years(n_years: int, seed: int, pairs: int = 200) -> tuple[int, int, int]:
    """Thirty honest suppliers of three abilities, an epoch a month: alarms, flags, and epochs with verdicts.

    As the code has it: all judged together, what earlier epochs said of the shift kept, flags over the last
    four verdicts.
    """
    epochs = 12 * n_years
    rasch = Rasch(seed, epochs, pairs)
    answers = {f"s{n}": rasch.answers((0.5, 0.7, 0.9)[n % 3]) for n in range(30)}
    history: dict[str, list[Verdict]] = {key: [] for key in answers}
    known: dict[str, list[Shift]] = {key: [] for key in answers}
    n_alarms = n_flags = n_verdicts = 0
    for epoch in range(epochs):
        judged = judge({key: one[epoch] for key, one in answers.items()}, {}, {}, known)
        for key, one in judged.items():
            n_alarms += one.verdict is Verdict.BETTER
            n_verdicts += one.verdict is not Verdict.NONE
            history[key] = [one.verdict, *history[key]]
            n_flags += is_flagged(history[key])
            before = known[key][0] if known[key] else Shift(0, 0, 0)
            total = one.shift.public_only + before.public_only, one.shift.fresh_only + before.fresh_only
            known[key] = [Shift(one.shift.units, *total)]
    return n_alarms, n_flags, n_verdicts


def test_thirty_honest_suppliers_are_not_flagged_in_five_years() -> None:
    n_alarms, n_flags, n_verdicts = years(5, seed=11, pairs=100)
    assert n_flags == 0 and n_alarms <= 4 and n_verdicts > 0.8 * 30 * 60


@pytest.mark.slow
def test_thirty_honest_suppliers_are_not_flagged_in_two_hundred_years() -> None:
    """At 1 % a year's twelve epochs have .12 alarms; two of four of one supplier come once in 8,000 years."""
    n_alarms, n_flags, n_verdicts = years(200, seed=12)
    assert n_flags == 0
    assert 1 <= n_alarms <= 24 + 4 * math.sqrt(24)  # 2,400 epochs at 1 %
    assert n_verdicts > 0.9 * 30 * 2_400


def test_who_knows_all_public_questions_is_flagged_in_its_second_epoch() -> None:
    rasch = Rasch(13, 2, 200)
    everybody = {f"s{n}": rasch.answers((0.5, 0.7, 0.9)[n % 3]) for n in range(12)}
    everybody["parrot"] = rasch.answers(0.7, memorised=1.0)
    verdicts = []
    for epoch in range(2):
        found = judge({key: one[epoch] for key, one in everybody.items()}, {}, {})
        verdicts.append(found["parrot"].verdict)
        assert [key for key, one in found.items() if one.verdict is Verdict.BETTER] == ["parrot"]
    assert is_flagged(verdicts)


def test_the_level_and_rules_are_the_documented_ones() -> None:
    assert (ALPHA, twins.LEAST_PEERS, twins.LEAST_DISCORDANT) == (0.01, 5, 8)
    assert (twins.MOST_SHIFT, twins.MOST_SHIFT_ERROR, twins.FLAG_EPOCHS) == (0.1, 0.2, 2)


@pytest.mark.parametrize("lies", [(30, 8), (24, 14)])
def test_a_majority_that_lies_in_turns_accuses_nobody(lies: tuple[int, int]) -> None:
    """Seven that are worse on fresh questions in one epoch, on public ones in the next; their mean is 0."""
    rasch = Rasch(20261201, 8, 200)
    honest = [rasch.answers(ability(share)) for share in (0.66, 0.75, 0.85)]
    earlier: dict[str, list[Shift]] = {}
    better, whys = 0, set()
    for epoch in range(8):
        own = {f"honest {n}": answers[epoch] for n, answers in enumerate(honest)}
        now = lies if epoch % 2 == 0 else lies[::-1]
        own |= {f"liar {n}": Pairs(140, *now, 22) for n in range(7)}
        for name, one in judge(own, {}, dict.fromkeys(own, ""), earlier).items():
            shift = one.shift
            earlier.setdefault(name, []).append(Shift(shift.units, shift.public_only, shift.fresh_only))
            better += one.verdict is Verdict.BETTER
            whys.add((one.why or "").partition(",")[0])
    assert not better and "in this epoch public ones are harder for its peers" in whys
    # who is better by itself is still seen beside peers that are worse by less
    assert p_value(Pairs(120, 60, 2, 18), Shift(7, 7 * 14, 7 * 24)) <= ALPHA
