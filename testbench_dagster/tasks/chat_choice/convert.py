"""From what lm-eval makes of a multiple-choice doc to a question with options and the right one.

Templates were written for models that continue a text. Many list the options in the text already, with
letters and a line ``Answer:`` below; there they are cut, so that they can be shown in another order.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

#: Letters of options; more than these no question has.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Refused(StrEnum):
    """Why a doc is not asked as a choice on chat."""

    FEW_OPTIONS = "it has fewer than two options"
    MANY_OPTIONS = f"it has more than {len(LETTERS)} options"
    EMPTY_OPTION = "one of its options is empty"
    EQUAL_OPTIONS = "two of its options are equal"
    LETTER_OPTIONS = "its options are themselves letters of options"
    NAMED_LABELS = "an option names others by labels that are no letters"
    NO_RIGHT_OPTION = "none of its options is the right one"
    ALL_RIGHT = "all of its options are right"
    NO_OPTIONS = "its text shows none of the options that its letters stand for"
    NO_TEXT = "its template gives no text"


@dataclass(frozen=True)
class Question:
    """A doc as a question: ``options`` as the data set orders them, ``right`` by their numbers.

    ``ordered``: the order has to stay, as an option speaks of others or of its place. ``as_is``: the text
    shows the options itself, in a form that could not be cut; ``options`` are the letters it uses.
    """

    text: str
    options: tuple[str, ...]
    right: tuple[int, ...]
    ordered: bool = False
    as_is: bool = False


#: Words after which a template expects the answer, on a line of its own.
_CUES_TEXT = (
    "a ans answer answers answer_choice antwort antwoord respuesta réponse risposta resposta "
    "rispondi svar vastaus vastus ответ відповідь адказ отговор одговор odpowiedź odpověď "
    "odpoveď odgovor válasz răspuns erantzuna cevap cavab جواب الجواب الإجابة الاجابة پاسخ "
    "جاۋاپ תשובה उत्तर जवाब উত্তর பதில் సమాధానం ಉತ್ತರ ഉത്തരം જવાબ ਉੱਤਰ คำตอบ jawaban jawapan "
    "sagot 答案 答 回答 解答 正解 応答 정답 답 답변 απάντηση απαντηση atsakymas atbilde përgjigja javob "
    "жауап жооп ҷавоб պատասխան პასუხი መልስ jibu amsa idahun ìdáhùn impendulo mhinduro karabo "
    "igisubizo deebii"
)
_CUES = frozenset(_CUES_TEXT.split())
_CUE_PHRASES = frozenset(
    {"trả lời", "đáp án", "câu trả lời", "the answer", "the answer is", "correct answer"}
)
#: Words on a line of their own above a list of options.
_LIST_HEADS_TEXT = (
    "choices options choix opciones optionen opzioni opções opcions alternatives alternativas "
    "answers варианты 選項 选项 選択肢 보기 الخيارات विकल्प"
)
_LIST_HEADS = frozenset(_LIST_HEADS_TEXT.split()) | {"answer choices", "answer options", "possible answers"}

_ENDS = " \t.:：。、)）(（[]【】-–—"
_DELIMITER = r"[.．:：)）\]】、,]"

#: Alphabets in which templates label options; a label is one of these in the order given.
_ALPHABETS = (
    LETTERS,
    LETTERS.lower(),
    "123456789",
    "АБВГДЕЖЗ",
    "АВСDЕ",
    "ΑΒΓΔΕΖΗΘ",
    "αβγδεζηθ",
    "أبجدهوزح",
    "ابجدهوزح",
    "אבגדהוזח",
    "가나다라마바사아",
    "甲乙丙丁戊己",
    "①②③④⑤⑥⑦⑧⑨",
    "កខគឃងច",
    "অআইঈউ",
    "অবগদ",
)

_SPEAKS_OF_OTHERS = re.compile(
    r"""
    \b(?:all|none|any|both|neither|either|some|each|two|three|one|nothing|everything|anything)
      (?:\ of)?(?:\ the)?(?:\ other|\ given|\ listed)?
      \ (?:above|below|preceding|foregoing|options?|choices?|answers?)\b
    |^\W*(?:all|none|any|both|neither|either|some|each|two|three|more\ than\ one|only\ one)
      \ of\ (?:these|those|them)\b
    |\b(?:all|none|both|neither|either)\ of\ (?:these|those|them)\W*$
    |\b(?:the\ )?(?:above|preceding|foregoing|other)\ (?:options?|choices?|answers?|ones)\b
    |\b(?:all|none|both|neither)\ (?:are|is)\ (?:correct|true|false|right|wrong|incorrect)\b
    |^\W*(?:all|none|both|neither|either|both\ are|all\ three|all\ four)\W*$
    |\ba(?:ll)?\ combination\ of\ (?:the\ )?above\b
    |\bnot\ (?:listed|given|mentioned)\ (?:above|here)\b
    |\b(?:todas|ninguna|todos|ninguno|cualquiera)\ (?:de\ )?l[ao]s?\ anterior(?:es)?\b
    |\b(?:ambas|las\ dos)\ (?:son|respuestas)\b
    |\b(?:alle|keine|keiner|keines|beide)\ (?:der\ )?(?:genannten|obigen|oben|antworten|anderen)\b
    |\b(?:toutes|aucune|tous|aucun)\ (?:de\ |des\ |les\ )*(?:ces|celles|réponses|ci-dessus|précédentes)
    |\b(?:tutte|nessuna|tutti|nessuno)\ (?:delle?\ |dei\ |le\ )*(?:precedenti|risposte|altre)
    |\b(?:todas|nenhuma|todos|nenhum)\ (?:d?as\ |d?os\ )(?:anteriores|acima|alternativas|respostas)
    |以上(?:都|皆|全|各|选|選|所有|答案|均|のすべて|すべて|のどれ)
    |(?:都|皆)(?:不)?(?:对|正确|正確|是)$
    |(?:все|ничего|ни\ одно|ни\ один)\ (?:из\ )?(?:перечисленн|вышеперечисленн|вариант|ответ)
    |(?:جميع|كل|لا\ شيء)\ (?:من\ )?(?:ما\ )?(?:سبق|ذكر|مما\ سبق|الإجابات)
    """,
    re.IGNORECASE | re.VERBOSE,
)


@functools.cache
def _names_letters(n: int) -> re.Pattern[str]:
    """What finds that an option names some of the first ``n`` letters as options."""
    one = rf"\(?[A-{LETTERS[n - 1]}]\)?"
    joint = r"(?:,|/|&|\band\b|\bor\b|\bnor\b|\bbut\ not\b|\bplus\b)"
    return re.compile(
        rf"""
        ^\W*(?:both|either|neither|only|all\ of|options?|answers?|choices?|not|just)?\W*
          {one}(?!\w)(?:\s*{joint}\s*)+{one}(?!\w)(?:\s*(?:{joint}\s*)+{one}(?!\w))*
          (?:\s*(?:only|above|below|both|together
            |(?:are|is)\ (?:correct|true|right|wrong|false)|but\ not\ {one}))*\W*$
        |^\W*(?:only\ {one}|{one}\ only|not\ {one})\W*$
        |\b(?:both|either|neither)\ (?:options?\ |answers?\ |choices?\ )?{one}\ (?:and|or|nor)\ {one}(?!\w)
        |\b(?:[Oo]ptions?|[Cc]hoices?|[Aa]nswers?)\ {one}(?!\w)
        |\b(?:all|none|any)\ of\ {one}\s*(?:,|and|to|-|through)\s*{one}(?!\w)
        """,
        re.VERBOSE,
    )


_NAMES_LABELS = re.compile(
    r"^\W*(?:both|either|neither|only|all of|options?|answers?)?\W*"
    r"(?:\(?(?:\d|[a-h]|[а-е])\)?\s*(?:,|/|&|\band\b|\bor\b|\bnor\b|\bи\b|\by\b|\bund\b|\bet\b)\s*)+"
    r"\(?(?:\d|[a-h]|[а-е])\)?(?:\s*(?:only|above|both|are\s+correct))?\W*$",
    re.IGNORECASE,
)


def question_of(
    text: Any, choices: Sequence[Any], target: Any, continuation: str | None = None
) -> Question | Refused:
    """A question from what a task's ``doc_to_text``, ``doc_to_choice`` and ``doc_to_target`` give of a doc.

    Where a task has one text per option and a common ending, the number of the right one is ``text`` as in
    lm-eval, and the ending ``continuation``; ``target`` is not looked at then.
    """
    given = [str(choice) for choice in choices]
    if continuation is not None:
        given = [_joined(choice, continuation) for choice in given]
        text, target = "", text
    if not isinstance(text, str):
        return Refused.NO_TEXT
    if len(given) < 2:
        return Refused.FEW_OPTIONS
    found = _listed(text, given)
    options = tuple(found.options)
    right = _right(target, given, found.labels)
    if not right or max(right) >= len(options):
        return Refused.NO_RIGHT_OPTION
    if len(options) > len(LETTERS):
        return Refused.MANY_OPTIONS
    if any(not option for option in options):
        return Refused.EMPTY_OPTION
    if found.as_is:
        if not _shows(found.text, options):
            return Refused.NO_OPTIONS
        return Question(found.text, options, right, ordered=True, as_is=True)
    compared = [_plain(option) for option in options]
    if len(set(compared)) < len(compared):
        return Refused.EQUAL_OPTIONS
    if len(right) == len(options):
        return Refused.ALL_RIGHT
    if _are_letters(options):
        return Refused.LETTER_OPTIONS
    if found.labels is not None and not _in_letters(found.labels) and any(map(_names_labels, options)):
        return Refused.NAMED_LABELS
    ordered = any(speaks_of_others(option, len(options)) for option in options)
    return Question(found.text, options, right, ordered=ordered)


def speaks_of_others(option: str, n: int) -> bool:
    """Whether one of ``n`` options says something of others, or names letters of theirs."""
    return _SPEAKS_OF_OTHERS.search(option) is not None or _names_letters(n).search(option) is not None


def _names_labels(option: str) -> bool:
    return _NAMES_LABELS.search(option) is not None


def _joined(beginning: str, ending: str) -> str:
    beginning, ending = beginning.rstrip(), ending.strip()
    return f"{beginning}{'' if re.match(r'[.,;:!?]', ending) else ' '}{ending}"


def _shows(text: str, letters: Sequence[str]) -> bool:
    """Whether letters stand in a text as those of options may: two of them, by themselves."""
    found = (re.search(rf"(?<!\w){letter}(?!\w)", text) is not None for letter in letters)
    return sum(found) >= 2


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _are_letters(options: Sequence[str]) -> bool:
    """Whether half of the options are letters of options, so that an answer ``B`` may mean two of them."""
    letters = tuple(LETTERS[: len(options)])
    return 2 * sum(option.strip(_ENDS).upper() in letters for option in options) >= len(options)


def _right(target: Any, choices: Sequence[str], labels: Sequence[str] | None) -> tuple[int, ...]:
    """The right options by number; empty where one of them is none."""
    found = set()
    for one in target if isinstance(target, (list, tuple)) else [target]:
        if isinstance(one, str):
            number = _number_of(one, choices, labels)
        else:
            try:
                number = int(one)
            except (TypeError, ValueError):
                return ()
        if number is None or not 0 <= number < len(choices):
            return ()
        found.add(number)
    return tuple(sorted(found))


def _number_of(target: str, choices: Sequence[str], labels: Sequence[str] | None) -> int | None:
    for known in (choices, [_plain(c) for c in choices], labels or ()):
        for asked in (target, _plain(target)):
            if asked in known:
                return list(known).index(asked)
    bare = target.strip(_ENDS)
    for known in (choices, labels or ()):
        stripped = [one.strip(_ENDS) for one in known]
        if bare and stripped.count(bare) == 1:
            return stripped.index(bare)
    return None


# --- the options that a text lists itself ----------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    text: str
    options: list[str]
    labels: list[str] | None = None
    as_is: bool = False


def _listed(text: str, choices: Sequence[str]) -> _Listed:
    """The text without the options it lists, and the options; the choices where it lists none."""
    bare = [choice.strip(_ENDS) for choice in choices]
    if _are_labels(bare):
        found = _cut(text, bare) or _cut_by_others(text, bare)
        if found is not None:
            return found
        if _in_letters(bare):
            return _Listed(_without_cue(text), list(bare), list(bare), as_is=True)
        return _Listed(_without_cue(text), [choice.strip() for choice in choices], list(bare))
    plain = [_plain(choice) for choice in choices]
    for alphabet in _ALPHABETS:
        if len(choices) <= len(alphabet):
            found = _cut(text, list(alphabet[: len(choices)]))
            if found is not None and [_plain(option) for option in found.options] == plain:
                return found
    options = [choice.strip() for choice in choices]
    return _Listed(_without_bullets(_without_cue(text), plain), options)


def _are_labels(bare: Sequence[str]) -> bool:
    """Whether these are the first letters, or other labels, of one alphabet, not what is to be chosen."""
    return len(bare) >= 2 and any(
        list(bare) == list(alphabet[: len(bare)]) for alphabet in _ALPHABETS if len(bare) <= len(alphabet)
    )


def _in_letters(labels: Sequence[str]) -> bool:
    return list(labels) == list(LETTERS[: len(labels)])


def _cut(text: str, labels: Sequence[str]) -> _Listed | None:
    """Cut the last list of lines with these labels from a text; None where it has none.

    A text may list fewer than the labels that its task knows.
    """
    lines = text.split("\n")
    known = [alphabet for alphabet in _ALPHABETS if list(labels) == list(alphabet[: len(labels)])]
    following = known[0][len(labels)] if known and len(labels) < len(known[0]) else None
    for n in range(len(labels), max(2, (len(labels) + 1) // 2) - 1, -1):
        starts = _starts(lines, labels[:n])
        if starts is None:
            continue
        after = labels[n] if n < len(labels) else following
        end, rest = _end_of_list(lines, starts, after)
        bounds = [*starts, (end, 0)]
        options = []
        for (line, at), (next_line, _) in pairwise(bounds):
            options.append("\n".join([lines[line][at:], *lines[line + 1 : next_line]]).strip())
        head = _without_heads(lines[: starts[0][0]])
        tail = _without_cue("\n".join(rest), whole=True).strip()
        return _Listed("\n\n".join(part for part in (head, tail) if part), options, list(labels[:n]))
    return None


def _cut_by_others(text: str, labels: Sequence[str]) -> _Listed | None:
    """The same for a text that labels its lines otherwise than its task knows: figures for letters.

    Not where the labels of the task stand somewhere in the lines: other labels are of something else then.
    """
    if re.search(rf"(?<!\w)[(\[]?{re.escape(labels[0])}\s?{_DELIMITER}", text) is not None:
        return None
    for alphabet in _ALPHABETS:
        if len(labels) <= len(alphabet) and list(alphabet[: len(labels)]) != list(labels):
            found = _cut(text, list(alphabet[: len(labels)]))
            if found is not None and len(found.options) == len(labels):
                return found
    return None


def _starts(lines: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]] | None:
    """Line and column where the text of each labelled option begins, of the last such list."""
    found: list[tuple[int, int]] = []
    line = len(lines)
    for label in reversed(labels):
        starts = _line_of(label)
        for number in range(line - 1, -1, -1):
            if (match := starts.match(lines[number])) is not None:
                break
        else:
            return None
        found.append((number, match.end()))
        line = number
    return found[::-1]


@functools.lru_cache(maxsize=512)
def _line_of(label: str) -> re.Pattern[str]:
    """What a line begins with that shows the option of a label."""
    bare = re.escape(label)
    return re.compile(
        rf"[\s>*-]{{0,8}}(?:(?:[Oo]ption|OPTION|[Cc]hoice)\s)?(?:[(（\[【]\s?{bare}\s?[)）\]】]{_DELIMITER}?|{bare}\s?{_DELIMITER})\s*"
    )


def _end_of_list(
    lines: Sequence[str], starts: Sequence[tuple[int, int]], after: str | None
) -> tuple[int, list[str]]:
    """The line at which the last option ends, and what stands below the list."""
    last = starts[-1][0]
    gaps = any(not lines[n].strip() for (a, _), (b, _) in pairwise(starts) for n in range(a + 1, b - 1))
    one_line = all(b - a == 1 for (a, _), (b, _) in pairwise(starts))
    end = last + 1
    while end < len(lines) and not one_line:
        if (not lines[end].strip() and not gaps) or _is_cue(lines[end]) or _labelled(lines[end], after):
            break
        end += 1
    rest = list(lines[end:])
    # options that the task does not know are no part of the question
    while rest and _labelled(rest[0], after):
        rest.pop(0)
    return end, rest


def _labelled(line: str, label: str | None) -> bool:
    return label is not None and _line_of(label).match(line) is not None


def _is_cue(line: str) -> bool:
    bare = line.strip().strip("*#").strip()
    if not bare.endswith((":", "：")):
        return False
    word = bare.rstrip(":： ").strip("*#").strip().casefold()
    return word in _CUES or word in _CUE_PHRASES


def _without_cue(text: str, whole: bool = False) -> str:
    """A text without the line at its end that waits for the answer; ``whole``: even if nothing is left."""
    lines = text.rstrip().split("\n")
    if _is_cue(lines[-1]) and (whole or any(line.strip() for line in lines[:-1])):
        lines = lines[:-1]
    return "\n".join(lines).strip()


def _without_heads(lines: Sequence[str]) -> str:
    """The lines above a list, without the heading of the list."""
    kept = "\n".join(lines).rstrip().split("\n")
    head = kept[-1].strip().strip("*#").rstrip(":： ").casefold()
    return "\n".join(kept[:-1] if head in _LIST_HEADS else kept).strip()


def _without_bullets(text: str, plain: Sequence[str]) -> str:
    """A text without the lines at its end that hold the choices, each once, with at most a mark before."""
    lines = text.split("\n")
    n = len(plain)
    if len(lines) <= n:
        return text
    left = list(plain)
    for line in lines[-n:]:
        bare = _plain(line)
        match = next((one for one in left if bare.endswith(one) and _is_mark(bare[: -len(one)])), None)
        if match is None:
            return text
        left.remove(match)
    return _without_heads(lines[:-n])


def _is_mark(before: str) -> bool:
    return re.fullmatch(r"\s*(?:[-*•·]|choice:|option:|\(?\w{1,2}\)?[.:)])?\s*", before) is not None
