"""Which generators of reasoning-gym may be used, and what is known of each. Light: imports none of them.

The list is closed. It was made from release 0.1.25 by reading each check and by sending it what suppliers
might. Left out are: nine that execute the text of an answer (:data:`EXECUTE_ANSWERS`), those whose items
follow PYTHONHASHSEED or differ between runs, those without an answer of their own, and those that give full
marks to nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbench_dagster.core.errors import TaskInputError

#: Those that are drawn, by what they ask for.
GENERATORS = (
    "basic_arithmetic",
    "chain_sum",
    "decimal_chain_sum",
    "fraction_simplification",
    "gcd",
    "lcm",
    "prime_factorization",
    "products",
    "simple_equations",
    "count_primes",
    "number_sequence",
    "time_intervals",
    "calendar_arithmetic",
    "leg_counting",
    "letter_counting",
    "count_bits",
    "base_conversion",
    "bitwise_arithmetic",
    "caesar_cipher",
    "spell_backward",
    "word_sorting",
    "family_relationships",
    "knights_knaves",
    "syllogism",
    "self_reference",
    "aiw",
    "coin_flip",
    "course_schedule",
    "simple_geometry",
    "largest_island",
)
#: Those whose check hands the text of an answer to an interpreter: never, not even confined.
EXECUTE_ANSWERS = (
    "binary_matrix",
    "countdown",
    "intermediate_integration",
    "n_queens",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
)
#: Those with a check of their own. That of the others is right for the item's own answer, letter by letter,
#: and for nothing else, so that it need not be asked.
OWN_CHECK = frozenset(
    {
        "chain_sum",
        "decimal_chain_sum",
        "fraction_simplification",
        "prime_factorization",
        "products",
        "time_intervals",
        "calendar_arithmetic",
        "bitwise_arithmetic",
        "spell_backward",
        "word_sorting",
        "family_relationships",
        "knights_knaves",
        "self_reference",
        "coin_flip",
    }
)
_PREFIX = "fresh_"
#: The framework's tasks, one per generator.
FRESH_TASKS = tuple(f"{_PREFIX}{name}" for name in GENERATORS)
#: Docs of a task where ``options.items`` does not say, and most of them.
ITEMS, MOST_ITEMS = 500, 10_000


def generator_of(task: str, leaf: str) -> str:
    """The generator of a task, by its name.

    Raises:
        TaskInputError: it is none of those that may be used.
    """
    name = leaf.removeprefix(_PREFIX)
    if leaf in FRESH_TASKS:
        return name
    why = "it executes the text of an answer" if name in EXECUTE_ANSWERS else "it is not on the list"
    raise TaskInputError(
        f"task {task!r}: {leaf!r} is no task of the framework fresh ({why}); name one of "
        f"{', '.join(FRESH_TASKS)}"
    )


def items_of(options: Mapping[str, Any]) -> int:
    """How many items an epoch draws from; what :func:`check` let pass."""
    return int(options.get("items", ITEMS))


def check(name: str, options: Mapping[str, Any]) -> None:
    """Look at the options of a task; raises ValueError for what is wrong with them."""
    if unknown := sorted(set(options) - {"items"}):
        raise ValueError(f"options.{unknown[0]} means nothing to {name!r}; there is: items")
    items = options.get("items", ITEMS)
    if not isinstance(items, int) or isinstance(items, bool) or not 1 <= items <= MOST_ITEMS:
        raise ValueError(
            f"options.items: {items!r} is no whole number from 1 to {MOST_ITEMS}; correct or remove it"
        )
