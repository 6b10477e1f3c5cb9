"""Suppliers made up for identity: backends that answer at temperature 0 with some noise, and mixtures."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from testbench_dagster.identity import Answer

START = datetime(2026, 1, 1, tzinfo=UTC)


def phrase(*parts: object) -> str:
    """An answer prefix of its own for each combination of parts."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:40]


@dataclass
class World:
    """Backends with answer prefixes of their own, of which some are habits that all models share.

    ``twins``: share of prompts that two suppliers of one backend open alike; ``collisions``: the same of two
    unrelated backends; ``lineage``: the same of backends 0 and 1.
    """

    seed: int
    twins: float = 0.95
    collisions: float = 0.106
    lineage: float = 0.6
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def answer_prefix(self, backend: int, prompt: object) -> str:
        """What a backend says without noise."""
        if backend == 1:
            kin = (self.lineage - self.collisions) / (1 - self.collisions)
            if self._fixed("kin", prompt) < kin:
                backend = 0
        if self._fixed("habit", backend, prompt) < self.collisions**0.5:
            return phrase(self.seed, "habit", prompt)
        return phrase(self.seed, backend, prompt)

    def answer(self, weights: Mapping[int, float], prompt: object) -> str:
        """One answer of a supplier whose traffic goes to backends by ``weights``, noise included."""
        backend = self.rng.choices(list(weights), list(weights.values()))[0]
        if self.rng.random() < self.twins**0.5:
            return self.answer_prefix(backend, prompt)
        return phrase("slip", self.rng.random())

    def _fixed(self, *parts: object) -> float:
        return int(phrase(self.seed, *parts)[:8], 16) / 16**8


def ask(
    world: World,
    supplier: str,
    weights: Mapping[int, float],
    prompts: range,
    at: Callable[[int], datetime],
    *,
    round: int = 0,
    family: str = "task",
) -> list[Answer]:
    """Answers of one supplier to prompts by number, each at its time."""
    return [Answer(supplier, f"p{t:05d}", family, at(t), round, world.answer(weights, t)) for t in prompts]
