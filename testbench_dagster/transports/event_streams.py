"""Event streams of OpenAI's API (``stream: true``): put together into the answer that was streamed.

Pure functions of bytes, like :mod:`~testbench_dagster.transports.answers`, which reads a body that is an
event stream through :func:`assemble`. What comes out is the ordinary answer as a dict (``choices``,
``usage``, …), so both are judged by the same rules. Framing follows the WHATWG's server-sent events, chunks
OpenAI's API reference: https://platform.openai.com/docs/api-reference/chat/streaming.

Only the choice with index 0 is kept, because one is asked for. Suppliers are hostile: texts of
:class:`StreamError` hold nothing of the stream but numbers.
"""

from __future__ import annotations

import json
import re
from typing import Any

from testbench_dagster.transports.lenient_json import Unreadable, read_json
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.reasoning import reasoning_of, split_parts
from testbench_dagster.transports.statuses import error_without_choices, is_error

#: Events of one stream: an answer has about one per token.
MAX_EVENTS = 100_000
_BOM = b"\xef\xbb\xbf"
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:data|event|id|retry)?:")
_LINE_END = re.compile(rb"\r\n|\n|\r")
#: Names of fields: those that are unknown are passed over, as the standard says. Markup, JSON and what
#: proxies say in words are none.
_FIELD = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,31}")
_DONE = b"[DONE]"
_SCALARS = ("id", "object", "created", "model", "system_fingerprint")


#: A line that is an event by itself: some servers leave out the empty lines between them.
_WHOLE_EVENT = re.compile(rb"\s*+(?:\{.*\}|\[DONE\])\s*\Z", re.DOTALL)


class StreamError(ValueError):
    """A body is no complete, well-formed event stream; the text says why."""


def is_event_stream(body: bytes) -> bool:
    """Whether a body begins as event streams do, and JSON never does."""
    return not body.startswith(b"{") and _BEGINNING.match(body, 0, 64) is not None


def assemble(body: bytes, api: Api, charset: str | None = None) -> dict[str, Any]:
    """Return the answer that a complete event stream holds, or its ``{"error": …}`` if it sent one.

    ``charset`` is what its Content-Type declares, see :func:`~.lenient_json.declared_charset`. Ids of chunks
    may differ: some servers draw one for each.

    Raises :class:`StreamError`: an event is malformed, there are too many, or the stream ends before the
    answer does.
    """
    stream = EventStream(api, charset)
    stream.feed(body)
    return stream.finish()


class _StreamedCalls:
    """Tool calls in pieces: each names its call by ``index``; some servers send whole ones without.

    What is no call is kept as it is, for who reads the answer to judge.
    """

    def __init__(self) -> None:
        self._calls: dict[Any, dict[str, Any]] = {}
        self._names: dict[Any, list[str]] = {}
        self._arguments: dict[Any, list[str]] = {}
        self._odd: Any = None
        self._last: Any = None

    def add(self, pieces: Any) -> None:
        """Take the tool calls of one delta."""
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            function = piece.get("function") if isinstance(piece, dict) else None
            if isinstance(piece, dict) and function is None and piece.get("index") in self._calls:
                continue  # nothing new of a call that has begun
            if not isinstance(function, dict):
                self._odd = piece
                continue
            key = self._key(piece, function)
            call = self._calls.setdefault(key, {"id": None, "type": "function", "function": {}})
            if isinstance(piece.get("id"), str) and call["id"] is None:
                call["id"] = piece["id"]
            if isinstance(function.get("name"), str) and function["name"]:
                self._names.setdefault(key, []).append(function["name"])
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                self._arguments.setdefault(key, []).append(arguments)
            elif arguments is not None:
                call["function"]["arguments"] = arguments  # whole, as an object

    def _key(self, piece: dict[str, Any], function: dict[str, Any]) -> Any:
        """Which call a piece belongs to: by its index; without one, a further id or name begins another."""
        index = piece.get("index")
        if isinstance(index, int) and not isinstance(index, bool):
            self._last = index
            return index
        known = self._calls.get(self._last)
        if known is None:
            begins = True
        elif piece.get("id"):
            begins = known["id"] != piece["id"]
        else:
            begins = bool(function.get("name"))
        if begins:
            self._last = ("unnumbered", len(self._calls))
        return self._last

    def whole(self) -> Any:
        """The calls put together, in the order of their indexes; what was no call where there is such."""
        if self._odd is not None:
            return [self._odd]
        numbered = sorted(key for key in self._calls if isinstance(key, int))
        found = []
        for key in [*numbered, *(key for key in self._calls if not isinstance(key, int))]:
            call = self._calls[key]
            function = {"name": "".join(self._names.get(key, [])), **call["function"]}
            if key in self._arguments:
                function["arguments"] = "".join(self._arguments[key])
            found.append({**call, "function": function})
        return found


class EventStream:
    """One stream, fed as it arrives, split anywhere."""

    def __init__(self, api: Api, charset: str | None = None) -> None:
        self._api, self._charset = api, charset
        self._pieces: list[bytes] = []  # of the line not yet ended
        self._begun = False
        self._data: list[bytes] = []  # of the event not yet ended
        self._failing = False  # it is an event "error"
        self._events = 0
        self._done = False
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []
        self._text_chars = self._thought_chars = 0
        self._calls = _StreamedCalls()
        self._finish_reason: Any = None
        self._failure: Any = None  # the error of the choice
        self._chosen = False  # index 0 appeared
        self._usage: dict[str, Any] | None = None
        self._error: Any = None
        self._surrogates = False  # escaped ones appeared, perhaps of a character in two chunks

    @property
    def text_begun(self) -> bool:
        """Whether some of the answer's text has arrived."""
        return bool(self._texts)

    @property
    def events(self) -> int:
        """Events so far that hold something."""
        return self._events

    @property
    def characters(self) -> tuple[int, int]:
        """Characters so far, of the answer's text and of what was thought beside it."""
        return self._text_chars, self._thought_chars

    @property
    def text(self) -> str:
        """The answer's text so far; characters that were cut between two chunks may be two surrogates."""
        return "".join(self._texts)

    @property
    def thoughts(self) -> str:
        """What was thought beside it so far, likewise."""
        return "".join(self._thoughts)

    @property
    def usage(self) -> dict[str, Any] | None:
        """What it says of its tokens, the last time that it says it."""
        return self._usage

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
            return self._whole({"error": self._error})
        if not self._events:
            raise StreamError("the event stream is empty")
        if not self._done and self._finish_reason is None:
            raise StreamError(f"the event stream breaks off after {self._events} events")
        if not self._chosen:
            raise StreamError("the event stream has no choice with index 0")
        answer = {**self._head, "choices": [self._choice()], "usage": self._usage}
        return self._whole(answer)

    def _unmarked(self, data: bytes) -> bytes:
        """Return the first lines without the byte order mark that may precede them; others as they are."""
        if self._begun:
            return data
        self._begun = True
        return data.removeprefix(_BOM)

    def _whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer with the characters joined that were cut between two chunks, into two surrogates."""
        if not self._surrogates:
            return answer
        try:
            found = read_json(json.dumps(answer).encode())
        except (ValueError, RecursionError):
            raise StreamError("the answer in the event stream is nested too deeply") from None
        return found if isinstance(found, dict) else answer

    def _choice(self) -> dict[str, Any]:
        text = "".join(self._texts)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._finish_reason}
        if self._failure is not None:
            choice["error"] = self._failure
        thoughts = {"reasoning_content": "".join(self._thoughts)} if self._thoughts else {}
        if self._api == "completions":
            return {**choice, "text": text, **thoughts}
        message: dict[str, Any] = {"role": "assistant", "content": text, **thoughts}
        if calls := self._calls.whole():
            message["tool_calls"] = calls
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        return {**choice, "message": message}

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        name, colon, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._failing = value.strip() == b"error"
        elif name not in (b"", b"id", b"retry") and not (colon and _FIELD.fullmatch(name)):
            # The standard passes over all others. In an answer they are the sign of something else: a page
            # of a proxy, or JSON that was not meant to be streamed.
            raise StreamError(f"event {self._events + 1} of the stream has a line that is no field of one")

    def _dispatch(self) -> None:
        failing, self._failing = self._failing, False
        if not self._data:
            return
        lines, self._data = self._data, []
        if len(lines) > 1 and all(_WHOLE_EVENT.match(line) for line in lines):
            for line in lines:
                self._event(line, failing=failing)
            return
        self._event(b"\n".join(lines), failing=failing)

    def _event(self, data: bytes, *, failing: bool) -> None:
        if self._done or self._error is not None:
            return  # nothing counts after the end
        if data.strip() in (_DONE, b"null", b""):
            self._done = self._done or data.strip() == _DONE
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            raise StreamError(f"the event stream has more than {MAX_EVENTS} events")
        try:
            chunk = read_json(data, self._charset, halves=True)
            self._surrogates = self._surrogates or b"\\ud" in data or b"\\uD" in data
        except Unreadable:
            if not failing:
                raise StreamError(f"event {self._events} of the stream is no JSON") from None
            chunk = {"error": data.decode("utf-8", "replace")}
        if not isinstance(chunk, dict):
            raise self._wrong("no object")
        if is_error(chunk.get("error")):
            # its status may stand beside it
            self._error = chunk["error"] if isinstance(chunk["error"], dict) else chunk
        elif failing:
            self._error = chunk
        elif not chunk.get("choices") and (error := error_without_choices(chunk)) is not None:
            self._error = error
        else:
            self._take(chunk)

    def _take(self, chunk: dict[str, Any]) -> None:
        """Add one chunk to the answer."""
        for name in _SCALARS:
            value = chunk.get(name)
            if value is not None and not isinstance(value, (dict, list)):
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
            if index in (0, "0", None) and not isinstance(index, bool):
                self._chosen = True
                self._add(choice)

    def _add(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason") not in (None, ""):
            self._finish_reason = choice["finish_reason"]
        if is_error(choice.get("error")):
            self._failure = choice["error"]
        delta = choice.get("delta")
        if delta is None and not self._texts:
            delta = choice.get("message")  # the whole answer in one event
        # some servers stream in the form of the other API
        if delta is None or (self._api == "completions" and "text" in choice):
            self._append(self._texts, choice.get("text"), "text")
            self._think(choice)
            return
        if not isinstance(delta, dict):
            raise self._wrong("with a delta that is no object")
        self._append(self._texts, delta.get("content"), "content")
        self._append(self._refusals, delta.get("refusal"), "refusal")
        self._think(delta)
        if delta.get("tool_calls"):
            self._calls.add(delta["tool_calls"])
        elif delta.get("function_call"):
            self._calls.add([{"index": 0, "function": delta["function_call"]}])

    def _think(self, said: dict[str, Any]) -> None:
        thoughts = reasoning_of(said)
        if thoughts:
            self._thoughts.append(thoughts)
            self._thought_chars += len(thoughts)

    def _append(self, texts: list[str], value: Any, name: str) -> None:
        if not value:
            return
        if isinstance(value, (list, dict)):
            parts = split_parts(value if isinstance(value, list) else [value])
            self._thoughts.append(parts.reasoning)
            self._thought_chars += len(parts.reasoning)
            self._refusals.append(parts.refusal)
            value = parts.text
        if not isinstance(value, str):
            raise self._wrong(f"with a {name} that is no text")
        if value:
            texts.append(value)
            if texts is self._texts:
                self._text_chars += len(value)

    def _wrong(self, how: str) -> StreamError:
        return StreamError(f"event {self._events} of the stream is a chunk {how}")
