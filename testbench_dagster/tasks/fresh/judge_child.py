"""The process in which checks of reasoning-gym run: one confined fork per answer, which can do nothing else.

Started by :mod:`~testbench_dagster.tasks.fresh.judge` as ``python -m``. It imports the package once. For each
answer it forks; the fork confines itself (:mod:`testbench_dagster.sandbox.landlock`), draws the item again
from its seed, so that nothing but text comes from outside, and writes one byte. No answer can change what is
said of another. A line of JSON in, a line out.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import select
import signal
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox.landlock import confine
from testbench_dagster.tasks.fresh.items import made

#: What one check may use: seconds of CPU, bytes beyond what the package takes, seconds of the clock.
CPU_S, MEMORY_BYTES, WALL_S = 2.0, 256 << 20, 60.0
_RIGHT, _WRONG, _NOT_CONFINED = b"1", b"0", b"!"


def is_right(generator: str, seed: int, gold: str, found: str) -> bool:
    """What the generator's check says of an answer, confined or not: exactly 1 is right, nothing else.

    An item that is drawn otherwise here than when it was asked has no check, nor has an answer that makes
    the check raise.
    """
    try:
        data, entry = made(generator, seed)
        if entry["answer"] != gold:
            return False
        score = data.score_answer(found, entry)
        return isinstance(score, (int, float)) and math.isfinite(score) and score == 1.0
    except Exception:  # of a check that met what nobody wrote it for
        return False


def _libraries() -> list[Path]:
    """Where Python and its packages lie, which a check may import late; not what else is on ``sys.path``.

    There lies the working directory too, with what an installation keeps.
    """
    found = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    spec = importlib.util.find_spec("reasoning_gym")
    found |= {Path(folder) for folder in (spec and spec.submodule_search_locations) or ()}
    return sorted(path for path in found if path.is_dir())


def _forked(asked: dict[str, Any], readable: list[Path]) -> dict[str, Any]:
    """The verdict of a confined fork; without one it came to an end that says the answer is wrong."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        verdict = _NOT_CONFINED
        try:
            confine(readable=readable, cpu_s=CPU_S, memory_bytes=MEMORY_BYTES, keep=(write,))
            right = is_right(asked["generator"], asked["seed"], asked["gold"], asked["found"])
            verdict = _RIGHT if right else _WRONG
        except SandboxError:
            verdict = _NOT_CONFINED
        except BaseException:  # memory at its limit, say: what was begun here ends here
            verdict = _WRONG
        finally:
            os.write(write, verdict)
            os._exit(0)
    os.close(write)
    try:
        late = not select.select([read], [], [], WALL_S)[0]
        verdict = b"" if late else os.read(read, 1)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if late:
        return {"error": f"a check was not done after {WALL_S:g} s by the clock"}
    if verdict == _NOT_CONFINED:
        return {"error": "a check could not be confined"}
    return {"right": verdict == _RIGHT}


def main() -> None:
    """Answer lines until the other side closes the pipe."""
    readable = _libraries()
    began = time.process_time()
    made("gcd", 0)  # imports the package
    print(json.dumps({"ready": round(time.process_time() - began, 2)}), flush=True)
    for line in sys.stdin.buffer:
        print(json.dumps(_forked(json.loads(line), readable)), flush=True)


if __name__ == "__main__":
    main()
