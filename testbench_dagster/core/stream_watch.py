"""How a relay may be streamed so that its speed is seen, and what its transport tells of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class StreamWatch:
    """One relay's stream: what is asked for, and, once it was sent, what was seen.

    Asked for: ``stream`` asks for an event stream (without it only the connection is watched), ``usage``
    besides for the number of tokens at its end (``stream_options``).

    Seen: times are milliseconds since the request was handed to the transport, None for what did not happen.
    ``connect_ms`` is 0 where a connection was used again. ``first_token_ms`` is when the first visible
    character arrived, of thoughts or of the answer, ``first_answer_ms`` that of the answer: events that say
    nothing (a role, empty or blank texts, invisible characters, the tag that opens thoughts) are no token.
    ``last_token_ms`` is when the last piece of text arrived. ``events`` counts the events of the stream that
    hold something, ``arrivals`` the reads that brought text. ``shown_bytes`` is the whole text, thoughts
    included, in bytes of UTF-8, ``first_bytes`` what of it was there with the first token, ``thought_bytes``
    the thoughts among it. ``text`` is the answer as far as it came, as it was sent, None where none did;
    ``told_usage`` what the stream says of its tokens, as it says it.
    """

    stream: bool = True
    usage: bool = True
    connect_ms: float | None = None
    connection_reused: bool | None = None
    first_event_ms: float | None = None
    first_token_ms: float | None = None
    first_answer_ms: float | None = None
    last_token_ms: float | None = None
    events: int = 0
    arrivals: int = 0
    first_bytes: int = 0
    shown_bytes: int = 0
    thought_bytes: int = 0
    text: str | None = None
    told_usage: Mapping[str, Any] | None = None

    def forget(self) -> None:
        """Begin anew with what was seen: the request is posted once more."""
        blank = StreamWatch(self.stream, self.usage)
        for name in self.__slots__:
            setattr(self, name, getattr(blank, name))
