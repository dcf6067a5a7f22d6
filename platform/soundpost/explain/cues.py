"""The words by which a comparison is recognised: which recording, which way, there or not there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from soundpost.explain.claim import Attribute

_NOUN = r"(?:audio|recording|clip|file|track|excerpt|sample|soundscape)"
_NUMBER = {"1": 1, "one": 1, "first": 1, "former": 1, "2": 2, "two": 2, "second": 2, "latter": 2}
_SPEAKS = (
    r"(?=\s*(?:$|[,.;:)]|(?:has|is|was|holds|contains|features|carries|keeps|lacks|loses|gains|adds"
    r"|sounds|comes|shows|seems|only|also|alone|does|without|with|but|and|while|whereas|it|there|the"
    r"|than|as|misses|drops|an?|opens|starts|begins|ends|consists|presents|includes|captures|one)\b))"
)
REF = (
    rf"(?:the\s+)?(?:{_NOUN}s?\s*[\(#]?\s*(?P<number>[12]|one|two)\b\)?"
    rf"|(?P<place>first|second)\s+(?:{_NOUN}|one)\b"
    rf"|(?P<other>other)\s+(?:{_NOUN}|one)\b)"
    r"|the\s+(?P<latter>former|latter)\b"
    rf"|the\s+(?P<bare>first|second){_SPEAKS}"
)
_BOTH = (
    rf"(?:{_NOUN}s?\s*1\s+and\s+(?:{_NOUN}\s*)?2)"
    rf"|(?:both|the\s+two|these\s+two|each|either|all\s+two)\s+(?:of\s+the\s+)?(?:{_NOUN}s?)\b"
    r"|\b(?:in|of|by|across|between)\s+both\b(?!\s+the\b)|\bthe\s+two\b(?=\s+(?:have|share|hold|are))"
    r"|\bboth\b(?=\s+(?:have|hold|contain|feature|carry|share|are|include|keep|sound|consist"
    r"|open|start|begin|end|present|capture|let))"
    rf"|\bneither\s+(?:of\s+(?:the\s+)?)?(?:two\s+)?{_NOUN}s?\b"
    r"|\bneither(?=\s+(?:of\s+(?:them|the\s+two)\s+)?(?:has|holds|contains|features|is|was)\b)"
)
_PLAIN_REF = re.sub(r"\?P<\w+>", "?:", REF)
_THAN = (
    r"\b(?:than|compared\s+(?:with|to)|in\s+comparison\s+(?:with|to)|relative\s+to"
    r"|in\s+contrast\s+(?:with|to)|as\s+opposed\s+to|just\s+as|as|measured\s+against|next\s+to)\s+"
    r"(?:(?:it|they)\s+(?:is|are|does|do)\s+)?(?:those\s+|that\s+|what\s+is\s+)?"
    r"(?:(?:heard\s+)?(?:in|of|for|from)\s+)?"
)
_EXCEPT = (
    r"(?:(?:,\s*|\bbut\s+|\band\s+)(?:is\s+|are\s+)?not\s+(?:heard\s+|there\s+|present\s+)?in\s+"
    r"|unlike\s+(?:in\s+)?"
    r"|(?:that|which)\s+(?:is|are)\s+(?:missing|absent|gone"
    r"|not(?:\s+(?:heard|there|present|audible|found))?)\s+(?:in|from)\s+"
    r"|(?:that|which)\s+cannot\s+be\s+heard\s+in\s+)"
)

REFERENCE = re.compile(rf"(?P<both>{_BOTH})|{REF}", re.IGNORECASE)
COMPARED = re.compile(rf"(?:{_THAN})(?P<ref>{_PLAIN_REF})", re.IGNORECASE)
EXCLUDED = re.compile(rf"(?:{_EXCEPT})(?P<ref>{_PLAIN_REF})", re.IGNORECASE)
LACKED = re.compile(
    rf"\b(?:that|which)\s+(?P<ref>{_PLAIN_REF})\s+(?:lacks|misses|does\s+not\s+(?:have|hold|contain))"
    r"(?=\s*(?:$|[,.;:]|(?:and|but|while|whereas|then|with)\b))",
    re.IGNORECASE,
)
FROM_TO = re.compile(rf"\bfrom\s+(?P<ref>{_PLAIN_REF})\s+(?=to\s+(?:{_PLAIN_REF}))", re.IGNORECASE)


def number_of(match: re.Match[str]) -> int | None:
    """Return 1 or 2 of a match of REFERENCE, 0 of both, None of "the other"."""
    if match.group("both"):
        return 0
    for name in ("number", "place", "latter", "bare"):
        if match.group(name):
            return _NUMBER[match.group(name).lower()]
    return None


class Mode(Enum):
    """How the events of a clause are said to be in a recording."""

    ONLY = "only"
    ADDS = "adds"
    EXTRA = "extra"
    ABSENT_AFTER = "absent after"
    ABSENT_BEFORE = "absent before"
    REPLACED_BY = "replaced by"
    REPLACES = "replaces"
    JOINED_BY = "joined by"
    JOINS = "joins"
    SAME = "same"


@dataclass(frozen=True)
class Cue:
    """Words that compare (attribute and sign) or place events (mode). loose: only beside a noun."""

    start: int
    end: int
    attribute: Attribute | None = None
    sign: int = 0
    mode: Mode | None = None
    loose: bool = False


_NOT = r"(?:\s+not|n['\u2019]t)"
_CANNOT = r"(?:can(?:\s*not|['\u2019]t)|could(?:\s+not|n['\u2019]t))"
_MANY = r"(?:(?:a\s+few|several|many|some|one|two|three)\s+)?"
_LOUDNESS = r"(?:levels?|loudness|volume|amplitude|intensity)\b"
_NOT_SO = r"(?:not|isn['\u2019]t|aren['\u2019]t)\s+(?:quite\s+)?(?:as|so)"
_PACE = r"(?:pace|speed|tempo|rate)\b"
# What begins or ends faster does not go faster, and a higher share is not higher.
_OF_ONE_MOMENT = r"(?!,?\s+(?:attack|decay|onset|release|rise|fade|increase|decrease)\w*)"
_OF_NO_PITCH = (
    r"(?!\s+(?:proportion|number|density|degree|amount|share|percentage|quality|range)\b)"
)
_COMPARE: tuple[tuple[Attribute, int, str], ...] = (
    (Attribute.LEVEL, -1, rf"{_NOT_SO}\s+(?:loud|strong|prominent)|half\s+as\s+loud"),
    (Attribute.LEVEL, 1, rf"{_NOT_SO}\s+(?:soft|quiet|faint)|(?:twice|times)\s+as\s+loud"),
    (Attribute.LEVEL, 0, r"(?:equally|as|just\s+as)\s+(?:loud|soft|quiet)(?:\s+as)?|the\s+same\s+(?:level|loudness|volume)"),
    (Attribute.PITCH, 0, r"the\s+same\s+pitch"),
    (Attribute.RATE, 0, r"the\s+same\s+(?:pace|speed|tempo|rate)"),
    (Attribute.LEVEL, 1, rf"higher\s+(?:overall\s+)?{_LOUDNESS}|raised\s+by\s+\S+\s+dB\b"),
    (Attribute.LEVEL, -1, rf"lower\s+(?:overall\s+)?{_LOUDNESS}|lowered\s+by\s+\S+\s+dB\b"),
    (Attribute.PITCH, 1, r"(?:raised|shifted\s+up)\s+by\s+(?:\S+\s+){1,2}?(?:semitones?|octaves?)"),
    (Attribute.PITCH, -1, r"(?:lowered|shifted\s+down)\s+by\s+(?:\S+\s+){1,2}?(?:semitones?|octaves?)"),
    (Attribute.RATE, 1, rf"higher\s+{_PACE}"),
    (Attribute.RATE, -1, rf"lower\s+{_PACE}"),
    (Attribute.COUNT, 1, rf"{_MANY}more\s+(?:times?|often|frequent(?:ly)?|repetitions)|(?:times|twice)\s+more(?=\s+(?:in\b|than\b|\*)|[,.;]|$)|a\s+(?:greater|larger)\s+number\s+of\s+times|once\s+more"),
    (Attribute.COUNT, -1, rf"{_MANY}fewer(?:\s+(?:times|repetitions))?|less\s+(?:often|frequent(?:ly)?)|a\s+smaller\s+number\s+of\s+times|not\s+as\s+(?:often|many\s+times)"),
    (Attribute.RATE, 1, rf"(?:faster|quicker|more\s+(?:quickly|rapidly|rapid)){_OF_ONE_MOMENT}|(?:sped|speed(?:s|ed)?)\s+up|(?:twice|times)\s+as\s+fast"),
    (Attribute.RATE, -1, rf"slower{_OF_ONE_MOMENT}|more\s+slowly|less\s+(?:quickly|rapidly|rapid)|slow(?:s|ed)?\s+down|half\s+as\s+fast"),
    (Attribute.TIME, -1, r"earlier|sooner"),
    (Attribute.TIME, 1, r"later(?!\s+(?:on|an?|the|some|there)\b)|delayed"),
    (Attribute.REVERB, 1, r"more\s+(?:reverberant|reverberation|reverb|echo(?:es)?|echoing|echoey|echoic)|roomier|stronger\s+(?:echo(?:es)?|reverberation|reverb)"),
    (Attribute.REVERB, -1, r"less\s+(?:reverberant|reverberation|reverb|echo(?:es)?|echoing|echoey|echoic)|drier|dryer|weaker\s+(?:echo(?:es)?|reverberation|reverb)"),
    (Attribute.NOISE, 1, r"noisier|(?:more|stronger|louder|heavier)\s+(?:background\s+)?noise"),
    (Attribute.NOISE, -1, r"less\s+noisy|cleaner|(?:less|weaker|softer|quieter|fainter)\s+(?:background\s+)?noise"),
    (Attribute.PITCH, 1, r"higher[-\s]pitched|higher\s+in\s+(?:pitch|tone)|(?:a|at\s+a)\s+higher\s+pitch|brighter"),
    (Attribute.PITCH, -1, r"lower[-\s]pitched|lower\s+in\s+(?:pitch|tone)|(?:a|at\s+a)\s+lower\s+pitch|duller|deeper|darker|less\s+bright|more\s+muffled"),
    (Attribute.LEVEL, 1, r"louder|more\s+loudly|(?:higher|raised|increased)\s+in\s+(?:level|volume)|(?:a|at\s+a)\s+higher\s+(?:level|volume)|turned\s+up|stronger|more\s+prominent|amplified|boosted|raised|lifted|brought\s+up|emphasi[sz]ed|fuller|less\s+(?:quiet|faint|soft)"),
    (Attribute.LEVEL, -1, r"softer|quieter|fainter|weaker|less\s+(?:loud|prominent|strong)|more\s+(?:quietly|softly|faintly)|(?:lower|lowered|reduced)\s+in\s+(?:level|volume)|(?:a|at\s+a)\s+lower\s+(?:level|volume)|turned\s+down|cut(?:\s+back|\s+down)?|reduced|lowered|damped|weakened|attenuated|thinner|toned\s+down|held\s+back"),
    (Attribute.PITCH, 1, rf"higher{_OF_NO_PITCH}"),
    (Attribute.PITCH, -1, rf"lower{_OF_NO_PITCH}"),
)  # fmt: skip
_LOOSE: tuple[tuple[int, str], ...] = (
    (1, r"more|longer|increased|increases|rises|rise|grows|grown|greater|larger"),
    (-1, r"less|shorter|decreased|decreases|falls|fall|drops|shrinks|smaller"),
)
_HAS = r"(?:has|have|holds?|contains?|features?|carries|carry|includes?|presents?)"
_IS = r"(?:is|are|was|were|has\s+been|have\s+been)"
_MODES: tuple[tuple[Mode, str], ...] = (
    (Mode.REPLACED_BY, rf"{_IS}\s+(?:replaced|exchanged|swapped)\s+(?:in\s+\*+\s+)?(?:by|with|for)|gives?\s+way\s+to|makes?\s+way\s+for|turns?\s+into|changes?\s+(?:in)?to|becomes?(?=\s+an?\b)"),
    (Mode.REPLACES, rf"replaces?|replacing|takes?\s+the\s+place\s+of|taking\s+the\s+place\s+of|(?:stands?\s+|{_IS}\s+heard\s+|{_IS}\s+)?(?:instead|in\s+place)\s+of|rather\s+than|stands?\s+in\s+for"),
    (Mode.JOINED_BY, rf"{_IS}\s+joined\s+by"),
    (Mode.JOINS, r"joins?(?!\s+in\b)"),
    (Mode.ABSENT_AFTER, rf"no\s+longer\s+{_HAS}|do(?:es)?{_NOT}\s+(?:have|hold|contain|include|feature|carry)|never\s+{_HAS}|hasn['\u2019]t\s+got|(?:{_CANNOT}|do{_NOT})\s+hear|{_IS}{_NOT}(?=\s+(?:an?|any)\b)|neither(?=\s+(?:an?|any)\b)|without|lacks?|lacking|loses|has\s+lost|misses|omits|leaves?\s+out|devoid\s+of|free\s+of|no(?!\s+(?:longer|louder|softer|more|less|audible|difference|real|change))"),
    (Mode.ABSENT_BEFORE, rf"(?:{_IS}\s+)?no\s+longer(?:\s+(?:there|heard|present|audible|part))?|{_IS}\s+(?:missing|gone|absent|removed|left\s+out|taken\s+out|taken\s+away|silent|lost|lacking)|(?:missing|absent|gone)(?=\s+(?:in|from)\b)|not(?=\s+in\b)|{_IS}{_NOT}\s+(?:heard|there|present|audible|part)|{_CANNOT}\s+be\s+heard|do(?:es)?{_NOT}(?=\s+(?!change|differ|vary|move)\w+(?:\s+(?:in\b|\*)|\s*(?:[,.;]|$)))|drops?\s+out|(?:has|have)\s+(?:gone|disappeared|vanished|dropped\s+out)|disappears?|vanish(?:es)?|falls?\s+(?:silent|away)|{_IS}\s+dropped"),
    (Mode.ONLY, rf"only(?=\s+(?:heard\s+|present\s+)?in\b)|only(?=\s*\*)|(?<=\*)\s*(?:only(?!\s+{_HAS})|alone)|exclusive\s+to|unique\s+to|(?<=\*)\s+also\s+{_HAS}|added|{_IS}\s+new|new(?=\s+in\b)|newly|appears?(?!\s+to\b)|appearing|joins?\s+in|joining\s+in|comes?\s+on\s+top"),
    (Mode.EXTRA, r"an?\s+(?:extra|additional|further|new)"),
    (Mode.ADDS, r"adds?|adding|gains?|introduces?|introducing|brings?\s+in"),
    (Mode.SAME, rf"remains?|stays?|goes\s+on|go\s+on|continues?|{_IS}\s+kept|unchanged|keeps?|{_IS}\s+the\s+same|sounds?\s+the\s+same|shared|share"),
)  # fmt: skip

COMPARE = tuple(
    (attribute, sign, re.compile(rf"\b(?:{words})\b", re.IGNORECASE))
    for attribute, sign, words in _COMPARE
)
LOOSE = tuple((sign, re.compile(rf"\b(?:{words})\b", re.IGNORECASE)) for sign, words in _LOOSE)
MODES = tuple(
    (mode, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)) for mode, words in _MODES
)
NEGATED = re.compile(
    r"(?:\b(?:no|not|never|neither|nor|hardly|without\s+being)|n['\u2019]t)\s+(?:\w+\s+){0,1}$",
    re.IGNORECASE,
)
NOTHING = re.compile(
    r"\bno\s+(?:(?:audible|noticeable|real|clear|other|perceptible|significant)\s+)?"
    r"(?:differences?|changes?)\b(?!\s+other)"
    r"|\bnothing\s+(?:audible\s+)?(?:has\s+|is\s+|that\s+can\s+be\s+heard\s+)?(?:changed|changes|differs"
    r"|different|sets\s+\w+(?:\s+\w+)?\s+apart|tells\s+\w+(?:\s+\w+)?\s+apart)"
    r"|\b(?:are|sound|seem|is)\s+(?:(?:exactly|just|practically|virtually|completely|perfectly|entirely)\s+)?"
    r"(?:identical|indistinguishable|alike|one\s+and\s+the\s+same|the\s+same)\b"
    rf"|\b{_CANNOT}\s+be\s+told\s+apart|\bdo(?:es)?{_NOT}\s+(?:audibly\s+)?differ|\bsounds\s+(?:exactly\s+|just\s+)?"
    r"(?:like|the\s+same\s+as)\s+(?=\*)",
    re.IGNORECASE,
)
# Of what there is no difference, where it is not the recordings.
OF_ONE_PROPERTY = re.compile(
    r"\s+(?:in|of|to)\s+(?:terms\s+of\s+)?(?:(?:the|its|their)\s+)?(?:overall\s+)?"
    r"(?:levels?|loudness|volume|amplitude|intensity|pitch|tone|timbre|tempo|pace|speed|rate|rhythm"
    r"|timing|duration|number|frequenc\w+|bass|treble|noise|echo|reverb\w*)\b",
    re.IGNORECASE,
)
EXCEPTED = re.compile(
    r"\b(?:otherwise|apart\s+from|except|other\s+than|besides|else|aside\s+from|beyond|other)\b",
    re.IGNORECASE,
)
WHOLE = re.compile(
    r"\b(?:overall|as\s+a\s+whole|on\s+the\s+whole|the\s+whole|altogether|everything|taken\s+together)\b",
    re.IGNORECASE,
)
