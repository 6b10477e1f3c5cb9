"""Recognises answers that a supplier, or somebody on the way to it, sends a second time.

Answers on Pocket are not bound to questions: a signature covers the session and the answer. What was signed
once may therefore be sent again, in the same session, by whoever has it. Nothing tells that from an honest
answer to another question that happens to be the same, unless the answer says which one it is (an id), or
when it was made. One that says neither is the supplier's own word, again.
"""

from __future__ import annotations

import time

from testbench_dagster.transports.event_streams import StreamError, assemble, is_event_stream
from testbench_dagster.transports.lenient_json import Unreadable, read_json
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.pocket.messages import HttpResponse

#: Answers remembered: about 20 MB.
MAX_SEEN = 65_536
#: Servers date answers to the second; honest ones to requests further apart than this are never the same.
DATED_S = 2.0
#: Ids of fewer characters may come twice by chance: some servers draw from a thousand.
UNIQUE_ID_CHARS = 16


class Replays:
    """The latest answers' signatures, with what was asked and when they came."""

    def __init__(self, max_seen: int = MAX_SEEN) -> None:
        self._max_seen = max_seen
        self._seen: dict[bytes, tuple[bytes, float]] = {}

    def remember(self, signature: bytes, question: bytes, came: float) -> None:
        """Remember an answer of an earlier run: to which question, and when it came (monotonic clock)."""
        if len(self._seen) < self._max_seen:
            self._seen.setdefault(signature, (question, came))

    def caught(
        self, signature: bytes, question: bytes, began: float, answer: HttpResponse, body: bytes, api: Api
    ) -> bool:
        """Remember a verified answer; whether it must be that to an earlier question.

        ``question`` identifies what was asked at ``began`` (of the monotonic clock). ``answer`` is the first
        signed part, ``body`` the whole body.
        """
        known = self._seen.get(signature)
        if known is None:
            if len(self._seen) >= self._max_seen:
                del self._seen[next(iter(self._seen))]
            self._seen[signature] = question, time.monotonic()
            return False
        asked, came = known
        if asked == question:
            return False
        unique, dated = _marks(answer, body, api)
        return unique or (dated and began - came > DATED_S)


def _marks(answer: HttpResponse, body: bytes, api: Api) -> tuple[bool, bool]:
    """Whether an answer has an id that nobody draws twice, and whether it says when it was made."""
    dated = any(name.lower() == "date" for name in answer.headers)
    try:
        said = assemble(body, api) if is_event_stream(body) else read_json(body)
    except (StreamError, Unreadable):
        return False, dated
    if not isinstance(said, dict):
        return False, dated
    name = said.get("id")
    unique = isinstance(name, str) and len(name) >= UNIQUE_ID_CHARS
    return unique, dated or isinstance(said.get("created"), int)
