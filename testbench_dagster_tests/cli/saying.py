"""Run commands one after the other in this process, and print what each did as a line of JSON.

The arguments are commands, each a JSON list; an object writes files, texts by their names, and None fills the
disk with one. For tests that start this in a filesystem of its own, where a process for each command would
take seconds.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

from testbench_dagster_tests.commands import say

#: Bytes, more than any of these filesystems has.
MOST = 32 * 2**20

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        wanted = json.loads(argument)
        if isinstance(wanted, dict):
            for name, text in wanted.items():
                with contextlib.suppress(OSError):
                    Path(name).write_bytes(bytes(MOST) if text is None else text.encode())
            continue
        print(json.dumps(say(Path.cwd(), *wanted, environment=os.environ)), flush=True)
