"""Connections to the board that nobody can hold for long: who asks slowly, or takes a page slowly, is left.

uvicorn ends connections that are idle after a response, but waits without end for a first request, for the
rest of one, and for whoever does not read what was sent. As it serves a bounded number of connections, a few
dozen such would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

#: Bytes that the head of a request may take; the longest address that the board writes is far shorter.
HEAD_BYTES = 16_384
#: Seconds in which a request has to be there, and in which a page has to be taken.
ASKING_S, TAKING_S = 10.0, 30.0
#: Seconds between two looks at a connection.
_LOOK_S = 2.0

_State = tuple[Literal["asking", "taking", "waiting"], RequestResponseCycle | None]


class BoundedConnection(H11Protocol):
    """A connection that is ended where a request does not come, or a page is not taken, in time."""

    asking_s, taking_s, look_s = ASKING_S, TAKING_S, _LOOK_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at it."""
        super().connection_made(transport)
        self._seen, self._since = self._state(), self.loop.time()
        self._timer = self.loop.call_later(self.look_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End to look at it."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        state, now = self._state(), self.loop.time()
        if state != self._seen:
            self._seen, self._since = state, now
        longest = {"asking": self.asking_s, "taking": self.taking_s}.get(state[0])
        if longest is not None and now - self._since > longest:
            self.transport.abort()  # to close it politely would wait for whoever reads nothing
            return
        self._timer = self.loop.call_later(self.look_s, self._look)

    def _state(self) -> _State:
        """What is waited for, and after which request; for a page that is being made, as long as it takes."""
        if self.transport.get_write_buffer_size():
            return "taking", self.cycle
        asked = self.cycle is not None and not self.cycle.response_complete
        return "waiting" if asked else "asking", self.cycle
