"""What `ptb` sees of a character: ASCII and a few others as they are, of all others their class.

The Java tokenizer's classes, found by asking it for every character of the basic plane; its Unicode is that of 2012.
"""

import unicodedata

LETTER = "\u00e9"  # any letter beyond ASCII
MARK = "\u0301"  # joins onto the letters before and behind it
DIGIT = "\u0663"  # of another script
SYMBOL = "\u00a7"  # a token by itself
NOTHING = "\0"  # separates tokens and is none: emoji, private use, control characters, whatever came after 2012


def _ranges(text: str) -> frozenset[str]:
    """`"1f 20-22"` are the characters 1f, 20, 21 and 22."""
    ends = [[int(end, 16) for end in part.split("-")] for part in text.split()]
    return frozenset(chr(code) for end in ends for code in range(end[0], end[-1] + 1))


# Spaces, hyphens, quotes, dashes, currencies, fractions and digit separators that rules know by name.
_KNOWN = _ranges(
    "9 20-7e 80 91-94 96-97 a0 a2-a4 ab ad b2-b3 b9 bb-be 58a 66b-66c 2000-200a 2010-2011 2013-2015 2018-201f 2026 "
    "2039-203a 2044 2070 2074-207b 2080-208b 20a0 20ac 2153-2154 3000"
)
# Letters and digits by the Unicode of today alone.
_LATER_LETTERS = _ranges(
    "37f 528-52f 560 588 5ef 860-86a 870-887 889-88e 8a1 8ad-8c9 978 980 9fc af9 c34 c5a c5d c80 cdd d04 d54-d56 d5f "
    "de6-def e86 e89 e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5 13f8-13fd 16f1-16f8 170d 171f 1878 191d-191e 19b0-19c0 "
    "19c8-19c9 1b4c 1c80-1c8a 1c90-1cba 1cbd-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff "
    "a698-a69d a78f a794-a79f a7ab-a7dc a7f2-a7f7 a8fd-a8fe a9e0-a9e4 a9e6-a9fe aa7e-aa7f "
    "ab30-ab5a ab5c-ab69 ab70-abbf"
)
# Accents, vowel signs and modifiers.
_MARKS = _ranges(
    "2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 "
    "615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 962-963 "
    "981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 "
    "bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd"
)
# Each is a token by itself, whatever is beside it.
_SYMBOLS = _ranges(
    "a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b 61e-61f 66a 66d "
    "6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042 207c-207e 208c-208e 20a4 "
    "2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b 2140-2144 214a-214d 214f "
    "2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6"
)


def shape(text: str) -> str:
    """The text as the rules see it, character by character. `"Ça ☕ 5€!"` gives `"\u00e9a \u00a7 5€!"`."""
    return "".join(c if " " <= c <= "~" else _class(c) for c in text)


def _class(character: str) -> str:
    if character in _KNOWN:
        return character
    if character in _MARKS:
        return MARK
    if character in _SYMBOLS:
        return SYMBOL
    category = unicodedata.category(character)
    if character > "\uffff" or character in _LATER_LETTERS or not (category[0] == "L" or category == "Nd"):
        return NOTHING
    return DIGIT if category == "Nd" else LETTER
