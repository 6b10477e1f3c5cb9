"""Finds the JSON of an answer that was wrapped for people to read: in a fence of Markdown."""

from __future__ import annotations

import re

_OPENING = re.compile(r"`{3,}|~{3,}")
_ONE_LINE = re.compile(r"(`{3,}|~{3,})(?:[jJ][sS][oO][nN]\b)?([^\n]*)\Z")


def within_fence(text: str) -> str | None:
    """What stands in the only fenced block of a text; None where there is none, several, or an open one."""
    bare = text.strip()
    if (line := _ONE_LINE.match(bare)) and line[2].endswith(line[1]):
        inside = line[2].removesuffix(line[1])
        return None if line[1] in inside else inside
    blocks: list[str] = []
    lines: list[str] = []
    opened: str | None = None
    for written in text.split("\n"):  # not splitlines: a JSON text may hold other ends of lines
        mark = written.strip()
        if opened is None:
            found = _OPENING.match(mark)
            opened, lines = (found[0] if found else None), []
        elif mark.endswith(opened) and opened not in mark.removesuffix(opened):
            # the mark should stand alone; it closes behind the last line as well
            blocks.append("\n".join([*lines, mark.removesuffix(opened)]))
            opened = None
        else:
            lines.append(written)
    return blocks[0] if len(blocks) == 1 and opened is None else None
