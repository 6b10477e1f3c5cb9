"""One writing of answers that are written in many ways: widths, marks, boxes, and without thoughts."""

from __future__ import annotations

import re
import unicodedata

from testbench_dagster.tasks.chat_choice.convert import LETTERS

#: Of a longer answer so much is read at its beginning, and so much at its end, where answers stand.
HEAD_CHARS, TAIL_CHARS = 4_000, 16_000
#: What stands around thoughts, as families of models write it; a group is there where they end.
_THOUGHT = re.compile(
    r"<(?:(?=[/a-z])(/?)(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
    r"|(?:seed|ant):?think(?:ing)?)>|\|(?:(?:START|(END))_THINKING\|>|(?:begin|(end))_of_thought\|>"
    r"|channel\|>(?:analysis|commentary|(final))(?:<\|message\|>)?))|\[(/?)THINK\]|◁(/?)think▷",
    re.IGNORECASE,
)
#: Marks that templates of chats put at the ends of turns, where servers leave them in.
_TURN = re.compile(r"<(?:\|[A-Za-z_]{1,30}\|>|/?s>|(?:end|start)_of_turn>)")
#: Letters that look like Latin capitals and are none.
_LOOKALIKES = str.maketrans("АВСЕНІЈКМОРЅТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABCEHIJKMOPSTXABEZHIKMNOPTYX")
_LOOKALIKE = re.compile(r"(?<!\w)[АВСЕНІЈКМОРЅТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ](?!\w)(?=\s{0,3}(?:[^\w\s]|\Z|\n))")
#: Letters that show that the answer counts in its own alphabet, where В is the third letter.
_OWN_ALPHABET = re.compile(r"(?<!\w)[БГДЖЗЛФΓΔΘΛ](?!\w)(?=\s{0,3}(?:[^\w\s]|\Z|\n))")
_WRITTEN_OTHERWISE: dict[int, str | None] = dict.fromkeys(
    [0xAD, 0x61C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065)]
)
_WRITTEN_OTHERWISE |= dict.fromkeys(range(0xFE00, 0xFE10))  # of emoji
#: Letters in black circles and squares, which Unicode takes for no letters; one minus of the two there are.
_WRITTEN_OTHERWISE |= {
    start + number: LETTERS[number] for start in (0x1F150, 0x1F170) for number in range(26)
}
_WRITTEN_OTHERWISE |= {0x2212: "-", 0xE000: None, 0xE001: None}
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|underline|emph|mathrm|mathbf|mathit|mathsf|bf|rm|mbox|operatorname)\s?\{([^{}\n]{0,200})\}"
)
#: Commands for how letters look, without braces of their own.
_LOOKS = re.compile(
    r"\\(?:tiny|small|large|Large|LARGE|huge|Huge|bf|rm|it|sf|bfseries|displaystyle)(?![A-Za-z])"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
#: Stands before what was in a box: of several boxes in a row all are meant.
BOX, _BOX_END = "\ue000", "\ue001"
#: So many characters of a box are looked through for its end.
_BOX_CHARS = 600
_BRACE, _BRACES = re.compile(r"\s{0,3}\{"), re.compile(r"[{}]")
_STRUCK = re.compile(r"~~[^~\n]{1,300}~~")
_ANSWER_TAG = re.compile(r"<(?:final_?)?(?:answer|choice|option)>", re.IGNORECASE)
#: Not one capital by itself: that may be the answer.
_TAG = re.compile(r"</?(?:[a-z]|[A-Za-z][A-Za-z0-9_]{1,15})\s?/?>|</[A-Z]>")
_MARKS = re.compile(
    r"\*\*|__|`|\$|\\[()\[\],;!]|(?<!\w)[*_]|[*_](?!\w)|^[ \t]{0,8}[#>]{1,6}(?=\s)", re.MULTILINE
)


def read(text: str) -> str:
    """An answer without what was thought before it, bounded; an unclosed thought is none of it."""
    start, end = 0, len(text)
    for tag in _THOUGHT.finditer(text):
        if any(tag.groups()):
            start, end = tag.end(), len(text)
        elif end == len(text):
            end = tag.start()
    text = _TURN.sub("\n", text[start:end])
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def widths(text: str) -> str:
    """One writing of letters that are written in many ways."""
    return unicodedata.normalize("NFKC", text.translate(_WRITTEN_OTHERWISE))[: 2 * (HEAD_CHARS + TAIL_CHARS)]


def normal(text: str) -> str:
    """One writing of what is written in many: widths, look-alikes, marks of Markdown and LaTeX."""
    text = widths(text)
    if _OWN_ALPHABET.search(text) is None:
        text = _LOOKALIKE.sub(lambda found: found.group().translate(_LOOKALIKES), text)
    text = _LOOKS.sub("", _STRUCK.sub(" ", text))
    for _ in range(2):
        text = _WRAPPER.sub(r"\1", text)
    text = _unboxed(text)
    text = _TAG.sub(" ", _ANSWER_TAG.sub(" answer: ", text))
    return _MARKS.sub("", text)


def _unboxed(text: str) -> str:
    """A text with what its boxes hold said to be the answer."""
    parts, at = [], 0
    for box in _BOXED.finditer(text):
        if box.start() < at:
            continue  # in another one
        parts.append(f"{text[at : box.start()]} {BOX}answer: ")
        at = box.end()
        held = _in_braces(text, at)
        if held is not None:
            parts.append(f"{_BOXED.sub(' ', held).strip()}{_BOX_END}")
            at = text.index("{", at) + len(held) + 2
    return "".join([*parts, text[at:]])


def _in_braces(text: str, at: int) -> str | None:
    """What stands in the braces that begin here; None where there are none, or no end of them is near."""
    begin = _BRACE.match(text, at)
    if begin is None:
        return None
    depth = 0
    for brace in _BRACES.finditer(text, begin.end() - 1, begin.end() + _BOX_CHARS):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[begin.end() : brace.start()]
    return None
