"""Commands that keep something running: ``demo``, ``up``, ``localnet``."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.cli.alone import alone_at_home, was_served
from testbench_dagster.cli.background import BackgroundServer
from testbench_dagster.cli.board import BOARD_PORT
from testbench_dagster.cli.interrupts import INTERRUPTED, stoppable
from testbench_dagster.cli.leaderboard import ranking_columns
from testbench_dagster.cli.output import emit, note
from testbench_dagster.cli.progress import RelayBar
from testbench_dagster.cli.summary import came_to
from testbench_dagster.config import Config, load_config
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.wording import counted
from testbench_dagster.localnet.demo import STARTER_PORT, demo_settings, pocket_settings
from testbench_dagster.localnet.personas import DEMO_SUPPLIERS, FAIL_MODES, POCKET_SUPPLIERS
from testbench_dagster.stages.disk_space import low_space
from testbench_dagster.stages.service.outlook import probes_line
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import alone, create_folder, writing

if TYPE_CHECKING:
    from testbench_dagster.defs.local_evaluation import RunReport


def board_options(function: Any) -> Any:
    """The options of commands that serve the board beside the UI."""
    port = click.option(
        "--board-port",
        type=click.IntRange(1, 65535),
        default=BOARD_PORT,
        show_default=True,
        help="Port of the board.",
    )
    return port(click.option("--no-board", is_flag=True, help="Without the board.")(function))


#: What a demo leaves to be looked at, and how.
_LOOK_CLOSER = {
    "scores": "every window, with intervals and errors",
    "identity": "who answers like whom",
    "twins": "who is better on public questions than on fresh ones",
    "taxonomies": "abilities of each supplier",
    "board": "pages: leaderboard, history, every answer",
}
_USUAL_SUPPLIERS = f"{DEMO_SUPPLIERS}, with --pocket {POCKET_SUPPLIERS}"
#: How long what a killed `testbench up` had started may take to end.
_LEFT_BEHIND_S = 30.0
_LOOK_S = 0.25
_ANOTHER_FOLDER = "let this user write it, or set TESTBENCH_HOME to another folder"


@click.command(short_help="Everything, on simulated suppliers")
@click.option("--fresh", is_flag=True, help="Forget what earlier demos measured.")
@click.option(
    "--suppliers",
    "n_suppliers",
    type=click.IntRange(1, 500),
    show_default=_USUAL_SUPPLIERS,
    help="How many simulated suppliers.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@board_options
@click.option("--no-ui", is_flag=True, help="Print the leaderboard and leave.")
@click.option("--pocket", is_flag=True, help="Over signed relays on a simulated Pocket network.")
@click.pass_context
def demo(
    context: click.Context,
    fresh: bool,
    n_suppliers: int | None,
    port: int,
    board_port: int,
    no_board: bool,
    no_ui: bool,
    pocket: bool,
) -> None:
    """Run everything on simulated suppliers: no configuration, no network, no servers.

    Starts the simulated network, materializes every asset on the embedded stores, prints the leaderboard and
    serves the Dagster UI and the board on it.
    """
    # the embedded stores, whatever is exported for a real installation
    for name in ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL", "DAGSTER_HOME"):
        os.environ.pop(name, None)
    exported = os.environ.pop("TESTBENCH_HOME", None)
    folder = Path(exported or Path.cwd() / ".testbench").absolute() / ("demo-pocket" if pocket else "demo")
    on_board = None if no_board else board_port
    if not no_ui:
        _require_ports(port, on_board)
    create_folder(folder.parent)
    with alone(
        folder.with_suffix(".lock"),
        f"another demo runs in {folder}; end it first, or run this one in another folder, or with another "
        "TESTBENCH_HOME",
    ):
        with writing(folder, _ANOTHER_FOLDER):
            if fresh and folder.is_dir():
                shutil.rmtree(folder)
        create_folder(folder)
        n_suppliers = n_suppliers or (POCKET_SUPPLIERS if pocket else DEMO_SUPPLIERS)
        _demo(context, folder, n_suppliers, port, on_board, exported, pocket=pocket, no_ui=no_ui)


def _demo(
    context: click.Context,
    folder: Path,
    n_suppliers: int,
    port: int,
    on_board: int | None,
    exported: str | None,
    *,
    pocket: bool,
    no_ui: bool,
) -> None:
    """The demo in its folder, which nobody else uses meanwhile."""
    # the simulated network, which no other command needs: 20 ms
    from testbench_dagster.localnet.pocket.run import PocketProcess, height_by_calendar
    from testbench_dagster.localnet.pocket.settings import environment
    from testbench_dagster.localnet.run import LocalnetError, LocalnetProcess

    def network(port: int) -> PocketProcess | LocalnetProcess:
        if pocket:
            return PocketProcess(n_suppliers, 0, port, first_height=height_by_calendar())
        return LocalnetProcess(n_suppliers, 0, port)

    with ExitStack() as stack:
        try:
            localnet = stack.enter_context(network(STARTER_PORT if _is_free(STARTER_PORT) else 0))
        except LocalnetError:  # another demo took the port since
            localnet = stack.enter_context(network(0))
        if isinstance(localnet, PocketProcess):
            description = localnet.describe()
            settings = pocket_settings(description)
            # never in the file; the UI's processes inherit them
            os.environ |= environment(description)
        else:
            settings = demo_settings(localnet.roster())
        path = folder / "testbench.yaml"
        with writing(path, _ANOTHER_FOLDER):
            path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        kind = "simulated Pocket network" if pocket else "simulated network"
        note(f"{kind}: {counted(n_suppliers, 'supplier')} at {localnet.url}")
        with Testbench.open(path) as testbench, RelayBar() as bar:

            def evaluate(stop: threading.Event) -> RunReport:
                return testbench.run(
                    on_planned=bar.planned,
                    on_progress=bar.progressed,
                    on_note=bar.note,
                    on_scored=bar.scored,
                    on_stage=bar.stage,
                    on_wait=bar.waiting,
                    stop=stop,
                )

            report = stoppable(evaluate, bar.stopping)
            rows = testbench.leaderboard().rows
            gaps = testbench.twins().rows
        note(came_to(report))
        if report.interrupted:
            context.exit(INTERRUPTED)
        emit(rows, "table", ranking_columns(rows), "Leaderboard (simulation)")
        for row in gaps:
            if row["verdict"] == "better":
                times = "flagged" if row["flagged"] else "seen in one epoch; a flag takes two"
                note(f"\n{row['supplier']} is {row['finding']} ({times})")
        note(f"\nThese suppliers are simulated. Everything measured is in {folder}; look closer with")
        # the demo's stores lie beside its configuration, where an exported TESTBENCH_HOME would hide them
        prefix = "env -u TESTBENCH_HOME " if exported else ""
        command = f"{prefix}{own_command()} -c {_shown(path)}"
        for name, what in _LOOK_CLOSER.items():
            note(f"  {command} {name:<11} {what}")
        if no_ui:
            return
        _serve_ui(load_config(path), port, on_board)


@click.command(short_help="Serve the Dagster UI, daemon and board")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@board_options
@click.option("--verbose", "-v", is_flag=True, help="Print what Dagster says, too; it is in a log anyway.")
@click.pass_obj
def up(config: str | None, port: int, board_port: int, no_board: bool, verbose: bool) -> None:
    """Serve the Dagster UI and daemon on the installation's home, and the board, until interrupted.

    Says where once they serve. What they say is in logs/ of the home.
    """
    # with the stores: 40 ms
    from testbench_dagster.stages.migrate import migrate_if_safe

    loaded = load_config(config)
    on_board = None if no_board else board_port
    with _alone(loaded, port, on_board):
        migrate_if_safe(loaded, note)
        _serve_ui(loaded, port, on_board, verbose=verbose)


@contextlib.contextmanager
def _alone(config: Config, port: int, board_port: int | None) -> Iterator[None]:
    """While this lasts no other process serves this home; the ports are free at its beginning."""
    if not was_served(config):  # nobody can serve it now: who is refused for a port leaves nothing behind
        _require_ports(port, board_port)
    with alone_at_home(config, f"http://127.0.0.1:{port}") as killed:
        # what a killed one had started ends by itself, in a moment
        give_up = time.monotonic() + (_LEFT_BEHIND_S if killed else 0)
        while True:
            try:
                _require_ports(port, board_port)
                break
            except TestbenchError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(_LOOK_S)
        yield


def _serve_ui(config: Config, port: int, board_port: int | None, *, verbose: bool = False) -> None:
    """Serve the Dagster UI, the daemon and the board until interrupted; say so once they really do."""
    # with Dagster: 0.8 s
    from testbench_dagster.defs.entry_points import take_over_switches
    from testbench_dagster.defs.local_runs import opened_instance, prepare_home, workspace_file
    from testbench_dagster.defs.serving import alone_on_storage

    environment = {**os.environ, **prepare_home(config)}
    # Dagster's own advice to use its newer command would be the first line of the log
    environment.setdefault("PYTHONWARNINGS", "ignore")
    url = f"http://127.0.0.1:{port}"
    for little in low_space(config):
        note(f"warning: {little}")
    workspace = workspace_file(environment["DAGSTER_HOME"])
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace)]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    log = config.home / "logs" / "dagster.log"
    with (
        opened_instance(config) as instance,
        Workspace(config) as opened,
        alone_on_storage(opened.documents, instance, note),
    ):
        try:
            taken = take_over_switches(instance)
        except TestbenchError:
            raise
        except Exception as error:  # of Dagster's store: the processes below say more
            note(f"what was switched on the Automation page before cannot be looked at: {error!r}"[:300])
        else:
            if taken:
                note(f"switches of earlier versions hold on: {', '.join(taken)}")
        probes = probes_line(opened)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with (
                BackgroundServer(
                    "the Dagster UI", command, log, environment=environment, verbose=verbose
                ) as server,
                _board(config, board_port, environment) as board,
            ):
                note(f"starting the Dagster UI and daemon; what they say is in {log}")
                server.wait_until_it_serves(f"{url}/server_info")
                note(f"Dagster UI: {url}  (stop with Ctrl-C)")
                if board is not None:
                    pages = f"http://127.0.0.1:{board_port}"
                    board.wait_until_it_serves(pages)
                    note(f"Board: {pages}")
                note("with it runs the daemon: it evaluates what is due, by sensors and schedules")
                if probes is not None:
                    note(probes)
                try:
                    server.wait()
                finally:
                    note("stopping")
        except KeyboardInterrupt:
            return


def _board(
    config: Config, port: int | None, environment: Mapping[str, str]
) -> AbstractContextManager[BackgroundServer | None]:
    """The board in a process of its own, so that what befalls it harms nothing else."""
    if port is None:
        return contextlib.nullcontext()
    command = [sys.executable, "-m", "testbench_dagster.cli", "--config", str(config.path)]
    command += ["board", "--port", str(port), "--with-parent"]
    log = config.home / "logs" / "board.log"
    return BackgroundServer("the board", command, log, environment=environment, with_parent=True)


def own_command() -> str:
    """What to type to run this program again: by name where the shell finds it, else by its path."""
    name = "testbench"
    if shutil.which(name):
        return name
    beside = Path(sys.executable).with_name(name)
    if os.access(beside, os.X_OK):
        return _shown(beside)
    return f"{shlex.quote(sys.executable)} -m testbench_dagster.cli"


def _shown(path: Path) -> str:
    """A path as a shell takes it, from here where it lies below."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _require_ports(port: int, board_port: int | None) -> None:
    for number, option in ((port, "--port"), (board_port, "--board-port")):
        if number is not None and not _is_free(number):
            raise TestbenchError(f"port {number} is in use; choose another with {option}")
    if port == board_port:
        raise TestbenchError(
            f"the UI and the board cannot share port {port}; choose another with --board-port"
        )


@click.group(short_help="The simulated network alone")
def localnet() -> None:
    """The simulated network alone."""


@localnet.command("up", short_help="Serve simulated suppliers")
@click.option(
    "--suppliers", type=click.IntRange(1, 500), show_default=_USUAL_SUPPLIERS, help="How many suppliers."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything follows from it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=STARTER_PORT, show_default=True, help="0 picks one."
)
@click.option(
    "--fail-mode",
    type=click.Choice(FAIL_MODES),
    default="500",
    show_default=True,
    help="How the requests of --fail-rate fail.",
)
@click.option(
    "--fail-rate", type=click.FloatRange(0, 1), help="Share of requests that fail, for every supplier."
)
@click.option("--latency-ms", type=click.FloatRange(min=0), help="Time to answer, for every supplier.")
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Public questions that all models know with their accuracy: JSON lines {"question", "answer"}, as '
    "of GSM8K, .gz too.",
)
@click.option(
    "--block-seconds",
    type=click.FloatRange(min=0.001),
    help="The roster tells a block height that grows by one every so many seconds; with --pocket, time of a "
    "block (2).",
)
@click.option(
    "--pocket",
    is_flag=True,
    help="As a Pocket network: chain node, relay miners, gateway; see docs/pocket.md.",
)
@click.option(
    "--blocks-per-session", type=click.IntRange(2, 10_000), help="Blocks of a session, with --pocket (10)."
)
@click.option(
    "--suppliers-per-session",
    type=click.IntRange(1, 500),
    help="Suppliers of a session at most, with --pocket (50).",
)
@click.option("--hosts", type=click.IntRange(1, 50), help="Relay miners, with --pocket (2).")
def localnet_up(pocket: bool, **options: Any) -> None:
    """Serve simulated suppliers on 127.0.0.1 until interrupted; /roster lists them.

    With --pocket they are relayed to on a simulated chain; what it prints says how to evaluate it.
    """
    # the simulated chain: 10 ms
    from testbench_dagster.localnet.pocket.run import BLOCK_S, BLOCKS_PER_SESSION, height_by_calendar

    command = [sys.executable, "-m", "testbench_dagster.localnet"]
    if pocket:
        first = height_by_calendar(
            options["block_seconds"] or BLOCK_S, options["blocks_per_session"] or BLOCKS_PER_SESSION
        )
        command += ["--pocket", "--first-height", str(first)]
    for name in () if pocket else ("blocks_per_session", "suppliers_per_session", "hosts"):
        if options[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --pocket")
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    os.execv(sys.executable, command)  # noqa: S606  this Python, and options that click checked


@localnet.command("control", short_help="Change a network that runs")
@click.argument("action")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option(
    "--url",
    default=f"http://127.0.0.1:{STARTER_PORT}",
    show_default=True,
    envvar="TESTBENCH_LOCALNET_URL",
    help="Where the simulated network listens.",
)
@click.option("--pocket", is_flag=True, help="It is a simulated Pocket network.")
def localnet_control(action: str, fields: tuple[str, ...], url: str, pocket: bool) -> None:
    """Change a running simulated network: who is there, what answers, what fails.

    For example: `join address=new accuracy=0.9`, `leave address=new`,
    `swap address=sim-01 accuracy=0.2 announce=true`, `fail address=sim-02 mode=500 rate=0.5`,
    `withhold address=sim-02 "how=[500, answer]" when=wrong`, `deceive address=sim-03 memorises=0.5`,
    `height height=9`. With --pocket: `roll`,
    `advance blocks=3`, `leave supplier=sim-01`, `fault supplier=sim-02 kind=bad_signature rate=0.5`,
    `clear supplier=sim-02`, `budget supplier=sim-03 relays=10`, `delegate app=app-simulation gateway=mine`
    and others.
    """
    # the simulated network: 10 ms
    from testbench_dagster.localnet.run import control, post

    body = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals:
            raise click.UsageError(f"{field!r} is no FIELD=VALUE")
        body[name] = yaml.safe_load(value)
    click.echo(json.dumps(post(f"{url}/_sim/{action}", body) if pocket else control(url, action, body)))
