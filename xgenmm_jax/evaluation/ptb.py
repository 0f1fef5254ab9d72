"""Penn Treebank tokens of captions, without Java: what COCO's tools feed to CIDEr.

Agrees with Stanford CoreNLP 3.4.1's `PTBTokenizer -preserveLines -lowerCase` on ordinary captions, see the tests for
the odd ones. The lexer decides on the text as written and lower-cases last ("AT&T" stays whole, "at&t" does not).
"""

import re

_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_REPLACED = str.maketrans({
    "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "–": "--", "—": "--", "…": "...", "½": "1/2", "¼": "1/4",
    "¾": "3/4", "£": "#", "€": "$", "¢": " cents ", "\u00a0": " ", "\u00ad": "",
})  # fmt: skip
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SPLIT_WORDS = {
    "cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "gimme": "gim me", "lemme": "lem me",
}  # fmt: skip

_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Messrs|Dr|Prof|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Cpl|Maj|Adm|Gov|Sen|Rep|Pres|St|Ste|Mt|Ft|Ave|Blvd|Rd|Jr|Sr|"
    "Bros|Inc|Ltd|Co|Cos|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Mon|Tue|Tues|Wed|Thu|Thurs|Fri|vs|etc|"
    "al|seq|Alex|Wm|Jos|Cie|Ph\\.D|Ph|Ariz|Calif|Colo|Conn|Fla|Ill|Kan|Mass|Mich|Minn|Miss|Mo|Neb|Okla|Ore|Pa|Tenn|Tex|"
    "Va|Wash|Wis"
)
_L = r"[^\W\d_]"  # a letter
_CLITIC = r"(?i:'(?:s|m|d|re|ve|ll)|n't)"
_TOKEN = re.compile(
    "|".join([
        r"(?P<url>https?://[^\s\"<>|()]*[^\s\"<>|.!?(){},-])",
        r"(?P<email>[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)",
        r"(?P<site>(?:www\.)?(?:[\w-]+\.)+(?:com|net|org|edu)\b(?:/[^\s\"<>|()]*[^\s\"<>|.!?(){},-])?)",
        r"(?P<tag></?[A-Za-z!?][^<>]*>)",
        r"(?P<smiley>(?<!\w)[<>]?[:;=][-o*']?[()DPpO\\{@|\[\]](?!\w))",
        r"(?P<handle>[#@][A-Za-z]\w*)",
        r"(?P<company>[A-Z]+(?:&[A-Z]+)+)",
        r"(?P<decade>'\d\ds?\b)",
        r"(?P<rock>'n'?(?!\w)|'[tT](?=(?:is|was)\b))",
        r"(?P<acronym>(?<![\w.])[A-Za-z](?:\.[A-Za-z])+\.(?!\w))",
        rf"(?P<abbreviation>\b(?i:{_ABBREVIATIONS})\.(?!\w)|\b(?i:{_ABBREVIATIONS})\.(?=\d))",
        r"(?P<numero>\b[Nn]o\.(?=\s*\d))",
        r"(?P<initial>\b[A-Z]\.(?=\s))",
        r"(?P<time>\d{1,2}:\d\d(?=[ap]\.?m)|\d{1,2}:\d\d(?=[AP]\.?M))",
        r"(?P<odd>\b(?i:o'clock|ma'am|o'er|ne'er|e'er|'em)\b|\b[ODL]'[A-Z]\w+)",
        # A number, alone or opening a compound: 1,000 3/4 5:30 2-year-old 50/50 30th 3D
        rf"(?P<compound>(?<!\w)(?:[+-](?=\d))?\d+(?:[.,:/]\d+)*(?:{_L}|\d)*(?:[-/]\w+)*)",
        # Letters whose own end is a clitic: the word's part first
        rf"(?P<clitic>(?<=\w){_CLITIC}(?!\w))",
        rf"(?P<stem>(?:{_L}|\d|[-/](?=\w))+?(?=(?i:n't)(?!\w)))",
        # Periods and marks inside a word stay where letters follow at once; a compound with hyphens does not have them.
        rf"(?P<word>{_L}(?:{_L}|\d)*(?:[-/_](?:{_L}|\d)+)+|{_L}(?:{_L}|\d)*(?:[.!?]{_L}(?:{_L}|\d)*)*)",
        r"(?P<marks>[!?]{2,}|\.{2,}|-{2,}|_+|'')",
        r"(?P<one>\S)",
    ])
)  # fmt: skip
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]")


def tokenize(caption: str) -> list[str]:
    """`"A man's (red) hat."` gives `["a", "man", "'s", "-lrb-", "red", "-rrb-", "hat"]`: lower case, no punctuation."""
    return [token for token in raw_tokens(caption) if token not in _DROPPED]


def raw_tokens(caption: str) -> list[str]:
    """All tokens in lower case, punctuation among them; double quotes are all given as `''`."""
    text = _EMOJI.sub(" ", caption.translate(_REPLACED))
    tokens = []
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "smiley":
            token = "".join(_BRACKETS.get(c, c) for c in token)
        elif kind == "marks" and token[0] in ".-":
            token = "..." if token[0] == "." else "--"
        elif kind == "one":
            token = _BRACKETS.get(token, "''" if token == '"' else token)
        tokens.extend(_SPLIT_WORDS.get(token.lower(), token.lower()).split())
    return tokens
