"""How answers say which option they mean, as patterns; :mod:`.extract` says what follows from them.

Every pattern takes time in proportion to what it reads: runs are bounded or possessive, and none is tried at
each place of a run of its own characters.
"""

from __future__ import annotations

import re

from testbench_dagster.tasks.chat_choice.writing import BOX

#: What a letter must not touch: it is part of a word, a name or a formula then.
WORD = r"A-Za-z0-9À-ɏͰ-ӿ"
#: Of a word with an apostrophe, but for the Turkish "is".
_CLITIC = r"(?!['’](?!d[iıuü]r|t[iıuü]r)[A-Za-z])"
_AFTER = (
    rf"(?![{WORD}^_°%]){_CLITIC}(?!-[{WORD}])(?!\.[A-Za-z0-9])(?!\s?[=<+*^|]|\s>|>\s?\w)(?!\([A-Za-z0-9])"
)
_LETTER = (
    rf"(?:(?P<big>[A-Z]){_AFTER}"
    rf"|(?P<small>[a-z])(?![{WORD}^_]){_CLITIC}(?=\s{{0,3}}(?:[).,:;!\]}}\"'”’»]|\Z|\n)))"
)
CUE = re.compile(
    rf"""(?<![{WORD}-])(?:
      answers?|ans\b\.?|antwort|antwoord|respuesta|réponse|reponse|risposta|resposta|svar(?:et)?|vastaus|válasz
      |răspuns(?:ul)?|odpowied[źz]|odpověď|odgovor|ответ(?:ом)?|відповідь|отговор|cevap|cevab[ıi]|jawaban|jawapan
      |απάντηση|sagot|đáp\ án|trả\ lời|erantzuna
      |(?:correct|right|best|final|my|chosen|selected|appropriate|suitable|likely|accurate)
        \ (?:options?|choice|letter|pick|selection|one|response)
      |(?:richtige|korrekte)\ (?:option|lösung|wahl)|richtig\ ist(?=\s)|bon\ choix
      |(?:правильн|верн)\w{{1,3}}\ (?:вариант|выбор)
      |(?:opción|alternativa|opção|opzione|option)\ (?:correcta|correta|corretta|correcte)
      |(?:option|choice|letter|pick|selection)(?=\s(?:is|est|ist|would\ be|must\ be|should\ be)(?![{WORD}]))
      |(?<=\n)(?:option|choice|letter|pick|selection|correct|solution|lösung|richtig|choix|opción|opção|opzione)(?=\s?[:=])
      |(?<=["'])(?:\w{{1,20}}_)?(?:option|choice|letter|selection|selected|prediction|response|result|label)(?=["']\s?:)
      |(?<=["']\w)\w{{0,20}}_answer(?=["']\s?:)
      )(?![{WORD}])
      |答案|回答|答え|解答|正解|正[确確]的?[选選][项項]|정답|답변|(?<![가-힣])답(?=은|\s?:)|الجواب|الإجابة|الاجابة|پاسخ|उत्तर|जवाब|উত্তর|คำตอบ|ค\u0e4d\u0e32ตอบ|תשובה
      |(?:故|应|應)?[选選](?:择|擇)?(?!项|項|擇|择)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VERBS = (
    "is|be|was|being|as|are|equals|ist|lautet|es|est|è|é|är|er|on|to|este|jest|je|είναι|это|является|would|will"
    "|should|must|has|could only|adalah|ialah|là|wäre|serait|sería|seria"
)
_FILLERS = (
    "the|this|that|question|problem|above|here|thus|therefore|hence|then|so|clearly|probably|likely|most|definitely"
    "|indeed|simply|just|only|now|actually|obviously|certainly|surely|option|choice|letter|answer|number|correct"
    "|right|best|final|for|of|opción|opção|opzione|die|der|la|el|le|lettre|letra|lettera|buchstabe|alternative"
    "|alternativa|correcta|correcte|corretta|correta|richtige|bonne|exacta|given|which"
    "|by|in|case|my|chosen|selected|following|single|one and only|donc|bien|also|somit|bonne|finale|certa"
    "|вариант|буква|réponse|respuesta"
    "|giusta|esatta|corect|juiste|correcte|rätt|đúng|chính xác|yang|benar|tepat|η|ο|το"
)
#: What may stand between a cue and what it says, in alphabets of their own.
_FOREIGN = (
    "选项|選項|選択肢|应该|應該|[是为為就应應的最只]|正确|正確"
    "|[は이가은는]|คือ|ที่|ถูกต้อง|ข้อ|เป็น|הוא|היא|הנכונה|הנכון|هي|هو|الصحيحة|الصحيح|الخيار|صحیح|درست|گزینه|है"
)
BETWEEN = re.compile(
    rf"""(?:['’]s(?=\s)|[\s"'“”„«»‘’:=→>\-–—(\[{{<|~：「『【】{BOX}]|\\n
      |(?<![{WORD}])(?:{_VERBS}|{_FILLERS})(?![{WORD}])
      |(?-i:a)(?=\ (?:letra|alternativa|op[cç]|[("]?(?-i:[A-Z])[).,;:!"]{{0,2}}(?:\n|\Z)))
      |{_FOREIGN})
    {{0,60}}+""",
    re.IGNORECASE | re.VERBOSE,
)
#: Words between a cue and its verb that say which answer is meant.
RELATIVE = re.compile(
    rf"(?:,?\s(?:from|among|of|to|for|that|which|I|we|you|given|according|based|out|in|then|therefore|can|turns|here|after|on)(?![{WORD}])"
    rf"|\s\([a-z ]{{1,40}}\))(?:,?\s(?!(?:not|no|never|nor|neither|wrong|incorrect|if|whether|unless|or|but"
    rf"|because|since)\s)[a-z'’]{{1,20}}){{0,8}}?,?"
    rf"(?P<is>:|\s(?:is|be)(?![{WORD}]))",
    re.IGNORECASE,
)
#: Where what a cue says may begin: after a space, a colon or an opening bracket, not after a sign.
STARTS = re.compile(r"(?<![^\s:=：是为為は\"'“”‘’「『【{(\[<|])\S")
#: A sign of a number, set off from it.
SIGN = re.compile(rf"(?:[:=]|(?<![{WORD}])(?:is|ist|est|es|è|é))\s{{0,3}}[-–]\s{{0,3}}\Z")
SMALL_AFTER_DOT = re.compile(r"\. [a-z]")
SAID = re.compile(
    rf"[:=→>：—–是为為は{{]|['’]s\s|(?<![{WORD}])(?:{_VERBS})(?![{WORD}])|은|는|คือ|הוא|היא|هي|هو|है",
    re.IGNORECASE,
)
AT_LETTER = re.compile(_LETTER)
HEDGED = re.compile(
    rf"(?<![{WORD}])(?:if|whether|unless|suppose|supposing|assume|assuming|why|wenn|falls|si|se|если|not|never|nor|cannot"
    rf"|doubt|doubtful|unlikely|hardly)"
    rf"(?![{WORD}])[^.\n;:!?(),\"]{{0,24}}\Z|n['’]t[^.\n;:!?(),\"]{{0,16}}\Z"
    # a wrong answer is none; neither is one that another language denies
    rf"|(?<![{WORD}])(?:incorrect|wrong|false|worst|least(?:\s\w{{1,16}})?|falsche|mauvaise|неправильн\w\w|неверн\w\w)\s\Z"
    r"|[不没別]\Z|(?:错误|錯誤|不正确|不正確)的?\Z|(?:是否|如果|还是|還是)[^。\n,;:!?]{0,12}\Z",
    re.IGNORECASE,
)
#: Said of what is not so: the answer to another question.
IF_BEFORE = re.compile(
    rf"(?<![{WORD}])(?:if|had|were|suppose|unless|wenn|falls|hätte|si|se)(?![{WORD}])", re.IGNORECASE
)
IF_BEHIND = re.compile(r"[)\],\"' ]{0,4}(?:only\s)?(?:if|wenn|falls)\b", re.IGNORECASE)
WOULD = re.compile(rf"(?<![{WORD}])(?:would|could|might|wäre|serait|sería|seria)(?![{WORD}])", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?;\n]")
DENIED = re.compile(
    r"[\s)\]}\"'”,]{0,4}(?:is|was|are|seems|looks|cannot|can['’]?t|does|would|isn['’]t|wasn['’]t)\s(?:be\s)?(?:also\s|clearly\s|obviously\s|definitely\s)?"
    r"(?:not|n['’]t|wrong|incorrect|false|out|ruled|eliminated|unlikely|impossible|be\s)"
    r"|[\s)\]}\"'”]{0,4}(?:isn['’]t|wasn['’]t|cannot|can['’]t|won['’]t|doesn['’]t)\b"
    r"|[\s)\]}\"'”]{0,4}(?:(?:ist|wäre)\s(?:nicht|falsch)|n['’]est|est\s(?:faux|fausse|incorrecte?)|no\ses|es\s(?:incorrect|fals)"
    r"|non\sè|è\s(?:sbagliat|errat)|não\sé|é\s(?:errad|incorret|fals)|неверн|неправильн"
    r"|では(?:ありません|な)|じゃな|は(?:間違|誤|正しくな)|不是|不[对對正]|[错錯]|是[错錯]|[가이]\s?아니|değil|yanlış|नहीं)",
    re.IGNORECASE,
)
#: Another letter right behind one: two things are said.
AND_ANOTHER = re.compile(
    r"[\s).\]}\"'”?!\ue001]{0,4}(?:(?:,|/|&|\+|\||;)?\s{0,2}(?:and/or|[Aa]nd|[Oo]r|[Uu]nd|[Oo]der|[Yy]|o|et|[Oo]u|e|или|и|或|和|及|还是|還是"
    r"|、|,|;|/|&|\+|[-–—→]|->|(?:[Ee]ither|[Pp]ossibly)\s)\s{0,2}|(?<=[)\]])(?=[(\[])"
    r"|(?<=[.?!])\s(?=[(\[]?[A-Z][)\].?!]{0,2}[ \t]*(?:\n|\Z)))"
    r"(?:\s{0,2}(?:\(or|also|possibly|probably|maybe|even|perhaps|then|option|answer:?|choice|both|[选選])\s{0,2}){0,3}[(\[{\"'“\ue000]{0,2}"
    rf"(?P<other>[A-Z]|(?<=[(\[])[a-z](?=[)\]]))(?![{WORD}])(?!-[{WORD}]){_CLITIC}(?P<then>\s(?:is|isn|was|does|can|has|would|am|think|believe|will)(?![{WORD}]))?"
)
BRACKETED_OTHER = re.compile(r"[\s)\]]{0,2}\((?:or|and|also)\s(?:option\s)?(?P<other>[A-Z])\)")
#: Of other letters, after a mark that ends what was said: what is so of them.
OTHERS_ARE = re.compile(
    r"[(\[]?[A-Z][)\]]?(?:(?:,\s|,?\s(?:and|or)\s)[(\[]?[A-Z][)\]]?){0,9}\s(?:are|were|do|have|is|was|can|would|describe|refer)\b"
)
#: Said of another letter: that it is right as well.
AS_WELL = re.compile(
    rf"(?<![{WORD}])(?P<other>[A-Z])\s(?:is|could\sbe|may\sbe|would\sbe|might\sbe)\s(?:also|equally|just\sas)\s"
    rf"(?:an?\s)?(?:correct|right|possible|acceptable|valid|plausible)(?![{WORD}])"
)
#: Before the box of one letter that of another, or the letter, and a word that joins them.
BOX_BEFORE = re.compile(
    rf"(?<![{WORD}])(?P<other>[A-Z])[\s).\]}}\"'”\ue001]{{0,4}}(?:,|/|&|\+|;|and|or|und|oder|y|et|ou)\s{{0,3}}\Z"
)
#: After the words ``A`` and ``I`` such a word, or one in another script, shows that a letter was meant.
GOES_ON = re.compile(
    r"\s{1,3}(?:because|since|as|due|for|with|which|where|but|not|while|given|however|so|thus|based|"
    r"according|is|was|here|and|or|weil|porque|car|parce|perché|ponieważ|потому|так|çünkü|karena|vì|omdat)(?![\w'’])"
    r"|\s{0,3}(?:[^\w\s]|\Z|\n|[\u0590-\u0fff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3])",
    re.IGNORECASE,
)
CHOSEN = re.compile(
    rf"""(?:(?<=ve)\s(?:chosen|selected|picked)|(?<![{WORD}])(?:choos(?:e|ing)|chose|pick(?:ing)?
      |select(?:ing)?|go(?:ing)?\ (?:with|for)
      |went\ with|vote\ for|opt(?:ing)?\ for|settle\ on|settling\ on|conclude|narrowed\ (?:it\ )?down\ to
      |wähle|elijo|choisis|scelgo|escolho|выбираю))(?![{WORD}])
      [\s:"'“(\[]{{1,4}}+(?:(?:the|answer|option|choice|letter|that|is)\s{{1,2}}){{0,4}}+[("'“\[]{{0,3}}+
      (?P<big>[A-Z]){_AFTER}""",
    re.VERBOSE | re.IGNORECASE,
)
#: Who chooses is somebody else, or it is a mistake.
BY_OTHERS = re.compile(
    rf"(?<![{WORD}])(?:people|students?|some|many|others|someone|they|who|often|commonly|might|mistake|tempt\w{{0,3}}|rather\sthan"
    rf"|instead\sof|before)(?![{WORD}])[^.\n;!?]{{0,60}}\Z",
    re.IGNORECASE,
)
GLOSSED = re.compile(
    rf"(?<![{WORD}])(?:which|that|this|it|corresponds|corresponding|matches)\s(?:is|to)\s(?:the\s)?"
    rf"(?:option|choice|letter|answer)\s[(\[\"'“]{{0,2}}(?P<big>[A-Z])(?![{WORD}])"
)
CONCLUDED = re.compile(
    rf"(?:(?<![{WORD}])(?:[Tt]herefore|[Tt]hus|[Hh]ence|[Ss]o|[Ff]inally|[Cc]onsequently|[Aa]lso|[Dd]onc|[Ee]ntonces"
    r"|[Ii]t(?:['’]s|\s(?:is|must\sbe|should\sbe|would\sbe))|(?:[Tt]hat|[Tt]his)(?:['’]s|\s(?:is|must\sbe|would\sbe))|[Mm]ust\sbe"
    r"|[Aa]ctually|[Rr]ather|[Ii]nstead|[Ww]ait|[Nn]o|[Nn]ope|[Ss]orry|[Cc]orrection|[Mm]ake\sthat|[Oo]n\s(?:second\sthought|reflection)|(?<!thing\s)(?<!all\s)but|sondern|sino"
    r"|[Ss]ure|[Yy]es|I\s(?:think|believe|guess|would\ssay)|I['’]d\ssay|[Pp]robably|(?<!least\s)[Ll]ikely|[Dd]efinitely|[Cc]learly|[Cc]ertainly|[Oo]bviously"
    r"|[Ll]eaving(?:\sus\swith)?|leaves(?:\sus\swith)?|left\swith|[Bb]y\s(?:process\sof\s)?elimination)(?!\w)|而是)"
    r"[\s,:…-]{0,5}+(?:(?:it|it's|it’s|is|the|only|option|answer|choice|letter)\s){0,4}+"
    r"[(\[\"“]{0,2}+(?P<big>[A-Z])(?:[)\]\"”]{0,2}[.!。]?[ \t]*(?=\n|\Z)|(?P<goes_on>[)\].:,]{1,2}\s))"
    r"|(?P<arrow>∴|⇒|=>|->|→|👉)[\s:]{0,4}+[(\[\"“]{0,2}+(?P<pointed>[A-Z])"
    r"(?:[)\]\"”]{0,2}[.!]?[ \t]*(?=\n|\Z))"
)
#: A letter before an arrow: from one to the other.
POINTING = re.compile(rf"(?<![{WORD}])[A-Z]\s{{0,3}}\Z")
CONFIRMED = re.compile(
    rf"""(?P<before>(?:^|[.!?;:,\n(—–-]|(?<![{WORD}])
        (?i:option|answer|choice|letter|statement|that|so|thus|therefore|hence|only|because|since|as|think
          |believe))
      [\s"'“(\[]{{0,4}}+)(?P<big>[A-Z])(?![{WORD}])[)\]"'”.:]{{0,3}}\s{{1,2}}
      (?:is|must\ be|would\ be|seems|seems\ to\ be|appears\ to\ be|has\ to\ be|should\ be)\s
      (?:(?:clearly|indeed|therefore|thus|then|definitely|probably|obviously|the|a|most|likely|only
        |single|my|one\ that\ is|our)\s){{0,4}}+
      (?P<said>(?:correct|right|best|accurate|appropriate|suitable|final)
          (?:\ (?:answer|option|choice|one|letter))?
        |answer|option\ that|choice)(?![{WORD}])""",
    re.VERBOSE | re.MULTILINE,
)
#: The same in other languages, and in words that nothing else is said with.
CONFIRMED_ELSEWHERE = re.compile(
    rf"""(?<![{WORD}.'’])(?P<big>[A-Z])[)\]"'”」』.]{{0,2}}(?:
      \s?(?:选项|選項|[项項])?\s?才?[是为為]?(?:唯一)?(?:正[确確]|[对對]的|正解)(?!吗|嗎|与否)
      |\s?[がは](?:最も)?(?:正解|正しい|適切)(?!とは|では|でな|く)
      |\s?[가이]\s?(?:정답|맞)(?!\s?[이은]?\s?아|지\s?않)
      |\s(?:ist|wäre)\s(?:(?:die|der|das|also|somit)\s){{0,2}}(?:richtig|korrekt)
      |\sest\s(?:(?:la|donc|bien)\s){{0,2}}(?:bonne|correcte?|juste|exacte?)
      |\ses\s(?:(?:la|el)\s)?(?:(?:respuesta|opción)\s)?correct[ao]
      |\sé\s(?:[ao]\s)?(?:(?:resposta|alternativa|opção)\s)?corret[ao]
      |\sè\s(?:la\s)?(?:(?:risposta|opzione)\s)?(?:corrett|giust|esatt)
      |\s(?:[—–-]\s)?(?:является\s)?(?:правильн|верн)
      |\sjest\s(?:poprawn|prawidłow)
      |\s(?:wählen|nehmen)(?![{WORD}])
      |\s(?:remains|fits\sbest|it\sis)(?=[.!]?\s{{0,3}}(?:\n|\Z)))""",
    re.VERBOSE,
)
#: Between two letters: the second takes the first back; or explains it.
REVISED = re.compile(
    r"\b(?:but|however|actually|wait|instead|rather|no,|reconsider\w*|correction|looking again"
    r"|on second thought|on reflection|hmm|sorry|mistake)\b|不对|等等|aber|doch|mais|pero",
    re.IGNORECASE,
)
EXPLAINS = re.compile(r"\b(?:because|since|as|while|although|though|whereas)\b[^.\n;]{0,40}\Z", re.IGNORECASE)
CHECKED = re.compile(r"[✅✔☑✓]")
#: A number of a list may stand before; what makes another name of a letter may not stand around.
ALONE = re.compile(
    r"(?:\d{1,2}[.)]\s)?(?:(?![°+@&%])[^\w\s]|[\s_]){0,6}([A-Za-z])(?:(?![°+@&%#])[^\w\s]|[\s_]){0,6}(?<!-)\Z"
)
LABELLED = re.compile(
    r"(?:(?![\d°+@&%])[\s\"'“*✅✔☑✓❌👉→>-]){0,4}(?:[(\[]\s?([A-Za-z])\s?[)\]][.:]?|([A-Za-z])[)\]]|([A-Z])[.:：](?=\s))\s{0,4}(?=\S)"
)
NAMED = re.compile(
    rf"[\s\"'“]{{0,4}}(?:(?:[Tt]he\s)?(?i:option|choice|letter|letra|lettre|opción|opção|alternativa|antwort|réponse|respuesta|choix|вариант|буква"
    rf"|선택지|选项|選項|選択肢)\s?[:#(\[]?\s?(?:([A-Z])(?![{WORD}]|\s?[<>])|([a-z])(?=[)\].]{{0,2}}\s*\Z))"
    rf"|([A-Z])(?=\s?[-–—,;]\s)|([B-HJ-Z])(?=\s(?:because|since|as|is\s(?:the|correct))\b))"
)
#: A letter and what is said to be its option's text.
LETTER_AND_TEXT = re.compile(r"[\s(\[\"'“*✅👉]{0,4}([A-Z])(?:\s?[)\]=.,:–—-]{1,3}\s{0,3}|\s{1,3})(?=\S)")
OR_ANOTHER = re.compile(rf"(?<![{WORD}])(?:or|and|und|oder|ou|y|o|e|et)\s[(\[]?[A-Za-z][).\]:]")
LEAD = re.compile(
    r"(?:it|this|that)(?:['’]s|\s(?:is|would be|must be))\s|[-*•]\s{1,3}|\d{1,2}[.)]\s{1,3}", re.IGNORECASE
)
SAYS_MORE = re.compile(r"\s+(?!because|since|as\b|and\b|or\b)[a-z]{2}")
