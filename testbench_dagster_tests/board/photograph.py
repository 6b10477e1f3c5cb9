"""Pictures of the board for README and docs: ``python -m testbench_dagster_tests.board.photograph FOLDER``.

FOLDER is ``docs/images``. Nothing on them is made up by hand: the simulated suppliers of ``testbench demo``
are evaluated by ``testbench run`` once for each of the last days, and after some days another model answers
for one of them, under its old name. Only the clock of those runs is set back, by libfaketime (Debian's
package of that name, or the library that ``FAKETIME_LIBRARY`` names). Chromium looks at the board as it is
now. Takes about ten minutes. Who takes pictures anew looks at them before they are committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
import yaml
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import listen
from testbench_dagster.board.site import Site
from testbench_dagster.localnet.demo import demo_settings
from testbench_dagster.localnet.personas import DEMO_SUPPLIERS
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.acceptance.harness import _FOREIGN
from testbench_dagster_tests.operations.browser import chromium

DAYS = 10
#: Days before the last one at which the model of a supplier changes.
CHANGED_DAYS_AGO = 3
CHANGED = "sim-06"
WEAKER = 0.3
WIDTH = 1280
#: Where Debian puts the library.
LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
SLEEP = """
import threading, time

def sleep(seconds):
    threading.Event().wait(seconds)

time.sleep = sleep
"""
#: Colours that are left of a picture: enough for pages without photographs, and a third of the bytes.
COLOURS = 96
#: Picture → address of the page, and the height of what is seen of it.
PAGES = {
    "board-leaderboard": ("/", 600),
    "board-supplier": (f"/supplier/{CHANGED}@simulation", 915),
    "board-answers": (f"/supplier/{CHANGED}@simulation/task/starter_units?kind=wrong", 740),
}


def main(folder: Path) -> None:
    """Evaluate the days and take the pictures."""
    with tempfile.TemporaryDirectory() as made:
        configuration = evaluated(Path(made))
        with Workspace.open(configuration) as workspace, serving(workspace) as address:
            photograph(address, folder, Path(made) / "profile")


def evaluated(folder: Path) -> Path:
    """An installation with a history of :data:`DAYS` days, as its configuration."""
    path = folder / "testbench.yaml"
    with LocalnetProcess(DEMO_SUPPLIERS) as net:
        path.write_text(yaml.safe_dump(demo_settings(net.roster()), sort_keys=False), encoding="utf-8")
        for ago in range(DAYS - 1, -1, -1):
            if ago == CHANGED_DAYS_AGO:
                net.swap(CHANGED, accuracy=WEAKER)
            print(f"evaluating with a clock {ago} days back", flush=True)
            # what is fresh is asked again: the demo's answers hold for a month
            command = [sys.executable, "-m", "testbench_dagster.cli", "-c", str(path), "run", "--force"]
            subprocess.run(command, env=days_ago(ago, folder), stdin=subprocess.DEVNULL, check=True)
    return path


def days_ago(days: int, folder: Path) -> dict[str, str]:
    """The environment of a process whose clock shows the time so many days ago, and ticks like others.

    ``folder`` is given a module that mends Python's sleep, which libfaketime 0.9.10 breaks where durations
    are true ones.
    """
    own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    if not days:
        return own
    named = os.environ.get("FAKETIME_LIBRARY")
    found = [Path(named)] if named else sorted(Path("/").glob(LIBRARIES.lstrip("/")))
    if not found or not found[0].is_file():
        raise SystemExit(
            "no libfaketime: apt-get install libfaketime, or name the library in FAKETIME_LIBRARY"
        )
    (folder / "sitecustomize.py").write_text(SLEEP, encoding="utf-8")
    modules = os.pathsep.join(filter(None, (str(folder), own.get("PYTHONPATH"))))
    return {
        **own,
        "PYTHONPATH": modules,
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"-{days}d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # what durations are measured by
    }


@contextmanager
def serving(workspace: Workspace) -> Iterator[str]:
    """The address of the board of an installation."""
    site = Site(workspace)
    site.prepare()
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(site), log_config=None, ws="none", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def photograph(address: str, folder: Path, profile: Path) -> None:
    """Take each picture of :data:`PAGES`."""
    with chromium(profile) as driver:
        _plain(driver)
        for name, (page, height) in PAGES.items():
            _sized(driver, height)
            driver.get(f"{address}{page}")
            heading = driver.find_element(By.TAG_NAME, "h1").text
            path = folder / f"{name}.png"
            driver.save_screenshot(str(path))
            with Image.open(path) as picture:
                small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(path, optimize=True)
            print(f"{path}: {heading!r}, {path.stat().st_size / 1000:.0f} KB, {datetime.now(UTC):%F}")


def _plain(driver: webdriver.Chrome) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})


def _sized(driver: webdriver.Chrome, height: int) -> None:
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("which folder shall the pictures be in? docs/images")
    main(Path(sys.argv[1]))
