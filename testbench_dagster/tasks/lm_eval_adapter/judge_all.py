"""Judge every task of the index, and package the verdicts: ``python -m …lm_eval_adapter.judge_all``.

With names of families (the folders of lm-eval's tasks) only the tasks of these are judged anew. Tasks alike
are judged by the first and the last of them; where these differ, by each of them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.index import Entry, TaskIndex, lm_eval_tasks
from testbench_dagster.tasks.lm_eval_adapter.judging import judge, likeness
from testbench_dagster.tasks.lm_eval_adapter.standins import Layout
from testbench_dagster.tasks.verdicts import Verdict, packaged, write_packaged

#: Layouts of a family that are tried for its next task.
_LAYOUTS = 6


def judge_all(entries: Sequence[Entry]) -> Iterator[dict[str, Verdict]]:
    """The verdicts on some tasks by name, a family at a time; says on stderr how far it is."""
    families: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        families[_family(entry)].append(entry)
    largest_first = sorted(families.values(), key=len, reverse=True)
    judged = 0
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        waiting = [pool.submit(_judge_family, members) for members in largest_first]
        for done, family in enumerate(as_completed(waiting), 1):
            verdicts = family.result()
            judged += len(verdicts)
            sys.stderr.write(
                f"{done} of {len(families)} families, {judged} of {counted(len(entries), 'task')}\n"
            )
            yield verdicts


def _family(entry: Entry) -> str:
    """The folder of lm-eval's tasks that a task is in."""
    path = Path(entry.path or "")
    return (
        path.relative_to(lm_eval_tasks()).parts[0]
        if path.is_relative_to(lm_eval_tasks())
        else path.parent.name
    )


def _judge_family(members: Sequence[Entry]) -> dict[str, Verdict]:
    logging.disable(logging.CRITICAL)
    alike: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in members:
        alike[likeness(entry) if entry.kind == "task" else entry.name].append(entry)
    found: dict[str, Verdict] = {}
    known: list[Layout] = []
    for group in alike.values():
        judged = judge_entries([group[0], *group[1:][-1:]], known)
        if len(set(judged.values())) > 1:
            judged = judge_entries(group, known)
        first = next(iter(judged.values()))
        found |= {entry.name: judged.get(entry.name, first) for entry in group}
    return found


def judge_entries(entries: Sequence[Entry], known: list[Layout]) -> dict[str, Verdict]:
    """The verdicts on tasks one after the other; ``known`` collects the layouts that they were found on."""
    found = {}
    for entry in entries:
        found[entry.name], layout = judge(entry, known[:_LAYOUTS])
        if layout is not None and layout not in known:
            known.insert(0, layout)
    return found


def of_families(entries: Sequence[Entry], families: Sequence[str]) -> list[Entry]:
    """The tasks of some families; all where none is named.

    Raises:
        SystemExit: there is no such family.
    """
    chosen = [entry for entry in entries if not families or _family(entry) in families]
    if unknown := sorted(set(families) - set(map(_family, chosen))):
        raise SystemExit(f"{unknown[0]!r} is no folder of lm-eval's tasks; they are in {lm_eval_tasks()}")
    return chosen


if __name__ == "__main__":
    indexed = {e.name: e for e in TaskIndex.load().entries.values() if e.kind in ("task", "python")}
    found = {name: verdict for name, verdict in packaged().items() if name in indexed}
    for verdicts in judge_all(of_families(list(indexed.values()), sys.argv[1:])):
        found |= verdicts
        write_packaged(found)  # hours of work are not lost when it is interrupted
