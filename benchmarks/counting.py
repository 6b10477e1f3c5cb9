"""What one number of docs for all makes of scores: bias, error, coverage, relays, by the planner's code.

    python benchmarks/counting.py [--plays 400] [--shares 0.5 0.85 0.95] [--alike 0.4]

Six suppliers are planned and scored over twenty weeks by the functions that installations use
(testbench_dagster_tests/planning/simulated_epochs.py); only their answers are drawn. Per true share of right
docs, and at two spans of shares, after the first epoch (``start`` docs), the second (the number that the
first one's rows set), after six weeks (all slots renewed, half of them with the same docs) and after twenty
(the number set anew):

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
AFTER = ("first epoch", "second", "6 weeks", "20 weeks")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plays", type=int, default=400)
    parser.add_argument("--shares", type=float, nargs="*", help="true shares; seven and two spans by default")
    parser.add_argument(
        "--alike", type=float, default=0.0, help="how much of what makes an answer right is the doc's own"
    )
    options = parser.parse_args()
    spans = [(share, share) for share in options.shares or SHARES]
    spans += [] if options.shares else SPANS
    errors = ", ".join(f"{100 * 0.053 / (n * options.plays) ** 0.5:.2f}" for n in TASKS)
    known = f"{2 * (0.05 * 0.95 / options.plays) ** 0.5:.3f}"
    print(f"{options.plays} plays; standard errors of the bias: {errors}; coverage is known to +-{known}\n")
    tasks = ", ".join(map(str, TASKS))
    print(f"| share | after | bias, points, {tasks} tasks | rmse | coverage, {tasks} tasks | docs | relays |")
    print(f"|{'---|' * 7}")
    for low, high in spans:
        share = f"{low:g}" if low == high else f"{low:g}-{high:g}"
        played = play_epochs((low, high), TASKS, options.plays, SEED, options.alike)
        for after, found in zip(AFTER, played, strict=True):
            bias = ", ".join(f"{100 * found.bias[n]:+.2f}" for n in TASKS)
            held = ", ".join(f"{found.coverage[n]:.3f}" for n in TASKS)
            print(
                f"| {share} | {after} | {bias} | {found.rmse:.3f} | {held} | {found.docs:.1f} | "
                f"{found.relays:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
