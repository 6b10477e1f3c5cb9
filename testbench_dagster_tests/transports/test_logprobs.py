"""Log-probabilities of continuations: lm-eval's numbers where it is right, and shapes of real servers."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.json_values import Invalid
from testbench_dagster.transports.logprobs import NotMeasurable, continuation_logprob
from testbench_dagster_tests import echoing
from testbench_dagster_tests.tasks.layouts import SHARED, shared_rows

PLAIN = ["The", " sky", " is", " blue", ".", " So"]


def choice(tokens: list[Any], logprobs: list[Any] | None = None, /, **changes: Any) -> dict[str, Any]:
    """The choice of a correct echo of ``tokens``, the last one generated; what is ``...`` is left out."""
    values = logprobs if logprobs is not None else [None, *(-0.5 * n for n in range(1, len(tokens)))]
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token or "")
    found = {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": [None if v is None else {t: v} for t, v in zip(tokens, values, strict=True)],
        "text_offset": offsets,
        **changes,
    }
    found = {name: value for name, value in found.items() if value is not ...}
    return {"index": 0, "text": None, "logprobs": found, "finish_reason": "length"}


def answer(context: str, continuation: str, one: Any) -> Answer:
    request = {"type": "loglikelihood", "idx": 0, "context": context, "continuation": continuation}
    return parse_answer(request, "completions", 200, json.dumps({"choices": [one]}).encode())


def lm_eval_parse(one: Any, context_tokens: int) -> tuple[float, bool]:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI.parse_logprobs({"choices": [one]}, ctxlens=[context_tokens])[0]


def changed(index: int, value: Any) -> list[Any]:
    values: list[Any] = [None, -1.0, -1.0, -1.0, -1.0, -1.0]
    values[index] = value
    return values


# -- lm-eval's numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "continuation", "tokens", "start"),
    [
        ("The sky is", " blue.", PLAIN, 3),
        ("The sky is ", "blue.", PLAIN, 3),  # trailing space moves to the continuation
        ("The sky is blue", ".", PLAIN, 4),
        ("The sky is", " blue.", ["<s>", *PLAIN], 4),  # BOS counted in the offsets
        ("The sky is", " blue.", ["", *PLAIN], 4),  # BOS without text
        ("The sky is", " blue.", ["<s>", "<s>", *PLAIN], 5),
        ("The sky is", " blue.", ["<|begin_of_text|>", "", *PLAIN], 5),
        ("The sky is", " blue.", ["[CLS]", *PLAIN], 4),
        ("The sky is", " blue.", ["BOS", *PLAIN], 4),
        ("", "The sky is blue.", ["<s>", *PLAIN], 1),
        ("", "The sky is blue.", ["", *PLAIN], 1),
        ("<s>The sky is", " blue.", ["<s>", "<s>", *PLAIN], 5),  # BOS before a prompt that has one
        ("<s>The sky is", " blue.", ["<s>", *PLAIN], 4),
    ],
)
@pytest.mark.parametrize("offsets", ["right", ..., None, [], [-1], ["0"]])
def test_sums_equal_lm_eval(
    context: str, continuation: str, tokens: list[str], start: int, offsets: Any
) -> None:
    one = choice(tokens)
    if offsets != "right":
        one = choice(tokens, text_offset=offsets * len(tokens) if offsets in ([-1], ["0"]) else offsets)
    found = answer(context, continuation, one)
    assert found.fault is Fault.OK, found
    assert (found.logprob, found.greedy) == lm_eval_parse(one, start)


def test_not_greedy() -> None:
    one = choice(PLAIN)
    one["logprobs"]["top_logprobs"][4] = {".": -2.0, "!": -1.0}
    found = answer("The sky is", " blue.", one)
    assert (found.logprob, found.greedy) == lm_eval_parse(one, 3) == (-3.5, False)


@settings(deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=6),
    st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4),
    st.data(),
)
def test_any_tokens_equal_lm_eval(context: list[str], continuation: list[str], data: Any) -> None:
    count = len(context) + len(continuation)
    values = [None, *data.draw(st.lists(st.floats(-30, 0), min_size=count, max_size=count))]
    one = choice([*context, *continuation, "!"], values)
    text = "".join(context)
    if text != text.rstrip():
        return  # the boundary lies elsewhere
    found = answer(text, "".join(continuation), one)
    if any("\ufffd" in token for token in one["logprobs"]["tokens"]) and found.fault is Fault.UNSUPPORTED:
        return  # a piece of a character, or this very character: the answer does not say
    assert found.fault is Fault.OK, found
    assert (found.logprob, found.greedy) == lm_eval_parse(one, len(context))


def test_real_bodies_of_2021() -> None:
    path = SHARED / "data/logprobs_truthfulqa/openai_ada_2021_completions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent (set TESTBENCH_SHARED)")
    checked = 0
    for line in gzip.decompress(path.read_bytes()).splitlines():
        for one in json.loads(line)["choices"]:
            found = one["logprobs"]
            tokens, offsets = found["tokens"], found["text_offset"]
            single = {**one, "index": 0}
            if found["token_logprobs"][0] is not None:  # not echoed
                assert answer("Some question", " answer", single).fault is Fault.SUPPLIER_PROTOCOL
                continue
            for start in range(1, len(tokens) - 1):
                # these bodies have no generated token: take the last one for it
                prompt = one["text"][: offsets[-1]]
                context = prompt[: offsets[start]]
                if context != context.rstrip():
                    continue
                for bare in (single, {**single, "logprobs": {**found, "text_offset": None}}):
                    read = answer(context, prompt[offsets[start] :], bare)
                    assert (read.logprob, read.greedy) == lm_eval_parse(single, start)
                checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    "name",
    [
        "arc_challenge__test_mc_5shot",
        "arc_challenge__test_rc_5shot",
        "hellaswag__rc_5shot",
        "openbookqa__test_rc_5shot",
        "piqa__val_rc_5shot",
        "winogrande__val_rc_5shot",
    ],
)
def test_requests_of_real_tasks(shared: Path, name: str) -> None:
    """However their tokens are shown, the sums are lm-eval's for a tokenizer that cuts as the server does."""
    rows = shared_rows(f"loglik_requests/{name}.jsonl.gz")
    shows = [echoing.whole, echoing.replaced, echoing.hidden, echoing.escaped]
    # those with characters beyond ASCII first, and some others
    odd = [row for row in rows if not (row["context"] + row["continuation"]).isascii()]
    for number, row in enumerate([*odd[:24], *rows[:: len(rows) // 24]]):
        context, continuation = row["context"], row["continuation"]
        asked = echoing.Asked(context + continuation, True, None)
        values: list[Any] = [None, *(-(number % 7) - n / 64 for n in range(1, len(asked.all)))]
        one = asked.choice(shows[number % 4], token_logprobs=values, top_logprobs=[{"x": 0.0}] * len(values))
        found = answer(context, continuation, one)
        assert found.fault is Fault.OK, (row, found)
        start = len(echoing.Asked(context.rstrip(), True, None).pieces)
        assert (found.logprob, found.greedy) == lm_eval_parse(one, start)


# -- where lm-eval drops or adds tokens -------------------------------------------------------------------

SKY = ("The sky is", " blue.")


def test_no_token_is_generated_where_the_next_one_ends_the_text() -> None:
    one = choice(PLAIN[:-1])
    found = answer(*SKY, one)
    assert (found.fault, found.logprob, found.greedy) == (Fault.OK, -3.5, True)
    assert lm_eval_parse(one, 3)[0] == -1.5  # it takes the prompt's last token for a generated one


@pytest.mark.parametrize("more", [[" it"], [" it", "'", "s"], ["", "", "好"], ["</s>"], ["\ufffd"] * 3])
def test_several_tokens_are_generated(more: list[str]) -> None:
    one = choice([*PLAIN, *more])
    found = answer(*SKY, one)
    assert (found.fault, found.logprob) == (Fault.OK, -3.5)
    assert lm_eval_parse(one, 3)[0] != -3.5


# -- shapes -----------------------------------------------------------------------------------------------

CONTEXT, CONTINUATION = "Où est le café ? 好😀", " 好é😀!"
#: Tokens of both as servers show them, a bar between two, and where the continuation begins and ends in them.
SHAPES = {
    "whole characters": ("O|ù| est| le| caf|é| ?| 好|😀| 好|é|😀|!|x", 9, 13),
    "byte-level vocabulary": ("O|Ã¹|Ġest|Ġle|Ġcaf|Ã©|Ġ?|Ġå|¥½|ðŁĺ|Ģ|Ġå|¥½|Ã©|ðŁĺ|Ģ|!", 11, 17),
    "sentencepiece, bytes as such": (
        "<s>|▁O|ù|▁est|▁le|▁caf|é|▁?|▁|好|<0xF0>|<0x9F>|<0x98>|<0x80>|"
        "▁|<0xE5>|<0xA5>|<0xBD>|é|<0xF0>|<0x9F>|<0x98>|<0x80>|!",
        14,
        24,
    ),
    "OpenAI, 2021": (
        r"O|ù| est| le| caf|é| ?|bytes: \xe5\xa5|bytes:\xbd|bytes:\xf0\x9f\x98|bytes:\x80|"
        r"bytes: \xe5\xa5|bytes:\xbd|é|bytes:\xf0\x9f\x98|bytes:\x80|!",
        11,
        17,
    ),
    "replaced, one for a piece (vLLM)": (
        "O|ù| est| le| caf|é| ?| \ufffd|\ufffd|\ufffd|\ufffd| \ufffd|\ufffd|é|\ufffd|\ufffd|!| the",
        11,
        17,
    ),
    "replaced, one for a byte": (
        "O|ù| est| le| caf|é| ?| |\ufffd|\ufffd|\ufffd|\ufffd\ufffd\ufffd|\ufffd|"
        " |\ufffd\ufffd|\ufffd|é|\ufffd\ufffd\ufffd|\ufffd|!| the",
        13,
        20,
    ),
    "late, with the token that completes it": ("O|ù| est| le| caf|é| ?| |好||😀| |好|é|||😀|!|", 11, 18),
    "spaceless (SGLang with sentencepiece)": (
        "<s>|O|ù|est|le|caf|é|?||好|\ufffd|\ufffd|\ufffd|\ufffd||好|é|\ufffd|\ufffd|\ufffd|\ufffd|!|</s>",
        14,
        22,
    ),
    "U+FFFD for whole words": ("O|ù| est| le| caf|é| ?|\ufffd|\ufffd| 好|é|😀|!| the", 9, 13),
    "the first token has no text": ("| est| le| café| ?| 好|😀| 好|é|😀|!", 7, 11),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("offsets", [..., "counted"])
def test_tokens_as_servers_show_them(name: str, offsets: Any) -> None:
    shown, start, end = SHAPES[name]
    tokens = shown.split("|")
    one = choice(tokens) if offsets == "counted" else choice(tokens, text_offset=...)
    one["text"] = CONTEXT + CONTINUATION + "".join(tokens[end:])
    found = answer(CONTEXT, CONTINUATION, one)
    assert found.fault is Fault.OK, found
    assert found.logprob == sum(one["logprobs"]["token_logprobs"][start:end])


def llama_cpp_python(prompt: list[bytes], generated: list[bytes]) -> dict[str, Any]:
    """A choice of llama-cpp-python (``Llama.create_completion``): BOS left out, pieces of characters hidden.

    Where the next token ends the text none is generated; where it begins a character, all of that are.
    """
    pieces = [*prompt, *generated]
    shown = [piece.decode("utf-8", "ignore") for piece in pieces]
    values: list[Any] = [-0.5 * n for n in range(len(pieces))]
    tops: list[Any] = [{"the": -9.0, token: value} for token, value in zip(shown, values, strict=True)]
    values[0] = tops[0] = None
    return {
        "index": 0,
        "text": b"".join(prompt).decode() + b"".join(generated).decode("utf-8", "ignore"),
        "logprobs": {
            "tokens": shown,
            "text_offset": [len(b"".join(pieces[:n]).decode("utf-8", "ignore")) for n in range(len(pieces))],
            "token_logprobs": values,
            "top_logprobs": tops,
        },
        "finish_reason": "length" if generated else "stop",
    }


@pytest.mark.parametrize("generated", [[b" the"], [], [b"\xe5", b"\xa5", b"\xbd"], [b"\xe5\xa5", b"\xbd"]])
@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ([b"O", "ù".encode(), b" est"], [b" le", b" caf", b"\xc3", b"\xa9"]),
        ([b"O", "ù".encode(), b" est"], [b" ", b"\xe5", b"\xa5", b"\xbd", b"!"]),
        (
            [b"O", b" ", b"\xe5", b"\xa5", b"\xbd", b"\xf0\x9f", b"\x98\x80"],
            [b" ", b"\xe5", b"\xa5", b"\xbd"],
        ),
        ([b"O", b" \xe5", b"\xa5\xbd"], ["é".encode(), b"\xe5\xa5", b"\xbd", b"."]),
    ],
)
def test_llama_cpp_python(context: list[bytes], continuation: list[bytes], generated: list[bytes]) -> None:
    one = llama_cpp_python([*context, *continuation], generated)
    found = answer(b"".join(context).decode(), b"".join(continuation).decode(), one)
    assert found.fault is Fault.OK, found
    values = one["logprobs"]["token_logprobs"][len(context) : len(context) + len(continuation)]
    assert (found.logprob, found.greedy) == (sum(values), True)


def test_hidden_characters_without_offsets_show_no_boundary() -> None:
    """The space may be a token with the last byte of the character before it: then it would straddle."""
    one = llama_cpp_python([b"O", b" ", b"\xf0\x9f", b"\x98", b"\x80", b" ", b"!"], [])
    assert answer("O 😀", " !", one).fault is Fault.OK
    del one["logprobs"]["text_offset"]
    assert answer("O 😀", " !", one).fault is Fault.UNSUPPORTED


def entry(token: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": value, **more}


@pytest.mark.parametrize("tops", [[], [entry("x", -9.0)], None, ...])
@pytest.mark.parametrize("with_bytes", [False, True])
def test_lists_of_objects_as_chats_have_them(tops: Any, with_bytes: bool) -> None:
    entries = [entry(token, -0.5 * n) for n, token in enumerate(PLAIN)]
    for one in entries:
        if tops is not ...:
            one["top_logprobs"] = tops and [*tops, entry(one["token"], one["logprob"])]
        if with_bytes:
            one["bytes"], one["token"] = list(one["token"].encode()), "?"
    for logprobs in ({"content": entries}, entries):
        found = answer(*SKY, {"index": 0, "text": "".join(PLAIN), "logprobs": logprobs})
        assert (found.fault, found.logprob) == (Fault.OK, -3.5)
        assert found.greedy is (True if tops and tops is not ... else None)


@pytest.mark.parametrize(
    ("context", "continuation", "tokens"),
    [
        ("The cafe\u0301 is", " cafe\u0301.", ["The", " caf\u00e9", " is", " caf", "\u00e9", "."]),  # NFC
        ("The \ufb01sh is", " \uff21.", ["The", " fi", "sh", " is", " A", "."]),  # NFKC
    ],
)
def test_tokenizers_that_normalise_text_before_they_cut(
    context: str, continuation: str, tokens: list[str]
) -> None:
    one = choice([*tokens, " So"])
    start = tokens.index(" is") + 1
    found = answer(context, continuation, one)
    assert (found.fault, found.logprob) == (Fault.OK, lm_eval_parse(one, start)[0])


def test_bytes_of_a_token_are_its_own() -> None:
    pieces = [b"The", b" sky", b" is", b" \xe5", b"\xa5\xbd", b"."]
    entries = [entry(p.decode("utf-8", "replace"), -1.0, bytes=list(p)) for p in pieces]
    found = answer("The sky is", " 好", {"index": 0, "logprobs": {"content": entries}})
    assert (found.fault, found.logprob) == (Fault.OK, -2.0)


def test_prompt_logprobs_of_vllm() -> None:
    by_id: list[Any] = [None]
    for n, token in enumerate(PLAIN[1:-1], 1):
        by_id.append({str(n): {"logprob": -0.5 * n, "rank": 1, "decoded_token": token}})
    by_id[4]["99"] = {"logprob": -0.25, "rank": 1, "decoded_token": "!"}
    one = {**choice([" So"]), "prompt_logprobs": by_id}
    found = answer(*SKY, one)
    assert (found.fault, found.logprob, found.greedy) == (Fault.OK, -3.5, False)


# -- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["NaN", "nan", "-inf", "-Infinity", None, float("-inf"), float("nan"), -(10**400)]
)
def test_what_is_impossible_is_minus_infinity(value: Any) -> None:
    found = continuation_logprob(choice(PLAIN, changed(4, value)), *SKY)
    assert found == (-math.inf, False)


def test_what_a_server_writes_for_impossible_stays() -> None:
    assert answer(*SKY, choice(PLAIN, changed(4, -9999.0))).logprob == -10000.0


def test_minus_infinity_among_the_alternatives() -> None:
    one = choice(PLAIN)
    one["logprobs"]["top_logprobs"][3]["z"] = float("-inf")
    assert continuation_logprob(one, *SKY) == (-3.5, True)


TOPS = [None, *({token: -0.5 * n} for n, token in enumerate(PLAIN[1:], 1))]


@pytest.mark.parametrize(
    ("tops", "greedy"),
    [
        (TOPS, True),
        ([top and [entry(t, v) for t, v in top.items()] for top in TOPS], True),
        ([top and [top, {"!": -9.0}] for top in TOPS], True),
        ([top and {"7": entry(*next(iter(top.items())))} for top in TOPS], True),
        ([top and {"token": -9.0, "logprob": next(iter(top.values()))} for top in TOPS], True),
        ([top and [[token, value] for token, value in top.items()] for top in TOPS], None),
        ([top and entry(*next(iter(top.items()))) for top in TOPS], True),
        ([None, *[{"zz": -50.0}] * 5], False),  # as lm-eval has it
        ([None, None, None, {" blue": -1.5}, {"!": -0.1, ".": -2.0}, None], False),
        ([None, None, None, {" blue": -1.5}, None, None], None),
        ([None, None, None, None, {"!": -0.1, ".": -2.0}, None], False),
        ([None] * 6, None),
        ([{}] * 6, None),
        ([None] * 5, None),
        ("x", None),
        (None, None),
        (..., None),
    ],
)
def test_whether_it_is_greedy(tops: Any, greedy: bool | None) -> None:
    found = answer(*SKY, choice(PLAIN, top_logprobs=tops))
    assert (found.fault, found.logprob, found.greedy) == (Fault.OK, -3.5, greedy)


def test_rounding_above_zero_is_tolerated() -> None:
    assert answer(*SKY, choice(PLAIN, changed(3, 1e-4))).fault is Fault.OK


@pytest.mark.parametrize(
    "one",
    [
        choice([" So"], [-0.1]),  # echo ignored: the generated token alone
        choice(PLAIN[1:]),  # the beginning is missing
        choice(PLAIN[:-2]),  # the end is missing
        choice(["The", " sea", " is", " blue", ".", " So"]),
        choice([f"token_id:{n}" for n in range(6)]),  # vLLM's --return-tokens-as-token-ids
        choice(PLAIN, changed(3, 0.5)),
        choice(PLAIN, changed(4, float("inf"))),
        choice(PLAIN, changed(4, "-1")),
        choice(PLAIN, changed(4, True)),
        choice(PLAIN, changed(4, [])),
        choice(PLAIN, token_logprobs=[-1.0] * 5),
        choice(PLAIN, token_logprobs=None),
        choice(PLAIN, tokens=[3] * 6),
        choice(PLAIN, top_logprobs=[{"x": 7.0}] * 6),
        choice([], []),
        {"index": 0, "text": "x", "logprobs": None},
        {"index": 0, "text": "x", "logprobs": {"content": [entry(" So", -0.5)]}},  # llama.cpp's server
        {"index": 0, "text": "x", "logprobs": {"content": [7]}},
        {"index": 0, "text": "x", "logprobs": [7]},
        {"index": 0, "text": "x", "prompt_logprobs": [7]},
    ],
)
def test_invalid_logprobs(one: Any) -> None:
    with pytest.raises(Invalid):
        continuation_logprob(one, *SKY)
    found = answer(*SKY, one)
    assert found.fault is Fault.SUPPLIER_PROTOCOL
    assert found.error


@pytest.mark.parametrize("first", ["<s>", "<|begin_of_text|>", "[CLS]"])
def test_a_whole_text_is_measured_behind_a_token_of_the_servers_own(first: str) -> None:
    """As lm-eval measures it, which puts that token in front itself (``loglikelihood_rolling``)."""
    tokens = [first, "The", " sky", " is", " blue", ".", " So"]
    one = choice(tokens)
    assert continuation_logprob(one, "", "The sky is blue.") == lm_eval_parse(one, 1)
    with pytest.raises(NotMeasurable, match="nothing precedes"):
        continuation_logprob(choice(tokens[1:]), "", "The sky is blue.")


@pytest.mark.parametrize(
    ("context", "continuation", "tokens"),
    [
        ("The sky is", " blue.", ["The", " sky", " is bl", "ue", ".", " So"]),
        ("Answer:", " A", ["Answer", ": A", " So"]),
        ("", "The sky", ["The", " sky", " is"]),  # nothing precedes the first token
        ("é", "é!", ["\ufffd", "\ufffd\ufffd", "\ufffd", "!"]),
        ("好", "é!", ["", "", "", "!"]),  # five bytes in three tokens, whichever belong to what
        (
            "caf\ufffd",
            " \ufffd",
            ["caf", "\ufffd", " ", "\ufffd", "\ufffd", "\ufffd"],
        ),  # pieces, or more text?
    ],
)
def test_what_tokens_do_not_show_is_nobodys_fault(context: str, continuation: str, tokens: list[str]) -> None:
    one = choice(tokens)
    with pytest.raises(NotMeasurable):
        continuation_logprob(one, context, continuation)
    found = answer(context, continuation, one)
    assert found.fault is Fault.UNSUPPORTED and not found.fault.blames_supplier
    assert found.logprob is None and found.error


# -- any tokens of any prompt -----------------------------------------------------------------------------

texts = st.text(
    st.sampled_from("ab \n:.éü€好😀\u0300") | st.characters(codec="utf-8"), min_size=1, max_size=12
)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, str, list[bytes], int]:
    """Context, continuation, the tokens of both and of what follows as bytes, how many are the prompt's."""
    context, continuation, more = draw(texts), draw(texts), draw(st.just("") | texts)
    data, tail = (context + continuation).encode(), more.encode()

    def cut(piece: bytes) -> list[bytes]:
        at = sorted(draw(st.sets(st.integers(1, max(1, len(piece) - 1)), max_size=12)))
        edges = [0, *at, len(piece)]
        return [piece[a:b] for a, b in pairwise(edges) if a < b]

    prompt = cut(data)
    return context, continuation, [*prompt, *cut(tail)], len(prompt)


def late(pieces: list[bytes]) -> list[str]:
    shown, seen = [], b""
    for piece in pieces:
        before = seen.decode("utf-8", "ignore")
        seen += piece
        shown.append(seen.decode("utf-8", "ignore")[len(before) :])
    return shown


def byte_level(pieces: list[bytes]) -> list[str]:
    # what prints stands for itself, the others for the characters from U+0100 on (GPT-2)
    odd = [byte for byte in range(256) if not (33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174)]
    return ["".join(chr(256 + odd.index(b)) if b in odd else chr(b) for b in piece) for piece in pieces]


MANNERS = {
    "text": lambda pieces: [piece.decode("utf-8") for piece in pieces],
    "replaced": lambda pieces: [piece.decode("utf-8", "replace") for piece in pieces],
    "hidden": lambda pieces: [piece.decode("utf-8", "ignore") for piece in pieces],
    "late": late,
    "byte-level": byte_level,
    "escaped": lambda pieces: ["bytes:" + "".join(f"\\x{byte:02x}" for byte in piece) for piece in pieces],
}
SPECIAL: list[list[str]] = [[], ["<s>"], [""], ["<s>", "<s>"], ["BOS"]]
OFFSETS = {
    "none": lambda pieces, shown: ...,
    "characters": lambda pieces, shown: [
        len(b"".join(pieces[:n]).decode("utf-8", "ignore")) for n in range(len(pieces))
    ],
    "bytes": lambda pieces, shown: [len(b"".join(pieces[:n])) for n in range(len(pieces))],
    "shown": lambda pieces, shown: [len("".join(shown[:n])) for n in range(len(pieces))],
    "from the continuation": lambda pieces, shown: [n - 3 for n in range(len(pieces))],
    "unknown": lambda pieces, shown: [-1] * len(pieces),
}


@settings(deadline=None, max_examples=150)
@given(
    tokenised(),
    st.sampled_from(sorted(MANNERS)),
    st.sampled_from(sorted(OFFSETS)),
    st.sampled_from(SPECIAL),
    st.booleans(),
    st.booleans(),
)
def test_any_split_gives_the_true_sum_or_none(
    case: tuple[str, str, list[bytes], int],
    manner: str,
    unit: str,
    special: list[str],
    text: bool,
    whole: bool,
) -> None:
    context, continuation, pieces, count = case
    if manner == "hidden" and unit == "bytes":
        special = []  # one without text looks like a piece, and bytes before a character like characters
    if whole or manner == "text":  # tokens of whole characters
        pieces = [
            char.encode() for piece in (pieces[:count], pieces[count:]) for char in b"".join(piece).decode()
        ]
        count = len(context + continuation)
    shown = MANNERS[manner](pieces)
    values = [-(2.0 ** -(n % 40)) - n for n in range(len(special) + len(pieces))]
    offsets = OFFSETS[unit](pieces, shown)
    if offsets is not ...:
        offsets = [0] * len(special) + offsets
    one = choice(special + shown, values, text_offset=offsets)
    one["text"] = (context + continuation + b"".join(pieces[count:]).decode()) if text else None
    boundary, ends, at = len(context.rstrip().encode()), [], 0
    for piece in pieces[:count]:
        ends.append(at)
        at += len(piece)
    true = sum(values[len(special) + n] for n in range(count) if ends[n] >= boundary)
    try:
        found, _ = continuation_logprob(one, context, continuation)
    except NotMeasurable:
        clear = (manner in ("text", "byte-level", "escaped") or whole) and (text or special != [""])
        alike = {"\ufffd", "\u00c3"} & set(context + continuation)
        assert boundary == 0 or boundary not in ends or not clear or alike
        return
    # where characters are shown late and cut at the very boundary, the answer looks as if they were whole
    if boundary in ends or manner != "late":
        assert boundary in ends
        assert found == pytest.approx(true, rel=1e-12)


# -- hostile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("é" * 5000, [""] * 20_000),
        ("é" * 5000, ["\ufffd"] * 20_000),
        ("é" * 5000, ["\ufffd" * 4] * 20_000),
        ("é" * 5000, ["\ufffdé\ufffd"] * 20_000),
        ("a" * 9000, ["a"] * 100_000),
        ("a" * 9000, ["\ufffd" * 100_000]),
        (" " * 9000, [""] * 100_000),
        ("<s>" * 3000, ["<s>"] * 4 + [""] * 9000),
        ("a", ["▁" * 500_000]),
    ],
)
def test_hostile_answers_come_to_an_end(prompt: str, tokens: list[str]) -> None:
    """Each of these would take minutes or more if all its ways were followed."""
    values = [-1.0] * len(tokens)
    one = {"index": 0, "text": None, "logprobs": {"tokens": tokens, "token_logprobs": values}}
    with contextlib.suppress(Invalid, NotMeasurable):
        continuation_logprob(one, prompt, "xé!")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["a", "b", "", "\ufffd", "ab", "c"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=10,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": json_values,
            "logprobs": json_values
            | st.fixed_dictionaries(
                {},
                optional=dict.fromkeys(
                    ("tokens", "token_logprobs", "top_logprobs", "text_offset", "content"), json_values
                ),
            ),
            "prompt_logprobs": json_values,
        },
    )
)
def test_never_raises_anything_else(one: dict[str, Any]) -> None:
    try:
        total, greedy = continuation_logprob(one, "ab", "c")
    except (Invalid, NotMeasurable):
        return
    assert isinstance(total, float) and not math.isnan(total)
    assert greedy in (True, False, None)


def test_an_offset_of_hundreds_of_digits_is_none() -> None:
    """It is no float: who sends it where it would be wrong is read like everybody."""
    tokens = ["The", " sky", " is", " blue", "."]
    plain = answer("The sky is", " blue", choice(tokens))
    for offset in (10**400, -(10**400), 2**63):
        found = answer("The sky is", " blue", choice(tokens, text_offset=[offset] * len(tokens)))
        assert (found.fault, found.logprob) == (Fault.OK, plain.logprob), offset


def test_an_answer_that_our_own_mistake_cannot_read_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those count nowhere, and the supplier chose the answer."""

    def broken(*_: Any) -> float:
        raise OverflowError("a secret of the supplier")

    monkeypatch.setattr("testbench_dagster.transports.answers.continuation_logprob", broken)
    found = answer("The sky is", " blue", choice(["The", " sky", " is", " blue", "."]))
    assert (found.fault, found.error) == (Fault.SUPPLIER_PROTOCOL, "OverflowError while it was read")
