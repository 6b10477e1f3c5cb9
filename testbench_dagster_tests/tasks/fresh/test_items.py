"""What is drawn follows from the epoch's seed alone: on every Python, under every order of sets."""

import datetime
import hashlib

import pytest

from testbench_dagster.tasks.fresh.items import draw, item_seed
from testbench_dagster_tests.pythons import HASH_SEEDS, OTHERS, can, interpreters, printed
from testbench_dagster_tests.tasks.fresh.drawing import ITEMS, needs_package

#: Of the 160 items of the epoch "seed", with reasoning-gym 0.1.25; looked at on Python 3.11, 3.12 and 3.13.
DRAWN = "f43565f0c97729fc63b3847633243457eb8b1dd095f4e66b9a1e242282415da1"


def digest() -> str:
    """SHA-256 over questions, answers and seeds of the 160 items."""
    found = hashlib.sha256()
    for generator, number in ITEMS:
        item = draw("seed", generator, number)
        found.update(f"{item.question}\0{item.answer}\0{item.seed}\n".encode())
    return found.hexdigest()


#: The same in a process that has neither pytest nor what else this package needs.
ELSEWHERE = f"""
import hashlib
from testbench_dagster.tasks.fresh.items import draw
found = hashlib.sha256()
for generator, number in {ITEMS!r}:
    item = draw("seed", generator, number)
    found.update(f"{{item.question}}\\0{{item.answer}}\\0{{item.seed}}\\n".encode())
print(found.hexdigest())
"""


HAS_PACKAGE = (
    "import importlib.metadata as m; assert m.version('reasoning-gym') == '0.1.25'; import reasoning_gym"
)


@needs_package
def test_the_items_of_an_epoch_are_the_known_ones() -> None:
    assert digest() == DRAWN


@needs_package
def test_another_epoch_draws_others() -> None:
    one = [draw("one", generator, number).question for generator, number in ITEMS]
    two = [draw("two", generator, number).question for generator, number in ITEMS]
    # of coin flips and legs to count there are few kinds; the same place never holds the same by design
    assert sum(a == b for a, b in zip(one, two, strict=True)) <= 8
    assert len(set(one)) >= 150


@needs_package
def test_the_day_does_not_matter(monkeypatch) -> None:
    """One generator asks for today's date, to put times on it."""
    from reasoning_gym.arithmetic import time_intervals

    class Leap(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date(2028, 2, 29)

    before = [draw("seed", "time_intervals", number) for number in range(60)]
    monkeypatch.setattr(time_intervals, "date", Leap)
    assert [draw("seed", "time_intervals", number) for number in range(60)] == before


def test_seeds_are_of_one_item_each() -> None:
    found = {item_seed(seed, g, n) for seed in ("a", "b") for g, n in ITEMS}
    assert len(found) == 2 * len(ITEMS)
    assert all(0 <= one < 2**48 for one in found)
    assert item_seed("a", "gcd", 1) == int(hashlib.sha256(b"a:fresh:gcd:1").hexdigest()[:12], 16)


@needs_package
@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters())
def test_one_sum_on_every_python_under_three_hash_seeds(python: str) -> None:
    if not can(python, HAS_PACKAGE):
        pytest.skip(f"{python} has no reasoning-gym 0.1.25; name others in {OTHERS}")
    assert {printed(python, ELSEWHERE, seed) for seed in HASH_SEEDS} == {DRAWN}
