"""Commands that keep something running: ``demo``, ``up``, ``localnet``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.cli.evaluate import RelayBar
from testbench_dagster.cli.leaderboard import ranking_columns
from testbench_dagster.cli.output import emit, note
from testbench_dagster.config import Config, load_config
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.localnet.demo import STARTER_PORT, demo_settings, pocket_settings
from testbench_dagster.localnet.personas import FAIL_MODES
from testbench_dagster.stores.files import create_folder, writing

_ANOTHER_FOLDER = "let this user write it, or set TESTBENCH_HOME to another folder"


@click.command(short_help="Everything, on simulated suppliers")
@click.option("--fresh", is_flag=True, help="Forget what earlier demos measured.")
@click.option(
    "--suppliers",
    "n_suppliers",
    type=click.IntRange(1, 500),
    default=6,
    show_default=True,
    help="How many simulated suppliers.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@click.option("--no-ui", is_flag=True, help="Print the leaderboard and leave.")
@click.option("--pocket", is_flag=True, help="Over signed relays on a simulated Pocket network.")
def demo(fresh: bool, n_suppliers: int, port: int, no_ui: bool, pocket: bool) -> None:
    """Run everything on simulated suppliers: no configuration, no network, no servers.

    Starts the simulated network, materializes every asset on the embedded stores, prints the leaderboard and
    serves the Dagster UI on it.
    """
    # the simulated network, which no other command needs: 20 ms
    from testbench_dagster.localnet.pocket.run import PocketProcess, height_by_calendar
    from testbench_dagster.localnet.pocket.settings import environment
    from testbench_dagster.localnet.run import LocalnetProcess

    # the embedded stores, whatever is exported for a real installation
    for name in ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL", "DAGSTER_HOME"):
        os.environ.pop(name, None)
    exported = os.environ.pop("TESTBENCH_HOME", None)
    folder = Path(exported or Path.cwd() / ".testbench").absolute() / ("demo-pocket" if pocket else "demo")
    if not no_ui:
        _require_free(port)
    with writing(folder, _ANOTHER_FOLDER):
        if fresh and folder.is_dir():
            shutil.rmtree(folder)
    create_folder(folder)
    net_port = STARTER_PORT if _is_free(STARTER_PORT) else 0
    network = (
        PocketProcess(n_suppliers, 0, net_port, first_height=height_by_calendar())
        if pocket
        else LocalnetProcess(n_suppliers, 0, net_port)
    )
    with network as localnet:
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
        note(f"{kind}: {n_suppliers} suppliers at {localnet.url}")
        with Testbench.open(path) as testbench, RelayBar() as bar:
            testbench.run(on_planned=bar.planned, on_progress=bar.progressed, on_note=bar.note)
            rows = testbench.leaderboard().rows
        emit(rows, "table", ranking_columns(rows), "Leaderboard (simulation)")
        note(f"\nThese suppliers are simulated. Everything measured is in {folder}; look closer with")
        # the demo's stores lie beside its configuration, where an exported TESTBENCH_HOME would hide them
        prefix = "env -u TESTBENCH_HOME " if exported else ""
        note(f"  {prefix}testbench -c {path} scores      every window, with intervals and errors")
        note(f"  {prefix}testbench -c {path} identity    who answers like whom")
        note(f"  {prefix}testbench -c {path} taxonomies  abilities of each supplier")
        if no_ui:
            return
        _serve_ui(load_config(path), port)


@click.command(short_help="Serve the Dagster UI and daemon")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@click.pass_obj
def up(config: str | None, port: int) -> None:
    """Serve the Dagster UI and daemon on the installation's home, until interrupted."""
    # with the stores: 40 ms
    from testbench_dagster.stages.migrate import migrate_if_safe

    loaded = load_config(config)
    _require_free(port)
    migrate_if_safe(loaded, note)
    _serve_ui(loaded, port)


def _serve_ui(config: Config, port: int) -> None:
    # with Dagster: 0.8 s
    from testbench_dagster.defs.local_runs import prepare_home

    environment = {**os.environ, **prepare_home(config)}
    # Dagster's own advice to use its newer command would be the first thing a newcomer reads
    environment.setdefault("PYTHONWARNINGS", "ignore")
    note(f"\nDagster UI: http://127.0.0.1:{port}  (stop with Ctrl-C)")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "testbench_dagster.definitions"]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    # a session of its own: whatever Dagster starts below it can be ended as one group
    process = subprocess.Popen(  # noqa: S603  this Python, and options that click checked
        command, env=environment, start_new_session=True, preexec_fn=_restore_interrupts
    )
    signal.signal(signal.SIGTERM, _interrupt)
    code = 0
    try:
        code = process.wait()
    except KeyboardInterrupt:
        note("stopping")
    finally:
        _end_group(process)
    if code:
        raise TestbenchError(f"the Dagster UI ended with exit code {code}; its messages are above")


def _restore_interrupts() -> None:
    # shells start background jobs with SIGINT ignored, which Dagster's children would inherit
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask Dagster to stop, and end what is left of its processes."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _require_free(port: int) -> None:
    if not _is_free(port):
        raise TestbenchError(f"port {port} is in use; choose another with --port")


@click.group(short_help="The simulated network alone")
def localnet() -> None:
    """The simulated network alone."""


@localnet.command("up", short_help="Serve simulated suppliers")
@click.option(
    "--suppliers", type=click.IntRange(1, 500), default=6, show_default=True, help="How many suppliers."
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
    `withhold address=sim-02 "how=['500', answer]" when=wrong`, `height height=9`. With --pocket: `roll`,
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
