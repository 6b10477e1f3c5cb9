"""Populations: reproducible, telling, and refused when they make no sense."""

from collections import Counter

import pytest

from testbench_dagster.localnet.chance import pick, unit
from testbench_dagster.localnet.personas import Backend, Persona, Swap, default_population


def test_chance_is_even_and_depends_on_every_part():
    draws = [unit("seed", number) for number in range(4000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02
    assert len({unit("a", "b"), unit("ab", ""), unit("b", "a"), unit("a", "b", "")}) == 4
    assert Counter(pick("xyz", number) for number in range(900)).keys() == set("xyz")


@pytest.mark.parametrize("n", [6, 7, 12, 40])
def test_population_has_what_a_demo_needs(n):
    people = default_population(n, seed=1)
    assert len({person.address for person in people}) == n
    assert people[0].address == "sim-01"
    assert sum(person.api == "completions" for person in people) * 3 >= n
    backends = Counter(person.backend.name for person in people)
    assert max(backends.values()) >= 2, "no twins"
    accuracies = sorted(person.backend.accuracy for person in people)
    assert accuracies[0] < 0.45
    assert accuracies[-1] > 0.85
    assert any(person.failures for person in people)
    assert any(person.latency_ms >= 100 for person in people)
    assert any(person.backend.by_task for person in people)
    assert all(person.backend.model.startswith("simulated-") for person in people)


def test_population_follows_from_its_seed():
    assert default_population(20, 5) == default_population(20, 5)
    assert default_population(20, 5) != default_population(20, 6)
    assert default_population(9, 5) == default_population(20, 5)[:9]
    assert len(default_population(1)) == 1
    assert default_population(120)[0].address == "sim-001"


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        default_population(0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Backend("b", 1.2)
    with pytest.raises(ValueError, match="starter_logic"):
        Backend("b", 0.5, {"starter_logic": -0.1})
    with pytest.raises(ValueError, match="unknown failure 'teapot'"):
        Persona("a", Backend("b"), failures={"teapot": 0.1})
    with pytest.raises(ValueError, match="exceed 1"):
        Persona("a", Backend("b"), failures={"500": 0.6, "429": 0.6})


def test_swap_by_count_and_by_time():
    old, new = Backend("old"), Backend("new")
    assert Persona("a", old).serving(10**6, 10**6) is old
    by_count = Persona("a", old, swap=Swap(new, after_requests=3))
    assert [by_count.serving(n, 0).name for n in (0, 2, 3)] == ["old", "old", "new"]
    by_time = Persona("a", old, swap=Swap(new, after_s=1.5))
    assert [by_time.serving(0, s).name for s in (0, 1.4, 1.5)] == ["old", "old", "new"]
