"""A simulated Pocket network beside the test, changed through its control pages."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.pocket.names import private_key_hex
from testbench_dagster.localnet.pocket.network import PocketNet
from testbench_dagster.transports.pocket import access

SERVICE = "simulation"
APP = f"app-{SERVICE}"
POLL_S = 0.001
QUICK = Backend("quick", latency_ms=0)


def people(*names: str) -> list[Persona]:
    return [Persona(name, QUICK) for name in names]


class Network:
    """The network from outside: addresses, and what ``/_sim/`` can do. Blocks come only when told."""

    def __init__(self, net: PocketNet) -> None:
        self._net = net
        self.url = net.url
        self.node_urls = list(net.node_urls)
        self.hosts = [miner.url for miner in net.miners]
        self.app = net.apps[APP].address
        self.gateway = net.gateways["gateway"]
        self.gateway_url = f"{net.url}/gateway/v1"

    def operator(self, name: str) -> str:
        return self._net.operator(name)

    def key_of(self, name: str) -> str:
        """Private key (hexadecimal) of an account by name."""
        return private_key_hex(self._net.seed, name)

    def address(self, name: str) -> str:
        return self._net.account(name)

    def public_key(self, name: str) -> bytes:
        return self._net.public_keys[self._net.operator(name)]

    def in_session(self) -> set[str]:
        """The operators in the application's session now."""
        session = self._net.chain.session(self.app, SERVICE, self._net.chain.height)
        return {supplier.stake.operator for supplier in session.suppliers}

    def describe(self) -> dict[str, Any]:
        return self._net.describe()

    def post(self, action: str, **fields: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/_sim/{action}", json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        time.sleep(2 * POLL_S)  # so long a height that was read before is believed
        return found

    def service(self, **changes: Any) -> dict[str, Any]:
        """A block of ``services`` for it; None leaves a key out."""
        plain = {
            "transport": "shannon",
            "model": "simulated",
            "nodes": {"rest": self.node_urls, "poll_s": POLL_S},
            "apps": [{"address": self.app, "key_env": "TB_APP_KEY"}],
            "allow_private_networks": True,
        }
        return {key: value for key, value in {**plain, **changes}.items() if value is not None}


@contextmanager
def pocket_network(personas: Sequence[Persona], **options: Any) -> Iterator[Network]:
    """Run a network in a thread until the end of the context."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="pocket-network")
    thread.start()
    net = PocketNet(personas, block_s=None, **options)
    try:
        asyncio.run_coroutine_threadsafe(net.__aenter__(), loop).result(20)
        try:
            yield Network(net)
        finally:
            asyncio.run_coroutine_threadsafe(net.__aexit__(), loop).result(20)
    finally:
        access._clients.clear()  # the next network may get the same ports
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
