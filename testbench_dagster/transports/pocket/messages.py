"""The wire messages of a relay: request and response envelopes, and the HTTP messages they carry.

Field numbers of poktroll's ``service/relay.proto``, ``session/types.proto``, ``shared/service.proto`` and of
shannon-sdk's ``types/http.proto``. Every ``decode`` raises :class:`CodecError` and nothing else. Encodings
are canonical, as ``protobuf`` describes: the other side encodes again what it decoded, and hashes that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.protobuf import Field, Schema, decode_message, encode_message

#: Fields in one envelope or HTTP message: a header takes four, so this is far above what servers accept.
MAX_FIELDS = 20_000

SESSION_HEADER = Schema(
    "SessionHeader",
    Field(1, "application_address", "string"),
    Field(2, "service_id", "string"),
    Field(3, "session_id", "string"),
    Field(4, "session_start_block_height", "int64"),
    Field(5, "session_end_block_height", "int64"),
)
_REQUEST_META = Schema(
    "RelayRequestMetadata",
    Field(1, "session_header", "message", SESSION_HEADER),
    Field(2, "signature", "bytes"),
    Field(3, "supplier_operator_address", "string"),
)
_REQUEST = Schema(
    "RelayRequest",
    Field(1, "meta", "message", _REQUEST_META, always=True),
    Field(2, "payload", "bytes"),
)
_RESPONSE_META = Schema(
    "RelayResponseMetadata",
    Field(1, "session_header", "message", SESSION_HEADER),
    Field(2, "supplier_operator_signature", "bytes"),
)
_MINER_ERROR = Schema(
    "RelayMinerError",
    Field(1, "codespace", "string"),
    Field(2, "code", "uint32"),
    Field(3, "description", "string"),
    Field(4, "message", "string"),
)
_RESPONSE = Schema(
    "RelayResponse",
    Field(1, "meta", "message", _RESPONSE_META, always=True),
    Field(2, "payload", "bytes"),
    Field(3, "relay_miner_error", "message", _MINER_ERROR),
    Field(4, "payload_hash", "bytes"),
)
_HTTP_HEADER = Schema("Header", Field(1, "key", "string"), Field(2, "values", "string", repeated=True))
_HTTP_REQUEST = Schema(
    "POKTHTTPRequest",
    Field(1, "method", "string"),
    Field(2, "header", "map", _HTTP_HEADER),
    Field(3, "url", "string"),
    Field(4, "body_bz", "bytes"),
)
_HTTP_RESPONSE = Schema(
    "POKTHTTPResponse",
    Field(1, "status_code", "uint32"),
    Field(2, "header", "map", _HTTP_HEADER),
    Field(3, "body_bz", "bytes"),
)


class RpcType(IntEnum):
    """What an endpoint was staked for (poktroll ``shared/service.proto``, ``RPCType``)."""

    GRPC = 1
    WEBSOCKET = 2
    JSON_RPC = 3
    REST = 4
    COMET_BFT = 5


@dataclass(frozen=True, slots=True)
class SessionHeader:
    """Which session a relay belongs to; from the chain as it is, never computed."""

    application: str
    service: str
    session_id: str
    start_height: int
    end_height: int

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SessionHeader:
        """Return the header of a dict with the proto's names and whole numbers as heights."""
        return cls(
            values["application_address"],
            values["service_id"],
            values["session_id"],
            values["session_start_block_height"],
            values["session_end_block_height"],
        )

    def values(self) -> dict[str, Any]:
        """Return the dict that ``protobuf`` encodes by ``SESSION_HEADER``."""
        return {
            "application_address": self.application,
            "service_id": self.service,
            "session_id": self.session_id,
            "session_start_block_height": self.start_height,
            "session_end_block_height": self.end_height,
        }

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return encode_message(SESSION_HEADER, self.values())

    @classmethod
    def decode(cls, data: bytes) -> SessionHeader:
        """Read the message."""
        return cls.from_values(decode_message(SESSION_HEADER, data, max_fields=MAX_FIELDS))


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """What is sent to a supplier: ``payload`` is an encoded :class:`HttpRequest`, opaque to the network."""

    header: SessionHeader
    supplier: str
    payload: bytes = field(repr=False)
    signature: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        meta = {
            "session_header": self.header.values(),
            "signature": self.signature,
            "supplier_operator_address": self.supplier,
        }
        return encode_message(_REQUEST, {"meta": meta, "payload": self.payload})

    @classmethod
    def decode(cls, data: bytes) -> RelayRequest:
        """Read the message; one without a session header is refused."""
        values = decode_message(_REQUEST, data, max_fields=MAX_FIELDS)
        meta = values["meta"]
        if meta["session_header"] is None:
            raise CodecError("RelayRequest has no session header")
        header = SessionHeader.from_values(meta["session_header"])
        return cls(header, meta["supplier_operator_address"], values["payload"], meta["signature"])

    def signable_hash(self) -> bytes:
        """Return what the ring signs: SHA-256 of the message without signature (poktroll ``relay.go``)."""
        return hashlib.sha256(replace(self, signature=b"").encode()).digest()


@dataclass(frozen=True, slots=True)
class MinerError:
    """Why a relay miner did not serve: a registered error by ``codespace`` and ``code``, and its texts."""

    codespace: str
    code: int
    description: str
    message: str

    def values(self) -> dict[str, Any]:
        """Return the dict that ``protobuf`` encodes."""
        return {name: getattr(self, name) for name in self.__slots__}

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return encode_message(_MINER_ERROR, self.values())

    @classmethod
    def decode(cls, data: bytes) -> MinerError:
        """Read the message."""
        return cls(**decode_message(_MINER_ERROR, data, max_fields=MAX_FIELDS))


@dataclass(frozen=True, slots=True)
class RelayResponse:
    """What a supplier answers: ``payload`` is an encoded :class:`HttpResponse`, or the text of ``error``.

    ``payload_hash`` is SHA-256 of the payload, and what is signed in its place; empty from miners before
    poktroll v0.1.25, which sign the payload itself.
    """

    header: SessionHeader | None
    signature: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    error: MinerError | None = None
    payload_hash: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return encode_message(_RESPONSE, self._values(self.signature, self.payload))

    def _values(self, signature: bytes, payload: bytes) -> dict[str, Any]:
        meta = {
            "session_header": None if self.header is None else self.header.values(),
            "supplier_operator_signature": signature,
        }
        return {
            "meta": meta,
            "payload": payload,
            "relay_miner_error": None if self.error is None else self.error.values(),
            "payload_hash": self.payload_hash,
        }

    @classmethod
    def decode(cls, data: bytes) -> RelayResponse:
        """Read the message."""
        values = decode_message(_RESPONSE, data, max_fields=MAX_FIELDS)
        header, error = values["meta"]["session_header"], values["relay_miner_error"]
        return cls(
            None if header is None else SessionHeader.from_values(header),
            values["meta"]["supplier_operator_signature"],
            values["payload"],
            None if error is None else MinerError(**error),
            values["payload_hash"],
        )

    def signable_hash(self) -> bytes:
        """Return SHA-256 of what the supplier signs; ECDSA hashes it once more.

        That is the message without signature and, where there is a payload hash, without payload (poktroll
        ``relay.go``, ``GetSignableBytesHash``).
        """
        signed = self._values(b"", b"" if self.payload_hash else self.payload)
        return hashlib.sha256(encode_message(_RESPONSE, signed)).digest()


Headers = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The HTTP request a backend gets (``POKTHTTPRequest``); of ``url`` only path and query count there."""

    method: str
    url: str
    headers: Headers = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        values = {"method": self.method, "header": _header_values(self.headers), "url": self.url}
        return encode_message(_HTTP_REQUEST, {**values, "body_bz": self.body})

    @classmethod
    def decode(cls, data: bytes) -> HttpRequest:
        """Read the message."""
        values = decode_message(_HTTP_REQUEST, data, max_fields=MAX_FIELDS)
        return cls(values["method"], values["url"], _headers(values["header"]), values["body_bz"])


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The HTTP response of a supplier's backend (``POKTHTTPResponse``)."""

    status: int
    headers: Headers = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        values = {"status_code": self.status, "header": _header_values(self.headers), "body_bz": self.body}
        return encode_message(_HTTP_RESPONSE, values)

    @classmethod
    def decode(cls, data: bytes) -> HttpResponse:
        """Read the message."""
        values = decode_message(_HTTP_RESPONSE, data, max_fields=MAX_FIELDS)
        return cls(values["status_code"], _headers(values["header"]), values["body_bz"])


def _header_values(headers: Headers) -> dict[str, Any]:
    return {name: {"key": name, "values": list(given)} for name, given in headers.items()}


def _headers(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(each["values"]) for name, each in values.items()}
