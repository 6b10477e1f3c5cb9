"""Draws items: one data set of size 1 for each, by a seed of its own, at the generators' own difficulty."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache
from typing import Any

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.tasks.fresh.generators import GENERATORS
from testbench_dagster.tasks.fresh.version import PACKAGE, PACKAGE_VERSION

#: Of a digest so many bytes are the seed: JSON has exact numbers for them everywhere.
_SEED_BYTES = 6


@dataclass(frozen=True)
class Item:
    """A question, its answer, and the seed it was drawn by."""

    question: str
    answer: str
    seed: int


def problem_of_package() -> str | None:
    """Why nothing can be drawn here; None where the package is there. Imports nothing of it."""
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return (
            f"its questions are drawn by {PACKAGE} {PACKAGE_VERSION}, which is not installed; "
            "pip install 'testbench_dagster[fresh]', or remove the task"
        )
    if found != PACKAGE_VERSION:
        return (
            f"its questions are drawn by {PACKAGE} {PACKAGE_VERSION}, and {found} is installed, whose "
            "generators nobody looked at; pip install 'testbench_dagster[fresh]'"
        )
    return None


def require_package(task: str) -> None:
    """See that items of a task can be drawn here.

    Raises:
        TaskInputError: they cannot; the text says what to install.
    """
    if problem := problem_of_package():
        raise TaskInputError(f"task {task!r}: {problem}")


def item_seed(epoch_seed: str, generator: str, number: int) -> int:
    """The seed of an item: the first 48 bits of the SHA-256 of ``epoch seed:fresh:generator:number``.

    No other item matters, nor how many are drawn.
    """
    digest = hashlib.sha256(f"{epoch_seed}:fresh:{generator}:{number}".encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big")


def draw(epoch_seed: str, generator: str, number: int) -> Item:
    """Draw the item with a number in the epoch of a seed."""
    seed = item_seed(epoch_seed, generator, number)
    entry = made(generator, seed)[1]
    return Item(entry["question"], entry["answer"], seed)


def made(generator: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The data set of one item with a seed, and the item.

    Raises:
        ValueError: the generator is not on the list.
    """
    if generator not in GENERATORS:
        raise ValueError(f"generator {generator!r} is not on the list of those that may be used")
    data = _package().create_dataset(generator, seed=seed, size=1)
    return data, data[0]


@cache
def _package() -> Any:
    # 0.7 s of CPU, more before it is compiled, and 120 MB: in the worker that draws, the child that judges
    import reasoning_gym

    return reasoning_gym
