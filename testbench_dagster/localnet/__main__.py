"""``python -m testbench_dagster.localnet``: runs the simulated network alone."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbench_dagster.localnet.answers import Answers, read_questions, read_recorded
from testbench_dagster.localnet.personas import (
    DEMO_SUPPLIERS,
    FAIL_MODES,
    POCKET_SUPPLIERS,
    Persona,
    default_population,
)
from testbench_dagster.localnet.pocket.run import BLOCK_S, FIRST_HEIGHT
from testbench_dagster.localnet.server import Localnet, serve

if TYPE_CHECKING:
    # with the curve library: 0.2 s
    from testbench_dagster.localnet.pocket.network import PocketNet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbench_dagster.localnet",
        description="Serve simulated OpenAI-compatible suppliers on 127.0.0.1. "
        "The first line printed is 'listening on http://127.0.0.1:PORT'; see /roster there.",
    )
    parser.add_argument(
        "--suppliers",
        type=int,
        metavar="N",
        help=f"how many (default {DEMO_SUPPLIERS}; with --pocket {POCKET_SUPPLIERS})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="everything follows from it (default 0)"
    )
    parser.add_argument("--port", type=int, default=0, metavar="P", help="0 takes a free port (default)")
    parser.add_argument("--fail-mode", choices=FAIL_MODES, default="500", help="how --fail-rate fails")
    parser.add_argument(
        "--fail-rate",
        type=float,
        metavar="R",
        help="share of requests failing, 0 to 1, in place of the personas'",
    )
    parser.add_argument(
        "--latency-ms", type=float, metavar="MS", help="time to answer of everyone, in place of the personas'"
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help='JSON lines {"match", "response"}, .gz too'
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help='public questions: JSON lines {"question", "answer"}, as of GSM8K, .gz too',
    )
    parser.add_argument(
        "--block-seconds",
        type=float,
        metavar="S",
        help="the roster tells a block height that grows every S seconds; with --pocket a block every S "
        "seconds, 0: only when told at /_sim/advance (default 2)",
    )
    parser.add_argument(
        "--pocket", action="store_true", help="a simulated Pocket network: chain node, relay miners, gateway"
    )
    for option, default, meaning in (
        ("--blocks-per-session", 10, "blocks of a session"),
        ("--suppliers-per-session", 50, "suppliers of a session at most"),
        ("--hosts", 2, "relay miners, of both flavours in turn"),
        ("--nodes", 1, "nodes of the chain, the first at --port"),
        ("--first-height", FIRST_HEIGHT, "height at which the chain begins"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"with --pocket: {meaning} ({default})"
        )
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input is closed")
    return parser


def _override(persona: Persona, args: argparse.Namespace) -> Persona:
    """``persona`` with the latency and failures the command line asks for."""
    if args.fail_rate is not None:
        persona = dataclasses.replace(persona, failures={args.fail_mode: args.fail_rate})
    if args.latency_ms is not None:
        backend = dataclasses.replace(persona.backend, latency_ms=args.latency_ms)
        persona = dataclasses.replace(persona, backend=backend, latency_ms=0.0, jitter_ms=0.0)
    return persona


def _network(args: argparse.Namespace) -> Localnet | PocketNet:
    """What the command line asks for. Raises ValueError and OSError for what cannot be."""
    usual = POCKET_SUPPLIERS if args.pocket else DEMO_SUPPLIERS
    suppliers = usual if args.suppliers is None else args.suppliers
    personas = [_override(persona, args) for persona in default_population(suppliers, args.seed)]
    known = read_recorded(args.answers) if args.answers else []
    known += read_questions(args.questions) if args.questions else []
    answers = Answers(args.seed, known)
    if not args.pocket:
        return Localnet(personas, answers, args.port, args.block_seconds)
    # with the curve library: 0.2 s
    from testbench_dagster.localnet.pocket.network import PocketNet

    return PocketNet(
        personas,
        answers,
        hosts=args.hosts,
        port=args.port,
        nodes=args.nodes,
        block_s=BLOCK_S if args.block_seconds is None else args.block_seconds or None,
        blocks_per_session=args.blocks_per_session,
        suppliers_per_session=args.suppliers_per_session,
        first_height=args.first_height,
    )


async def _run(net: Localnet | PocketNet, exit_with_stdin: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    if exit_with_stdin:
        # the parent holds the other end of the pipe: however it dies, even by SIGKILL, the read ends
        def watch() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    await serve(net, stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it; the standard loop is only slower."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, serves until told to stop, returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        net = _network(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(net, args.exit_with_stdin))
    except OSError as error:
        print(f"cannot listen on port {args.port}: {error}; choose another --port or 0", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
