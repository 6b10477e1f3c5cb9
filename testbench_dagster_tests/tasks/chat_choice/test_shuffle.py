"""The order of options: a permutation per doc and epoch, even, and the same everywhere."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.tasks.chat_choice.shuffle import shuffled


@given(seed=st.text(), doc=st.integers(0, 10**9), n=st.integers(0, 26))
def test_the_order_is_a_permutation_that_the_same_seed_gives_again(seed, doc, n):
    order = shuffled(seed, doc, n)
    assert sorted(order) == list(range(n))
    assert shuffled(seed, doc, n) == order


def test_it_is_what_the_hashes_of_seed_doc_and_option_say():
    """Computed with sha256sum(1): as an auditor would, who knows the seed."""
    assert shuffled("s", 7, 4) == [1, 0, 2, 3]
    assert shuffled("s", "7.0", 4) == [2, 1, 3, 0]


def test_the_right_option_is_at_every_place_equally_often():
    places = Counter(shuffled("seed", doc, 5).index(0) for doc in range(5_000))
    chi2 = sum((count - 1_000) ** 2 / 1_000 for count in places.values())
    assert len(places) == 5 and chi2 < 18.5  # 99.9 % of draws, 4 degrees of freedom


def test_epochs_docs_and_examples_have_orders_of_their_own():
    orders = {tuple(shuffled(seed, doc, 10)) for seed in ("a", "b") for doc in (0, 1, "0.0", "0.1", "1.0")}
    assert len(orders) == 10
