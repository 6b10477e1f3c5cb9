"""What one number of docs for all makes of scores: bias, error, coverage, relays, by the planner's code.

    python benchmarks/counting.py [--plays 400] [--shares 0.5 0.85 0.95]

Six suppliers are planned and scored over three epochs by the functions that installations use
(testbench_dagster_tests/planning/simulated_epochs.py); only their answers are drawn. Per true share of right
docs, and at two spans of shares, after the first epoch (``start`` docs), the second (the number that the
first one's rows set) and the third (all slots renewed, half of them with the same docs):

* ``bias``: the root's mean score less the true one, in points (hundredths);
* ``rmse`` of a single task's score;
* ``coverage`` of the root's 95 % interval over 14, 52 and 105 tasks;
* ``docs`` a task's score rests on, and relays sent so far, per supplier.

Targets: a bias of at most .2 points, coverage from 93 to 97 %, and at a share of .85 docs within 10 % of the
52 that stopping at a width took.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbench_dagster_tests.planning.simulated_epochs import play_epochs

TASKS = (14, 52, 105)
SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
SPANS = ((0.7, 0.95), (0.05, 0.95))
SEED = 20260301


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plays", type=int, default=400)
    parser.add_argument("--shares", type=float, nargs="*", help="true shares; seven and two spans by default")
    options = parser.parse_args()
    spans = [(share, share) for share in options.shares or SHARES]
    spans += [] if options.shares else SPANS
    print(f"{options.plays} plays; coverage is known to +-{2 * (0.05 * 0.95 / options.plays) ** 0.5:.3f}\n")
    tasks = ", ".join(map(str, TASKS))
    print(f"| share | epoch | bias, points, {tasks} tasks | rmse | coverage, {tasks} tasks | docs | relays |")
    print(f"|{'---|' * 7}")
    for low, high in spans:
        share = f"{low:g}" if low == high else f"{low:g}-{high:g}"
        for epoch, found in enumerate(play_epochs((low, high), TASKS, options.plays, SEED), 1):
            bias = ", ".join(f"{100 * found.bias[n]:+.2f}" for n in TASKS)
            held = ", ".join(f"{found.coverage[n]:.3f}" for n in TASKS)
            print(
                f"| {share} | {epoch} | {bias} | {found.rmse:.3f} | {held} | {found.docs:.1f} | "
                f"{found.relays:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
