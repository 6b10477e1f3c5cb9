"""``python -m testbench_dagster.cli`` is the ``testbench`` command."""

from __future__ import annotations

from testbench_dagster.cli import main

if __name__ == "__main__":
    main()
