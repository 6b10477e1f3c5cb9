"""What the tests run in other processes."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.coordination.processes import boot_clock
from testbench_dagster.core.errors import StoreError
from testbench_dagster_tests.stores.workers import Target, start


@contextmanager
def running(work, *arguments):
    """A process that is killed at the end, also when it is stopped."""
    process = start(work, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.join(10)


def signalled(process: BaseProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def hold(target: Target, holder: str, keys: list[str], ttl_s: float, log: str) -> None:
    """Hold suppliers for ever, and note several times a second whether the heartbeat is alive."""
    store = target.open()
    with Heartbeat(store, holder, ttl_s) as heartbeat, SupplierLeases(store, heartbeat) as leases:
        held = leases.acquire(keys).held
        with open(log, "a", buffering=1) as out:
            out.write(f"holds {len(held)}\n")
            while True:
                now = boot_clock()
                out.write(f"{now} {heartbeat.alive}\n")
                time.sleep(0.02)


def fight(target: Target, keys: list[str], ttl_s: float, log: str) -> None:
    """Take suppliers, relay to them while the heartbeat beats, give them back, and so on until killed.

    Each line is one send: supplier, token, and a time at which the heartbeat was alive, or before.
    """
    rng = random.Random(os.getpid())
    store = target.open()
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        try:
            with Heartbeat(store, f"fighter-{secrets.token_hex(6)}", ttl_s) as heartbeat:
                while not heartbeat.lost:
                    with SupplierLeases(store, heartbeat) as leases:
                        held = leases.acquire(rng.sample(keys, rng.randint(1, 4))).held
                        for _ in range(rng.randint(1, 30)):
                            for key, token in held.items():
                                now = boot_clock()
                                if heartbeat.alive:
                                    os.write(out, f"{key} {token} {now}\n".encode())
                            time.sleep(0.002)
        except StoreError as error:
            if "no living heartbeat" not in str(error):
                raise


def use_budget(number: int, target: Target, period: datetime, cap: int, give_back: bool) -> int:
    """Get grants until the cap refuses, use most of each, give back the rest; return how many were used."""
    rng = random.Random(number)
    store = target.open()
    ledger = BudgetLedger(store)
    used = 0
    while granted := ledger.grant("account", period, cap, rng.randint(1, 12), lambda: 7):
        spent = rng.randint(0, granted) if give_back and rng.random() < 0.3 else granted
        used += spent
        ledger.give_back("account", period, granted - spent)
    store.close()
    return used


def spend_until_killed(target: Target, period: datetime, cap: int, log: str) -> None:
    """Use granted relays one by one, noting each, until killed or refused."""
    ledger = BudgetLedger(target.open())
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while granted := ledger.grant("account", period, cap, 10):
        for _ in range(granted):
            os.write(out, b"sent\n")
            time.sleep(0.0005)


def sleep_for_ever() -> None:
    signal.pause()
