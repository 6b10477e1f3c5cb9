"""The version of the tools framework; a module of its own because hashes of tasks need nothing else."""

from testbench_dagster.core.versions import TOOLS

#: With another one stored answers are scored anew; a test says when to raise the number.
TOOLS_VERSION = str(TOOLS.number)
#: Raise when other requests are built from the same rows: all tasks are asked anew.
TOOLS_REQUESTS = 1
