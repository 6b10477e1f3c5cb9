"""Files that show the newest leaderboard, in ``<TESTBENCH_HOME>/published`` and where ``publish`` says.

``leaderboard.html``, ``feed.json``, ``feed.prom`` and ``item_matrix.parquet``. Each takes its name when it is
complete, so a web server or a Prometheus textfile collector may read them at any time. Files are replaced one
by one, each whole; every one says as of when it was made.

What is published elsewhere is a copy: a place that cannot be reached keeps no ranking from being made, and
gets the newest files from the next one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.wording import counted
from testbench_dagster.ranking.entry import Board
from testbench_dagster.ranking.feeds import render_json, render_prometheus
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import create_folder, writing
from testbench_dagster.stores.places import Place

#: Suppliers × tasks up to which the item matrix is published with every leaderboard: it reads every sample.
#: Beyond, ``testbench export`` makes it when somebody wants it.
MAX_PAIRS = 5_000
_REMEDY = "let this user write the folder, or set TESTBENCH_HOME to another one"


@dataclass(frozen=True)
class Published:
    """The board, the files written and their sizes in bytes, and why a file was not written.

    ``place`` is where else they were to be, None where nowhere; ``problem`` is why they are not there.
    """

    board: Board
    files: Mapping[Path, int]
    left_out: Mapping[str, str]
    place: str | None = None
    problem: str | None = None


def publish(
    workspace: Workspace,
    render_page: Callable[[Board], str],
    *,
    max_pairs: int = MAX_PAIRS,
    now: datetime | None = None,
) -> Published:
    """Make the board, store its rankings and write the files, replacing the last ones.

    ``render_page`` makes the page, from the same templates as what is served to people. All as of one
    instant, ``now`` (the present by default), and of the suppliers on the board.

    Raises:
        StoreError: a file of this machine cannot be written.
    """
    # with pyarrow: 0.2 s
    from testbench_dagster.stages.publish.export import write_item_matrix

    board = make_board(workspace, now=now)
    store_board(workspace, board)
    folder = published_folder(workspace)
    create_folder(workspace.config.home)
    create_folder(folder, mode=0o777)
    files: dict[Path, int] = {}
    for name, render in (
        ("leaderboard.html", render_page),
        ("feed.json", render_json),
        ("feed.prom", render_prometheus),
    ):
        text = render(board)
        with writing(folder / name, _REMEDY):
            files[write_whole(folder / name, text)] = len(text.encode("utf-8"))
    left_out = {}
    matrix = folder / "item_matrix.parquet"
    pairs = len(board.suppliers) * len(workspace.specs)
    if pairs <= max_pairs:
        write_item_matrix(workspace, matrix, board.made_at, board.suppliers, remedy=_REMEDY)
        files[matrix] = matrix.stat().st_size
    else:
        with writing(matrix, _REMEDY):
            matrix.unlink(missing_ok=True)  # an old one beside a new board would mislead
        left_out[matrix.name] = (
            f"{counted(pairs, 'supplier')} × tasks, more than {max_pairs}: testbench export writes it"
        )
    place, problem = _copied(workspace, files, left_out)
    return Published(board, files, left_out, place, problem)


def _copied(
    workspace: Workspace, files: Iterable[Path], left_out: Iterable[str]
) -> tuple[str | None, str | None]:
    """Copy the files to the configured place; where that is, and why they did not all arrive."""
    url = workspace.config.settings.publish
    if url is None:
        return None, None
    place = Place(url)
    try:
        for path in files:
            with place.writing(path.name) as copy:
                shutil.copyfile(path, copy)
        for name in left_out:
            place.remove(name)
    except StoreError as error:
        return place.shown, f"{error}; the next ranking publishes again"
    return place.shown, None


def published_folder(workspace: Workspace) -> Path:
    """Where :func:`publish` writes."""
    return workspace.config.home / "published"


def write_whole(path: Path, text: str) -> Path:
    """Write a file that takes its name when it is complete, readable for everybody the umask allows.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
