"""CIDEr-D of captions (Vedantam et al. 2015), as COCO's tools compute it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from xgenmm_jax.evaluation.scorers import ptb
from xgenmm_jax.evaluation.scorers.caption_tokens import TokenizeAll

MAX_NGRAM = 4
SIGMA = 6.0
"""Of the Gaussian over the difference in length."""

NGram = tuple[str, ...]


class _Vectors(NamedTuple):
    """tf-idf weights of one sentence, a dict per n-gram order."""

    weights: list[dict[NGram, float]]
    norms: list[float]
    bigrams: int


def cider(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize_all: TokenizeAll = ptb.tokenize_all,
) -> tuple[float, dict[str, float]]:
    """CIDEr-D of a corpus (papers report 100 times this) and of each image.

    predictions: a caption per image id; references: the people's captions of the same ids.
    Document frequencies come from these references, so a part of a corpus scores differently, and one image alone 0.
    tokenize_all: of captions; VLMEvalKit's COCO_VAL only splits them at white space, and its number is no CIDEr-D that
    papers print.
    """
    flat = iter(tokenize_all([text for key in predictions for text in references[key]]))
    tokens = {key: [next(flat) for _ in references[key]] for key in predictions}
    guesses = dict(zip(predictions, tokenize_all(list(predictions.values())), strict=True))
    return cider_of_tokens(guesses, tokens)


def cider_of_tokens(
    predictions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[Sequence[str]]]
) -> tuple[float, dict[str, float]]:
    """`cider` of sentences that are tokenised already."""
    frequency, log_images = _frequency(references), math.log(len(references))

    scores = {}
    for key, prediction in predictions.items():
        guess = _vectors(prediction, frequency, log_images)
        similarities = [_similarity(guess, _vectors(s, frequency, log_images)) for s in references[key]]
        scores[key] = 10.0 * sum(similarities) / len(similarities)
    return sum(scores.values()) / len(scores), scores


def best_constant(references: Mapping[str, Sequence[str]]) -> str:
    """The reference that has the highest CIDEr-D where it is the prediction of every image.

    All references of all images are tried, each against those alone that share an n-gram with it.
    """
    tokens = {key: ptb.tokenize_all(texts) for key, texts in references.items()}
    frequency, log_images = _frequency(tokens), math.log(len(tokens))
    # One entry for each reference: its vectors, and its weight in the mean over its image's references.
    truths = [
        (_vectors(sentence, frequency, log_images), 1 / len(sentences))
        for sentences in tokens.values()
        for sentence in sentences
    ]
    # N-gram -> the references that contain it.
    containing: defaultdict[NGram, list[int]] = defaultdict(list)
    for index, (truth, _) in enumerate(truths):
        for gram in {gram for order in truth.weights for gram in order}:
            containing[gram].append(index)

    def total(guess: _Vectors) -> float:
        # Clipped products with the references that share an n-gram; with all others they are 0.
        dots: defaultdict[int, list[float]] = defaultdict(lambda: [0.0] * MAX_NGRAM)
        for n, order in enumerate(guess.weights):
            for gram, weight in order.items():
                for index in containing[gram] if weight else ():
                    other = truths[index][0].weights[n][gram]
                    dots[index][n] += min(weight, other) * other
        # Cosines by length of n-gram, and the penalty for another length.
        result = 0.0
        for index, products in dots.items():
            truth, share = truths[index]
            norms = zip(products, guess.norms, truth.norms, strict=True)
            cosines = sum(dot / (a * b) for dot, a, b in norms if a and b)
            result += share * cosines * _length_penalty(guess, truth)
        return result

    candidates = {text: ptb.tokenize(text) for texts in references.values() for text in texts}
    return max(candidates, key=lambda text: total(_vectors(candidates[text], frequency, log_images)))


def _frequency(references: Mapping[str, Sequence[Sequence[str]]]) -> Counter[NGram]:
    """The number of images that have each n-gram in a reference."""
    frequency: Counter[NGram] = Counter()
    for sentences in references.values():
        frequency.update({gram for sentence in sentences for gram in _ngrams(sentence)})
    return frequency


def _ngrams(sentence: Sequence[str]) -> Counter[NGram]:
    spans = ((i, n) for n in range(1, MAX_NGRAM + 1) for i in range(len(sentence) - n + 1))
    return Counter(tuple(sentence[i : i + n]) for i, n in spans)


def _vectors(sentence: Sequence[str], frequency: Counter[NGram], log_images: float) -> _Vectors:
    weights: list[dict[NGram, float]] = [{} for _ in range(MAX_NGRAM)]
    for gram, count in _ngrams(sentence).items():
        weights[len(gram) - 1][gram] = count * (log_images - math.log(max(1, frequency[gram])))
    norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
    return _Vectors(weights, norms, max(len(sentence) - 1, 0))


def _similarity(guess: _Vectors, truth: _Vectors) -> float:
    """Mean over orders of the clipped cosine, times the penalty for another length (counted in bigrams)."""
    total = 0.0
    for n in range(MAX_NGRAM):
        if guess.norms[n] and truth.norms[n]:
            # In the guess's order: a set's depends on the process, and with it the sum's last bit.
            shared = [gram for gram in guess.weights[n] if gram in truth.weights[n]]
            dot = sum(min(guess.weights[n][g], truth.weights[n][g]) * truth.weights[n][g] for g in shared)
            total += dot / (guess.norms[n] * truth.norms[n])
    return total / MAX_NGRAM * _length_penalty(guess, truth)


def _length_penalty(guess: _Vectors, truth: _Vectors) -> float:
    return math.exp(-((guess.bigrams - truth.bigrams) ** 2) / (2 * SIGMA**2))
