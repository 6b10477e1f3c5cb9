"""The column registry: everything published has the columns it says, and the documentation too."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated

import pytest
from packaging.version import Version

import testbench_dagster
from testbench_dagster.core.columns import (
    FIRST_VERSION,
    Column,
    Origin,
    Shape,
    Unit,
    Views,
    columns_of,
    reader_of,
)
from testbench_dagster.core.doc_answer import DocAnswer
from testbench_dagster.core.history import HistoryPoint
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import (
    REQUIRED_IN_EVIDENCE,
    WINDOW_VIEWS,
    Window,
)
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Entry
from testbench_dagster.scoring.rows import known_beforehand
from testbench_dagster_tests.acceptance.documents import document
from testbench_dagster_tests.ranking.boards import board

RECORDS = [(Window, WINDOW_VIEWS), (Entry, ENTRY_VIEWS)]
KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    datetime: "time",
    dict: "object",
}
BOARD = board(["alpha", "beta", "gamma"], ["gsm8k", "ifeval"], ["general"])
EXAMPLES = {Window: BOARD.windows["alpha@external"][0], Entry: BOARD.entries[0]}


def table(record: type) -> str:
    """The table of reference.md as it has to be."""
    lines = ["| field | type | meaning |", "|---|---|---|"]
    for name, field in columns_of(record).items():
        column = field.column
        kind = KINDS[field.kind] + (" or `null`" if field.optional else "")
        kind += f" ({column.unit})" if column.unit else ""
        since = "" if column.since == FIRST_VERSION else f" (since {column.since})"
        lines.append(f"| `{name}` | {kind} | {column.meaning}{since} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (Window, "scores"),
        (Entry, "leaderboard"),
        (DocAnswer, "answers"),
        (HistoryPoint, "history"),
        (ServiceQuality, "service"),
    ],
)
def test_reference_shows_the_columns(record: type, command: str) -> None:
    heading = f"Fields of `testbench {command} --format json`"
    section = re.search(
        rf"^## {re.escape(heading)}$(.*?)^## ", document("docs/reference.md"), re.MULTILINE | re.DOTALL
    )
    assert section, f"docs/reference.md has no section {heading!r}"
    shown = "\n".join(line for line in section[1].splitlines() if line.startswith("|"))
    wanted = table(record)
    assert shown == wanted, (
        f"paste this table into the section {heading!r} of docs/reference.md:\n\n{wanted}\n"
    )


@pytest.mark.parametrize("record", EXAMPLES)
def test_json_has_the_columns_in_their_order(record: type) -> None:
    row = EXAMPLES[record].to_json()
    assert list(row) == list(columns_of(record)) == [field.name for field in fields(record)]
    assert not any(isinstance(value, datetime) for value in row.values())


@pytest.mark.parametrize("record", EXAMPLES)
def test_a_column_says_what_it_holds(record: type) -> None:
    version = Version(testbench_dagster.__version__)
    for name, field in columns_of(record).items():
        column = field.column
        assert column.meaning and not column.meaning.endswith("."), name
        assert Version(column.since) <= version, f"{name}: since a version to come"
        assert field.kind in KINDS, name
        assert not column.parts or field.kind is dict, name
        if column.unit in (Unit.SCORE, Unit.SHARE):
            assert field.kind is float, name
        value = getattr(EXAMPLES[record], name)
        if value is not None:
            assert isinstance(value, field.kind), name


@pytest.mark.parametrize(("record", "views"), RECORDS)
def test_views_show_what_there_is(record: type, views: Views) -> None:
    one = EXAMPLES[record]
    columns = columns_of(record)
    assert set(views.commands) <= set(columns)
    assert len(set(views.commands)) == len(views.commands)
    for cells in (views.dagster, views.page, views.feed):
        assert len({cell.title for cell in cells}) == len(cells)
        for cell in cells:
            assert len(cell.values(one)) == len(cell.paths), "each path leads to a value"
            for path in cell.paths:
                name, _, part = path.partition(".")
                assert not part or part in columns[name].column.parts, path
    for gauge in views.gauges:
        assert gauge.path in columns
        assert re.fullmatch(r"testbench_(supplier|task)_[a-z_]+", gauge.name)
        assert gauge.explanation.endswith(".")
    ages = [cell for cell in (*views.page, *views.feed) if cell.shape is Shape.AGE]
    assert all(columns[cell.paths[0]].kind is datetime for cell in ages)


def test_a_path_reads_a_field_a_part_or_a_property() -> None:
    window = EXAMPLES[Window]
    assert reader_of("n")(window) == 75
    assert reader_of("latency_ms.p95")(window) == 4096.0
    assert reader_of("asked")(window) == 75
    with pytest.raises(AttributeError):
        reader_of("unheard_of")(window)


def test_what_is_known_beforehand_is_what_the_registry_says() -> None:
    """A cache repeats none of it, and a window made from the cache gets all of it."""
    supplier = Supplier("alpha", "external", "http://127.0.0.1:9/v1", "chat", "m")
    spec = TaskSpec("gsm8k", "gsm8k", "gsm8k", None, None, None, None, None, {}, None)
    known = known_beforehand(supplier, spec, None)
    origins = {name: field.column.origin for name, field in columns_of(Window).items()}
    said = (Origin.SUPPLIER, Origin.TASK, Origin.PRICE)
    assert set(known) == {n for n, origin in origins.items() if origin in said}
    assert {n: known[n] for n in known if origins[n] is Origin.PRICE} == {
        "cost": None,
        "cost_per_1000_right": None,
    }  # known only with the tokens
    assert {n for n, origin in origins.items() if origin is Origin.PLACE} == {"primary"}
    assert all(origins[name] is Origin.ANSWERS for name in REQUIRED_IN_EVIDENCE)


def test_a_field_without_a_column_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"Forgetful.two has no column: annotate it with Column\(...\)"):
        columns_of(Forgetful)


@dataclass(frozen=True)
class Forgetful:
    """A record one of whose fields says nothing of itself."""

    one: Annotated[int, Column("the first")]
    two: int
