"""Which option an answer names: by the form that was asked for alone, or however it is said.

Answers are hostile texts of any length. Of a long one only beginning and end are read, and every pattern
takes time in proportion to what it reads: runs are bounded or possessive, and none is tried at each place of
a run of its own characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

#: Of a longer answer so much is read at its beginning, and so much at its end, where answers stand.
HEAD_CHARS, TAIL_CHARS = 4_000, 16_000

#: So much of a line is looked at behind an option's text.
_BEHIND_CHARS = 80
#: A longer line that begins with a letter may be the first of several parts of an answer.
_SHORT_CHARS = 300

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thoughts?|reasoning|reflection)>", re.IGNORECASE)
#: Letters that look like Latin capitals and are none.
_LOOKALIKES = str.maketrans("АВСЕНІЈКМОРЅТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABCEHIJKMOPSTXABEZHIKMNOPTYX")
_LOOKALIKE = re.compile(r"(?<!\w)[АВСЕНІЈКМОРЅТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ](?!\w)(?=\s{0,3}(?:[^\w\s]|\Z|\n))")
#: Letters that show that the answer counts in its own alphabet, where В is the third letter.
_OWN_ALPHABET = re.compile(r"(?<!\w)[БГДЖЗЛФΓΔΘΛ](?!\w)(?=\s{0,3}(?:[^\w\s]|\Z|\n))")
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x61C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065)]
)
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|bf|rm|mbox|operatorname)\s?\{([^{}\n]{0,200})\}"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_ANSWER_TAG = re.compile(r"<(?:final_?)?(?:answer|choice|option)>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9_]{0,15}\s?/?>")
_MARKS = re.compile(
    r"\*\*|__|`|\$|\\[()\[\],;!]|(?<!\w)[*_]|[*_](?!\w)|^[ \t]{0,8}[#>]{1,6}(?=\s)", re.MULTILINE
)

#: What a letter must not touch: it is part of a word, a name or a formula then.
_WORD = r"A-Za-z0-9À-ɏͰ-ӿ'’"
_AFTER = rf"(?![{_WORD}^_°%])(?!-[{_WORD}])(?!\.[A-Za-z0-9])(?!\s?[=<>+*^|])(?!\([A-Za-z0-9])"
_LETTER = (
    rf"(?:(?P<big>[A-Z]){_AFTER}|(?P<small>[a-z])(?![{_WORD}^_])(?=\s{{0,3}}(?:[).,:;!\]}}\"”»]|\Z|\n)))"
)

_CUE = re.compile(
    rf"""(?<![{_WORD}-])(?:
      answers?|ans|antwort|antwoord|respuesta|réponse|reponse|risposta|resposta|svar|vastaus|válasz|răspuns
      |odpowied[źz]|odpověď|odgovor|ответ|відповідь|отговор|cevap|cevab[ıi]|jawaban|jawapan|απάντηση|sagot
      |đáp\ án|trả\ lời|erantzuna
      |(?:correct|right|best|final|my|chosen|selected|appropriate|suitable|likely|accurate)
        \ (?:options?|choice|letter|pick|selection|one|response)
      |(?:richtige|korrekte)\ option
      |(?:opción|alternativa|opção|opzione|option)\ (?:correcta|correta|corretta|correcte)
      |(?:option|choice|letter|pick|selection)(?=\s(?:is|would\ be|must\ be|should\ be)(?![{_WORD}]))
      |(?<=\n)(?:option|choice|letter|pick|selection)(?=\s?[:=])
      )(?![{_WORD}])
      |答案|回答|答え|解答|正解|正确选项|正確選項|정답|답변|답은|الجواب|الإجابة|الاجابة|उत्तर|जवाब|উত্তর|คำตอบ|תשובה|(?:故|应|應)?[选選](?:择|擇)?(?!项|項|擇|择)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VERBS = (
    "is|be|was|being|as|are|equals|ist|lautet|es|est|è|é|är|er|on|to|este|jest|je|είναι|это|would|will|should"
    "|must|has|could only"
)
_FILLERS = (
    "the|this|that|question|problem|above|here|thus|therefore|hence|then|so|clearly|probably|likely|most|definitely"
    "|indeed|simply|just|only|now|actually|obviously|certainly|surely|option|choice|letter|answer|number|correct"
    "|right|best|final|for|of|opción|opção|opzione|die|der|la|el|le|lettre|letra|lettera|buchstabe|alternative"
    "|alternativa|correcta|correcte|corretta|correta|richtige|bonne|exacta|given|which"
    "|by|in|case|my|chosen|selected|following|single|one and only"
)
_BETWEEN = re.compile(
    rf"""(?:[\s"'“”„«»‘’:=→>\-–—(\[{{<|~：「『【]|\\n
      |(?<![{_WORD}])(?:{_VERBS}|{_FILLERS})(?![{_WORD}])|(?-i:a)(?=\ (?:letra|alternativa|op[cç]))
      |[是为為は이가은는이:]|选项|選項|هي|هو|है)
    {{0,60}}+""",
    re.IGNORECASE | re.VERBOSE,
)
_WORDS = re.compile(rf"[{_WORD}]+")
_SMALL_AFTER_DOT = re.compile(r"\. [a-z]")
#: So many words between a cue and what it says may begin an option's text.
_MOST_STARTS = 3
#: So many cues at an answer's end are looked at for what they say.
_MOST_CUES = 200
_SAID = re.compile(
    rf"[:=→>：是为為は{{]|(?<![{_WORD}])(?:{_VERBS})(?![{_WORD}])|은|는|هي|هو|है", re.IGNORECASE
)
_AT_LETTER = re.compile(_LETTER)

_HEDGED = re.compile(
    rf"(?<![{_WORD}])(?:if|whether|unless|suppose|supposing|assume|assuming|why|wenn|falls|si|se|если|not|never|nor|cannot)"
    rf"(?![{_WORD}])[^.\n;:!?(),\"]{{0,24}}\Z|n['’]t[^.\n;:!?(),\"]{{0,16}}\Z",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[\s)\]}\"'”,]{0,4}(?:is|was|are|seems|looks|cannot|can['’]?t|does|would|isn['’]t|wasn['’]t)\s(?:be\s)?(?:also\s|clearly\s|obviously\s|definitely\s)?"
    r"(?:not|n['’]t|wrong|incorrect|false|out|ruled|eliminated|unlikely|impossible|be\s)"
    r"|[\s)\]}\"'”]{0,4}(?:isn['’]t|wasn['’]t|cannot|can['’]t|won['’]t|doesn['’]t)\b",
    re.IGNORECASE,
)
#: Another letter right behind one: two things are said.
_AND_ANOTHER = re.compile(
    r"[\s).\]}\"'”]{0,4}(?:,|/|&|\+|\||;)?\s{0,2}(?:and/or|and|or|und|oder|y|o|et|ou|e|или|и|或|和|及|、|,|/|&)\s{0,2}"
    r"(?:(?:also|possibly|maybe|even|perhaps|option|answer|choice|both)\s)?[(\[\"'“]{0,2}"
    rf"(?P<other>[A-Z])(?![{_WORD}])(?P<then>\s(?:is|isn|was|does|can|has|would|am|think|believe|will)(?![{_WORD}]))?"
)
#: After the words ``A`` and ``I`` such a word shows that a letter was meant.
_GOES_ON = re.compile(
    r"\s{1,3}(?:because|since|as|due|for|with|which|where|but|not|while|given|however|so|thus|based|"
    r"according|is|was|here|weil|porque|car|parce)(?![\w'’])"
    r"|\s{0,3}(?:[^\w\s]|\Z|\n)",
    re.IGNORECASE,
)

_CHOSEN = re.compile(
    rf"""(?<![{_WORD}])(?:choos(?:e|ing)|chose|pick(?:ing)?|select(?:ing)?|go(?:ing)?\ (?:with|for)
      |went\ with|vote\ for|opt(?:ing)?\ for|settle\ on|settling\ on|conclude|narrowed\ (?:it\ )?down\ to
      |wähle|elijo|choisis|scelgo|escolho|выбираю)(?![{_WORD}])
      [\s:"'“(\[]{{1,4}}+(?:(?:the|answer|option|choice|letter|that|is)\s{{1,2}}){{0,4}}+[("'“\[]{{0,3}}+
      (?P<big>[A-Z]){_AFTER}""",
    re.VERBOSE | re.IGNORECASE,
)
_GLOSSED = re.compile(
    rf"(?<![{_WORD}])(?:which|that|this|it|corresponds|corresponding|matches)\s(?:is|to)\s(?:the\s)?"
    rf"(?:option|choice|letter|answer)\s[(\[\"'“]{{0,2}}(?P<big>[A-Z])(?![{_WORD}])"
)
_CONCLUDED = re.compile(
    r"(?:\b(?:[Tt]herefore|[Tt]hus|[Hh]ence|[Ss]o|[Ff]inally|[Cc]onsequently|[Aa]lso|[Dd]onc|[Ee]ntonces|[Ii]t(?:['’]s|\s(?:is|must\sbe|should\sbe|would\sbe)))\b|∴|⇒|=>|->|→)"
    r"[\s,:]{0,4}+(?:(?:it|it's|it’s|is|the|option|answer|choice|letter)\s){0,4}+"
    r"[(\[\"“]{0,2}+(?P<big>[A-Z])[)\]\"”]{0,2}[.!]?[ \t]*(?=\n|\Z)"
)
_CONFIRMED = re.compile(
    rf"""(?P<before>(?:^|[.!?;:,\n(—–-]|(?<![{_WORD}])(?:option|answer|choice|letter|that|so|thus|therefore|hence|only|because|think|believe))
      [\s"'“(\[]{{0,4}}+)(?P<big>[A-Z])(?![{_WORD}])[)\]"'”.:]{{0,3}}\s{{1,2}}
      (?:is|must\ be|would\ be|seems|seems\ to\ be|appears\ to\ be|has\ to\ be|should\ be)\s
      (?:(?:clearly|indeed|therefore|thus|then|definitely|probably|obviously|the|a|most|likely|only
        |single|my|one\ that\ is|our)\s){{0,4}}+
      (?:correct|right|best|answer|option\ that|choice|accurate|appropriate|suitable|final)(?![{_WORD}])""",
    re.VERBOSE | re.MULTILINE,
)

_ALONE = re.compile(r"[\W_]{0,6}([A-Za-z])[\W_]{0,6}\Z")
_LABELLED = re.compile(
    r"[\s\"'“*-]{0,4}(?:[(\[]\s?([A-Za-z])\s?[)\]][.:]?|([A-Za-z])[)\]]|([A-Z])[.:：](?=\s))\s{0,4}(?=\S)"
)
_NAMED = re.compile(
    rf"[\s\"'“]{{0,4}}(?:(?:[Oo]ption|OPTION|[Cc]hoice|[Ll]etter)\s?[:#(\[]?\s?([A-Z])(?![{_WORD}])|([A-Z])(?=\s?[-–—,]\s)|([B-HJ-Z])(?=\s(?:because|since|as|is\s(?:the|correct))\b))"
)
_OR_ANOTHER = re.compile(rf"(?<![{_WORD}])(?:or|and|und|oder|ou|y|o|e|et)\s[(\[]?[A-Z][).\]:]")
_STRICT = re.compile(
    r"[\s*_`#>\"'“(\[{]{0,12}answer[\s*_`\"']{0,6}[:：][\s*_`\"'“(\[{$]{0,12}([A-Za-z])[\s*_`\"'”)\]}$.!。]{0,12}\Z",
    re.IGNORECASE,
)


def strict(text: str, letters: str) -> str | None:
    """The letter of the last line of the form ``ANSWER: X``, whatever marks stand around; None without one.

    What else the line says makes it another form. ``letters`` are those of the options.
    """
    for line in reversed(_read(text).split("\n")):
        found = _STRICT.match(unicodedata.normalize("NFKC", line.strip())) if len(line) < 200 else None
        if found is not None:
            letter = found.group(1).upper()
            return letter if letter in letters else None
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
    found = "\n" + _normal(_read(text))
    last = _last_line(found)
    stated = _STRICT.match(last) if len(last) < 200 else None
    if stated is not None and stated.group(1).upper() in letters:
        return stated.group(1).upper()
    texts = _texts(letters, options)
    statement = max(_statements(found, letters, texts), key=lambda s: s.at, default=None)
    if statement is not None:
        return statement.letter
    return _unstated(found, letters, texts)


# --- what is read of an answer ---------------------------------------------------------------------------


def _read(text: str) -> str:
    """An answer without what was thought before it, bounded; an unclosed thought is none of it."""
    start, end = 0, len(text)
    for tag in _THOUGHT.finditer(text):
        if tag.group(1):
            start, end = tag.end(), len(text)
        elif end == len(text):
            end = tag.start()
    text = text[start:end]
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def _normal(text: str) -> str:
    """One writing of what is written in many: widths, look-alikes, marks of Markdown and LaTeX."""
    text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE))[: 2 * (HEAD_CHARS + TAIL_CHARS)]
    if _OWN_ALPHABET.search(text) is None:
        text = _LOOKALIKE.sub(lambda found: found.group().translate(_LOOKALIKES), text)
    for _ in range(2):
        text = _WRAPPER.sub(r"\1", text)
    text = _BOXED.sub(" answer: ", text)
    text = _TAG.sub(" ", _ANSWER_TAG.sub(" answer: ", text))
    return _MARKS.sub("", text)


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


def _texts(letters: str, options: Sequence[str]) -> dict[str, str]:
    """Letters by the text of their option, as answers are compared with it; letters as texts say nothing."""
    found = {
        _bare(_normal(option[:HEAD_CHARS])): letter for letter, option in zip(letters, options, strict=False)
    }
    return {text: letter for text, letter in found.items() if text and not re.fullmatch(r"[a-z]", text)}


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'“”()[]")


# --- statements ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statement:
    """Where an answer says which option it means; ``letter`` is None where that is none, or several."""

    at: int
    letter: str | None


def _statements(text: str, letters: str, texts: dict[str, str]) -> Iterator[_Statement]:
    """What an answer states: the last of each kind, or more."""
    for cue in list(_CUE.finditer(text))[: -_MOST_CUES - 1 : -1]:
        if (found := _after_cue(text, cue, letters, texts)) is not None:
            yield found
            break
    for pattern in (_CHOSEN, _GLOSSED, _CONCLUDED, _CONFIRMED):
        for match in pattern.finditer(text):
            letter, at = match.group("big"), match.end("big")
            if letter.islower() or letter == "X" > letters[-1]:
                continue
            if pattern is _CHOSEN and (_hedged(text, match.start()) or not _is_letter(text, letter, at)):
                continue
            if pattern is _CONFIRMED:
                if letter == "I" and letters[-1] < "I":
                    continue
                yield _Statement(at, letter if letter in letters else None)
            else:
                yield _one(text, letter, at, letters)


def _after_cue(text: str, cue: re.Match[str], letters: str, texts: dict[str, str]) -> _Statement | None:
    between = _BETWEEN.match(text, cue.end())
    if between is None or _hedged(text, cue.start()):
        return None
    at, words = between.end(), between.group()
    said = _SAID.search(words) is not None
    if not said and (_words(words) or (not words and cue.group()[-1].isascii())):
        return None  # "答案B" needs nothing between
    if said:
        # an option may begin with a word that is one of those between
        starts = [cue.end() + word.start() for word in _WORDS.finditer(words)]
        for start in (*starts[-_MOST_STARTS:], at):
            if (letter := _text_here(text, start, texts)) is not None:
                return _Statement(at, letter)
    found = _AT_LETTER.match(text, at)
    if found is None:
        return None
    letter = (found.group("big") or found.group("small")).upper()
    if letter == "X" and "X" not in letters:
        return None  # the form as it was asked for, repeated
    if found.group("big") and not _is_letter(text, letter, found.end()):
        return None
    if _DENIED.match(text, found.end()) or not _ends_there(text, letter, found.end(), texts):
        return None
    return _one(text, letter, found.end(), letters)


def _words(text: str) -> bool:
    return re.search(rf"[{_WORD}]{{2}}", text) is not None


def _hedged(text: str, at: int) -> bool:
    """Whether what is said from here on is only supposed, asked or denied."""
    return _HEDGED.search(text, max(0, at - 60), at) is not None


def _is_letter(text: str, letter: str, end: int) -> bool:
    """Whether an ``A`` or ``I`` is a letter here, not a word."""
    return letter not in "AI" or _GOES_ON.match(text, end) is not None


def _ends_there(text: str, letter: str, end: int, texts: dict[str, str]) -> bool:
    """False for the beginning of a name, as in ``E. coli``; what goes on may be the option's own text."""
    if _SMALL_AFTER_DOT.match(text, end) is None:
        return True
    return any(
        its == letter and _bare(text[end : end + len(said) + 2]) == said for said, its in texts.items()
    )


def _one(text: str, letter: str, end: int, letters: str) -> _Statement:
    """A statement of one letter, or of none where another follows."""
    other = _AND_ANOTHER.match(text, end)
    if other is not None and other.group("then") is None and other.group("other") != letter:
        return _Statement(end, None)
    return _Statement(end, letter if letter in letters else None)


def _text_here(text: str, at: int, texts: dict[str, str]) -> str | None:
    """The option whose text stands here up to the end of a sentence, by its letter."""
    longest = max(map(len, texts), default=0)
    line = text[at : at + 2 * longest + _BEHIND_CHARS].partition("\n")[0]
    return texts.get(_bare(line)) or texts.get(
        _bare(re.split(r"[.;!]\s|,\s(?:because|since|as|so)\b|\sbecause\b", line, maxsplit=1)[0])
    )


# --- answers without a statement -------------------------------------------------------------------------


def _unstated(text: str, letters: str, texts: dict[str, str]) -> str | None:
    if (letter := texts.get(_bare(text))) is not None:
        return letter
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    both = (lines[0], lines[-1])
    alone = {found.group(1).upper() for line in both if (found := _ALONE.match(line)) is not None}
    if alone:
        return _only(alone, letters)
    if len({label[0] for line in lines if (label := _label(line)) is not None}) > 1:
        return None  # the options, one after the other
    return _only({said for line in both if (said := _end(line, len(lines) == 1, texts)) is not None}, letters)


def _only(found: Collection[str], letters: str) -> str | None:
    """The letter of an option that is alone among what was found."""
    return next(iter(found)) if len(found) == 1 and letters.find(next(iter(found))) >= 0 else None


def _end(line: str, all_of_it: bool, texts: dict[str, str]) -> str | None:
    """The letter of the first or last line: of the option it repeats, or its label in a short answer."""
    label = _label(line)
    if label is None:
        return texts.get(_bare(line))
    letter, rest = label
    said, meant = _bare(rest), next((text for text, its in texts.items() if its == letter), "")
    if all_of_it and len(line) <= _SHORT_CHARS:
        return None if _OR_ANOTHER.search(rest) else letter
    return letter if said and meant and (said.startswith(meant) or meant.startswith(said)) else None


def _label(line: str) -> tuple[str, str] | None:
    """The letter that a line begins with as a label or name of an option, and what follows."""
    if (found := _LABELLED.match(line)) is not None:
        return next(letter for letter in found.groups() if letter).upper(), line[found.end() :]
    if (found := _NAMED.match(line)) is not None and not _DENIED.match(line, found.end()):
        letter = next(letter for letter in found.groups() if letter)
        return None if _AND_ANOTHER.match(line, found.end()) else (letter, line[found.end() :])
    return None
