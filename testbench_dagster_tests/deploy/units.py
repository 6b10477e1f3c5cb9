"""The files of deploy/celery as an operator uses them, with the places and addresses of a test put in."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import testbench_dagster

DEPLOY = Path(testbench_dagster.__file__).parent.parent / "deploy" / "celery"
UNITS = ("testbench-code", "testbench-daemon", "testbench-web", "testbench-worker")
CONFIGURATION, STATE, PROGRAMS = "/etc/testbench", "/var/lib/testbench", "/opt/testbench/bin"


def settings(unit: str) -> dict[str, list[str]]:
    """What a unit file sets, by ``Section.Key``; a key that stands several times has several values."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (DEPLOY / f"{unit}.service").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def environment_file(text: str | None = None) -> dict[str, str]:
    """What testbench.env sets, or another text, as systemd reads it (systemd.exec, EnvironmentFile).

    Raises:
        AssertionError: a value is written in a way whose meaning is not plain to every reader.
    """
    if text is None:
        text = (DEPLOY / "testbench.env").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    return {name: _value(written) for name, _, written in (line.partition("=") for line in lines)}


def _value(written: str) -> str:
    """Single quotes keep all they hold; outside of any, all but a backslash and a quote is what it is."""
    quoted = re.fullmatch(r"'([^']*)'", written.strip())
    if quoted is not None:
        return quoted[1]
    assert not re.search(r"[\\'\"]", written), f"{written}: put it into single quotes"
    return written.strip()


def moved(text: str, folder: Path) -> str:
    """A line with the paths of a real host below a folder, and the programs of this Python."""
    for path, place in (
        (CONFIGURATION, folder / "etc"),
        (STATE, folder / "var"),
        (PROGRAMS, Path(sys.executable).parent),
    ):
        text = text.replace(path, str(place))
    return text


def install(folder: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Make a host below a folder as the README says; return the environment of its services.

    ``values`` stand for those of testbench.env that name servers, addresses and numbers; what they do not
    name stays as it is there, and they name nothing else.
    """
    (folder / "etc").mkdir(parents=True)
    (folder / "var" / "dagster").mkdir(parents=True)
    environment = {name: moved(value, folder) for name, value in environment_file().items()}
    assert set(values) <= set(environment), "not in testbench.env"
    (folder / "var" / "dagster" / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    (folder / "etc" / "workspace.yaml").write_bytes((DEPLOY / "workspace.yaml").read_bytes())
    return {**environment, **values}


def command(unit: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """What systemd would execute for a unit: its variables and specifiers replaced."""
    (line,) = settings(unit)["Service.ExecStart"]
    words = []
    for word in shlex.split(moved(line, folder)):
        assert not re.search(r"(?<!%)(%%)*%[^%]", word), f"{word}: a specifier of systemd"
        word = re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word)
        words.append(word.replace("%%", "%"))
    return words
