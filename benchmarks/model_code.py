"""HumanEval answers judged in the sandbox: time, CPU, and answers per second (target: 500 within 20 s).

    python benchmarks/model_code.py --data <humaneval.jsonl.gz> [--answers 500] [--hostile 0]

The docs are registered and scored as the product does it, in this process in place of its worker: the answers
are the canonical solutions, over and over, every fifth changed to return nothing, so that it is
wrong. All that were not changed have to pass. CPU is that of this process and of everything that it started,
by a control group of its own (cgroup, needs root); without one it is not shown, as bubblewrap does not wait
for what runs inside. ``--hostile`` adds as many answers that loop. Exit code 1: more than 20 s, or a verdict
is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from testbench_dagster.core.prompt import Answered
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter import build_prompts, register, score_each
from testbench_dagster.tasks.lm_eval_adapter.code_eval import CODE_EVAL, workers

TARGET_S = 20.0
_GROUPS = Path("/sys/fs/cgroup")
_LOOP = "    while True:\n        pass\n"


@contextlib.contextmanager
def cpu_group() -> Iterator[Path | None]:
    """The file that tells the CPU time of this process and its descendants, if there may be one."""
    old = (_GROUPS / "cpuacct").is_dir()
    parent = _GROUPS / "cpuacct" if old else _GROUPS
    group = parent / f"testbench-code-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        yield None
        return
    try:
        yield group / ("cpuacct.usage" if old else "cpu.stat")
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            group.rmdir()


def cpu_s(file: Path | None) -> float | None:
    """Seconds of CPU time that a group has used."""
    if file is None:
        return None
    text = file.read_text()
    found = re.search(r"usage_usec (\d+)", text)
    return int(found[1]) / 1e6 if found else int(text) / 1e9


def wrong(answer: str) -> str:
    """An answer that returns nothing."""
    return re.sub(r"^(\s*)return\b.*$", r"\1return None", answer, flags=re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--hostile", type=int, default=0)
    options = parser.parse_args()
    spec = TaskSpec(
        name="humaneval",
        leaf="humaneval",
        root="humaneval",
        group=None,
        num_fewshot=None,
        metric=None,
        filter=None,
        data={"test": options.data},
        where={},
        samples=None,
        code_execution=True,
    )
    registered = register(spec)
    with gzip.open(options.data, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    prompts = build_prompts(spec, registered.data, range(len(rows)), "completions")
    answers, right = [], []
    for number in range(options.answers + options.hostile):
        row, prompt = rows[number % len(rows)], prompts[number % len(rows)]
        text = row["canonical_solution"]
        changed = number % 5 == 4
        if number >= options.answers:
            text, changed = _LOOP, True
        elif changed:
            text = wrong(text)
        # each is another program, so that none is judged once for several
        answers.append(Answered(prompt.doc_id, prompt.requests, [[f"{text}\n    # {number}\n"]]))
        right.append(not changed)
    with cpu_group() as group:
        cpu, began = cpu_s(group), time.monotonic()
        scores = list(score_each(spec, registered.data, answers))
        seconds, used = time.monotonic() - began, cpu_s(group)
    passed = [score.metrics["create_test"]["pass@1"] == 1 for score in scores if score.error is None]
    odd = sum(one and not other for one, other in zip(right, passed, strict=True))
    false = sum(other and not one for one, other in zip(right, passed, strict=True))
    spent = "" if cpu is None or used is None else f", {used - cpu:.1f} s of CPU"
    load = os.getloadavg()[0]
    name = CODE_EVAL.sandbox.sandbox().name
    print(
        f"{len(scores)} answers in {name}, {workers()} at once: {seconds:.1f} s{spent}"
        f" (load {load:.1f}); right ones that fail {odd}, wrong ones that pass {false}"
    )
    return int(seconds > TARGET_S or odd > 0 or false > 0)


if __name__ == "__main__":
    sys.exit(main())
