"""REST API of a node (gRPC gateway, "LCD", port 1317): one path per query, JSON with the proto's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from testbench_dagster.transports.pocket.chain.error_mapping import past_unknown, refused
from testbench_dagster.transports.pocket.chain.errors import ChainError, NodeFault
from testbench_dagster.transports.pocket.chain.fields import MAX_INT64, Record
from testbench_dagster.transports.pocket.chain.node_api import Answer, Tip, by_status, joined, parsed
from testbench_dagster.transports.pocket.chain.queries import Query
from testbench_dagster.transports.pocket.chain.transfer import Outcome, Reply, Request

_LATEST = "/cosmos/base/tendermint/v1beta1/blocks/latest"
_SYNCING = "/cosmos/base/tendermint/v1beta1/syncing"


class RestApi:
    """Asks a node by REST."""

    name = "REST"

    def __init__(self, url: str) -> None:
        self.url = url

    def status_requests(self) -> Sequence[Request]:
        """Ask for the newest block, and whether the node is syncing (the block does not tell)."""
        return Request(joined(self.url, _LATEST)), Request(joined(self.url, _SYNCING))

    def read_status(self, outcomes: Sequence[Outcome]) -> Tip:
        """Read both. A node or proxy without the second path counts as synced; its height still tells."""
        latest, syncing = outcomes
        if isinstance(latest, NodeFault):
            raise latest
        header = Record(parsed(latest), "answer").record("block").record("header")
        catching_up = False
        if isinstance(syncing, Reply) and syncing.status == 200:
            catching_up = Record(parsed(syncing), "answer").flag("syncing")
        return Tip(header.whole("height", 1, MAX_INT64, None), catching_up, header.text("chain_id", 100))

    def request(self, query: Query) -> Request:
        """Return the query as a GET."""
        return Request(joined(self.url, query.path, query.params), height=query.at)

    def read(self, query: Query, reply: Reply) -> Answer:
        """Return the answer, or raise what the gateway's error ``{"code", "message"}`` means."""
        if reply.status == 200:
            return Answer(parsed(reply), reply.height)
        raise _error(query, reply)


def _error(query: Query, reply: Reply) -> ChainError:
    try:
        value: Any = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return _by_status(query, reply)
    if not isinstance(value, dict):
        return _by_status(query, reply)
    code, message = value.get("code"), value.get("message")
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(message, str):
        return _by_status(query, reply)
    return refused(query, code, message)


def _by_status(query: Query, reply: Reply) -> ChainError:
    if query.of_the_past and reply.status in (404, 405, 501):  # a proxy that knows no such path
        return past_unknown(query, f"HTTP {reply.status}")
    return by_status(reply)
