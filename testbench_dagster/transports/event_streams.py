"""Event streams of OpenAI's API (``stream: true``): put together into the answer that was streamed.

Pure functions of bytes, like :mod:`~testbench_dagster.transports.answers`, which reads a body that is an
event stream through :func:`assemble`. What comes out is the ordinary answer as a dict (``choices``,
``usage``, …), so both are judged by the same rules. Framing follows the WHATWG's server-sent events, chunks
OpenAI's API reference: https://platform.openai.com/docs/api-reference/chat/streaming.

Only the choice with index 0 is kept, because one is asked for. Suppliers are hostile: texts of
:class:`StreamError` hold nothing of the stream but numbers.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from testbench_dagster.transports.payload import Api

#: Events of one stream: an answer has about one per token.
MAX_EVENTS = 100_000
_BOM = b"\xef\xbb\xbf"
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:data|event|id|retry)?:")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DONE = b"[DONE]"
_SCALARS = ("id", "object", "created", "model", "system_fingerprint")


class StreamError(ValueError):
    """A body is no complete, well-formed event stream; the text says why."""


def is_event_stream(body: bytes) -> bool:
    """Whether a body begins as event streams do, and JSON never does."""
    return _BEGINNING.match(body, 0, 64) is not None


def assemble(body: bytes, api: Api) -> dict[str, Any]:
    """Return the answer that a complete event stream holds, or its ``{"error": …}`` if it sent one.

    Raises :class:`StreamError`: an event is malformed, there are too many, chunks of different answers are
    mixed, or the stream ends before the answer does.
    """
    stream = EventStream(api)
    stream.feed(body)
    return stream.finish()


class EventStream:
    """One stream, fed as it arrives, split anywhere."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pieces: list[bytes] = []  # of the line not yet ended
        self._begun = False
        self._data: list[bytes] = []  # of the event not yet ended
        self._events = 0
        self._done = False
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._finish_reason: str | None = None
        self._chosen = False  # index 0 appeared
        self._usage: dict[str, Any] | None = None
        self._error: Any = None

    @property
    def text_begun(self) -> bool:
        """Whether some of the answer's text has arrived."""
        return bool(self._texts)

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises :class:`StreamError` as soon as it is known to be wrong."""
        if b"\n" not in data and b"\r" not in data:
            self._pieces.append(data)  # joined once its line ends, however many pieces that takes
            return
        if self._pieces:
            data = b"".join((*self._pieces, data))
        data = self._unmarked(data)
        at = 0
        for end in _LINE_END.finditer(data):
            if end.group() == b"\r" and end.end() == len(data):
                break  # its "\n" may follow
            self._line(data[at : end.start()])
            at = end.end()
        self._pieces = [data[at:]] if at < len(data) else []

    def finish(self) -> dict[str, Any]:
        """Return the answer at the end of the stream; see :func:`assemble`."""
        if self._pieces:  # the last line lacks its end
            self._line(self._unmarked(b"".join(self._pieces)).rstrip(b"\r"))
            self._pieces = []
        self._dispatch()
        if self._error is not None:
            return {"error": self._error}
        if not self._events:
            raise StreamError("the event stream is empty")
        if not self._done and self._finish_reason is None:
            raise StreamError(f"the event stream breaks off after {self._events} events")
        if not self._chosen:
            raise StreamError("the event stream has no choice with index 0")
        return {**self._head, "choices": [self._choice()], "usage": self._usage}

    def _unmarked(self, data: bytes) -> bytes:
        """Return the first lines without the byte order mark that may precede them; others as they are."""
        if self._begun:
            return data
        self._begun = True
        return data.removeprefix(_BOM)

    def _choice(self) -> dict[str, Any]:
        text = "".join(self._texts)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._finish_reason}
        if self._api == "completions":
            return {**choice, "text": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        return {**choice, "message": message}

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name not in (b"", b"event", b"id", b"retry"):
            # The standard ignores unknown fields. In an answer they are the sign of something else: a page
            # of a proxy, or JSON that was not meant to be streamed.
            raise StreamError(f"event {self._events + 1} of the stream has a line that is no field of one")

    def _dispatch(self) -> None:
        if not self._data:
            return
        data, self._data = b"\n".join(self._data), []
        if self._done or self._error is not None:
            return  # nothing counts after the end
        if data.strip() == _DONE:
            self._done = True
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            raise StreamError(f"the event stream has more than {MAX_EVENTS} events")
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise StreamError(f"event {self._events} of the stream is no JSON") from None
        if not isinstance(chunk, dict):
            raise self._wrong("no object")
        if chunk.get("error") is not None:
            self._error = chunk["error"]
            return
        self._take(chunk)

    def _take(self, chunk: dict[str, Any]) -> None:
        """Add one chunk to the answer."""
        for name in _SCALARS:
            value = chunk.get(name)
            if value is None or isinstance(value, (dict, list)):
                continue
            if name == "id" and self._head.setdefault(name, value) != value:
                # "Each chunk has the same ID": signed parts of several answers must not pass for one
                raise StreamError(f"event {self._events} of the stream belongs to another answer")
            self._head.setdefault(name, value)
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        if choices is None:
            return
        if not isinstance(choices, list):
            raise self._wrong("with choices that are no list")
        for place, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise self._wrong("with a choice that is no object")
            index = choice.get("index", place)
            if isinstance(index, int) and not isinstance(index, bool) and index == 0:
                self._chosen = True
                self._add(choice)

    def _add(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if reason is not None:
            if not isinstance(reason, str):
                raise self._wrong("with a finish_reason that is no text")
            self._finish_reason = reason
        if self._api == "completions":
            self._append(self._texts, choice.get("text"), "text")
            return
        delta = choice.get("delta")
        if delta is None:
            return
        if not isinstance(delta, dict):
            raise self._wrong("with a delta that is no object")
        self._append(self._texts, delta.get("content"), "content")
        self._append(self._refusals, delta.get("refusal"), "refusal")

    def _append(self, texts: list[str], value: Any, name: str) -> None:
        if value is None or value == "":
            return
        if not isinstance(value, str):
            raise self._wrong(f"with a {name} that is no text")
        texts.append(value)

    def _wrong(self, how: str) -> StreamError:
        return StreamError(f"event {self._events} of the stream is a chunk {how}")
