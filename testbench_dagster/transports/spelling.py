"""Which tokens of an answer spell the prompt, and at which of them its continuation begins and ends.

Servers show the text of tokens in several ways, and only bytes are cut into tokens: a token may begin or end
inside a character. So a token is a stretch of the prompt's bytes, and what is shown of it one of:

=============  ==========================================================================================
exact          its bytes, or its text; pieces of a character may be shown as ``""`` until the token that
               completes it (vLLM)
vocabulary     as vocabularies write it: ``Ġ`` or ``▁`` for a space, ``<0xE2>`` for a byte (byte-level BPE,
               sentencepiece), ``bytes:\\xe2`` (OpenAI in 2021); with a space before the first word
replaced       a piece of a character is one U+FFFD, or one per byte (decoders that do not fail)
hidden         a piece of a character is nothing, even where it stands beside others (llama-cpp-python)
spaceless      as above, without the space before a word (sentencepiece's decoder, a token at a time)
unclear        a token that shows U+FFFD stands for any bytes; what the first one shows need not be its text
=============  ==========================================================================================

They are tried in this order, and the first that spells the prompt counts. All ways in which the tokens can
spell it are followed at once. Where these do not agree on the tokens of the continuation, and the text after
the prompt does not decide, nothing is said instead of something that may be wrong. Offsets are believed only
where they count the characters, hidden ones among them: they may count anything else from anywhere, be wrong,
or left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise

#: How a decoder shows bytes that are no whole character.
REPLACEMENT = "\ufffd"
#: Characters that pieces of themselves are shown as; in byte-level vocabularies that is this one, 0xC3 0x83.
_ALIKE = (REPLACEMENT, "\u00c3")
#: Special tokens that a server may put in front of the prompt.
_MOST_SPECIAL = 4
_SPECIAL = re.compile(r"<[^<>\s]{1,48}>|\[[A-Za-z]{1,16}\]")
_SENTENCEPIECE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ESCAPED_BYTE = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_OPENAI_BYTES = "bytes:"
_SPACES = re.compile("[ ▁Ġ]")
_WRITTEN_SPACES = str.maketrans("▁ĠĊĉč", "  \n\t\r")
#: What one token that is not shown truly may stand for; the longest of common vocabularies is 128 spaces.
_MOST_UNCLEAR_BYTES = 64
#: A hostile answer may be followed in many ways; nothing honest comes near.
_MOST_POSITIONS = 512
_MOST_STEPS = 400_000

_BEFORE, _ACROSS = -1, -2  # marks of a way that has not come to the boundary, or has jumped over it

Moves = Callable[[int, int], Iterable[int]]
"""From a token's index and where it begins in the prompt to where it may end, in bytes."""


class NotThePrompt(Exception):
    """The tokens do not spell the prompt: it is not echoed, or not whole."""


class AcrossTheBoundary(Exception):
    """The prompt is echoed, but its tokens do not say which of them make up the continuation."""


class _TooMany(Exception):
    """There are more ways than are followed."""


@dataclass(frozen=True, slots=True)
class Echo:
    """The tokens of an answer as shown; lists beside ``tokens`` are as long, or None.

    ``raw`` are their bytes, where the server gives them, and ``offsets`` where each begins, in whatever unit
    and from wherever it counts. ``rest`` is the text after the prompt, where the server gives the text.
    """

    tokens: Sequence[str | None]
    raw: Sequence[bytes | None] | None = None
    offsets: Sequence[int] | None = None
    rest: str | None = None


def continuation_tokens(prompt: str, boundary: int, echo: Echo) -> tuple[int, int]:
    """Index of the continuation's first token, and of the first one after the prompt.

    Args:
        prompt: context and continuation.
        boundary: characters of the context, less than the prompt's.
        echo: tokens that spell the prompt, after special ones and before generated ones, if any.

    Raises:
        NotThePrompt: they do not spell it.
        AcrossTheBoundary: a token belongs to both context and continuation, or it cannot be told whether.
    """
    ways = _ways(_Prompt(prompt, boundary), echo)
    if not ways:
        raise NotThePrompt("the tokens do not spell the prompt (echo ignored, or not whole)")
    if len(ways) > 1 and echo.rest is not None:
        ways = {way for way in ways if _spell(echo.tokens[way[1] :], echo.rest)} or ways
    if all(start == _ACROSS for start, _ in ways):
        raise AcrossTheBoundary("a token straddles the boundary between context and continuation")
    if len(ways) > 1:
        raise AcrossTheBoundary("the tokens do not show where the continuation begins and ends")
    return ways.pop()


class _Prompt:
    """The bytes of a prompt, and where in them the continuation begins."""

    def __init__(self, prompt: str, boundary: int) -> None:
        self.data = encoded(prompt)
        self.size = len(self.data)
        self.boundary = len(encoded(prompt[:boundary]))

    def inside(self, pos: int) -> bool:
        """Whether a character has begun before a byte."""
        return pos < self.size and self.data[pos] & 0xC0 == 0x80

    def char_end(self, pos: int) -> int:
        """Where the character ends that a byte belongs to."""
        end = pos + 1
        while self.inside(end):
            end += 1
        return end

    def characters(self) -> list[int]:
        """By position how many characters have ended before or at it."""
        found, ended = [0], 0
        for pos in range(1, self.size + 1):
            ended += not self.inside(pos)
            found.append(ended)
        return found


def encoded(text: str) -> bytes:
    """UTF-8 of any text, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


# -- ways -------------------------------------------------------------------------------------------------


def _ways(prompt: _Prompt, echo: Echo) -> set[tuple[int, int]]:
    """All spans that the tokens allow, by the first manner in which they spell the prompt."""
    tokens = echo.tokens
    shown = [None if token is None else encoded(token) for token in tokens]
    # of the prompt itself, or what pieces of characters are shown as?
    alike = [char for char in _ALIKE if encoded(char) in prompt.data]
    exact = not any(token and char in token for token in tokens for char in alike)
    likely, unlikely = _starts(prompt, shown, tokens)
    # what stands in front is skipped where it has to be; a context without text is what stands in front
    starts = [*(likely if prompt.boundary else likely[::-1]), *unlikely]
    if echo.raw is not None and any(raw is not None for raw in echo.raw):
        pieces = [text if raw is None else raw for raw, text in zip(echo.raw, shown, strict=True)]
        if found := _first(_exactly(prompt, pieces, start) for start in starts):
            return found
    forms, steps = _Forms(tokens, prompt.size), _Steps()
    if exact and (found := _first(_exactly(prompt, shown, start) for start in starts)):
        # pieces that another one completes, or hidden ones and then more of the same?
        if not all(tokens):
            with suppress(_TooMany):
                for start in likely:
                    moves = _hidden_moves(prompt, tokens)
                    found |= _follow(prompt, len(tokens), moves, start, steps)
        return found
    for readings in _manners(prompt, echo, forms):
        try:
            for group in (likely, unlikely):
                ways: set[tuple[int, int]] = set()
                for reading in readings:
                    for start in group:
                        ways |= _follow(prompt, len(tokens), reading(start), start, steps)
                    if not ways:
                        break
                if ways:
                    return ways
        except _TooMany:
            continue
    return set()


def _first(found: Iterable[set[tuple[int, int]]]) -> set[tuple[int, int]]:
    return next((ways for ways in found if ways), set())


class _Steps:
    """How far all ways together were followed."""

    def __init__(self) -> None:
        self._left = _MOST_STEPS

    def take(self, count: int) -> None:
        """Take steps.

        Raises:
            _TooMany: there are none left.
        """
        self._left -= count
        if self._left < 0:
            raise _TooMany


def _starts(
    prompt: _Prompt, shown: Sequence[bytes | None], tokens: Sequence[str | None]
) -> tuple[list[int], list[int]]:
    """At which token the prompt may begin: the first, or behind special ones; or behind another first one."""
    likely = [0]
    while likely[-1] < min(_MOST_SPECIAL, len(tokens) - 1) and _looks_special(tokens[likely[-1]]):
        likely.append(likely[-1] + 1)
    foreign = len(tokens) > 1 and shown[0] is not None and not prompt.data.startswith(shown[0])
    return likely, [1] if foreign and len(likely) == 1 else []


def _looks_special(token: str | None) -> bool:
    return token == "" or (token is not None and _SPECIAL.fullmatch(token) is not None)


def _exactly(prompt: _Prompt, pieces: Sequence[bytes | None], start: int) -> set[tuple[int, int]]:
    """The one way in which pieces spell the prompt, if they do; a piece without bytes takes no place.

    Of pieces without bytes at the boundary all belong to the continuation: they stand for the beginning of a
    character that a later one shows.
    """
    data, pos, mark = prompt.data, 0, _BEFORE
    for index in range(start, len(pieces)):
        if pos == prompt.boundary and mark == _BEFORE:
            mark = index
        if pos == prompt.size:
            return {(mark, index)}
        piece = pieces[index]
        if piece is None or not data.startswith(piece, pos):
            return set()
        if mark == _BEFORE and pos < prompt.boundary < pos + len(piece):
            mark = _ACROSS
        pos += len(piece)
    return {(mark, len(pieces))} if pos == prompt.size else set()


def _follow(prompt: _Prompt, count: int, moves: Moves, start: int, steps: _Steps) -> set[tuple[int, int]]:
    """All ways in which tokens from ``start`` on spell the prompt: where a token may end, the next begins."""
    found: set[tuple[int, int]] = set()
    reached: dict[int, set[int]] = {0: {_BEFORE}}
    for index in range(start, count + 1):
        onward: dict[int, set[int]] = {}
        for pos, marks in reached.items():
            if pos == prompt.boundary:
                marks = {index if mark == _BEFORE else mark for mark in marks}
            if pos == prompt.size:
                found |= {(mark, index) for mark in marks}
                continue
            if index == count:
                continue
            steps.take(1)
            for end in moves(index, pos):
                steps.take(len(marks))
                across = pos < prompt.boundary < end
                onward.setdefault(end, set()).update(
                    _ACROSS if across and mark == _BEFORE else mark for mark in marks
                )
        if len(onward) > _MOST_POSITIONS:
            raise _TooMany
        if not onward:
            break
        reached = onward
    return found


# -- manners of showing tokens ----------------------------------------------------------------------------


def _manners(prompt: _Prompt, echo: Echo, forms: _Forms) -> Iterator[tuple[Callable[[int], Moves], ...]]:
    """By where the prompt begins, what each manner makes of a token; the loosest at last.

    Ways of a further reading count as well where the first has any: offsets may be in characters or bytes.
    """
    tokens, offsets = echo.tokens, echo.offsets

    def written(start: int) -> Moves:
        return lambda index, pos: _written(prompt, forms, index, pos, first=index == start)

    def with_pieces(start: int) -> Moves:
        return lambda index, pos: chain(
            _written(prompt, forms, index, pos, first=index == start),
            _replaced(prompt, tokens[index], pos),
        )

    hidden = _hidden_moves(prompt, tokens)

    def hidden_by(offsets: Sequence[int], counted: Sequence[int], start: int) -> Moves:
        if all(after - before == 1 for before, after in pairwise(offsets[start:])):
            return lambda index, pos: ()  # they number the tokens

        def moves(index: int, pos: int) -> Iterator[int]:
            for end in hidden(index, pos):
                if index + 1 == len(offsets) or counted[end] == offsets[index + 1] - offsets[start]:
                    yield end

        return moves

    def spaceless(start: int) -> Moves:
        whole = with_pieces(start)

        def moves(index: int, pos: int) -> Iterator[int]:
            yield from whole(index, pos)
            if prompt.data[pos : pos + 1] == b" " and (tokens[index] or "x")[0] != " ":
                yield from whole(index, pos + 1)

        return moves

    def unclear(start: int) -> Moves:
        return lambda index, pos: chain(
            _written(prompt, forms, index, pos, first=index == start),
            _unclear(prompt, tokens[index], pos, first=index == start),
        )

    pieces = any(token and REPLACEMENT in token for token in tokens)
    if not pieces or REPLACEMENT.encode() not in prompt.data:
        yield (written,)
    if pieces:
        yield (with_pieces,)
    if offsets is not None:
        characters, sizes = prompt.characters(), range(prompt.size + 1)
        yield (
            lambda start: hidden_by(offsets, characters, start),
            lambda start: hidden_by(offsets, sizes, start),
        )
    yield (lambda start: hidden,)
    yield (spaceless,)
    yield (unclear,)


class _Forms:
    """What each token may be written for, as bytes; looked at once a token."""

    def __init__(self, tokens: Sequence[str | None], most: int) -> None:
        self._tokens = tokens
        self._most = len(_OPENAI_BYTES) + 4 * most  # what is longer is no stretch of the prompt in any form
        self._known: dict[str, tuple[bytes, ...]] = {}

    def __getitem__(self, index: int) -> tuple[bytes, ...]:
        token = self._tokens[index]
        if token is None or len(token) > self._most:
            return ()
        if token not in self._known:
            self._known[token] = tuple(dict.fromkeys(_forms(token)))
        return self._known[token]


def _forms(token: str) -> Iterator[bytes]:
    yield encoded(token)
    if token.isascii():
        if byte := _SENTENCEPIECE_BYTE.fullmatch(token):
            yield bytes([int(byte[1], 16)])
        elif token.startswith(_OPENAI_BYTES):
            rest = token[len(_OPENAI_BYTES) :].encode()
            yield _ESCAPED_BYTE.sub(lambda found: bytes([int(found[1], 16)]), rest)
        return
    yield encoded(token.translate(_WRITTEN_SPACES))
    byte_level = [_BYTE_LEVEL.get(char) for char in token]
    if None not in byte_level:
        yield bytes(byte for byte in byte_level if byte is not None)


def _byte_level_alphabet() -> Mapping[str, int]:
    """The characters that byte-level vocabularies write bytes with (GPT-2's ``bytes_to_unicode``).

    Bytes that print are themselves, the others follow in order from U+0100 on.
    """
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in prints)
    return {chr(byte): byte for byte in prints} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _written(prompt: _Prompt, forms: _Forms, index: int, pos: int, *, first: bool) -> Iterator[int]:
    """Ends of a token in one of its forms; the ``first`` may have a space that the prompt has not."""
    for form in forms[index]:
        if prompt.data.startswith(form, pos):
            yield pos + len(form)
        elif first and form[:1] == b" " and prompt.data.startswith(form[1:], pos):
            yield pos + len(form) - 1


def _replaced(prompt: _Prompt, token: str | None, pos: int) -> Iterator[int]:
    """Ends of a token that shows U+FFFD for pieces of characters: for each one, or for each of its bytes."""
    if not token or REPLACEMENT not in token or len(token) > prompt.size:
        return
    core = token.strip(REPLACEMENT)
    before = len(token) - len(token.lstrip(REPLACEMENT))
    after = len(token) - len(core) - before if core else 0
    for head, end, tail in _stretches(prompt, core, pos):
        if core:
            if _shows(before, head) and _shows(after, tail):
                yield end
        elif max(bool(head) + bool(tail), 1) <= before <= head + tail:
            yield end


def _shows(count: int, size: int) -> bool:
    """Whether a piece of so many bytes may be shown as so many U+FFFD."""
    return count == 0 if size == 0 else 1 <= count <= size


def _hidden_moves(prompt: _Prompt, tokens: Sequence[str | None]) -> Moves:
    return lambda index, pos: _hidden(prompt, tokens[index], pos)


def _hidden(prompt: _Prompt, token: str | None, pos: int) -> Iterator[int]:
    """Ends of a token that shows nothing for pieces of characters, nor for a special token."""
    if token is None:
        return
    for _, end, _ in _stretches(prompt, token, pos):
        yield end
    if not token and prompt.data[pos : pos + 1] in (b"<", b"["):
        special = _SPECIAL.match(prompt.data[pos : pos + 64].decode("utf-8", "replace"))
        if special:
            yield pos + len(encoded(special[0]))


def _stretches(prompt: _Prompt, core: str, pos: int) -> Iterator[tuple[int, int, int]]:
    """Stretches of bytes from ``pos`` on that hold ``core`` as whole characters, and pieces beside it.

    Each with the sizes of the pieces before and after, and where it ends; none is empty.
    """
    if pos >= prompt.size:
        return
    inside = prompt.inside(pos)
    body = prompt.char_end(pos) if inside else pos
    head = body - pos
    if not core:  # a piece of the one character
        for end in range(pos + 1, body if inside else prompt.char_end(pos)):
            yield end - pos, end, 0
        if not inside:
            return
    whole = encoded(core)
    if not prompt.data.startswith(whole, body):
        return
    end = body + len(whole)
    if end > pos:
        yield head, end, 0
    if end < prompt.size and not prompt.inside(end):
        for tail in range(1, prompt.char_end(end) - end):
            yield head, end + tail, tail


def _unclear(prompt: _Prompt, token: str | None, pos: int, *, first: bool) -> Iterator[int]:
    """Ends of a token whose U+FFFD may be anything, of characters beyond ASCII among others.

    Of the ``first`` one nothing need be shown, if it is the context's: some servers have no text for it.
    """
    if first and not token:
        yield from range(pos, min(pos + _MOST_UNCLEAR_BYTES, prompt.boundary) + 1)
    elif token and REPLACEMENT in token and len(token) <= _MOST_UNCLEAR_BYTES:
        ends = {pos}
        for part in re.split(f"({REPLACEMENT}+)", token):
            if part.startswith(REPLACEMENT):
                ends = set(chain.from_iterable(_gap(prompt, end) for end in ends))
            elif part:
                whole = encoded(part)
                ends = {end + len(whole) for end in ends if prompt.data.startswith(whole, end)}
            if len(ends) > _MOST_POSITIONS:
                raise _TooMany
        yield from ends


def _gap(prompt: _Prompt, pos: int) -> Iterator[int]:
    beyond = False
    for end in range(pos + 1, min(pos + _MOST_UNCLEAR_BYTES, prompt.size) + 1):
        beyond = beyond or prompt.data[end - 1] >= 0x80
        if beyond:
            yield end


def _spell(tokens: Sequence[str | None], rest: str) -> bool:
    """Whether generated tokens make up the text after the prompt.

    Special ones at the end are not shown there, and tokens may show their spaces otherwise, or not at all.
    """
    tokens = list(tokens)
    while tokens and _looks_special(tokens[-1]) and not rest.endswith(tokens[-1] or "\0"):
        tokens.pop()
    return _SPACES.sub("", "".join(token or "" for token in tokens)) == _SPACES.sub("", rest)
