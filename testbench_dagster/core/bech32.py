"""Bech32 (BIP-173), the notation of addresses on Pocket: ``pokt1`` and 20 bytes in letters, checksummed."""

from __future__ import annotations

from collections.abc import Iterable

from testbench_dagster.core.errors import KeyMaterialError
from testbench_dagster.core.wording import counted

#: Human-readable part of addresses of accounts, applications, gateways and suppliers.
HRP = "pokt"
ADDRESS_BYTES = 20
#: Longest text BIP-173 allows.
MAX_LENGTH = 90
_CHECKSUM_LETTERS = 6
_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {letter: value for value, letter in enumerate(_LETTERS)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode(hrp: str, data: bytes) -> str:
    """Return the bech32 text of bytes. Raises :class:`KeyMaterialError` if there is none."""
    groups, rest, bits = _regroup(data, 8, 5)
    if bits:
        groups.append(rest << 5 - bits)
    length = len(hrp) + 1 + len(groups) + _CHECKSUM_LETTERS
    if not hrp or length > MAX_LENGTH or not _printable(hrp) or hrp != hrp.lower():
        raise KeyMaterialError(
            f"no bech32 text holds {counted(len(data), 'byte')} with prefix {hrp[:MAX_LENGTH]!r}: give a "
            f"prefix in lower case, and no more than {MAX_LENGTH} letters in all"
        )
    check = _checksum([*_expanded(hrp), *groups, *[0] * _CHECKSUM_LETTERS]) ^ 1
    groups += [check >> 5 * place & 31 for place in reversed(range(_CHECKSUM_LETTERS))]
    return f"{hrp}1{''.join(_LETTERS[group] for group in groups)}"


def decode(text: str) -> tuple[str, bytes]:
    """Return prefix and bytes of a bech32 text. Raises :class:`KeyMaterialError` for anything else."""
    hrp, _, letters = text.lower().rpartition("1")
    if not hrp or len(text) > MAX_LENGTH or len(letters) < _CHECKSUM_LETTERS or not _printable(text):
        raise KeyMaterialError(f"{text[:MAX_LENGTH]!r} is no bech32 text such as pokt1...")
    if text not in (text.lower(), text.upper()) or not _VALUES.keys() >= set(letters):
        raise KeyMaterialError(
            f"{text!r} is no bech32 text: of mixed case, or with one of the letters 1, b, i, o"
        )
    groups = [_VALUES[letter] for letter in letters]
    if _checksum([*_expanded(hrp), *groups]) != 1:
        raise KeyMaterialError(f"{text!r} is misspelt: its checksum does not fit")
    data, rest, bits = _regroup(groups[:-_CHECKSUM_LETTERS], 5, 8)
    if rest or bits > 4:
        raise KeyMaterialError(f"{text!r} holds no whole number of bytes")
    return hrp, bytes(data)


def is_address(text: str, hrp: str = HRP) -> bool:
    """Whether a text is an address: right prefix, right checksum, 20 bytes, lower case."""
    try:
        found, data = decode(text)
    except KeyMaterialError:
        return False
    return found == hrp and len(data) == ADDRESS_BYTES and text == text.lower()


def _printable(text: str) -> bool:
    return all(33 <= ord(letter) <= 126 for letter in text)


def _expanded(hrp: str) -> list[int]:
    codes = [ord(letter) for letter in hrp]
    return [*[code >> 5 for code in codes], 0, *[code & 31 for code in codes]]


def _checksum(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for place, term in enumerate(_GENERATOR):
            state ^= term if top >> place & 1 else 0
    return state


def _regroup(values: Iterable[int], width: int, wanted: int) -> tuple[list[int], int, int]:
    """Cut bits into groups of another width; return them, the rest and how many bits it has."""
    rest = bits = 0
    groups = []
    for value in values:
        rest = rest << width | value
        bits += width
        while bits >= wanted:
            bits -= wanted
            groups.append(rest >> bits)
            rest &= (1 << bits) - 1
    return groups, rest, bits
