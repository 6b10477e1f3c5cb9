"""The templates of the pages, with the filters they show values by. Everything is escaped on its way in."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from testbench_dagster.board import links
from testbench_dagster.board.tables import WIDTH
from testbench_dagster.board.wording import ago, moment, prose
from testbench_dagster.core.text import readable
from testbench_dagster.core.wording import counted, money
from testbench_dagster.ranking.cells import (
    UNKNOWN,
    interval_text,
    milliseconds_text,
    number_text,
    ranks_text,
    speed_text,
)
from testbench_dagster.stages.read.calls import offered_of


@functools.cache
def stylesheet() -> bytes:
    """The one stylesheet."""
    return resources.files(__package__).joinpath("board.css").read_bytes()


@functools.cache
def stylesheet_mark() -> str:
    """Changes with the stylesheet: browsers keep it for long under an address with this mark."""
    return hashlib.sha256(stylesheet()).hexdigest()[:12]


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def _dash(value: object) -> object:
    return UNKNOWN if value is None or value == "" else value


def _pretty(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def _inert(value: object, limit: int = 200) -> str:
    return readable(value, limit)


@functools.cache
def environment() -> Environment:
    """The environment of all pages."""
    made = Environment(
        loader=PackageLoader("testbench_dagster.board"),
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "ago": ago,
        "counted": counted,
        "dash": _dash,
        "inert": _inert,
        "interval": interval_text,
        "milliseconds": milliseconds_text,
        "moment": moment,
        "money": money,
        "number": number_text,
        "offered": offered_of,
        "percent": _percent,
        "pretty": _pretty,
        "prose": prose,
        "ranks": ranks_text,
        "speed": speed_text,
    }
    made.globals |= {"links": links, "stylesheet": f"/board.css?{stylesheet_mark()}", "width": WIDTH}
    return made


def load_templates() -> None:
    """Compile the templates, which is done once in a process."""
    for name in environment().list_templates(extensions=["jinja"]):
        environment().get_template(name)


def render(template: str, view: Mapping[str, Any]) -> str:
    """A page as text."""
    return environment().get_template(template).render(view)
