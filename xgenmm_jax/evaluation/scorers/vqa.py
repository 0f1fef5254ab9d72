"""VQA accuracy: an answer scored against what several people answered, as VQAv2, OK-VQA and TextVQA do."""

from collections import Counter
from collections.abc import Sequence
import re

from xgenmm_jax.evaluation.profiles import Profile

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The official pattern means to spare periods behind digits too, but its look-behind is malformed and never does.
_ANY_PERIOD, _NO_NUMBERS_PERIOD = re.compile(r"\.(?!\d)"), re.compile(r"(?<!\d)\.(?!\d)")
_PERIOD: dict[Profile, re.Pattern[str]] = {
    "paper": _ANY_PERIOD,
    "fork": _NO_NUMBERS_PERIOD,
    "latest": _NO_NUMBERS_PERIOD,
    "lmms": _ANY_PERIOD,
    "official": _ANY_PERIOD,
}
# The official call hands the flag re.UNICODE to the parameter `count`: at most 32 periods go.
_PERIODS_AT_MOST = 32
_NUMBERS = dict(zip("none zero one two three four five six seven eight nine ten".split(), [0, *range(11)], strict=True))
_ARTICLES = ("a", "an", "the")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
# Each is repaired where exactly one apostrophe is missing; the list's one oddity is kept.
_REPAIRS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED for i, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


def strip_punctuation(text: str, profile: Profile = "paper") -> str:
    """`text` without VQA's punctuation: beside a space it goes, between letters it turns into a space.

    One "1,000" makes all listed punctuation of the text go without a space; `. : ' $ % & #` are not listed.
    A period goes where no digit follows; in `fork` and `latest` it also stays behind a digit, as in "10.".
    """
    has_number = _DIGIT_COMMA_DIGIT.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if beside_space or has_number else " ")
    return _PERIOD[profile].sub("", out, count=_PERIODS_AT_MOST)


def normalize_answer(text: str, profile: Profile = "paper") -> str:
    """`"The two T-shirts."` becomes `"2 t shirts"`.

    `lmms` first deletes commas and question marks, and parts "dog's" in two.
    """
    if profile == "lmms":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = strip_punctuation(_one_line(text), profile)
    words = [str(_NUMBERS.get(word, word)) for word in text.lower().split()]
    return " ".join(_REPAIRS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(
    prediction: str, answers: Sequence[str], profile: Profile = "paper", *, answers_have_ids: bool = True
) -> float:
    """Accuracy in [0, 1]: the mean over people of min(1, others who gave this answer / 3).

    Of ten people, 0, 1, 2, 3, 4 or more who agree give 0, 0.3, 0.6, 0.9, 1.
    All profiles normalise both sides, but `official` only where the people disagree: there "Yes" is wrong where all
    said "yes". OpenFlamingo's script is `paper`. None stems words: `answer_stems` does for OK-VQA.
    answers_have_ids: False as where a file's answers lack `answer_id`. The scripts then take equal answers for one
    person's, so that the others who agree with a person who is right are none.

    Raises: ValueError where there are no answers.
    Source: GT-Vision-Lab/VQA vqaEval.py; open_flamingo eval/vqa_metric.py; VLMEvalKit vqa_eval.py; lmms-eval
    _task_utils/vqa_eval_metric.py.
    """
    if not answers:
        raise ValueError("VQA accuracy: no reference answers; wanted one of each person who was asked.")
    prediction, answers = _one_line(prediction), [_one_line(answer) for answer in answers]
    if profile != "official" or len(set(answers)) > 1:
        prediction = normalize_answer(prediction, profile)
        answers = [normalize_answer(answer, profile) for answer in answers]
    same = Counter(answers)[prediction]
    left_out = 1 if answers_have_ids else same
    others = [same - left_out * (answer == prediction) for answer in answers]
    return sum(min(1.0, count / 3) for count in others) / len(answers)


def exact_match(prediction: str, truth: str) -> bool:
    """Whether both say the same after VQA's normalisation."""
    return normalize_answer(prediction) == normalize_answer(truth)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
