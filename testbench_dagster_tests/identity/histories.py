"""Made-up histories of suppliers: outages, busy minutes and answers that vary, each its own or another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from testbench_dagster.identity import Call

START = datetime(2026, 1, 8, tzinfo=UTC)
DAY = 1440  # minutes


@dataclass(frozen=True)
class Histories:
    """How suppliers ``s00``, ``s01`` ... are asked, and what happens to them.

    ``runs`` a day of ``docs`` each, ``apart`` minutes from one to the next. Outages come ``outages`` a day,
    more of them by day than by night, last 40 minutes on average, and single requests fail at a rate of
    ``flaky``. All fail together now and then (``network``). ``of``: whose outages, load and draws a supplier
    has beside its own. ``load``: standard deviation of the logarithm of latency by its own load, which lasts
    minutes; ``ours``: milliseconds that our side adds to all at once now and then.
    """

    seed: int
    n: int = 12
    days: int = 21
    runs: int = 24
    docs: int = 3
    apart: float = 0.7
    outages: float = 0.5
    flaky: float = 0.0
    network: int = 3
    load: float = 0.3
    ours: float = 0.0
    of: Mapping[int, int] | None = None

    def calls(self) -> list[Call]:
        """All attempts, in order of time."""
        rng = np.random.default_rng(self.seed)
        of = dict(self.of or {})
        minutes = self.days * DAY
        down = [self._down(rng, minutes, round(rng.poisson(self.outages * self.days))) for _ in range(self.n)]
        everywhere = self._down(rng, minutes, self.network)
        loads = [self._load(rng, minutes) for _ in range(self.n)]
        shared = rng.exponential(self.ours, minutes + 2) * (rng.random(minutes + 2) < 0.3)
        scale = rng.uniform(0.2, 2.0, self.n)
        calls = []
        prompt = 0
        for run in range(self.days * self.runs):
            begins = run * DAY / self.runs + rng.uniform(0, 3)
            for doc in range(self.docs):
                prompt += 1
                tokens, content = int(rng.integers(20, 200)), rng.normal() * 0.3
                for s in range(self.n):
                    at = begins + doc * self.apart + rng.uniform(0, 0.2)
                    minute = min(int(at), minutes)
                    source = of.get(s, s)
                    failed = bool(down[s][minute] or down[source][minute] or everywhere[minute])
                    failed |= bool(rng.random() < self.flaky)
                    daily = 0.4 * np.sin(2 * np.pi * at / DAY)
                    warm = 0.3 * np.exp(-doc / 2)
                    log = 6 + 0.005 * tokens + content + daily + warm + loads[source][minute // 2]
                    latency = scale[s] * np.exp(log + rng.normal() * 0.1) + shared[minute]
                    calls.append(
                        Call(
                            f"s{s:02}",
                            f"p{prompt}",
                            "1/0",
                            START + timedelta(minutes=float(at)),
                            not failed,
                            float(latency) + (150.0 if source != s else 0.0),
                            tokens,
                            50,
                            1,
                            None if failed else f"s{s}",
                        )
                    )
        return calls

    def _down(self, rng: np.random.Generator, minutes: int, n: int) -> np.ndarray:
        down = np.zeros(minutes + 1, dtype=bool)
        begun = 0
        while begun < n:
            begins = rng.uniform(0, minutes)
            if rng.random() < 0.5 + 0.5 * np.sin(2 * np.pi * begins / DAY):
                down[int(begins) : int(begins + rng.exponential(40)) + 1] = True
                begun += 1
        return down

    def _load(self, rng: np.random.Generator, minutes: int) -> np.ndarray:
        steps = rng.normal(size=minutes // 2 + 2)
        level, found = 0.0, np.zeros(len(steps))
        for place, step in enumerate(steps):
            level = 0.8 * level + 0.6 * step
            found[place] = level
        return self.load * found


def drawn_twice(
    seed: int,
    n: int,
    prompts: int,
    *,
    variants: int = 4,
    varies: float = 0.5,
    of: Mapping[int, int] | None = None,
) -> list[Call]:
    """Suppliers of one model, asked each prompt twice in one or more ways that are drawn anew each time.

    A share ``varies`` of prompts has several ``variants``, the same for all and as likely for each.
    """
    rng = np.random.default_rng(seed)
    of = dict(of or {})
    calls = []
    for prompt in range(prompts):
        weights = rng.dirichlet(np.ones(variants)) if rng.random() < varies else np.eye(variants)[0]
        for round_ in (1, 2):
            said = rng.choice(variants, size=n, p=weights)
            for s in range(n):
                at = START + timedelta(days=10 * (round_ - 1), minutes=prompt)
                text = f"{prompt}: {said[of.get(s, s)]}"
                calls.append(Call(f"s{s:02}", f"p{prompt}", f"{round_}/0", at, True, 1000.0, 40, 50, 1, text))
    return calls
