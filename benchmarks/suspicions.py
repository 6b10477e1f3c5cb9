"""What it costs to look for suspicions: ``python benchmarks/suspicions.py [SUPPLIERS]``, 500 by default.

Four weeks of 22 calls a day per supplier, in bursts of four, of which one in twenty fails; nobody has
anything in common with anybody. Prints seconds, the most memory, and how many were found.
"""

from __future__ import annotations

import resource
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from testbench_dagster.identity import Call, find_cached, find_copies

START = datetime(2026, 1, 1, tzinfo=UTC)


def calls(suppliers: int, days: int = 28, a_day: int = 22) -> list[Call]:
    """All attempts of independent suppliers."""
    rng = np.random.default_rng(0)
    found = []
    for day in range(days):
        for k in range(a_day):
            at = START + timedelta(days=day, seconds=3600 * (k // 4) * 4 + (k % 4) * 40)
            for s in range(suppliers):
                found.append(
                    Call(
                        f"s{s:03}",
                        f"p{day // 14}-{k}-{day % 7}",
                        f"{1 + (day % 14) // 7}/0",
                        at + timedelta(seconds=float(rng.uniform(0, 20))),
                        bool(rng.random() >= 0.05),
                        float(rng.lognormal(7, 0.4)),
                        int(rng.integers(20, 200)),
                        60,
                        1,
                        f"{rng.integers(3)}",
                    )
                )
    return found


def main() -> None:
    """Measure and print."""
    suppliers = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    made = calls(suppliers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    copies = find_copies(made)
    between = time.process_time()
    cached = find_cached(made)
    ended = time.process_time()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{suppliers} suppliers, {len(made):,} attempts")
    print(f"copies: {between - begun:.1f} s of CPU, {len(copies)} found")
    print(f"cached: {ended - between:.1f} s of CPU, {len(cached)} found")
    print(f"memory: {before // 1024} MB with the attempts, {after // 1024} MB at most")


if __name__ == "__main__":
    main()
