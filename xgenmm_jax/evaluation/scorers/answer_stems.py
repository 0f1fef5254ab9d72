"""Stems of words, as a file has them that says of its answers both what was written and its stem, as OK-VQA's does.

Answers of a model are brought to the form of the references by the file's own pairs alone, so nothing is downloaded.
OpenFlamingo's script asks WordNet and NLTK's tagger instead, which differ where nobody wrote a word of the model's.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
import re

_WORD = re.compile(r"[\w'-]+")


def stems_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Word -> its most frequent stem, of (what was written, its stem); in lower case.

    Example: ("Riding bikes", "ride bike") gives riding -> ride and bikes -> bike. Answers whose two forms have other
    numbers of words tell nothing. Of equally frequent stems the first in the alphabet is taken.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for written, stem in pairs:
        words, stems = _WORD.findall(written.lower()), _WORD.findall(stem.lower())
        if len(words) == len(stems):
            for word, stem_of_word in zip(words, stems, strict=True):
                counts[word][stem_of_word] += 1
    return {word: min(of_word, key=lambda stem: (-of_word[stem], stem)) for word, of_word in counts.items()}


def relevant(stems: Mapping[str, str], answers: Sequence[str]) -> dict[str, str]:
    """The words that a stem changes into one of the answers' words: no other changes whether an answer is right."""
    words = {word for answer in answers for word in _WORD.findall(answer.lower())}
    return {word: stem for word, stem in stems.items() if word != stem and (stem in words or word in words)}


def stemmed(text: str, stems: Mapping[str, str]) -> str:
    """`text` with each word that has a stem replaced by it; the rest as it is.

    Example: "Riding, a bike" with riding -> ride is "ride, a bike".
    """
    return _WORD.sub(lambda match: stems.get(match.group().lower(), match.group()), text)
