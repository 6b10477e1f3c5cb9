"""How many common prompts decide the pairs of a roster, held against the verdicts themselves."""

from __future__ import annotations

import random

import pytest

from testbench_dagster.core.task import MOST_PROBES
from testbench_dagster.identity import Answer, Evidence, find_groups, needed_prompts
from testbench_dagster_tests.identity.population import START, phrase


def test_the_number_grows_with_the_roster_and_is_bounded() -> None:
    found = [needed_prompts(m) for m in (8, 30, 100, 300, 1000, 5000, 10**6)]
    assert found == sorted(found) and found[0] < 80 < found[2] < found[-1] == MOST_PROBES
    assert needed_prompts(0) == needed_prompts(1) >= 20
    with pytest.raises(ValueError, match="suppliers must be 0 or more"):
        needed_prompts(-1)


def test_so_many_prompts_decide_nearly_all_pairs() -> None:
    """Twelve suppliers, four of them twins that differ on .015 of prompts each, the others all apart."""
    prompts = needed_prompts(12)
    draw = random.Random(11)
    given = []
    for name in (*(f"t{n}" for n in range(4)), *(f"x{n}" for n in range(8))):
        for t in range(prompts):
            own = name[0] == "x" or draw.random() < 0.015
            given.append(
                Answer(name, f"p{t}", "probes", START, 1, phrase(name, t) if own else phrase("t", t))
            )
    grouping = find_groups(Evidence.of(given), now=START)
    names = sorted({a.supplier for a in given})
    pairs = [grouping.pair(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    assert sum(pair.certain for pair in pairs) >= 0.9 * len(pairs)
    assert all(pair.relation == "different" for pair in pairs if {pair.a[0], pair.b[0]} != {"t"})
