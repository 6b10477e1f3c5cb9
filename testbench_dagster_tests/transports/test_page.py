"""docs/transports.md says of each transport what its plug says: ``python -m`` this module writes it anew."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import testbench_dagster
from testbench_dagster.config import ServiceConfig, Settings
from testbench_dagster.config.asking import AskingSettings
from testbench_dagster.core.faults import Fault, Way, faults_on
from testbench_dagster.transports import plug as plug_module
from testbench_dagster.transports.plug import TransportPlug
from testbench_dagster.transports.registry import transports

ROOT = Path(testbench_dagster.__file__).parents[1]
PAGE = ROOT / "docs" / "transports.md"
FOLDERS = ROOT / "testbench_dagster" / "transports"

HEAD = """\
# Transports

How relays reach suppliers. One package per transport in `testbench_dagster/transports/`: `direct/`, `path/`,
`pocket/` (transport `shannon`). This page is made from their `plug.py`. What the faults mean:
[reference.md](reference.md#faults).
"""

TAIL = """\
## A transport of your own

In this repository:

1. Write a package beside the others whose `plug.py` holds a class that implements `TransportPlug`
   (`testbench_dagster/transports/plug.py` says what each part is for).
2. Add it to `_PLUGS` in `testbench_dagster/transports/registry.py`.
3. Run `python -m testbench_dagster_tests.transports.test_page`, which writes this page anew.

From outside: call `register(plug)` of `testbench_dagster.transports.registry` before any configuration is
read. Nothing looks for plugs, so your own code has to make that call in each process:

- Python: before `Testbench.open`.
- Commands: a script that calls `register`, then `testbench_dagster.cli.main()`. Not `testbench up` and
  `demo`: they serve `testbench_dagster.definitions` from processes of their own.
- Dagster: a module that calls `register`, then imports `defs` from `testbench_dagster.definitions`. Name it
  after `-m` in place of `testbench_dagster.definitions`; see [Run](operations.md#run), *As services*.
"""


def page() -> str:
    """What the plugs say, as the page has it."""
    return "\n".join([HEAD, *map(section, transports()), TAIL])


def section(plug: TransportPlug) -> str:
    """One transport."""
    about = plug.about
    where = f"`services.<id>` with `transport: {plug.name}`: " if plug.rules else ""
    keys = ", ".join(f"`{key}`" for key in about.keys)
    faults = ", ".join(f"`{fault.value}`" for fault in about.faults)
    return f"""\
## `{plug.name}`

{about.summary}

| | |
|---|---|
| suppliers | {about.suppliers} |
| keys | {where}{keys} |
| bounded by, beside the budget | {about.quotas} |
| `testbench check` looks at | {about.check} |
| faults | {faults} |

More in [{about.more}]({about.more}).
"""


def faults_named(*paths: Path) -> Iterator[Fault]:
    """Faults that code names."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "Fault"
            ):
                yield Fault[node.attr]


def test_the_page_says_what_the_plugs_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(), f"python -m {__name__} writes it anew"
    assert all((PAGE.parent / plug.about.more).is_file() for plug in transports())


def test_the_page_names_the_package_of_every_transport() -> None:
    folders = {type(plug).__module__.split(".")[-2] for plug in transports()}
    assert folders == set(re.findall(r"`(\w+)/`", HEAD))


def test_who_writes_a_plug_is_told_of_every_part() -> None:
    parts = {name for name in vars(TransportPlug) if not name.startswith("_")}
    assert parts == set(re.findall(r"``(\w+)``", plug_module.__doc__ or ""))


def test_the_common_faults_are_those_that_answers_and_exchanges_end_in() -> None:
    assert set(faults_on(Way.PLAIN)) == set(
        faults_named(FOLDERS / "answers.py", FOLDERS / "statuses.py", FOLDERS / "outcome.py")
    )


@pytest.mark.parametrize("plug", transports(), ids=lambda plug: plug.name)
def test_the_faults_of_a_transport_are_those_its_package_names(plug: TransportPlug) -> None:
    package = ROOT / Path(*type(plug).__module__.split(".")[:-1])
    named = set(faults_named(*(path for path in package.rglob("*.py") if path.name != "plug.py")))
    assert named <= set(plug.about.faults) <= named | set(faults_on(Way.PLAIN))


def test_the_keys_are_those_of_the_configuration() -> None:
    common = {"transport", "model", "api", "relays", "pace", *AskingSettings.model_fields}
    of_services = {key for plug in transports() if plug.rules for key in plug.about.keys}
    assert of_services | common == ServiceConfig.model_fields.keys()
    others = {key for plug in transports() if not plug.rules for key in plug.about.keys}
    assert others == {"suppliers", "supplier_sources"} <= Settings.model_fields.keys()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
