"""Which option an answer names: by the form that was asked for alone, or however it is said.

Answers are hostile texts of any length. Of a long one only beginning and end are read, and every pattern
takes time in proportion to what it reads: runs are bounded or possessive, and none is tried at each place of
a run of its own characters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from testbench_dagster.tasks.chat_choice.options import CLAUSE_END, Options
from testbench_dagster.tasks.chat_choice.phrases import (
    ALONE,
    AND_ANOTHER,
    AS_WELL,
    AT_LETTER,
    BETWEEN,
    BOX_BEFORE,
    BRACKETED_OTHER,
    BY_OTHERS,
    CHECKED,
    CHOSEN,
    CONCLUDED,
    CONFIRMED,
    CONFIRMED_ELSEWHERE,
    CUE,
    DENIED,
    EXPLAINS,
    GLOSSED,
    GOES_ON,
    HEDGED,
    IF_BEFORE,
    IF_BEHIND,
    LABELLED,
    LEAD,
    LETTER_AND_TEXT,
    NAMED,
    OR_ANOTHER,
    OTHERS_ARE,
    POINTING,
    RELATIVE,
    REVISED,
    SAID,
    SAYS_MORE,
    SENTENCE_END,
    SIGN,
    SMALL_AFTER_DOT,
    STARTS,
    WORD,
    WOULD,
)
from testbench_dagster.tasks.chat_choice.writing import BOX, normal, read, widths

#: A longer line that begins with a letter may be the first of several parts of an answer.
_SHORT_CHARS = 300


#: So many places between a cue and what it says may begin an option's text.
_MOST_STARTS = 6


#: So many cues at an answer's end are looked at for what they say.
_MOST_CUES = 200


_STRICT = re.compile(
    r"[\s*_`#>\"'“(\[{•-]{0,12}answer[\s*_`\"']{0,6}[:：][\s*_`\"'“(\[{$<]{0,12}([A-Za-z])[\s*_`\"'”)\]}>$.,;:!。]{0,12}\Z",
    re.IGNORECASE,
)


#: The form anywhere in a line that says more.
_STRICT_AND_MORE = re.compile(rf"(?<![{WORD}])(?:ANSWER|Answer)[*_]{{0,3}}:[\s*_(\[]{{0,4}}[A-Z](?![{WORD}])")


def strict(text: str, letters: str) -> str | None:
    """The letter of the last line of the form ``ANSWER: X``, whatever marks stand around; None without one.

    What else the line says makes it another form, and what stands in the form above it is taken back by it.
    ``letters`` are those of the options.
    """
    for line in reversed(widths(read(text)).split("\n")):
        found = _STRICT.match(line.strip()) if len(line) < 200 else None
        if found is not None:
            letter = found.group(1).upper()
            return letter if letter in letters else None
        if _STRICT_AND_MORE.search(line) is not None:
            return None
    return None


def flexible(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The letter an answer means, however it says so; None where it says none, or more than one.

    Of several statements the last counts. Where there is none, an answer that begins or ends with a letter
    alone, or consists of one option's text, means that.

    Args:
        text: the answer.
        letters: the letters of the options.
        options: their texts, in the same order.
    """
    found = "\n" + normal(read(text))
    known = Options(letters, options)
    last = _last_line(found)
    stated = _STRICT.match(last) if len(last) < 200 else None
    if stated is not None and stated.group(1).upper() in letters:
        return stated.group(1).upper()
    statement = _decisive(found, known)
    if statement is not None:
        return statement.letter
    return _unstated(found, known)


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


@dataclass(frozen=True)
class _Statement:
    """Where an answer says which option it means; ``letter`` is None where that is none, or several.

    ``weak``: it is said of what would be so in another case, and counts where nothing else is said.
    """

    at: int
    letter: str | None
    weak: bool = False


def _decisive(text: str, options: Options) -> _Statement | None:
    """The last statement of an answer, or of several that do not go together one without a letter."""
    said = list(_statements(text, options))
    strong = [one for one in said if not one.weak]
    last = max(strong, key=lambda one: one.at, default=None)
    confirmed = [one for one in _confirmations(text, options) if last is None or one[0].at > last.at]
    firm = [one for one in confirmed if not one[0].weak]
    if not firm:
        weak = [one for one in (*said, *(one for one, _ in confirmed)) if one.weak]
        last = last or max(weak, key=lambda one: one.at, default=None)
    elif last is None or last.letter is None:
        last = _last_of(text, [one for one, _ in firm])
    else:
        last = _confirmed_or_not(text, last, firm)
    if last is not None and last.letter is not None:
        if any(one.letter is None and _same_breath(text, one.at, last.at) for one in strong):
            return _Statement(last.at, None)
        for well in AS_WELL.finditer(text, last.at):
            if well.group("other") != last.letter and well.group("other") in options.letters:
                return _Statement(well.end(), None)
    return last


def _same_breath(text: str, at: int, then: int) -> bool:
    """Whether of two statements in one sentence the second takes nothing back."""
    return at < then and not (SENTENCE_END.search(text, at, then) or REVISED.search(text, at, then))


def _last_of(text: str, confirmed: Sequence[_Statement]) -> _Statement:
    """The last of several that are called right; none, where they are several and none is taken back."""
    last = confirmed[-1]
    before = [one for one in confirmed if one.letter != last.letter]
    if before and REVISED.search(text, before[-1].at, last.at) is None:
        return _Statement(last.at, None)
    return last


def _confirmed_or_not(
    text: str, last: _Statement, confirmed: Sequence[tuple[_Statement, bool]]
) -> _Statement:
    """What an answer means that states one letter, and then calls others right.

    Where it calls several so, or gives a reason, that explains the statement: a question may ask which option
    is wrong.
    """
    others = [(one, whole) for one, whole in confirmed if one.letter != last.letter]
    if not others or len({one.letter for one, _ in others}) > 1:
        return last
    one, whole = others[-1]
    if REVISED.search(text, last.at, one.at) is not None:
        return one
    if EXPLAINS.search(text, max(0, one.at - 60), one.at) is not None:
        return last
    return one if whole else _Statement(one.at, None)


def _statements(text: str, options: Options) -> Iterator[_Statement]:
    """What an answer states: the last of each kind, or more."""
    letters = options.letters
    for cue in list(CUE.finditer(text))[: -_MOST_CUES - 1 : -1]:
        if (found := _after_cue(text, cue, options)) is not None:
            yield found
            if not found.weak:
                break
    for match in CHOSEN.finditer(text):
        letter, at = match.group("big"), match.end("big")
        if letter.islower() or letter == "X" > letters[-1]:
            continue
        if _hedged(text, match.start()) or not _is_letter(text, letter, at):
            continue
        if BY_OTHERS.search(text, max(0, match.start() - 90), match.start()) is None:
            yield _one(text, letter, at, options)
    for match in GLOSSED.finditer(text):
        if not match.group("big") == "X" > letters[-1]:
            yield _one(text, match.group("big"), match.end("big"), options)
    for match in CONCLUDED.finditer(text):
        letter, at = match.group("big") or match.group("pointed"), match.end("big")
        if match.group("arrow"):
            at = match.end("pointed")
            if POINTING.search(text, max(0, match.start() - 5), match.start()) is not None:
                yield _Statement(at, None)
                continue
        elif match.group("goes_on") and options.at(text, match.end()) != letter:
            continue
        if not letter == "X" > letters[-1]:
            yield _one(text, letter, at, options)
    checked = {
        letter: end
        for line, end in _lines(text)
        if CHECKED.search(line) and (letter := _checked_letter(CHECKED.sub("", line))) is not None
    }
    if checked:
        letter = next(iter(checked)) if len(checked) == 1 else None
        yield _Statement(max(checked.values()), letter if letter and letter in letters else None)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    at = 0
    for line in text.split("\n"):
        at += len(line) + 1
        yield line, at - 1


def _checked_letter(line: str) -> str | None:
    """The letter of the option that a line with a mark shows."""
    if (alone := ALONE.match(line)) is not None:
        return alone.group(1).upper()
    label = _label(line)
    return label[0] if label is not None else None


def _confirmations(text: str, options: Options) -> Iterator[tuple[_Statement, bool]]:
    """Letters that are called right, in their order; with whether they are called the answer."""
    found = []
    for pattern in (CONFIRMED, CONFIRMED_ELSEWHERE):
        for match in pattern.finditer(text):
            letter = match.group("big")
            if (letter == "I" and options.letters[-1] < "I") or _hedged(text, match.start("big")):
                continue
            weak = WOULD.search(match.group()) is not None
            whole = (
                pattern is CONFIRMED_ELSEWHERE
                or " " in match.group("said")
                or match.group("said") in ("answer", "choice")
            )
            found.append(
                (_Statement(match.end("big"), letter if letter in options.letters else None, weak), whole)
            )
    return iter(sorted(found, key=lambda one: one[0].at))


def _if_before(text: str, at: int) -> bool:
    """Whether the sentence up to here supposes something."""
    begin = max(0, at - 200)
    ends = [end.end() for end in SENTENCE_END.finditer(text, begin, at)]
    return IF_BEFORE.search(text, ends[-1] if ends else begin, at) is not None


def _after_cue(text: str, cue: re.Match[str], options: Options) -> _Statement | None:
    if _hedged(text, cue.start()):
        return None
    begin = cue.end() if (relative := RELATIVE.match(text, cue.end())) is None else relative.start("is")
    between = BETWEEN.match(text, begin)
    if between is None:
        return None
    at, words = between.end(), between.group()
    said = SAID.search(words) is not None
    if not said and (_words(words) or (not words and cue.group()[-1].isascii())):
        return None  # "答案B" needs nothing between
    weak = WOULD.search(words) is not None and _if_before(text, cue.start())
    if said:
        # an option may begin with a word or a mark that is one of those between
        starts = [start.start() for start in STARTS.finditer(text, cue.end(), at)]
        if STARTS.match(text, at) is not None:
            starts.append(at)
        for start in starts[-_MOST_STARTS:]:
            if text[start : start + 1].isdigit() and SIGN.search(text, cue.start(), start) is not None:
                continue
            if (letter := options.at(text, start)) is not None:
                return _Statement(at, letter or None, weak)
        if (letter := options.result_at(text, at)) is not None:
            return _Statement(at, letter or None, weak)
    found = AT_LETTER.match(text, at)
    if found is None:
        return _dotted(text, at, options, weak)
    letter, end = (found.group("big") or found.group("small")).upper(), found.end()
    if letter == "X" and "X" not in options.letters:
        return None  # the form as it was asked for, repeated
    if found.group("big") and not _is_letter(text, letter, end):
        return None
    if DENIED.match(text, end) or not _ends_there(text, letter, end, options):
        return None
    if not said and SAYS_MORE.match(text, end):
        return None  # "the answer A is for …"
    if (box := cue.start()) and text[box - 1] == BOX and _is_joined(text, box - 1, letter, options):
        return _Statement(end, None)
    one = _one(text, letter, end, options)
    return _Statement(one.at, one.letter, weak or IF_BEHIND.match(text, end) is not None)


def _dotted(text: str, at: int, options: Options, weak: bool) -> _Statement | None:
    """A letter and its option's text without a space between, as in ``C.Paris``."""
    found = LETTER_AND_TEXT.match(text, at)
    if found is None or options.at(text, found.end()) != found.group(1):
        return None
    return _Statement(found.end(1), found.group(1), weak)


def _is_joined(text: str, at: int, letter: str, options: Options) -> bool:
    """Whether the letter of another box, or another letter, is joined with the one in a box."""
    other = BOX_BEFORE.search(text, max(0, at - 30), at)
    return (
        other is not None
        and other.group("other") not in (letter, "X")
        and other.group("other") in options.letters
    )


def _words(text: str) -> bool:
    return re.search(rf"[{WORD}]{{2}}", text) is not None


def _hedged(text: str, at: int) -> bool:
    """Whether what is said from here on is only supposed, asked or denied."""
    return HEDGED.search(text, max(0, at - 60), at) is not None


def _is_letter(text: str, letter: str, end: int) -> bool:
    """Whether an ``A`` or ``I`` is a letter here, not a word."""
    return letter not in "AI" or GOES_ON.match(text, end) is not None


def _ends_there(text: str, letter: str, end: int, options: Options) -> bool:
    """False for the beginning of a name, as in ``E. coli``; what goes on may be the option's own text."""
    return SMALL_AFTER_DOT.match(text, end) is None or options.at(text, end + 2) == letter


def _one(text: str, letter: str, end: int, options: Options) -> _Statement:
    """A statement of one letter, or of none where another, or another's text, follows."""
    other = AND_ANOTHER.match(text, end) or BRACKETED_OTHER.match(text, end)
    if other is not None and other.groupdict().get("then") is None and other.group("other").upper() != letter:
        begin = other.start("other")
        explains = re.search("[;–—-]", text[end:begin]) and OTHERS_ARE.match(text, begin)
        if not explains and _is_letter(text, other.group("other"), other.end("other")):
            return _Statement(end, None)
    if letter in options.letters and options.other_behind(text, end, letter):
        return _Statement(end, None)
    return _Statement(end, letter if letter in options.letters else None)


def _unstated(text: str, options: Options) -> str | None:
    whole = text.strip()
    for said in (whole, _without_lead(whole)):
        if (letter := options.find(said)) is not None:
            return letter
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    both = (lines[0], lines[-1])
    alone = {found.group(1).upper() for line in both if (found := ALONE.match(line)) is not None}
    if alone:
        return _only(alone, options)
    if len({label[0] for line in lines if (label := _label(line)) is not None}) > 1:
        return None  # the options, one after the other
    ends = [_end(line, len(lines) == 1, options) for line in both]
    return _only({end for end in ends if end is not None}, options)


def _only(found: Collection[str], options: Options) -> str | None:
    """The letter of an option that is alone among what was found."""
    return one if len(found) == 1 and (one := next(iter(found))) and one in options.letters else None


def _without_lead(line: str) -> str:
    """A line without the mark of a list, or "it is", before what it says."""
    return line[found.end() :] if (found := LEAD.match(line)) is not None else line


def _end(line: str, all_of_it: bool, options: Options) -> str | None:
    """The letter of the first or last line: of the option it repeats, or its label in a short answer.

    Empty where it says two things.
    """
    spoken = _without_lead(line)
    if all_of_it and (letter := options.result_at(line, 0)) is not None:
        return letter
    if (letter := options.at(spoken, 0)) is not None and (all_of_it or options.find(spoken) is not None):
        return letter
    own = LETTER_AND_TEXT.match(line)
    if own is not None and options.at(line, own.end()) == own.group(1):
        return own.group(1)
    label = _label(line)
    if label is None:
        return options.glossed(line)
    letter, rest = label
    if DENIED.match(" " + rest) or HEDGED.search(line[: len(line) - len(rest)][-40:] or ""):
        return None
    if all_of_it and len(line) <= _SHORT_CHARS:
        if (other := ALONE.match(rest)) is not None:  # "A: C" may be an answer "C", or anything
            return other.group(1).upper() if line.lstrip().startswith("A:") else ""
        its = options.find(rest) or options.find(CLAUSE_END.split(rest, maxsplit=1)[0])
        return "" if OR_ANOTHER.search(rest) or its not in (None, letter) else letter
    return letter if options.begins(letter, rest) else None


def _label(line: str) -> tuple[str, str] | None:
    """The letter that a line begins with as a label or name of an option, and what follows."""
    if (found := LABELLED.match(line)) is not None:
        return next(letter for letter in found.groups() if letter).upper(), line[found.end() :]
    if (found := NAMED.match(line)) is not None and not DENIED.match(line, found.end()):
        letter = next(letter for letter in found.groups() if letter).upper()
        return None if AND_ANOTHER.match(line, found.end()) else (letter, line[found.end() :])
    return None
