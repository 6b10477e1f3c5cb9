"""Every picture of README and docs taken anew: ``python -m testbench_dagster_tests.photographs docs/images``.

Those of Dagster's UI come from the test that drives it, on the way; those of the board from
:mod:`.board.photograph`, which needs libfaketime. Headless; takes about a quarter of an hour. Who takes
pictures anew looks at them before they are committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testbench_dagster_tests.board import photograph
from testbench_dagster_tests.operations import test_ui
from testbench_dagster_tests.operations.browser import SCREENSHOTS_ENV


def main(folder: Path) -> None:
    """Take the pictures; ends where a page does not show what the test expects of it."""
    pytest = [sys.executable, "-m", "pytest", "-m", "slow", "-n", "0", test_ui.__file__]
    subprocess.run(pytest, check=True, env={**os.environ, SCREENSHOTS_ENV: str(folder.resolve())})
    photograph.main(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("which folder shall the pictures be in? docs/images")
    main(Path(sys.argv[1]))
