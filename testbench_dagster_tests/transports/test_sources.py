"""Supplier sources: what is read of them, within which bounds, and what is refused of what they list."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.config import SupplierSource
from testbench_dagster.config.asking import Asking, merged
from testbench_dagster.transports import discovery
from testbench_dagster.transports.direct import rosters
from testbench_dagster.transports.direct.rosters import (
    Roster,
    RosterFile,
    RosterSource,
    RosterUrl,
    parse_entries,
    parse_roster,
)
from testbench_dagster.transports.discovery import Listing, SourceError, read_sources
from testbench_dagster_tests.rosters import PUBLIC, entry, write_roster

SOURCE = SupplierSource(file="roster.json", api_key_env="THEIR_KEY")
OURS = SupplierSource(file="roster.json", name="ours", allow_private_networks=True)
SECRET = "tok-123456789"


def problem(bad: Any, source: SupplierSource = SOURCE) -> str:
    found = parse_entries(Roster([bad]), source)
    assert found.suppliers == {}
    (text,) = found.problems.values()
    return text


# ---------------------------------------------------------------------------------------------- entries


def test_a_good_entry_takes_the_key_of_its_source_and_nothing_else() -> None:
    extra = entry("a", api="completions", max_in_flight=9999, region="eu", pubkey="04ab", max_tokens=7)
    found = parse_entries(Roster([extra, entry("b", service=None)]), SOURCE)
    assert found.problems == {} and found.broken == set()
    a = found.suppliers["a@s"]
    assert (a.api, a.api_key_env, a.max_in_flight) == ("completions", "THEIR_KEY", None)
    assert found.suppliers["b@external"].api == "chat"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (7, "entry 7 is no object"),
        (entry("a", api="grpc"), "api 'grpc' is not usable: Input should be 'chat' or 'completions'"),
        (entry("a", base_url="8.8.8.8/v1"), "base_url '8.8.8.8/v1' is not usable"),
        (entry("a", base_url="http://8.8.8.8/v1?x=1"), "may not have a query"),
        (entry("a", base_url="http://h/" + "x" * 3000), "has 3009 characters; 1 to 2048"),
        (entry("a", base_url="http://8.8.8.8 /v1"), "holds characters that are not allowed"),
        (entry("a", base_url="http://x\u2024y/v1"), "holds characters that are not allowed"),
        (entry("a", base_url=["http://8.8.8.8"]), "base_url (a list) is not usable"),
        (entry("a", base_url=None), "base_url is missing; add it"),
        (entry("a", model=None), "model is missing; add it"),
        (entry("a", model=""), "model '' has 0 characters"),
        (entry("a", model="x" * 300), "has 300 characters; 1 to 256"),
        (entry("a", model="a\x1b[31m"), "holds characters that are not allowed"),
        (entry("a", transport="shannon"), "transport 'shannon' is not supported"),
        (entry("a b", base_url=PUBLIC), "cannot be part of a partition key"),
        (entry("a" * 200), "cannot be part of a partition key"),
        (entry(None), "address None is not usable: Field required"),
        (entry("a", service="x@y"), "cannot be part of a partition key"),
        (entry("a", base_url="http://10.0.0.1/v1"), "is refused: 10.0.0.1 is a private"),
        (entry("a", base_url="http://[::1]:80/v1"), "is refused: ::1 is a private"),
        (entry("a", base_url="http://localhost/v1"), "is refused: localhost is this machine"),
    ],
)
def test_bad_entries_name_field_value_and_remedy(bad: Any, said: str) -> None:
    text = problem(bad)
    assert said in text
    assert text.startswith("roster.json: suppliers[0]: ")
    assert text.isprintable() and len(text) < 700


@pytest.mark.parametrize(
    "name",
    ["api_key", "apiKey", "api_key_env", "API-KEY", "headers", "header", "token", "bearer_token", "secret",
     "password", "Authorization", "auth", "credentials", "cookie", "key", "private_key", "x-access-key"],
)  # fmt: skip
def test_a_source_cannot_name_keys(name: str) -> None:
    text = problem({**entry("a"), name: SECRET})
    assert f"{name} may not be given by a source" in text
    assert SECRET not in text


def test_how_its_suppliers_are_asked_is_not_for_a_source_to_say() -> None:
    asked = {"generation": {"budget": 5}, "query": {"a": "b"}, "proxy": "http://p:1", "tls": {"ca_file": "x"}}
    (supplier,) = parse_entries(Roster([{**entry("a"), **asked}]), SOURCE).suppliers.values()
    assert merged(supplier) == Asking()


def test_credentials_in_a_url_are_refused_without_showing_them() -> None:
    text = problem(entry("a", base_url=f"http://me:{SECRET}@8.8.8.8/v1"))
    assert "may not hold credentials" in text and SECRET not in text


def test_private_addresses_are_for_trusted_sources() -> None:
    mine = entry("a", base_url="http://127.0.0.1:9/v1")
    assert "allow_private_networks" in problem(mine)
    assert list(parse_entries(Roster([mine]), OURS).suppliers) == ["a@s"]


def test_bad_and_repeated_entries_leave_the_others_alone() -> None:
    listing = Roster([entry("a"), entry("b", api="x"), entry("a", model="n"), entry("b"), entry("c"), None])
    found = parse_entries(listing, SOURCE)
    assert {key: s.model for key, s in found.suppliers.items()} == {"a@s": "m", "c@s": "m"}
    assert found.broken == {"b@s"}
    assert set(found.problems) == {"a@s", "b@s", "roster.json: suppliers[3]", "roster.json: suppliers[5]"}
    assert "suppliers[2]: address 'a@s' is listed before" in found.problems["a@s"]


def test_a_flood_of_bad_entries_is_told_in_brief() -> None:
    found = parse_entries(Roster([entry(f"a{n}", api="x") for n in range(5000)]), SOURCE)
    assert len(found.problems) == 101
    assert found.problems["roster.json: further entries"] == "4900 more cannot be used either"
    assert len(found.broken) == 5000


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
_names = st.sampled_from(["address", "service", "base_url", "api", "model", "transport", "key", "x"])
_entries = st.dictionaries(
    _names,
    _scalars
    | st.sampled_from(["a", "http://8.8.8.8/v1", "http://10.0.0.1", "http://u:p@h", "chat", "//", "http://["])
    | st.lists(_scalars, max_size=2),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(_entries | _scalars, max_size=4))
def test_any_entries_become_usable_suppliers_or_problems(entries: list[Any]) -> None:
    found = parse_entries(Roster(entries), SOURCE)
    assert len(found.suppliers) + len(found.problems) == len(entries)
    assert not found.broken & set(found.suppliers)
    for key, supplier in found.suppliers.items():
        assert supplier.key == key and supplier.api in ("chat", "completions") and supplier.model
        assert supplier.base_url.startswith(("http://", "https://")) and "@" not in supplier.base_url
        assert not supplier.base_url.startswith("http://10.")
    assert all(text.isprintable() for text in found.problems.values())


@settings(deadline=None)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_:-]{0,40}", fullmatch=True),
    st.sampled_from(["chat", "completions"]),
)
def test_every_good_entry_is_taken_as_it_is(address: str, api: str) -> None:
    found = parse_entries(Roster([entry(address, api=api, base_url="https://host.example/v1/")]), SOURCE)
    (supplier,) = found.suppliers.values()
    assert (supplier.address, supplier.api, supplier.base_url) == (address, api, "https://host.example/v1")


# --------------------------------------------------------------------------------------------- listings


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is no valid JSON"),
        (b"{", "is no valid JSON"),
        (b"\xff", "is no valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "is no valid JSON"),
        (b"[]", "is no roster"),
        (b"{}", "is no roster"),
        (b'{"suppliers": {}}', "is no roster"),
        (b'{"suppliers": [], "height": "9"}', "height '9' is no block height"),
        (b'{"suppliers": [], "height": true}', "height True is no block height"),
        (b'{"suppliers": [], "height": -1}', "height -1 is no block height"),
        (b'{"suppliers": [], "height": 1e30}', "height 1e\\+30 is no block height"),
    ],
)
def test_what_is_no_roster(body: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        parse_roster(body)


def test_listings_with_and_without_a_height() -> None:
    assert parse_roster(b'{"suppliers": []}') == Roster([], None)
    assert parse_roster(b'{"suppliers": [1], "height": 12, "seed": 3}') == Roster([1], 12)


def test_files_are_bounded_and_relative_to_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RosterSource.from_settings(SupplierSource(file="r.json"), tmp_path).reader
    assert source == RosterFile(tmp_path / "r.json")
    with pytest.raises(SourceError, match=r"cannot read .*r\.json: No such file"):
        source.read(time.monotonic() + 5)
    write_roster(tmp_path / "r.json", [entry("a")])
    assert source.read(time.monotonic() + 5).suppliers == [entry("a")]
    monkeypatch.setattr(rosters, "MAX_BYTES", 50)
    with pytest.raises(SourceError, match="is larger than"):
        source.read(time.monotonic() + 5)


class _Roster(http.server.BaseHTTPRequestHandler):
    """Serves a roster in several ways, by path."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = json.dumps({"suppliers": [entry("a")], "height": 5}).encode()
        if self.path == "/token" and self.headers["Authorization"] != f"Bearer {SECRET}":
            self.send_response(401)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/ok")
        else:
            self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path == "/drip":  # never ends, and never pauses for long
            while True:
                try:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
                except OSError:
                    return
        if self.path == "/huge":
            body = b" " * 1_000_000
        self.wfile.write(body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Roster) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(url: str, **options: Any) -> Roster:
    return RosterUrl(url, **{"timeout_s": 5, **options}).read(time.monotonic() + 5)


def test_an_http_roster_with_its_token(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(f"{url}/ok") == Roster([entry("a")], 5)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for this machine
    monkeypatch.setenv("ROSTER_TOKEN", SECRET)
    assert read(f"{url}/token", token_env="ROSTER_TOKEN").height == 5
    monkeypatch.setenv("ROSTER_TOKEN", "wrong")
    with pytest.raises(SourceError, match="answers HTTP 401; check url and token_env"):
        read(f"{url}/token", token_env="ROSTER_TOKEN")
    monkeypatch.delenv("ROSTER_TOKEN")
    with pytest.raises(SourceError, match="token_env names ROSTER_TOKEN, which holds no usable token"):
        read(f"{url}/token", token_env="ROSTER_TOKEN")
    monkeypatch.setenv("ROSTER_TOKEN", f"{SECRET}\n")
    with pytest.raises(SourceError) as caught:
        read(f"{url}/token", token_env="ROSTER_TOKEN")
    assert SECRET not in str(caught.value)


def test_http_rosters_that_are_not_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="redirects are not followed"):
        read(f"{url}/moved")
    with pytest.raises(SourceError, match=r"answers compressed \(gzip\), which was not asked for"):
        read(f"{url}/packed")
    with pytest.raises(SourceError, match="is not reachable"):
        read("http://127.0.0.1:9/roster")
    monkeypatch.setattr(discovery, "MAX_BYTES", 500_000)
    monkeypatch.setattr(rosters, "MAX_BYTES", 500_000)
    with pytest.raises(SourceError, match="is larger than"):
        read(f"{url}/huge")


def test_a_roster_that_drips_ends_at_its_time_limit(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"no complete answer within 0\.3 s; raise timeout_s"):
        read(f"{url}/drip", timeout_s=0.3)
    assert time.monotonic() - started < 20


def test_sources_are_read_at_once_and_one_that_fails_stands_alone(url: str) -> None:
    slow = {f"slow {n}": RosterSource(SOURCE, RosterUrl(f"{url}/drip", timeout_s=4)) for n in range(7)}
    started = time.monotonic()
    good = RosterSource(SOURCE, RosterUrl(f"{url}/ok", timeout_s=30))
    found = read_sources({**slow, "good": good}, deadline_s=60)
    assert time.monotonic() - started < 25  # one after the other: 28 s
    assert list(found) == [*slow, "good"]
    listing = found["good"]
    assert isinstance(listing, Listing)
    assert [e.config.key for e in listing.entries] == ["a@s"]
    assert (listing.height, listing.heights) == (5, {"s": 5})
    assert all(isinstance(found[label], SourceError) for label in slow)
    assert read_sources({}, deadline_s=1) == {}


def test_the_deadline_binds_also_sources_that_ignore_it() -> None:
    over = threading.Event()

    class Stuck:
        def read(self, deadline: float) -> Listing:
            over.wait(60)
            return Listing([])

    started = time.monotonic()
    found = read_sources({"stuck": Stuck()}, deadline_s=0.2)
    assert time.monotonic() - started < 20
    over.set()
    assert "was not read within 0.2 s" in str(found["stuck"])
