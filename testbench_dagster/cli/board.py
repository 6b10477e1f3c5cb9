"""Command ``board``: pages for people, over what is stored."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from testbench_dagster.cli.output import note
from testbench_dagster.stages.workspace import Workspace

BOARD_PORT = 3001


@click.command(short_help="Serve pages: leaderboard, history, answers")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; anybody there may read."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=BOARD_PORT,
    show_default=True,
    help="Port; 0: a free one.",
)
@click.option("--no-answers", is_flag=True, help="Show scores only: no prompts and no answers.")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Name by which a proxy in front asks for the board (repeatable).",
)
@click.option(
    "--with-parent", is_flag=True, help="End when stdin is closed, as by the end of who started it."
)
@click.pass_obj
def board(
    config: str | None, host: str, port: int, no_answers: bool, names: tuple[str, ...], with_parent: bool
) -> None:
    """Serve pages for people until interrupted: leaderboard, history, every answer, comparisons.

    It only reads. It asks nobody who they are: whoever reaches the port reads everything, answers too unless
    --no-answers.
    """
    # with a web server and the templates: 0.4 s
    from testbench_dagster.board.run import allowed_hosts, is_loopback, listen, serve

    # with the above
    from testbench_dagster.board.site import Site

    with Workspace.open(config, hurried=True) as workspace, listen(host, port) as listening:
        url = workspace.config.settings.board.url
        if url is not None:
            names = (*names, urlsplit(url).hostname or "")
        site = Site(workspace, with_answers=not no_answers)
        site.prepare()
        if not is_loopback(host) and not no_answers:
            note("anybody who reaches this address reads all prompts and answers; --no-answers hides them")
        try:
            serve(
                site,
                listening,
                allowed_hosts(host, names),
                lambda url: note(f"board: {url}"),
                with_parent=with_parent,
            )
        except KeyboardInterrupt:
            note("interrupted")
