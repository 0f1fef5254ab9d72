"""Which option an answer names, by the rules of lmms-eval 0.7.3: another one for almost every benchmark.

Where lmms-eval draws a letter at random, or takes a character that is no option's, nothing is read here: None.
MMMU's rule, which its Q-Bench tasks use as well, is in `mmmu.py`.
"""

from collections.abc import Mapping
import re
import string

_MARKS = ",.!?;:'\""
"""Taken off the ends of an answer one after the other: "B,." keeps its comma."""
_PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is", "best answer is",
    "the correct option is", "correct option is", "the best option is", "best option is", "the choice is", "choice is",
    "the correct choice is", "correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
"""How a letter may be written, and how much that counts; its last place in the answer counts among equals."""
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0
_ANY_LETTERS = "ABCDEFGH"

_LEADING = re.compile(r"\s*([A-Z])\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MMBENCH_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")


def extract_letter(answer: str, letters: str = "ABCD") -> str | None:
    """MMStar's, RealWorldQA's: the letter in the most telling form, the last of equals.

    At the start or the end of the answer, behind "the answer is", as "(B)", "B.", "B:", "B)", "B ", else anywhere: so
    "Cannot say" gives C. letters: those looked for; none means A to H.
    """
    if not answer.strip():
        return None
    text = answer.strip()
    for mark in _MARKS:
        text = text.strip(mark)
    text = f" {text} "
    letters = letters or _ANY_LETTERS
    # (how much the form counts, position in the text, letter); of equals the first.
    candidates = [
        (weight, text.rfind(form.format(letter)), letter)
        for form, weight in _FORMS
        for letter in letters
        if form.format(letter) in text
    ]
    lower = text.lower()
    for phrase in _PHRASES:
        if (at := lower.find(phrase)) >= 0:
            positions = [(text.find(letter, at + len(phrase)), letter) for letter in letters]
            candidates += [(_PHRASE, position, letter) for position, letter in positions if position >= 0]
    core = text.strip()
    starts = [letter for letter in letters if core.startswith(letter) and not core[1:2].isalpha()]
    ends = [letter for letter in letters if core.endswith(letter) and not core[-2:-1].isalpha()]
    candidates += [(_START, 0, letter) for letter in starts] + [(_END, len(text), letter) for letter in ends]
    candidates = candidates or [(_ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(candidates, key=lambda one: one[:2])[2] if candidates else None


def first_letter(answer: str, letters: str = "ABCD") -> str | None:
    """SEED's: the first character of the answer, whatever its case: "beware" gives B, "The B" nothing."""
    letter = answer.strip()[:1].upper()
    return letter if letter and letter in letters else None


def leading_letter(answer: str) -> str:
    """MuirBench's: the capital in front of a period that begins the answer, else the whole answer."""
    match = _LEADING.match(answer)
    return match[1] if match else answer


def unmarked_letter(answer: str) -> str:
    """AI2D's: `leading_letter` in lower case without punctuation: "(B)" gives "b", "B) leaf" gives "b leaf"."""
    return leading_letter(answer).strip().lower().translate(_NO_PUNCTUATION)


def extract_blink_letter(answer: str, letters: str) -> str | None:
    """BLINK's: an answer of hardly more than the letter, the last "answer is B", the last "(B)", or the first letter.

    letters: of the question's options; none means A to Z.
    """
    text = answer.strip()
    letters = letters or string.ascii_uppercase
    line = text.split("\n", 1)[0].strip()
    short = re.fullmatch(rf"\(?([{letters}])\)?[\s.:,)]*", line, re.IGNORECASE) if len(line) <= 4 else None
    if short:
        return short[1].upper()
    stated = rf"answers?(?:\s+is)?\s*[:\-]?\s*\(?([{letters}])\)?(?![A-Za-z])"
    if said := re.findall(stated, text, re.IGNORECASE):
        return said[-1].upper()
    if bracketed := re.findall(rf"\(([{letters}])\)", text):
        return bracketed[-1]
    leading = re.match(rf"[(\s]*([{letters}])", text, re.IGNORECASE)
    return leading[1].upper() if leading else None


def extract_mmbench_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """MMBench's without a judge (`mmbench_en_dev_static`): a letter as a word, an option's text, else `extract_letter`.

    options: letter to text, of A to D; E is found as a word alone.
    """
    if "Failed to obtain answer via API" not in answer:
        words = answer.split()
        for form in ("{}", *_MMBENCH_FORMS):
            named = [letter for letter in "ABCDE" if form.format(letter) in words]
            # Alone among more than three words, "A" is taken for an article.
            if len(named) == 1 and not (form == "{}" and "A" in words and len(words) > 3):
                return named[0]
    texts = {letter: text for letter, text in sorted(options.items()) if letter in "ABCD"}
    named = [letter for letter, text in texts.items() if text.lower() in answer.lower()]
    return named[0] if len(named) == 1 else extract_letter(answer, "".join(texts))
