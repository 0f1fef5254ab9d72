r"""The lexer of `ptb` as a table: what a token may look like.

At every position the rule that reads farthest wins; of rules that read equally far, the first. What a rule requires
behind its token counts as read. Rules see classes of characters, not the characters themselves (`ptb_characters`);
the end of a caption is \n.

The table was found by asking the Java tokenizer as a black box (tools/make_ptb_goldens.py) and keeps what look like its
slips ("5.c" is a file, "na`a" a word): scores are comparable only where the tokens are the same.
"""

from collections.abc import Callable
import re
from typing import NamedTuple

from xgenmm_jax.evaluation.scorers.ptb_characters import DIGIT, LETTER, MARK, SYMBOL


class Rule(NamedTuple):
    """A kind of token, the pattern's group "token", and what is written for it (None: the token itself)."""

    pattern: re.Pattern[str]
    written: Callable[[str], str] | None = None


def _rule(token: str, then: str = "", written: str | Callable[[str], str] | None = None) -> Rule:
    write = (lambda _: written) if isinstance(written, str) else written
    return Rule(re.compile(f"(?P<token>{token}){then}"), write)


def _any_case(words: str) -> str:
    return "(?i:" + "|".join(words.split()) + ")"


def _capitalized(words: str) -> str:
    return "(?:" + "|".join(f"{word[0]}(?i:{word[1:]})" for word in words.split()) + ")"


# What is written for a token.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_QUOTES = {mark: mark for mark in "\u201a\u201e\u201f"} | {
    mark: written
    for marks, written in (
        ("`\x91\u2018\u201b\u2039", "`"), ("\x92\u2019\u203a", "'"), ("\x93\u201c\xab", "``"), ("\x94\u201d\xbb", "''")
    )
    for mark in marks
}  # fmt: skip


def _one_token(token: str) -> str:
    """Round brackets by name and no-break spaces: `(` `)` and spaces part tokens elsewhere."""
    return token.replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\xa0")


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _plain(token: str) -> str:
    """Straight apostrophes and backticks, a plain ampersand."""
    token = re.sub("[\x92\u2019]|&apos;", "'", token.replace("&amp;", "&"))
    return _without_soft_hyphens(re.sub("[\x91\u2018\u201b]", "`", token))


# Characters. A letter of a word may be an entity of HTML, or a mark that joins onto its neighbours.
_SPACE = r"[ \t\xa0\u2000-\u200a\u3000]"
_SPACE_OR_END = rf"(?:{_SPACE}|\n)"
_CURLY = r"(?:[\x92\u2019]|(?i:&apos;))"
_APOSTROPHE = rf"(?:'|{_CURLY})"
_BACKTICK = r"[`\x91\u2018\u201b]"
_EITHER = rf"(?:{_APOSTROPHE}|{_BACKTICK})"
_LETTER = f"[A-Za-z{LETTER}]"
_DIGIT = f"[0-9{DIGIT}]"
_ALNUM = f"[A-Za-z0-9{LETTER}{DIGIT}]"
_WORD_LETTER = rf"(?:[A-Za-z\xad{LETTER}{MARK}]|(?i:&[aeiou](?:acute|grave|uml);))"
_WORD_ALNUM = f"(?:{_WORD_LETTER}|{_DIGIT})"

# Parts. A period, ! or ? right between two letters is part of the word: "a mat.The dog", "no!yes".
_WORD = f"{_WORD_LETTER}{_WORD_ALNUM}*(?:[.!?]{_WORD_LETTER}{_WORD_ALNUM}*)*"
_CLITIC = "(?i:[smd]|re|ve|ll)"
_BEFORE_NOT = r"[A-Za-z\xad]*[A-MO-Za-mo-z]\xad*"  # "isn't" gives is and n't, "ann't" does not
_ELIDED = f"(?:[dDlLoO]{_EITHER}{_ALNUM})?"
_JOINED = rf"{_ELIDED}{_ALNUM}+(?:[-_\u058a\u2010\u2011]{_ELIDED}{_ALNUM}+)*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])*"
_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
_FIRM = "[A-Z]+(?:(?:[&+]|&amp;)[A-Z]+)+"
_NUMBER = rf"(?:{_DIGIT}*(?:[.,:\xad\u066b\u066c]{_DIGIT}+)+|{_DIGIT}+)"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_FRACTION = rf"{_DIGIT}{{1,4}}(?:\\?/|\u2044){_DIGIT}{{1,4}}"
_PHONE_END = r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}"

# Addresses: what they may hold, and end with.
_IN_URL = r"[^ \t\n\"<>|(){}]"
_ENDS_URL = r"[^ \t\n\"<>|(){}.,!?-]"
_IN_SITE = r"[^ \t\n\"<>|(){}.,!?]"
_IN_PLAIN_SITE = r"[a-z~#%&*+\0\xa0-\uffff]"
_IN_EMAIL = r"[^ \t\n\"<>|(){}\xa0]"
_IN_DOMAIN = r"[^ \t\n\"<>|(){}\xa0.]"

_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf"{_NAME}(?: *= *(?:\"[^\"]*\"|'[^']*'))?"
_TAG = f"<(?:{_NAME}(?: +{_ATTRIBUTE})* *(?:/ *)?|/{_NAME} *|[!?][A-Za-z-][^>]*)>"

# Words that keep their period. Those of the first kind may end a sentence, and then keep it even against a letter:
# "Jr.A" gives jr. and a, "Dr.A" is one word.
_MAY_END = "|".join([
    _any_case(
        r"ala? apr ariz assn aug bancorp bhd bldg blvd bros calif cos? colo conn corp ct dak dec ed\.d esq est etc ext "
        r"feb fla fri ga inc ind intl jan jr jul jun kans? ky ltd mar md mich minn mo mon mont neb nev nov oct okla "
        r"penn ph\.d plc rd rt sept? seq sq sr sys tel tenn thu thurs tues? univ va vt wed wisc? wyo"
    ),
    _capitalized("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"),
    "[Pp]p?t[ey][sS]?",
])  # fmt: skip
_ABBREVIATED = "|".join([
    _any_case(
        "adj adm adv alex assoc asst attys? ave brig capt cf cie cmdr col comdr cpl dept det drs? elec ens ft gen "
        "govs? hon insp invt jos lieut lt maj messrs mlle mme mrs? ms msgr mt natl pfc ph pres profs? pvt reps? rev "
        "sens? sfc sgt spc ste? supts? treas vs wm"
    ),
    "[Mm][ft]g",
    _INITIALS,
])  # fmt: skip
_BEFORE_NUMBERS = _any_case("art ca figs? nos? op pp prop")  # "no. 5", but "no ."
# Words that end a sentence after a single letter: "vitamin c. The" gives c, "vitamin c. Dogs" gives c. with its period.
_STARTERS = _capitalized(
    r"A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\. Ms\. "
    r"Now Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet "
    r"You"
)
_FILE_PART = rf"[A-Za-z0-9\xad{LETTER}{DIGIT}]"
_FILE_ENDINGS = _any_case(
    "bat bmp c class cgi cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt ps py sql tar txt "
    "wav x xml zip"
)

RULES: tuple[Rule, ...] = (
    # Two words in one.
    *(
        _rule(_any_case(first), _any_case(second))
        for first, second in (("can", "not"), ("gon", "na"), ("got", "ta"), ("wan", "na"), ("gim", "me"), ("lem", "me"))
    ),
    _rule("'[tT]", "(?i:is|was)"),
    # Markup. A tag is one token.
    _rule(_TAG, written=lambda token: token.replace(" ", "\xa0")),
    _rule("(?i:&(?:MD|mdash|ndash);)", written="--"),
    _rule("(?i:&amp;)", written="&"),
    _rule("(?i:&lt;)", written="<"),
    _rule("(?i:&gt;)", written=">"),
    _rule("(?i:&nbsp;)", written=""),
    _rule("(?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);)"),
    _rule("(?i:-[lr][crs]b-)"),
    # Words: "dog" of "dog's", "is" of "isn't"; then the words that end in nothing else.
    _rule(_WORD, f"{_APOSTROPHE}{_CLITIC}", _without_soft_hyphens),
    _rule(_BEFORE_NOT, f"[nN]{_EITHER}[tT]", _without_soft_hyphens),
    _rule(_WORD, written=_without_soft_hyphens),
    _rule("(?i:pro|anti)-"),
    _rule("[cC][+][+]|[cCfF]#"),
    # Words with an apostrophe in them: "'n'", "y'" of "y'all", "'em", "'90s", "O'Hara", "Hawai'i", then the clitics.
    _rule(f"{_APOSTROPHE}[nN]{_APOSTROPHE}|{_CURLY}[nN]"),
    _rule(f"{_APOSTROPHE}[nN]", r"[ \t\n\xa0]"),
    _rule(f"[dDjJlL]{_APOSTROPHE}"),
    _rule(f"[yY]{_APOSTROPHE}", _LETTER),
    _rule(f"{_any_case('dunkin somethin ol')}{_APOSTROPHE}"),
    _rule(f"{_APOSTROPHE}{_any_case('em till? cause [2-9]0s')}"),
    _rule(f"{_APOSTROPHE}[0-9][0-9]", _SPACE_OR_END),
    _rule(f"[A-HJ-XZn]{_EITHER}{_LETTER}{{2,}}"),
    _rule(f"{_LETTER}+[aeiouyAEIOUY]{_EITHER}[aeiouA-Z]{_LETTER}*"),
    _rule(_any_case(r"c'mon e'er s'mores ev'ry li'l nat'l cap'n cont'd\.")),
    _rule(f"(?i:c{_APOSTROPHE}est|nor{_APOSTROPHE}easter|o{_EITHER}o)"),
    _rule(f"'{_CLITIC}", "[^A-Za-z]"),
    _rule(f"{_CURLY}{_CLITIC}", written=_plain),
    _rule(f"[nN]{_EITHER}[tT]", "[^A-Za-z]", _plain),
    # Addresses, handles and tags.
    _rule(f"(?i:https?)://{_IN_URL}+{_ENDS_URL}"),
    _rule(
        rf"(?:(?i:www)\.(?:{_IN_SITE}+\.)+[A-Za-z]{{2,4}}|(?:{_IN_PLAIN_SITE}+\.)+(?i:com|net|org|edu))"
        rf"(?:/[^ \t\n\"<>|()]+{_ENDS_URL})?"
    ),
    _rule(rf"(?:<|&lt;)?[A-Za-z0-9]{_IN_EMAIL}*@(?:{_IN_DOMAIN}+\.)*{_IN_DOMAIN}+(?:>|&gt;)?"),
    _rule("@[A-Za-z_][A-Za-z_0-9]*"),
    _rule(f"#{_WORD_LETTER}+"),
    # Numbers: dates, "-1,000.5", "5:30", ":3", "1 1/2", superscripts.
    _rule(f"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}"),
    _rule(f"[-+]?{_NUMBER}", written=_without_soft_hyphens),
    _rule(rf"(?:{_DIGIT}{{1,4}}[- \xa0])?{_FRACTION}", written=_one_token),
    _rule(r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\u2074-\u2079\xb9\xb2\xb3]+|[\u2080-\u2089]+)"),
    _rule(rf"(?:{_MAY_END})\.", "(?s:.{0,2})"),
    # Compounds: "l'eau-de-vie", "F-16", "1.5-inch", "AT&T", "and/or", "US$". A period stays before , ; and :.
    _rule(_JOINED),
    _rule(_HYPHENATED, written=_without_soft_hyphens),
    _rule(_FIRM, written=_plain),
    _rule("[sS]&[lL][sS]"),
    *(_rule(rf"{part}\.", "[,;:\u3001]", _without_soft_hyphens) for part in (_WORD, _JOINED, _HYPHENATED)),
    _rule(rf"(?:{_FIRM})\.", "[,;:\u3001]", _plain),
    _rule(rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}"),
    _rule(r"[A-Z]*\$"),
    # Abbreviations: "U.S.", "Mr.", "R. Brown".
    _rule(rf"(?:{_ABBREVIATED})\."),
    _rule(_INITIALS),
    _rule("[A-Za-z]", rf"\.{_SPACE}+(?:{_STARTERS}|{_TAG}){_SPACE_OR_END}"),
    _rule(rf"{_BEFORE_NUMBERS}\.", f"{_SPACE}?{_DIGIT}"),
    _rule(rf"{_FILE_PART}+(?:\.{_FILE_PART}+)*\.{_FILE_ENDINGS}", rf"(?:{_SPACE}|[\n.,!?])"),
    # Faces: ":-)", ">_<", "(^_^)".
    _rule(r"[<>]?[:;=][-o*']?[()DPdpO\\{@|[\]]", "[^A-Za-z0-9]", _one_token),
    _rule(r"[-'<=>^x~]_[-'<=>^x~]"),
    _rule(r"\((?:[-'<=>^x~][_.]?[-'<=>^x~]|['<=>^x~]-['<=>^x~])\)", written=_one_token),
    # Telephones: one token, of which the scorer makes several again.
    _rule(rf"(?:\([0-9]{{2,3}}\)[ \xa0]?|(?:[0-9]{{2,4}}[- \xa0]){{1,2}}){_PHONE_END}", written=_one_token),
    _rule(rf"[+]{{1,2}}(?:[0-9]{{2,4}}[- \xa0]){{1,2}}{_PHONE_END}", written=_one_token),
    _rule(r"(?:[0-9]{2,4}\.){1,2}[0-9]{3,4}\.[0-9]{3,5}|[+]{1,2}(?:[0-9]{2,4}\.){2}[0-9]{3,4}\.[0-9]{3,5}"),
    # Marks.
    _rule(r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|\u2026", written="..."),
    _rule(r"-{2,4}|[\x96\x97\u2013-\u2015]", written="--"),
    _rule(r"-+|_+|[*]+|(?:\\[*])+|[?!]+|#+|@+|<<|>>"),
    _rule(r"''|\"|(?i:&quot;)", written=lambda token: "''" if len(token) < 3 or token == "&quot;" else token),
    _rule("``"),
    _rule("(?i:&apos;)", written=lambda token: "'" if token == "&apos;" else token),
    _rule(f"[{''.join(_QUOTES)}]{{1,2}}", written=lambda token: "".join(_QUOTES[mark] for mark in token)),
    _rule(r"[(){}[\]]", written=lambda token: _BRACKETS[token]),
    *(
        _rule(f"[{signs}]", written=written)
        for signs, written in (
            ("\xa3", "#"), ("\xa2", "cents"), ("\x80\xa4\u20a0\u20ac", "$"),
            ("\xbc", "1/4"), ("\xbd", "1/2"), ("\xbe", "3/4"), ("\u2153", "1/3"), ("\u2154", "2/3"),
        )
    ),
    _rule(rf"[{SYMBOL}!-~\u2044\u207a\u207b\u208a\u208b]"),
)  # fmt: skip
