"""The versions behind fresh items; a module of its own because hashes of tasks need nothing else."""

from testbench_dagster.core.versions import FRESH

#: With another one stored answers are scored anew; a test says when to raise the number.
FRESH_VERSION = str(FRESH.number)
#: Raise when other requests are built from the same items: all tasks are asked anew.
FRESH_REQUESTS = 1
#: The only release of reasoning-gym whose generators and checks were looked at; it is part of task hashes.
PACKAGE, PACKAGE_VERSION = "reasoning-gym", "0.1.25"
