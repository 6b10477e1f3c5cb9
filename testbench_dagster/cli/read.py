"""Commands that show what suppliers said and how they did: ``answers``, ``history``, ``show``."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, emit_text, format_option, note
from testbench_dagster.cli.service_lines import service_lines
from testbench_dagster.core.doc_answer import AnswerKind
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.text import escaped
from testbench_dagster.core.window import Window
from testbench_dagster.core.wording import counted, money
from testbench_dagster.stages.read.answers import DIFFERENT, TRUNCATED

if TYPE_CHECKING:
    from testbench_dagster.stages.read.spending import DaySpent

#: What may be chosen by a flag, in the order in which counts are told.
_FLAGS = ("wrong", "right", "failed", "open", TRUNCATED, DIFFERENT)
#: Most characters of a text as the terminal shows it.
_MAX_CHARS = 1_500
#: Tasks that a group lacks, named in a line.
_TOLD = 5
_BARS = "▁▂▃▄▅▆▇█"
_HISTORY_COLUMNS = (
    "day", "task", "taxonomy", "node", "score", "ci_low", "ci_high", "n", "n_failed", "p50_ms", "source",
    "cut", "model",
)  # fmt: skip
_AGO = re.compile(r"(\d{1,5})([dw])")


def _kind_options(function: Any) -> Any:
    for name in reversed(_FLAGS):
        function = click.option(f"--{name}", "chosen", flag_value=name, help=f"Only those that are {name}.")(
            function
        )
    return function


@click.command(short_help="What a supplier was asked and said")
@click.option("-s", "--supplier", required=True, metavar="KEY", help="The supplier.")
@click.option("-t", "--task", required=True, metavar="NAME", help="The leaf task.")
@_kind_options
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in AnswerKind]),
    help="Only docs of this kind, as the flags; also graded, void and unscored ones.",
)
@click.option("--doc", "doc_id", type=click.IntRange(min=0), help="This doc alone, with every attempt at it.")
@click.option("--search", metavar="TEXT", help="Only where question, answer or target hold this text.")
@click.option("--after", type=click.IntRange(min=0), metavar="ID", help="Docs after this one: the next page.")
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True, help="Docs to show.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "jsonl", "markdown"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.pass_obj
def answers(
    config: str | None,
    supplier: str,
    task: str,
    chosen: str | None,
    kind: str | None,
    doc_id: int | None,
    search: str | None,
    after: int | None,
    limit: int,
    format_: str,
) -> None:
    """Show what a supplier was asked, what was expected and what it answered, doc by doc.

    The docs are those of its present window, in the order of their ids.
    """
    if chosen is not None and kind is not None:
        raise click.UsageError(f"--{chosen} and --kind {kind} are both given; choose one")
    if doc_id is not None and (chosen or kind or search is not None or after is not None):
        raise click.UsageError("--doc names one doc; leave out --kind, --search, --after and the like")
    with Testbench.open(config) as testbench:
        if doc_id is not None:
            row = testbench.answer(supplier, task, doc_id)
            if row is None:
                raise ConfigError(
                    f"doc {doc_id} of task {task} is not in the window of {supplier}: it was not asked, or "
                    "its answer no longer counts; `testbench answers` without --doc lists those that are"
                )
            _emit([row], format_)
            return
        page = testbench.answers(supplier, task, chosen or kind, search=search, after=after, limit=limit)
    _emit(page.rows, format_)
    if format_ in ("table", "markdown"):
        who = f"{supplier} ({escaped(page.rows[0]['model'], 80)}): " if page.rows else ""
        note(f"{who}{_counts(page.counts)}")
        if page.after is not None:
            note(f"there are more: --after {page.after} shows the next, --limit more at once")


def _counts(counts: Mapping[str, int]) -> str:
    """The docs of a window by kind, in a line."""
    kinds = {name: n for name, n in counts.items() if n and name not in (TRUNCATED, DIFFERENT)}
    text = ", ".join(f"{name} {n}" for name, n in kinds.items()) or "no docs"
    told = ", ".join(f"{name} {counts[name]}" for name in (TRUNCATED, DIFFERENT) if counts.get(name))
    return f"{counted(sum(kinds.values()), 'doc')}: {text}{'; of these ' if told else ''}{told}"


def _emit(rows: Sequence[Mapping[str, Any]], format_: str) -> None:
    if format_ == "json":
        emit(rows, "json", (), "")
    elif format_ == "jsonl":
        emit_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        write = _markdown if format_ == "markdown" else _block
        emit_text("\n".join(write(row) for row in rows))


def _title(row: Mapping[str, Any]) -> str:
    parts = [f"doc {row['doc_id']}", row["kind"]]
    if row["value"] is not None:
        parts.append(f"{row['metric']} {row['value']:g}")
    if row["truncated"]:
        parts.append("cut at the token limit")
    parts.append(counted(row["attempts"], "attempt"))
    if row["latency_ms"] is not None:
        parts.append(f"{row['latency_ms']:,.0f} ms")
    parts.append(f"{row['at'][:16].replace('T', ' ')} UTC")
    return _plain(" · ".join(parts))


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of what there is to read of a doc, in the order of reading."""
    for name, field in (
        ("question", "question"),
        ("expected", "target"),
        ("thought", "reasoning"),
        ("answered", "answer"),
        ("extracted", "extracted"),
    ):
        if row[field] is not None:
            yield name, row[field]
    if row["fault"] is not None:
        yield "fault", f"{row['fault']} ({row['owner']})"
    if row["error"] is not None:
        yield "error", row["error"]


def _sent(attempt: Mapping[str, Any]) -> str:
    status = "" if attempt["status"] is None else f", HTTP {attempt['status']}"
    call = f"request {attempt['idx'] + 1}, sample {attempt['repeat'] + 1}, attempt {attempt['attempt']}"
    canary = ", canary" if attempt["canary"] else ""
    return _plain(
        f"{attempt['started_at'][:19].replace('T', ' ')} UTC: {call}{canary}: {attempt['fault']}{status}, "
        f"{attempt['latency_ms']:,.0f} ms, id {attempt['id']}"
    )


def _block(row: Mapping[str, Any]) -> str:
    """A doc for the terminal."""
    lines = [_title(row)]
    lines += [_indented(name, text) for name, text in _texts(row)]
    for attempt in row.get("sent", ()):
        lines.append(_indented("attempt", _sent(attempt)))
        if attempt["payload"] is not None:
            lines.append(_indented("sent", attempt["payload"]))
        if attempt["error"] is not None:
            lines.append(_indented("error", attempt["error"]))
    return "".join(f"{line}\n" for line in lines)


def _indented(name: str, text: str) -> str:
    """A text of several lines beside its name; a long one is cut, with how long it is."""
    shown = "\n".join(map(_plain, text[:_MAX_CHARS].split("\n")))
    if len(text) > _MAX_CHARS:
        shown += f"… ({counted(len(text), 'character', ',')}; --format json has them all)"
    return f"  {name:<11}" + textwrap.indent(shown, " " * 13)[13:]


def _markdown(row: Mapping[str, Any]) -> str:
    """A doc as Markdown: texts stand in fences longer than any in them, so nothing in them is markup."""
    model = _plain(row["model"] or "")
    lines = [f"## {row['supplier']} ({model}), {row['task']}: {_title(row)}".translate(_MARKUP), ""]
    texts = [*_texts(row)]
    for attempt in row.get("sent", ()):
        texts.append(("attempt", _sent(attempt)))
        if attempt["payload"] is not None:
            texts.append(("sent", attempt["payload"]))
    for name, text in texts:
        shown = "\n".join(map(_plain, text.split("\n")))
        longest = max((len(run) for run in re.findall("`+", shown)), default=0)
        fence = "`" * max(3, longest + 1)
        lines += [f"**{name}**", "", f"{fence}text", shown, fence, ""]
    return "\n".join(lines)


#: What would be markup in a heading, escaped.
_MARKUP = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>|"})


def _plain(text: str) -> str:
    """A line of somebody's text with control and direction characters escaped."""
    return escaped(text, max(len(text) * 10, 1))


# -- history ----------------------------------------------------------------------------------------------


@click.command(short_help="How a supplier's scores went, day by day")
@click.option("-s", "--supplier", required=True, metavar="KEY", help="The supplier.")
@click.option(
    "-t", "--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@click.option(
    "--since", default="30d", show_default=True, metavar="WHEN", help="How far back: 30d, 8w, a date, or all."
)
@format_option
@click.pass_obj
def history(config: str | None, supplier: str, tasks: tuple[str, ...], since: str, format_: str) -> None:
    """Show a supplier's scores day by day: as each day ended, or the mean of what was answered on it.

    On a terminal each score has a line with its course; with --task the days stand below.
    """
    first = first_day(since)
    with Testbench.open(config) as testbench:
        rows = testbench.history(supplier, tasks or None, since=first).rows
    if format_ == "table" and sys.stdout.isatty():
        if rows:
            note(_whose(supplier, rows))
        emit_text("".join(f"{line}\n" for line in _courses(rows)))
        if not tasks:
            note("--task shows the days of a task; --format json or csv has all of them")
            return
    emit(rows, format_, _HISTORY_COLUMNS, "History")
    if format_ == "table" and any(row["source"] == "daily_mean" for row in rows):
        note("daily_mean: no snapshot of that day; the mean of what was answered on it, failed docs left out")


def _whose(supplier: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A supplier and the models that it claimed over days, the last one last."""
    models = dict.fromkeys(row["model"] for row in rows if row["model"] is not None)
    return f"{supplier} ({', then '.join(escaped(model, 80) for model in models) or 'model unknown'})"


def first_day(text: str) -> date | timedelta | None:
    """What ``--since`` means. Raises BadParameter: it means nothing."""
    if text == "all":
        return None
    found = _AGO.fullmatch(text)
    if found:
        return timedelta(days=int(found[1]) * (7 if found[2] == "w" else 1))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a number of days (30d) or weeks (8w) nor a date (2026-11-01) nor all",
            param_hint="--since",
        ) from None


def _courses(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line per score: its course, the last score with its interval, and when its model changed."""
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for row in rows if row["score"] is not None):
        name = row["task"] or f"{row['taxonomy']}: {row['node']}"
        series.setdefault(name, []).append(row)
    width = max((len(name) for name in series), default=0)
    for name, points in series.items():
        last = points[-1]
        interval = "" if last["ci_low"] is None else f" ({last['ci_low']:.3f}–{last['ci_high']:.3f})"
        cuts = ", ".join(point["day"] for point in points if point["cut"])
        yield _plain(
            f"{name:<{width}}  {sparkline([p['score'] for p in points])}  {last['score']:.3f}{interval}"
            f"  {last['day']}, n {last['n']}{', model changed ' if cuts else ''}{cuts}"
        )


def sparkline(values: Sequence[float | None]) -> str:
    """Values as bars from the least to the greatest; equal ones are of middle height, a gap is a space."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    if high - low < 1e-12:
        return "".join(" " if value is None else _BARS[len(_BARS) // 2 - 1] for value in values)
    step = (len(_BARS) - 1) / (high - low)
    return "".join(" " if value is None else _BARS[round((value - low) * step)] for value in values)


# -- one supplier -----------------------------------------------------------------------------------------


@click.command(short_help="One supplier at a glance")
@click.argument("supplier")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)
@click.pass_obj
def show(config: str | None, supplier: str, format_: str) -> None:
    """Show one supplier: what it is, its scores and what cuts them, its group, faults and last change."""
    with Testbench.open(config) as testbench:
        page = testbench.supplier(supplier)
    if format_ == "json":
        emit_text(f"{json.dumps(page.to_json(), indent=1)}\n")
        return
    now = datetime.now(UTC)
    known, scored = page.supplier, [row for row in page.windows if row.score is not None]
    lines = [
        f"{known.key}  {known.status}",
        f"  model      {known.model} ({known.api})",
        f"  where      {known.base_url}",
    ]
    if known.price is not None:
        lines.append(
            f"  price      prompts {money(known.price.prompt)}, completions {money(known.price.completion)}, "
            "per million tokens"
        )
    if known.cut_at is not None:
        lines.append(f"  counts     what it answered after {_when(known.cut_at, now)}: its model changed")
    for entry in page.entries:
        lines.append(f"  ranked     {_place(entry)}")
    if page.group is not None and len(page.group.members) > 1:
        others = [member for member in page.group.members if member != known.key]
        lines.append(
            f"  group      {page.group.group}, {page.group.role}, with {', '.join(others[:5])}"
            f"{f' and {len(others) - 5} more' if len(others) > 5 else ''}"
        )
    if page.reference is not None:
        told = page.reference
        lines.append(f"  reference  {told.reference}, as it: {told.as_reference}; {told.finding}")
    lines += [f"  public     {gap.task}, epoch {gap.epoch}: {gap.finding}" for gap in page.public_gaps]
    if page.change is not None:
        lines.append(f"  change     {_when(page.change.at, now)}: {page.change.reason}")
    answered = page.faults.get("ok", 0) + page.faults.get("truncated", 0)
    failed = {name: n for name, n in page.faults.items() if name not in ("ok", "truncated")}
    lines.append(
        f"  this week  {counted(answered, 'attempt')} answered, {sum(failed.values())} not"
        + "".join(f", {name} {n}" for name, n in sorted(failed.items(), key=lambda f: -f[1]))
    )
    for number, day in enumerate(reversed(page.spent)):
        lines.append(f"  {'' if number else 'spent':<10} {_spent(day)}")
    lines += service_lines(page.service_quality)
    lines.append("")
    width = max((len(row.task) for row in (*page.windows, *page.groups)), default=0)
    lines += [f"  {row.task:<{width}}  {_score(row)}" for row in page.windows]
    if page.groups:
        lines += ["", *(f"  {row.task:<{width}}  {_score(row)}" for row in page.groups)]
    emit_text("".join(f"{_plain(line)}\n" for line in lines))
    for command in _next_commands(known.key, scored):
        note(command)


def _spent(day: DaySpent) -> str:
    """What a day's attempts took."""
    cost = "" if day.cost is None else f", {money(day.cost)}"
    without = f"; {counted(day.unmetered, 'answer')} more without a count" if day.unmetered else ""
    return (
        f"{day.day}: {counted(day.attempts, 'attempt')}, "
        f"{counted(day.prompt_tokens, 'prompt token', ',')}, "
        f"{counted(day.completion_tokens, 'completion token', ',')}{cost}{without}"
    )


def _place(entry: Mapping[str, Any]) -> str:
    name, low, high = entry["taxonomy"], entry["rank_low"], entry["rank_high"]
    if entry["score"] is None:
        return f"{name}: no score"
    interval = "" if entry["ci_low"] is None else f" ({entry['ci_low']:.3f}–{entry['ci_high']:.3f})"
    place = "not ranked" if low is None else f"place {low}" if low == high else f"place {low} to {high}"
    return f"{name}: {place}, {entry['score']:.3f}{interval}"


def _score(row: Window) -> str:
    """A window's score, and what takes away from it or makes it uncertain."""
    if row.score is None:
        return f"{row.status}{_missing(row)}"
    interval = "" if row.ci_low is None or row.ci_high is None else f" ({row.ci_low:.3f}–{row.ci_high:.3f})"
    cuts = []
    if row.n_failed:
        cuts.append(f"{row.n_failed} failed")
    if row.n_open:
        cuts.append(f"{row.n_open} open")
    if row.truncated:
        cuts.append(f"{row.truncated} cut at the token limit")
    if row.errors:
        cuts += [f"{name} {n}" for name, n in row.errors.items()]
    return f"{row.score:.3f}{interval}  n {row.n}{'  cut by: ' if cuts else ''}{', '.join(cuts)}"


def _missing(row: Window) -> str:
    """Which tasks a group without a score lacks."""
    names = list(row.missing or ())
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f", missing: {', '.join(names[:_TOLD])}{more}" if names else ""


def _when(at: datetime, now: datetime) -> str:
    days = (now - at) / timedelta(days=1)
    ago = (
        f"{counted(int(days), 'day')} ago" if days >= 1 else f"{counted(max(int(days * 24), 0), 'hour')} ago"
    )
    return f"{at:%Y-%m-%d %H:%M} UTC ({ago})"


def _next_commands(key: str, scored: Sequence[Window]) -> Iterator[str]:
    """What to ask next: why the worst score is low, how scores went, and who else is like it."""
    if scored:
        worst = min(
            scored, key=lambda row: (row.score or 0.0) if row.higher_is_better else -(row.score or 0.0)
        )
        flag = "--failed" if worst.n_failed > worst.n / 2 else "--wrong"
        yield f"next: testbench answers -s {key} -t {worst.task} {flag}"
    yield f"      testbench history -s {key}"
    yield f"      testbench scores --supplier {key}"
