"""Secrets are taken out of what servers send, in whatever notation honest servers quote them."""

from __future__ import annotations

import base64
import html
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.transports.redaction import REDACTED, _spellings, redacted, redacted_body

KEY = "sk-S3cr3t/AAA+bbb=ccc\"dd&ee\\f'<KEYKEY>"
NOTATIONS: dict[str, Callable[[str], str]] = {
    "bare": str,
    "json": lambda s: json.dumps(s)[1:-1],
    "json_in_json": lambda s: json.dumps(json.dumps(s))[3:-3],
    "php": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "dotnet": lambda s: re.sub(r"[^A-Za-z0-9]", lambda c: f"\\u{ord(c[0]):04X}", s),
    "all_escaped": lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
    "python": lambda s: repr(s.encode())[2:-1],
    "url": lambda s: quote(s, safe=""),
    "url_lower": lambda s: re.sub(r"%..", lambda c: c[0].lower(), quote(s, safe="")),
    "url_twice": lambda s: quote(quote(s, safe=""), safe=""),
    "url_path": lambda s: quote(s),
    "html": html.escape,
    "html_numbers": lambda s: re.sub(r"[^A-Za-z0-9]", lambda c: f"&#{ord(c[0])};", s),
    "html_hex": lambda s: re.sub(r"[^A-Za-z0-9]", lambda c: f"&#x{ord(c[0]):X};", s),
    "base64": lambda s: packed(s),
    "base64_php": lambda s: packed(s).replace("/", "\\/"),
    "base64_url": lambda s: quote(packed(s), safe=""),
    "upper_escapes": lambda s: "".join(f"\\U{ord(c):04X}" for c in s),
    "hex": lambda s: "".join(f"\\X{ord(c):02X}" for c in s),
}


def packed(secret: str) -> str:
    """All of base64 that does not depend on what follows."""
    return base64.b64encode(secret.encode()).decode()[: len(secret.encode()) // 3 * 4]


secrets = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8, max_size=40).filter(
    lambda s: s.strip() == s and " " not in s and not REDACTED.startswith(s)
)


@pytest.mark.parametrize("notation", NOTATIONS)
@given(secret=secrets | st.just(KEY), before=st.text(max_size=5), after=st.text(max_size=5))
def test_in_every_notation(notation: str, secret: str, before: str, after: str) -> None:
    said = NOTATIONS[notation](secret)
    found = redacted_body(f"{before} {said} {after}".encode(), (secret.encode(),))
    assert said.encode() not in found.replace(REDACTED.encode(), b"")
    assert REDACTED.encode() in found
    # nothing else is gone
    assert found.startswith(before.encode()) and found.endswith(after.encode())


@pytest.mark.parametrize("form", ["utf-16-le", "utf-16-be", "utf-16", "utf-32", "utf-32-be"])
def test_in_wide_bodies(form: str) -> None:
    body = json.dumps({"error": f"bad key {KEY}, sk-"}, ensure_ascii=False).encode(form)
    found = redacted_body(body, (KEY.encode(),)).decode(form)
    assert json.loads(found)["error"] == f"bad key {REDACTED}, sk-"


@pytest.mark.parametrize("form", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_in_what_is_wide_in_part(form: str) -> None:
    body = b"\xff" + KEY.encode(form) + b"\xff\xd8"
    assert KEY.encode(form) not in redacted_body(body, (KEY.encode(),))


@given(st.binary(max_size=200), st.lists(secrets, max_size=3))
def test_what_holds_no_secret_is_the_same_object(body: bytes, found: list[str]) -> None:
    kept = tuple(each.encode() for each in found)
    if not any(len(b) > 7 and chr(b[0]) in body.decode("latin-1") for b in kept):
        assert redacted_body(body, kept) is body


@given(secret=secrets, size=st.integers(6, 39))
def test_the_beginning_of_a_secret_at_which_a_body_breaks_off(secret: str, size: int) -> None:
    begun = secret[: min(size, len(secret) - 1)]
    body = b'{"error": "key \x00' + begun.encode()
    assert redacted_body(body, (secret.encode(),), cut=True) == b'{"error": "key \x00' + REDACTED.encode()
    assert redacted_body(body, (secret.encode(),)) is body
    assert redacted(f"key {begun}…", (secret.encode(),)) == f"key {REDACTED}…"


def test_texts_keep_what_cannot_be_encoded() -> None:
    assert redacted("\ud83d sk-12345678", (b"sk-12345678",)) == f"\ud83d {REDACTED}"
    assert redacted("sk-12345678", ()) == "sk-12345678"


def thoroughly(body: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The body without secrets, each looked for in every way: without the search for where one may be."""
    for secret in kept:
        body = _spellings(secret).removed(body)
    return body


def pieces(kept: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Parts of bodies: secrets in all notations, whole, begun and with any of their letters escaped."""
    whole = st.sampled_from(kept)
    said = st.builds(lambda s, notation: NOTATIONS[notation](s), whole, st.sampled_from(sorted(NOTATIONS)))
    begun = st.builds(lambda s, size: s[:size], said, st.integers(0, 60))
    escapes = ("\\u%04x", "\\\\u%04X", "\\x%02x", "&#%d;", "%%%02x")
    one_escaped = st.builds(
        lambda s, at, way: s[: at % len(s)] + way % ord(s[at % len(s)]) + s[at % len(s) + 1 :],
        whole,
        st.integers(0, 40),
        st.sampled_from(escapes),
    )
    between = st.sampled_from(["", " ", '"', "\\", "\\n", "\\u00", "\\x", "\0", "…", "é", "\ud83d"])
    return st.lists(said | begun | one_escaped | between, max_size=6).map("".join)


@given(st.data(), st.lists(secrets | st.just(KEY), min_size=1, max_size=3))
def test_the_quick_search_misses_nothing_that_a_thorough_one_finds(
    data: st.DataObject, kept: list[str]
) -> None:
    known = tuple(secret.encode() for secret in kept)
    text = data.draw(pieces(tuple(kept)))
    for form in ("utf-8", "utf-16-le", "utf-32-be"):
        body = text.encode(form, "surrogatepass")
        assert redacted_body(body, known) == thoroughly(body, known)
    if not text.endswith("…"):
        found = thoroughly(text.encode("utf-8", "surrogatepass"), known)
        assert redacted(text, known).encode("utf-8", "surrogatepass") == found


@given(st.data(), st.lists(secrets | st.just(KEY), min_size=1, max_size=3))
def test_what_json_hides_in_a_body_is_found_in_its_text(data: st.DataObject, kept: list[str]) -> None:
    # any letter may be escaped in the body, not just the first: its text is searched for itself
    secret = data.draw(st.sampled_from(kept))
    known = tuple(each.encode() for each in kept)
    hidden = "".join(
        f"\\u{ord(c):04x}" if data.draw(st.booleans()) else json.dumps(c)[1:-1].replace("/", "\\/")
        for c in secret
    )
    body = redacted_body(f'{{"text": "so: {hidden}."}}'.encode(), known)
    try:
        text = json.loads(body)["text"]
    except ValueError:  # a secret of digits may stand across an escape, which is then none any more
        assert REDACTED.encode() in body
        return
    assert secret not in redacted(text, known)


@given(secret=secrets, size=st.integers(6, 39))
def test_short_texts_are_searched(secret: str, size: int) -> None:
    known = (secret.encode(),)
    assert redacted(secret, known) == REDACTED
    begun = secret[: min(size, len(secret) - 1)]
    assert redacted(f"{begun}…", known) == f"{REDACTED}…"
    assert redacted("stop", known) == "stop"


def test_a_hostile_body_takes_time_in_proportion() -> None:
    secret = (b'/"+&=<' * 6)[:32]
    for piece in (b"\\", b"\\\\u002f", b"%25", b"&amp;", b'/"+&=<', b"\0/", b"&#000000"):
        body = piece * (2_000_000 // len(piece))
        began = time.process_time()
        redacted_body(body, (secret, b"sk-12345678"), cut=True)
        assert time.process_time() - began < 5, piece  # at most 0.3 s
