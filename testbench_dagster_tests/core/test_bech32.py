"""Texts of BIP-173, and that a misspelt address is never taken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core import bech32
from testbench_dagster.core.bech32 import decode, encode, is_address
from testbench_dagster.core.errors import KeyMaterialError

ADDRESS = "pokt1mrqt5f7qh8uxs27cjm9t7v9e74a9vvdnq5jva4"  # pocket-relay-miner, examples/relay-signing


@pytest.mark.parametrize(
    ("text", "hrp", "data"),
    [
        ("A12UEL5L", "a", ""),
        (
            "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
            "abcdef",
            "00443214c74254b635cf84653a56d7c675be77df",
        ),
        ("11" + "q" * 82 + "c8247j", "1", "00" * 51),
        (
            "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
            "split",
            "c5f38b70305f519bf66d85fb6cf03058f3dde463ecd7918f2dc743918f2d",
        ),
        ("?1ezyfcl", "?", ""),
    ],
)
def test_texts_of_the_standard(text: str, hrp: str, data: str) -> None:
    assert decode(text) == (hrp, bytes.fromhex(data))
    assert encode(hrp, bytes.fromhex(data)) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "\x201nwldj5",  # BIP-173's invalid texts
        "\x7f1axkwrx",
        "\x801eym55h",
        "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
        "pzry9x0s0muk",
        "1pzry9x0s0muk",
        "x1b4n0q5v",
        "li1dgmt3",
        "de1lg7wt\xff",
        "A1G7SGD8",
        "10a06t8",
        "1qzzfhee",
        "",
        "1",
        "pokt1",
        ADDRESS[:10] + ADDRESS[10:].upper(),
        "a1lqfn3a",  # bech32m, of BIP-350
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(KeyMaterialError):
        decode(text)
    assert not is_address(text)


@pytest.mark.parametrize("groups", [[0], [0, 1], [0, 0, 0], [0] * 7 + [1, 0]])
def test_other_than_whole_bytes_is_refused(groups: list[int]) -> None:
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    check = bech32._checksum([*bech32._expanded("pokt"), *groups, *[0] * 6]) ^ 1
    text = "pokt1" + "".join(letters[g] for g in [*groups, *[check >> 5 * (5 - i) & 31 for i in range(6)]])
    with pytest.raises(KeyMaterialError, match="whole number of bytes"):
        decode(text)


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["pokt", "poktvaloper", "p1"]))
def test_what_is_written_is_read(data: bytes, hrp: str) -> None:
    text = encode(hrp, data)
    assert decode(text) == decode(text.upper()) == (hrp, data)
    assert is_address(text, hrp) == (len(data) == 20)


@settings(deadline=None)
@given(st.integers(5, len(ADDRESS) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7lbio1 "))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    text = ADDRESS[:place] + letter + ADDRESS[place + 1 :]
    assert is_address(text) == (text == ADDRESS)


@settings(deadline=None)
@given(st.text(max_size=100))
def test_nothing_else_is_raised(text: str) -> None:
    assert not is_address(text)


def test_what_counts_as_an_address() -> None:
    assert is_address(ADDRESS)
    assert not is_address(ADDRESS.upper())
    assert not is_address(ADDRESS, "poktvaloper")
    assert not is_address(encode("cosmos", decode(ADDRESS)[1]))


@pytest.mark.parametrize(
    ("hrp", "size"), [("pokt", 60), ("", 20), ("Pokt", 20), ("p t", 20), ("p\u00f8", 20)]
)
def test_what_has_no_text_is_refused(hrp: str, size: int) -> None:
    with pytest.raises(KeyMaterialError, match="prefix"):
        encode(hrp, bytes(size))
