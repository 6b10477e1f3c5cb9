"""Odd answers through a real transport, beside lm-eval's own client: our siblings, and those of shared/."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint
from testbench_dagster.core.versions import CLASSIFIER
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.readings import reading_of
from testbench_dagster.transports.statuses import fault_of_status
from testbench_dagster_tests.endpoints import FAST, relay
from testbench_dagster_tests.servers import ends_with_us, free_port, stop
from testbench_dagster_tests.tasks.layouts import REPOSITORY, SHARED, shared_rows
from testbench_dagster_tests.transports import odd
from testbench_dagster_tests.transports.odd import RIGHT, LmEval, Odd

ROWS = list(odd.rows())
ODD_SUPPLIERS = SHARED / "tools/odd_suppliers.py"


class Sender:
    """One transport for all tests, in a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._transport = DirectTransport()

    def send(self, url: str, text: str) -> Attempt:
        limits = replace(FAST, max_response_mb=8)
        return self._loop.run_until_complete(
            self._transport.send(Endpoint("a@test", "test", url, "chat", "m", limits), relay(text=text))
        )

    def close(self) -> None:
        self._loop.run_until_complete(self._transport.close())
        self._loop.close()


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    found = Sender()
    yield found
    found.close()


@pytest.fixture(scope="module")
def lm_eval() -> LmEval:
    return LmEval()


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    with odd.serving() as url:
        yield url


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_our_siblings(row: Odd, ours: str, sender: Sender) -> None:
    url = f"{ours}/{row.name}"
    attempt = sender.send(url, "?")
    assert (attempt.fault, attempt.text) == (row.fault, row.text), attempt.error
    assert bool(attempt.reasoning_chars) is row.thought
    # what is stored reads the same, without the headers
    reading = reading_of(SimpleNamespace(evidence=attempt.evidence, classifier=CLASSIFIER.number))
    again = parse_answer(relay().request, "chat", attempt.status or 0, attempt.body, **reading)
    assert (again.fault, again.text, again.reasoning_chars) == (row.fault, row.text, attempt.reasoning_chars)
    for told in (attempt.text, attempt.finish_reason, attempt.error):
        (told or "").encode()  # no store holds a lone surrogate
    json.dumps(dict(attempt.evidence))


def test_the_docs_have_the_table_of_these_rows() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text(encoding="utf-8")
    assert odd.table() in text, "python -m testbench_dagster_tests.transports.odd prints it"


# ------------------------------------------------------------------------------------------ those of shared/

PROTOCOL = Fault.SUPPLIER_PROTOCOL
#: Modes of ``odd_suppliers.py`` that are about reading: what doc 1 comes to.
MODES: dict[str, tuple[Fault, str | None]] = {
    **dict.fromkeys(
        (
            *("ok", "reasoning_beside", "think_inline", "think_close_only", "content_parts", "refusal_empty"),
            *("finish_null", "finish_eos", "finish_eos_token", "finish_dict", "error_null", "error_blank"),
            *("error_false", "usage_null", "usage_missing", "usage_float", "usage_huge", "usage_str"),
            *("index_missing", "index_one", "index_str", "nan", "nul_reason", "bom", "pad_ws", "text_plain"),
            *("no_ctype", "dup_keys", "trailing", "big_int", "gzip", "gzip_pad", "gzip_lie", "deflate"),
            *(
                "deflate_raw",
                "enc_utf8",
                "enc_empty",
                "enc_identity_gzip",
                "enc_awschunked",
                "sse",
                "sse_crlf",
            ),
            *("sse_cr", "sse_nospace", "sse_nodone", "sse_nofinish", "sse_comments", "sse_blank_first"),
            *("sse_ids", "sse_usage", "sse_multiline", "sse_ping", "sse_reasoning", "sse_null_end", "http10"),
            *("http10_len", "conn_close", "chunked", "chunked_trailer", "chunked_ext", "continue100"),
            *("early103", "lf_only", "folded", "cookies", "nostatus", "deep"),
        ),
        (Fault.OK, RIGHT),
    ),
    "reasoning_only_length": (Fault.TRUNCATED, ""),
    "reasoning_half": (Fault.TRUNCATED, ""),
    "answer_in_reasoning": (Fault.OK, ""),
    "think_unclosed": (Fault.TRUNCATED, ""),
    "ws_only": (Fault.OK, "\n\n"),
    "cherry_empty": (Fault.OK, ""),
    "lone_surrogate": (Fault.OK, RIGHT + " \ufffd"),
    "surrogate_pair": (Fault.OK, RIGHT + " \U0001f600"),
    "nul": (Fault.OK, "a\0b " + RIGHT),
    "latin1": (Fault.OK, "café " + RIGHT),
    "rtl": (Fault.OK, "\u202e\u200b\ufeff " + RIGHT),
    "tool_calls": (PROTOCOL, None),
    "refusal_field": (Fault.SUPPLIER_REFUSED, None),
    "content_filter": (Fault.SUPPLIER_REFUSED, None),
    "finish_error": (Fault.UNAVAILABLE, None),
    "choices_empty": (PROTOCOL, None),
    "choices_null_429": (Fault.RATE_LIMITED, None),
    "error_502_in_200": (Fault.UNAVAILABLE, None),
    "detail_200": (PROTOCOL, None),
    "html_200": (PROTOCOL, None),
    "sse_cut": (PROTOCOL, None),
    "sse_error": (Fault.UNAVAILABLE, None),
    "sse_errevent": (PROTOCOL, None),
    "ndjson": (PROTOCOL, None),
    "204": (PROTOCOL, None),
    "202": (PROTOCOL, None),
    "quota_429": (Fault.QUOTA, None),
    "cherry_400": (Fault.CLIENT_REQUEST, None),
    "cherry_500": (Fault.SUPPLIER_HTTP, None),
    "ctx_half": (Fault.CLIENT_REQUEST, None),
    "loading_503": (Fault.UNAVAILABLE, None),
    "status408": (Fault.UNAVAILABLE, None),
    "status409": (Fault.UNAVAILABLE, None),
    "status425": (Fault.UNAVAILABLE, None),
    "status402": (Fault.QUOTA, None),
    "status451": (Fault.SUPPLIER_REFUSED, None),
}
#: Modes that are about HTTP, sizes and request shapes: what every doc comes to.
OTHER_MODES: dict[str, Fault] = {
    **dict.fromkeys(("idle_close", "stop4", "no_empty_stop", "chunked_noend"), Fault.OK),
    **dict.fromkeys(("badheader", "bighead", "chunked_and_length", "short"), PROTOCOL),
    **dict.fromkeys(("reset_mid", "big9mb", "big14mb", "sse_long"), PROTOCOL),
    **dict.fromkeys(("no_max_tokens", "no_temperature"), Fault.CLIENT_REQUEST),
    "redirect307": Fault.SUPPLIER_HTTP,
    **{
        f"status{status}": fault_of_status(status)
        for status in (301, 401, 403, 404, 418, 429, 500, 502, 503, 504, 520, 529)
    },
}
#: Where lm-eval reads a right answer and we do not, and why.
NOT_READ = {
    "finish_error": "it says that it failed",
    "badheader": "a name that no header may have: what belongs to it is anybody's guess",
    "chunked_and_length": "two lengths of one answer: which is meant is anybody's guess",
    "bighead": "a header beyond what is bounded",
    "big9mb": "beyond relays.max_response_mb",
    "big14mb": "beyond relays.max_response_mb",
    "redirect307": "redirects are not followed",
    # these two are no answers of one attempt, and differ from time to time
    "long": "bytes behind the end: aiohttp gives up the answer before them",
    "silent_close": "a kept connection that was closed meanwhile: the doc is sent again",
}
#: Modes that misbehave on some docs or at first.
SOMETIMES = re.compile(r"_half|cherry_|_once|^ra_|loading_503|^honest$")
#: Waits that the modes ask for, in seconds.
WAITS = {"ra_float": 1.5, "ra_ms": 3.0, "ra_neg": 0.0, "ra_bad": None, "ra_sfx": 2.0, "ra_reset": 3.0}


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[str, str, str]]:
    """The server of shared/, a question it knows, and the answer to that."""
    if not ODD_SUPPLIERS.is_file():
        pytest.skip(f"{ODD_SUPPLIERS} is absent (set TESTBENCH_SHARED)")
    row = shared_rows("gsm8k/test.jsonl.gz")[1]
    port = free_port()
    command = [sys.executable, str(ODD_SUPPLIERS), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=ends_with_us(signal.SIGKILL))
    assert process.stdout is not None and process.stdout.readline()
    yield f"http://127.0.0.1:{port}", row["question"], row["answer"].split("####")[-1].strip()
    stop(process)


@pytest.mark.parametrize("mode", MODES)
def test_the_modes_of_shared(
    mode: str, shared: tuple[str, str, str], sender: Sender, lm_eval: LmEval
) -> None:
    root, question, gold = shared
    fault, text = MODES[mode]
    attempt = sender.send(f"{root}/{mode}/v1", question)
    wanted = None if text is None else text.replace("18", gold)
    assert (attempt.fault, attempt.text) == (fault, wanted), attempt.error
    theirs = lm_eval.read(f"{root}/{mode}/v1", question)
    # tolerance never changes a text that was readable, but for thoughts and what no store holds
    if isinstance(theirs, str) and theirs and wanted and "think" not in mode and mode != "lone_surrogate":
        assert theirs == wanted


@pytest.mark.parametrize("mode", OTHER_MODES)
def test_the_other_modes_of_shared(mode: str, shared: tuple[str, str, str]) -> None:
    root, question, _ = shared
    sender = Sender()  # no connection that another mode closed
    try:
        attempt = sender.send(f"{root}/{mode}/v1", question)
    finally:
        sender.close()
    assert attempt.fault is OTHER_MODES[mode], attempt.error


def test_what_lm_eval_reads_rightly_we_read_or_say_why_not(
    shared: tuple[str, str, str], lm_eval: LmEval
) -> None:
    root, question, gold = shared
    right, differ = RIGHT.replace("18", gold), set()
    for mode in (mode for mode in (*MODES, *OTHER_MODES, *NOT_READ) if not SOMETIMES.search(mode)):
        theirs = lm_eval.read(f"{root}/{mode}/v1", question)
        if isinstance(theirs, str) and right in theirs:
            sender = Sender()  # no connection that another mode closed
            text = sender.send(f"{root}/{mode}/v1", question).text
            sender.close()
            differ |= {mode} if right not in (text or "") else set()
    assert differ <= set(NOT_READ), differ - set(NOT_READ)


@pytest.mark.parametrize("mode", WAITS)
def test_the_waits_of_shared(mode: str, shared: tuple[str, str, str], sender: Sender) -> None:
    root, question, _ = shared
    attempt = sender.send(f"{root}/{mode}/v1", question)
    assert (attempt.fault, attempt.retry_after_s) == (Fault.RATE_LIMITED, WAITS[mode])
