"""Listens to an answer while it is streamed: which kind of text arrived when.

What counts as a token is what a reader sees: a supplier that sends an event at once to look fast, with a
role, blanks, invisible characters or the opening tag of thoughts in it, has said nothing yet.
"""

from __future__ import annotations

import logging

from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.transports.event_streams import EventStream, StreamError
from testbench_dagster.transports.http import Exchange
from testbench_dagster.transports.lenient_json import declared_charset
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.reasoning import opening_tag, split_text

_log = logging.getLogger(__name__)


class StreamListener:
    """Fed what arrives of one exchange, it writes into a watch what was seen.

    Time and memory grow with the events, which are bounded (:data:`~.event_streams.MAX_EVENTS`).
    """

    def __init__(self, watch: StreamWatch, api: Api) -> None:
        self._watch = watch
        self._api = api
        self._stream: EventStream | None = None
        self._deaf = False  # it is no stream, or none that can be read on
        self._marks: list[tuple[int, int, float]] = []  # characters of text and thoughts, and since when
        self._last_ms = 0.0
        watch.forget()

    def connected(self, exchange: Exchange, reused: bool) -> None:
        """The connection of the exchange stands."""
        self._watch.connection_reused = reused
        self._watch.connect_ms = 0.0 if reused else exchange.elapsed_ms

    def listen(self, exchange: Exchange, chunk: bytes) -> None:
        """A piece of the body has arrived; raises nothing, whatever it holds."""
        if self._stream is None:
            self._stream = EventStream(self._api, declared_charset(exchange.headers.get("Content-Type")))
        self.feed(chunk, exchange.elapsed_ms)

    def feed(self, data: bytes, at_ms: float) -> None:
        """A piece of the stream has arrived after so many milliseconds; raises nothing."""
        if self._deaf:
            return
        if self._stream is None:
            self._stream = EventStream(self._api)
        self._last_ms = at_ms
        try:
            self._stream.feed(data)
        except StreamError:  # what is wrong with it, who judges the whole body says
            self._deaf = True
        except Exception:  # a mistake of ours, which no supplier shall end an exchange by
            _log.exception("a stream that could not be read")
            self._deaf = True
        self._mark()

    def finish(self) -> None:
        """All has arrived that will: write down what was seen."""
        stream, watch = self._stream, self._watch
        if stream is None:
            return
        if not self._deaf:
            try:
                stream.finish()  # the last event may lack its end
            except StreamError:
                pass
            except Exception:
                _log.exception("a stream that could not be read")
            self._mark()
        watch.told_usage = stream.usage
        if not self._marks:
            return
        text, thoughts = stream.text, stream.thoughts
        inline, answered = split_text(text)  # thoughts between tags
        begun = _first_visible(text, opening_tag(text))
        thought = _first_visible(thoughts)
        answer = _first_visible(text, _place_of(answered, text, len(inline)))
        first = next((mark for mark in self._marks if begun < mark[0] or thought < mark[1]), None)
        if first is None:
            return
        watch.first_token_ms = first[2]
        watch.first_answer_ms = next((ms for chars, _, ms in self._marks if answer < chars), None)
        watch.last_token_ms = self._marks[-1][2]
        watch.arrivals = len(self._marks)
        watch.first_bytes = _bytes(text[: first[0]]) + _bytes(thoughts[: first[1]])
        watch.thought_bytes = _bytes(inline) + _bytes(thoughts)
        watch.shown_bytes = _bytes(text) + _bytes(thoughts)
        watch.text = text or None

    def _mark(self) -> None:
        stream, watch = self._stream, self._watch
        if stream is None:
            return
        watch.events = stream.events
        if watch.first_event_ms is None and stream.events:
            watch.first_event_ms = self._last_ms
        chars = stream.characters
        if chars != (self._marks[-1][:2] if self._marks else (0, 0)):
            self._marks.append((*chars, self._last_ms))


def _first_visible(text: str, since: int = 0) -> int:
    """Place of the first character that a reader sees; the length of the text where none is."""
    found = (
        place for place in range(since, len(text)) if text[place].isprintable() and not text[place].isspace()
    )
    return next(found, len(text))


def _place_of(answer: str, text: str, otherwise: int) -> int:
    """Where the answer stands in a text with thoughts before it; it may be put together of several parts."""
    place = text.rfind(answer) if answer else len(text)
    return otherwise if place < 0 else place


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
