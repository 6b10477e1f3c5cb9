"""The other Pythons of this machine: what is drawn from a seed must be the same on each of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import testbench_dagster

#: Interpreters with what draws questions beside this one, as PATH has them; .ci/run makes them.
OTHERS = "TESTBENCH_FRESH_PYTHONS"
#: Seeds of the order of sets and of hashes of texts.
HASH_SEEDS = ("0", "1", "20261130")


def interpreters() -> list[str]:
    """This interpreter, those that are named, and those on the path."""
    named = [path for path in os.environ.get(OTHERS, "").split(os.pathsep) if path]
    on_path = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    return list(dict.fromkeys([sys.executable, *named, *filter(None, on_path)]))


def can(python: str, code: str) -> bool:
    """Whether some code runs there."""
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def printed(python: str, code: str, hash_seed: str, *arguments: str) -> str:
    """What code of this package prints there, in a process that knows of nothing else installed here."""
    done = subprocess.run(
        [python, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": str(Path(testbench_dagster.__file__).parent.parent),
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
