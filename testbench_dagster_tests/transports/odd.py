"""Odd answers of our own, each a kind that somebody reported: what they are read as, here and by lm-eval.

The table of `docs/reference.md` follows from them: ``python -m testbench_dagster_tests.transports.odd`` sends
them all to lm-eval's own client and prints it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

from testbench_dagster.core.faults import Fault

RIGHT = "It is so. #### 18"
THOUGHT = "first I guess #### 99999 but no"


@dataclass(frozen=True)
class Odd:
    """An odd answer: its ``row`` in the table, its bytes, and what comes of it.

    ``text`` None: there is no answer. ``thought``: reasoning was found in it. ``varies``: what lm-eval makes
    of it depends on what else is installed.
    """

    name: str
    row: str
    body: bytes
    text: str | None = RIGHT
    fault: Fault = Fault.OK
    thought: bool = False
    varies: bool = False
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    def message(self) -> bytes:
        """The whole answer, as it is sent."""
        head = [f"HTTP/1.1 {self.status} Said", f"Content-Length: {len(self.body)}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + self.body


def chat(content: Any = RIGHT, reason: Any = "stop", message: Any = None, **top: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **(message or {})}
    choice = {"index": 0, "message": said, "finish_reason": reason}
    return {"id": "x-1", "object": "chat.completion", "created": 1, "choices": [choice], **top}


def dumps(value: Any, **how: Any) -> bytes:
    return json.dumps(value, **how).encode()


def events(*chunks: Any) -> bytes:
    said = "".join(c if isinstance(c, str) else f"data: {json.dumps(c)}\n\n" for c in chunks)
    return f"{said}data: [DONE]\n\n".encode()


def delta(reason: str | None = None, id_: str = "c", **said: Any) -> dict[str, Any]:
    return {"id": id_, "choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


FIELD = "reasoning in a field: `reasoning_content`, `reasoning`, `reasoning_details`"
PARTS = "content as parts: texts are joined, parts of thoughts are reasoning"
TAGS = "reasoning between tags at the beginning, or before a closing `</think>`"
OPEN = "a `<think>` at the beginning that is never closed"
LIMIT = "nothing, or only reasoning, with a `length` of any name"
EMPTY = "nothing, or only reasoning, with any other reason"
REASON = "a `finish_reason` that is an object, unknown, or no text"
BROKEN = "a `finish_reason` that says it failed; the error in the choice says how"
FILTER = "a filter's `finish_reason`; a refusal"
BLANK = 'an `error` of nothing: `""`, `false`, `{}`, zeros'
ERROR = "an `error` that names a status: as number, text or name, nested, flat or in a list"
NO_STATUS = "an `error` that names none, beside choices or without"
NUMBERS = "NaN, infinities, numbers of any size in other fields"
CHARSET = "a byte order mark, a declared charset, UTF-16, bytes that are no UTF-8"
SURROGATE = "lone surrogates: U+FFFD in their place"
BEHIND = "text or markup behind the end"
ENCODING = "a Content-Encoding that is none, or is not used; `gzip` beside others"
STATUS = "any 2xx with an answer"
NONE = "204, 202 with a job, no choices, no JSON, tool calls alone"
INDEX = "an `index` that is missing, null, a text, or wrong on the only choice"
USAGE = "a `usage` of any shape: what is no number of tokens is unknown"
STREAM = "an event stream, also with ids that differ, nulls, comments, an end without `[DONE]`"
CUT = "an event stream that breaks off"


def rows() -> Iterator[Odd]:
    """All of them."""
    for name, beside in {
        "reasoning_content": {"reasoning_content": THOUGHT},
        "reasoning": {"reasoning": THOUGHT},
        "details": {"reasoning_details": [{"type": "reasoning.text", "text": THOUGHT}]},
        "summary": {"reasoning_details": [{"type": "reasoning.summary", "summary": THOUGHT}]},
        "twice": {"reasoning": THOUGHT, "reasoning_content": THOUGHT},
        "reasoning_object": {"reasoning": {"content": [{"text": THOUGHT}]}},
    }.items():
        yield Odd(name, FIELD, dumps(chat(message=beside)), thought=True)
    yield Odd("reasoning_null", FIELD, dumps(chat(message={"reasoning_content": None, "reasoning": 7})))
    text = {"type": "text", "text": RIGHT}
    for name, content, thought in (
        ("parts", [{"type": "text", "text": RIGHT[:5]}, {"type": "text", "text": RIGHT[5:]}], False),
        ("part", {"type": "text", "text": RIGHT}, False),
        ("output_text", [{"type": "output_text", "text": RIGHT}], False),
        ("value", [{"type": "text", "text": {"value": RIGHT, "annotations": []}}], False),
        ("texts", [RIGHT], False),
        ("thinking", [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, text], True),
        ("anthropic", [{"type": "thinking", "thinking": THOUGHT, "signature": "x"}, text], True),
        ("reasoning_part", [{"type": "reasoning", "text": THOUGHT}, text], True),
        ("image", [{"type": "image_url", "image_url": {}}, text], False),
        ("null_part", [{"type": "text", "text": None}, text], False),
        ("summary_part", [{"type": "summary_text", "text": THOUGHT}, text], True),
        ("capitals", [{"type": "Thinking", "text": THOUGHT}, {"type": "TEXT", "text": RIGHT}], True),
        ("flag", [{"text": THOUGHT, "thought": True}, {"text": RIGHT}], True),
    ):
        yield Odd(name, PARTS, dumps(chat(content)), thought=thought)
    for name, said in {
        "think": f"<think>{THOUGHT}</think>\n\n{RIGHT}",
        "think_upper": f"\n<THINK>{THOUGHT}</THINK>{RIGHT}",
        "close_only": f"{THOUGHT}</think>\n\n{RIGHT}",
        "two_blocks": f"<think>{THOUGHT}</think><think>{THOUGHT}</think>{RIGHT}",
        "mentions": f"<think>{THOUGHT}, then </think> comes, so</think>{RIGHT}",
        "thinking_tag": f"<thinking>{THOUGHT}</thinking>{RIGHT}",
        "reasoning_tag": f"<reasoning>\n{THOUGHT}\n</reasoning>\n{RIGHT}",
        "mistral": f"[THINK]{THOUGHT}[/THINK]{RIGHT}",
        "kimi": f"◁think▷{THOUGHT}◁/think▷{RIGHT}",
        "harmony": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final"
        f"<|message|>{RIGHT}<|return|>",
        "spaces": f"<think >{THOUGHT}</think\n>{RIGHT}",
        "thoughts": f"<thoughts>{THOUGHT}</thoughts>{RIGHT}",
        "longcat": f"<longcat_think>{THOUGHT}</longcat_think>\n{RIGHT}",
        "longcat_close": f"{THOUGHT}</longcat_think>\n{RIGHT}",
        "minimax": f"<mm:think>{THOUGHT}</mm:think>{RIGHT}",
        "apertus": f"<|inner_prefix|>{THOUGHT}<|inner_suffix|>{RIGHT}",
        "medgemma": f"<unused94>thought\n{THOUGHT}<unused95>{RIGHT}",
        "gemma": f"<|channel>thought\n{THOUGHT}<channel|>{RIGHT}",
        "special": f"<|think_start|>{THOUGHT}<|think_end|>{RIGHT}",
        "harmony_bare": f"analysis{THOUGHT}assistantfinal{RIGHT}",
    }.items():
        yield Odd(name, TAGS, dumps(chat(said)), thought=True)
    late = f"{RIGHT} The tag <think> opens, </think> closes."
    yield Odd("tag_in_answer", "a tag later in the text", dumps(chat(late)), text=late)
    yield Odd("unclosed", OPEN, dumps(chat(f"<think>{RIGHT}", "length")), "", Fault.TRUNCATED, True)
    yield Odd("unclosed_stop", OPEN, dumps(chat(f"[THINK]{RIGHT}")), "", thought=True)
    only = {"reasoning_content": THOUGHT}
    for name, content, reason in (
        ("null_length", None, "length"),
        ("empty_length", "", "max_tokens"),
        ("gemini_length", "", "MAX_TOKENS"),
        ("parts_length", [{"type": "thinking", "thinking": THOUGHT}], "length"),
    ):
        body = dumps(chat(content, reason, only))
        yield Odd(name, LIMIT, body, "", Fault.TRUNCATED, True)
    yield Odd("null", EMPTY, dumps(chat(None)), "")
    yield Odd("in_reasoning", EMPTY, dumps(chat("", message=only)), "", thought=True)
    for name, reason in {
        "reason_object": {"type": "stop", "matched": 5},
        "reason_list": ["stop"],
        "reason_number": 0,
        "reason_unknown": "eos_token",
        "reason_nul": "st\0op",
        "reason_surrogate": "st\ud83dop",
    }.items():
        yield Odd(name, REASON, dumps(chat(reason=reason)))
    for number, reason in enumerate(
        (
            "Length",
            "FINISH_REASON_MAX_TOKENS",
            "FinishReason.LENGTH",
            "maxLength",
            "model_context_window_exceeded",
        )
    ):
        yield Odd(f"reason_cut_{number}", REASON, dumps(chat(reason=reason)), RIGHT, Fault.TRUNCATED)
    yield Odd("reason_object_cut", REASON, dumps(chat(reason={"type": "length"})), RIGHT, Fault.TRUNCATED)
    for name, reason, error, fault in (
        ("error", "error", None, Fault.SUPPLIER_HTTP),
        ("error_502", "error", {"code": 502}, Fault.UNAVAILABLE),
        ("abort", {"type": "abort", "message": "no", "status_code": 503}, None, Fault.UNAVAILABLE),
        ("resource", "insufficient_system_resource", None, Fault.UNAVAILABLE),
        ("canceled", "canceled", None, Fault.SUPPLIER_HTTP),
        ("internal", "internal-error", None, Fault.SUPPLIER_HTTP),
    ):
        body = chat(reason=reason)
        body["choices"][0]["error"] = error
        yield Odd(f"reason_{name}", BROKEN, dumps(body), None, fault)
    yield Odd("filter", FILTER, dumps(chat("", "content_filter")), None, Fault.SUPPLIER_REFUSED)
    yield Odd("safety", FILTER, dumps(chat("", "SAFETY")), None, Fault.SUPPLIER_REFUSED)
    for number, reason in enumerate(("ContentFilter", "content-filter", "RECITATION", "refusal")):
        refused = Fault.SUPPLIER_REFUSED
        yield Odd(f"filter_{number}", FILTER, dumps(chat("", reason)), None, refused)
    refusal = dumps(chat(None, message={"refusal": "I will not"}))
    yield Odd("refusal", FILTER, refusal, None, Fault.SUPPLIER_REFUSED)
    yield Odd("refusal_blank", BLANK, dumps(chat(message={"refusal": " "})))
    for number, blank in enumerate(("", False, {}, [], 0, {"code": 0, "message": ""}, {"code": None})):
        yield Odd(f"error_blank_{number}", BLANK, dumps(chat(error=blank)))
    for name, error, fault in (
        ("number", {"error": {"code": 429}}, Fault.RATE_LIMITED),
        ("text", {"error": {"code": "503", "message": "x"}}, Fault.UNAVAILABLE),
        ("float", {"error": {"code": 429.0}}, Fault.RATE_LIMITED),
        ("google", [{"error": {"status": "RESOURCE_EXHAUSTED"}}], Fault.RATE_LIMITED),
        ("type", {"error": {"type": "overloaded_error", "message": "x"}}, Fault.UNAVAILABLE),
        ("class", {"error": {"type": "RateLimitError", "code": None}}, Fault.RATE_LIMITED),
        ("flat", {"code": 502, "message": "Bad Gateway"}, Fault.UNAVAILABLE),
        ("list", {"errors": [{"code": 401}]}, Fault.CREDENTIALS),
        ("detail", {"detail": {"status_code": 408}}, Fault.UNAVAILABLE),
        ("words", {"error": "429 Too Many Requests"}, Fault.RATE_LIMITED),
        ("context", {"error": {"code": "context_length_exceeded"}}, Fault.CLIENT_REQUEST),
        ("quota", {"error": {"type": "insufficient_quota"}}, Fault.QUOTA),
        ("policy", {"error": {"code": "content_policy_violation"}}, Fault.SUPPLIER_REFUSED),
        ("deep", {"error": {"error": {"error": {"http_code": "503"}}}}, Fault.UNAVAILABLE),
        ("begins", {"detail": "429: slow down"}, Fault.RATE_LIMITED),
        (
            "reason",
            {"error": {"message": "x", "errors": [{"reason": "rateLimitExceeded"}]}},
            Fault.RATE_LIMITED,
        ),
        ("error_code", {"success": False, "error_code": 429}, Fault.RATE_LIMITED),
        ("nested", {"error": {"message": "x", "error": {"code": 429}}, "choices": None}, Fault.RATE_LIMITED),
    ):
        yield Odd(f"says_{name}", ERROR, dumps(error), None, fault)
    protocol = Fault.SUPPLIER_PROTOCOL
    yield Odd("says_nothing", NO_STATUS, dumps({"error": {"message": "no"}}), None, protocol)
    yield Odd("says_beside", NO_STATUS, dumps(chat(error="no")), None, protocol)
    for name, value in {"nan": float("nan"), "inf": float("-inf"), "big": 10**400, "float": 1e308}.items():
        yield Odd(name, NUMBERS, dumps(chat(avg_logprob=value)))
    yield Odd("huge_float", NUMBERS, dumps(chat(x=1)).replace(b'"x": 1', b'"x": 1e999'))
    bom = b"\xef\xbb\xbf" + dumps(chat())
    yield Odd("bom", CHARSET, bom)
    accents = chat("café " + RIGHT)
    for name, charset in (("latin1", "iso-8859-1"), ("windows", "windows-1252"), ("gbk", "GBK")):
        kind = (("Content-Type", f'application/json; charset="{charset}"'),)
        body = json.dumps(accents, ensure_ascii=False).encode(charset)
        yield Odd(name, CHARSET, body, "café " + RIGHT, headers=kind)
    utf16 = (("Content-Type", "application/json; charset=utf-16"),)
    yield Odd("utf16", CHARSET, json.dumps(accents).encode("utf-16"), "café " + RIGHT, headers=utf16)
    broken = dumps(chat("caf@ " + RIGHT)).replace(b"@", b"\xe9")
    yield Odd("no_utf8", CHARSET, broken, "caf\ufffd " + RIGHT)
    hostile = (("Content-Type", "application/json; charset=punycode"),)
    yield Odd("no_charset", CHARSET, dumps(accents), "café " + RIGHT, headers=hostile)
    for name, tail in {"high": "\\ud83d", "low": "\\ude00", "both": "\\ude00\\ud83d"}.items():
        body = dumps(chat(RIGHT + "@")).replace(b"@", tail.encode())
        said = RIGHT + "\ufffd" * tail.count("u")
        yield Odd(f"surrogate_{name}", SURROGATE, body, said)
    pair = "\\\\ud83d \U0001f600"
    yield Odd("surrogate_none", "pairs of surrogates, and what looks like one", dumps(chat(pair)), pair)
    yield Odd("trailing", BEHIND, dumps(chat()) + b"\n</html>")
    yield Odd("trailing_answer", "a second JSON behind the end", dumps(chat()) * 2, None, protocol)
    packed = gzip.compress(dumps(chat()), mtime=0)
    for name, encoding, body in (
        ("utf8", "utf-8", dumps(chat())),
        ("empty", "", dumps(chat())),
        ("unused", "gzip", dumps(chat())),
        ("unused_br", "br", dumps(chat())),
        (
            "members",
            "gzip",
            gzip.compress(dumps(chat())[:9], mtime=0) + gzip.compress(dumps(chat())[9:], mtime=0),
        ),
        ("identity", "identity, gzip", packed),
        ("twice", "gzip, deflate", zlib.compress(packed)),
        ("deflate", "deflate", zlib.compress(dumps(chat()))),
        ("deflate_raw", "deflate", zlib.compress(dumps(chat()))[2:-4]),
        ("deflate_not", "deflate", dumps(chat())),
    ):
        kind = (("Content-Type", "application/json"), ("Content-Encoding", encoding))
        yield Odd(f"encoded_{name}", ENCODING, body, headers=kind, varies=encoding == "br")
    for status in (200, 201, 203, 206):
        yield Odd(f"status_{status}", STATUS, dumps(chat()), status=status)
    yield Odd("answers", "a list with the answer", dumps([chat()]))
    completion = {"choices": [{"index": 0, "text": RIGHT, "finish_reason": "stop"}]}
    yield Odd("completion", "the form of the other API", dumps(completion))
    for name, status, body in (
        ("204", 204, b""),
        ("202", 202, dumps({"id": "job-1", "status": "queued"})),
        ("choices", 200, dumps({"choices": []})),
        ("page", 200, b"<html>Sign in</html>"),
        ("lines", 200, dumps({"message": {"content": "a"}}) + b"\n" + dumps({"done": True})),
        ("tools", 200, dumps(chat(None, "tool_calls", {"tool_calls": [{"id": "a"}]}))),
        ("content", 200, dumps(chat(7))),
    ):
        yield Odd(f"none_{name}", NONE, body, None, protocol, status=status)
    for name, index in (("null", None), ("text", "0"), ("one", 1)):
        body = chat()
        body["choices"][0]["index"] = index
        yield Odd(f"index_{name}", INDEX, dumps(body))
    for number, usage in enumerate((None, 7, {"prompt_tokens": "10"}, {"prompt_tokens": 10**30}, [])):
        yield Odd(f"usage_{number}", USAGE, dumps(chat(usage=usage)))
    start, end = delta(content=RIGHT[:4]), delta("stop", content=RIGHT[4:])
    for name, said in {
        "ids": events(start, {**end, "id": "another"}),
        "nulls": events("data: null\n\n", start, "data: null\n\n", end, "data: null\n\n"),
        "nan": events(start, {**end, "score": float("nan")}),
        "comments": events(": one moment\n\n", start, "event: ping\ndata: {}\n\n", end),
        "error_blank": events({**start, "error": ""}, end),
        "reason_object": events(start, end, delta(reason={"type": "stop"})),  # type: ignore[arg-type]
        "no_done": events(start, end).replace(b"data: [DONE]\n\n", b""),
        "end_blank": events(delta("", content=RIGHT[:4]), end),
        "other_form": events(
            {"choices": [{"index": 0, "text": RIGHT[:4]}]},
            {"choices": [{"index": 0, "text": RIGHT[4:], "finish_reason": "stop"}]},
        ),
        "message_last": events(start, end, {"choices": [{"index": 0, "message": {"content": RIGHT}}]}),
        "field": events(start, "meta: x\n\n", end),
        "lines": events(start, end).replace(b"\n\n", b"\n"),
        "parts": events(delta(content=[{"type": "text", "text": RIGHT[:4]}]), end),
    }.items():
        kind = (("Content-Type", "text/event-stream"),)
        yield Odd(f"stream_{name}", STREAM, said, headers=kind)
    for name, first in (
        ("reasoning", delta(reasoning_content=THOUGHT)),
        ("details", delta(reasoning_details=[{"text": THOUGHT}])),
        ("thinking", delta(content=[{"type": "thinking", "thinking": THOUGHT}])),
        ("tags", delta(content=f"<think>{THOUGHT}</think>")),
    ):
        yield Odd(f"stream_{name}", STREAM, events(first, start, end), thought=True)
    broken_off = events(start).replace(b"data: [DONE]\n\n", b"")
    yield Odd("stream_cut", CUT, broken_off, None, protocol)
    blank = events(delta("", content=RIGHT)).replace(b"data: [DONE]\n\n", b"")
    yield Odd("stream_cut_blank", CUT, blank, None, protocol)
    halves = events(delta(content=RIGHT + " @"), delta("stop", content="@"))
    halves = halves.replace(b"@", b"\\ud83d", 1).replace(b"@", b"\\ude00", 1)
    yield Odd("stream_halves", STREAM, halves, RIGHT + " \U0001f600")
    for name, error, fault in (
        ("flat", {"object": "error", "message": "x", "code": 429}, Fault.RATE_LIMITED),
        ("beside", {"error": "overloaded", "code": 503}, Fault.UNAVAILABLE),
    ):
        yield Odd(f"stream_error_{name}", ERROR, events(start, error), None, fault)
    failed = events(start, 'event: error\ndata: {"code": 502}\n\n')
    yield Odd("stream_error", ERROR, failed, None, Fault.UNAVAILABLE)
    calls = events(delta(tool_calls=[{"index": 0}]), delta("tool_calls"))
    yield Odd("stream_tools", NONE, calls, None, protocol)


@contextmanager
def serving() -> Iterator[str]:
    """A server on loopback that answers POST /<name>/chat/completions with the row of that name."""
    answers = {odd.name: odd.message() for odd in rows()}

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split(b" ")[1]
            size = 0
            while (line := self.rfile.readline()).strip():
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            self.rfile.read(size)
            self.wfile.write(answers[target.split(b"/")[1].decode()])

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


class LmEval:
    """lm-eval's own client of chats, as ``lm_eval --model local-chat-completions`` has it."""

    def __init__(self) -> None:
        from lm_eval.models.openai_completions import LocalChatCompletion

        self._client = LocalChatCompletion(base_url="http://127.0.0.1", model="m", timeout=5)

    def read(self, base_url: str, question: str) -> Any:
        """What its ``model_call`` and ``parse_generations`` make of an answer, or what they raise."""
        from lm_eval.models.api_models import JsonChatStr

        self._client.base_url = f"{base_url}/chat/completions"
        asked = JsonChatStr(json.dumps([{"role": "user", "content": question}]))
        try:
            return self._client.parse_generations(self._client.model_call([asked], gen_kwargs={}))[0]
        except Exception as error:
            return error


def beside(theirs: Any, text: str | None) -> str:
    """What lm-eval makes of an answer, in words, beside the ``text`` that is read here (None: no answer)."""
    if isinstance(theirs, Exception):
        return f"`{type(theirs).__name__}`"
    if not theirs:
        return "`null`" if theirs is None else f"`{json.dumps(theirs)}`"
    if not isinstance(theirs, str):
        return f"what is of type `{type(theirs).__name__}`"
    if theirs == text:
        return "the same"
    if text is None:
        return "the text"
    return "with the thoughts" if text in theirs and len(theirs) > len(text) + 5 else "another text"


def read_as(found: Iterable[Odd]) -> str:
    """What the answers of one row of the table are read as."""
    faults = sorted({f"`{odd.fault.value}`" for odd in found if not odd.fault.answered})
    texts = [odd for odd in found if odd.fault.answered]
    words = []
    if texts:
        cut = " (`truncated`)" if all(odd.fault is Fault.TRUNCATED for odd in texts) else ""
        words.append('the text `""`' + cut if all(odd.text == "" for odd in texts) else "the answer")
    return ", ".join([*words, *faults])


def table() -> str:
    """The table of the documentation: kinds of answers, what they are read as, here and by lm-eval."""
    by_row: dict[str, list[Odd]] = {}
    said: dict[str, list[str]] = {}
    lm_eval = LmEval()
    with serving() as url:
        for odd in rows():
            by_row.setdefault(odd.row, []).append(odd)
            if not odd.varies:
                said.setdefault(odd.row, []).append(beside(lm_eval.read(f"{url}/{odd.name}", "?"), odd.text))
    lines = ["| an answer with or as | is read as | lm-eval 0.4.13 |", "|---|---|---|"]
    for row, found in by_row.items():
        theirs = ", ".join(dict.fromkeys(said[row]))
        lines.append(f"| {row} | {read_as(found)} | {theirs} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
