"""Commands that keep something running: ``demo``, ``up``, ``localnet``."""

from __future__ import annotations

import contextlib
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

from testbench_dagster.cli.leaderboard import ranking_columns
from testbench_dagster.cli.output import emit, note
from testbench_dagster.config import Config, load_config
from testbench_dagster.errors import TestbenchError
from testbench_dagster.localnet.demo import STARTER_PORT
from testbench_dagster.workspace import Workspace


@click.command()
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
def demo(fresh: bool, n_suppliers: int, port: int, no_ui: bool) -> None:
    """Run everything on simulated suppliers: no configuration, no network, no servers.

    Starts the simulated network, materializes every asset on the embedded stores, prints the leaderboard and
    serves the Dagster UI on it.
    """
    from testbench_dagster.cli.evaluate import evaluate
    from testbench_dagster.localnet.demo import demo_settings
    from testbench_dagster.localnet.run import LocalnetProcess

    # the embedded stores, whatever is exported for a real installation
    for name in ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL", "DAGSTER_HOME"):
        os.environ.pop(name, None)
    exported = os.environ.pop("TESTBENCH_HOME", None)
    folder = Path(exported or Path.cwd() / ".testbench").absolute() / "demo"
    if not no_ui:
        _require_free(port)
    if fresh and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with LocalnetProcess(n_suppliers, 0, STARTER_PORT if _is_free(STARTER_PORT) else 0) as localnet:
        path = folder / "testbench.yaml"
        path.write_text(yaml.safe_dump(demo_settings(localnet.roster()), sort_keys=False), encoding="utf-8")
        note(f"simulated network: {n_suppliers} suppliers at {localnet.url}")
        with Workspace.open(path) as workspace:
            evaluate(workspace)
            _print_leaderboard(workspace)
        note(f"\nThese suppliers are simulated. Everything measured is in {folder}; look closer with")
        # the demo's stores lie beside its configuration, where an exported TESTBENCH_HOME would hide them
        prefix = "env -u TESTBENCH_HOME " if exported else ""
        note(f"  {prefix}testbench -c {path} scores      every window, with intervals and errors")
        note(f"  {prefix}testbench -c {path} identity    who answers like whom")
        note(f"  {prefix}testbench -c {path} taxonomies  abilities of each supplier")
        if no_ui:
            return
        _serve_ui(load_config(path), port)


def _print_leaderboard(workspace: Workspace) -> None:
    from testbench_dagster.leaderboard import leaderboard

    rows = [entry.to_json() for entry in leaderboard(workspace)]
    emit(rows, "table", ranking_columns(rows), "Leaderboard (simulation)")


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@click.pass_obj
def up(config: str | None, port: int) -> None:
    """Serve the Dagster UI and daemon on the installation's home, until interrupted."""
    loaded = load_config(config)
    _require_free(port)
    _serve_ui(loaded, port)


def _serve_ui(config: Config, port: int) -> None:
    from testbench_dagster.defs.local_runs import prepare_home

    environment = {**os.environ, **prepare_home(config)}
    # Dagster's own advice to use its newer command would be the first thing a newcomer reads
    environment.setdefault("PYTHONWARNINGS", "ignore")
    note(f"\nDagster UI: http://127.0.0.1:{port}  (stop with Ctrl-C)")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "testbench_dagster.definitions"]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    # a session of its own: whatever Dagster starts below it can be ended as one group
    process = subprocess.Popen(
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


@click.group()
def localnet() -> None:
    """The simulated network alone."""


@localnet.command("up")
@click.option(
    "--suppliers", type=click.IntRange(1, 500), default=6, show_default=True, help="How many suppliers."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything follows from it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=STARTER_PORT, show_default=True, help="0 picks one."
)
@click.option(
    "--fail-mode",
    type=click.Choice(["500", "429", "timeout", "reset", "garbage", "empty", "error200"]),
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
    help="The roster tells a block height that grows by one every so many seconds.",
)
def localnet_up(**options: Any) -> None:
    """Serve simulated suppliers on 127.0.0.1 until interrupted; /roster lists them."""
    command = [sys.executable, "-m", "testbench_dagster.localnet"]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    os.execv(sys.executable, command)


@localnet.command("control")
@click.argument("action", type=click.Choice(["join", "leave", "return", "swap", "fail", "height"]))
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option(
    "--url",
    default=f"http://127.0.0.1:{STARTER_PORT}",
    show_default=True,
    envvar="TESTBENCH_LOCALNET_URL",
    help="Where the simulated network listens.",
)
def localnet_control(action: str, fields: tuple[str, ...], url: str) -> None:
    """Change a running simulated network: who is there, what answers, what fails.

    For example: `join address=new accuracy=0.9`, `leave address=new`,
    `swap address=sim-01 accuracy=0.2 announce=true`, `fail address=sim-02 mode=500 rate=0.5`,
    `height height=9`.
    """
    import json

    from testbench_dagster.localnet.run import control

    body = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals:
            raise click.UsageError(f"{field!r} is no FIELD=VALUE")
        body[name] = yaml.safe_load(value)
    click.echo(json.dumps(control(url, action, body)))
