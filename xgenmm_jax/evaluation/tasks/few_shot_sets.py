"""The sets of the paper's few-shot tables: COCO, NoCaps and TextCaps captions; VQAv2, OK-VQA and TextVQA questions.

Captions are scored by CIDEr-D over exactly the images that are asked, questions by VQA accuracy as OpenFlamingo does.
Files and folders are those of the sets' own distributions; COCO's pictures lie in coco/train2014 and coco/val2014.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
import functools
import json
from pathlib import Path
from typing import Any

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.storage import json_elements
from xgenmm_jax.evaluation import fewshot
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.files import Original
from xgenmm_jax.evaluation.published.originals import image_below, text_list, texts
from xgenmm_jax.evaluation.scorers import answer_stems, caption_tokens, cider, estimates, vqa
from xgenmm_jax.evaluation.scorers.estimates import Term
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.few_shot import FewShot, Keep
from xgenmm_jax.evaluation.tasks.task import Scored

Read = Callable[..., Iterator[Example | None]]
"""(the user's folder) -> the entries of a split; of a training split, also (the folder, which ids are kept)."""

Summarize = Callable[[Sequence[Prediction], Profile], Estimates]
"""All predictions of a set -> its scores by name."""

PROFILES: tuple[Profile, ...] = ("paper", "official")


# ---------------------------------------------------------------- readers


def objects(path: Path, member: str) -> Iterator[dict[str, Any]]:
    """The objects of a list in a JSON file, read as a stream. Raises ValueError that names the file."""
    return (value for _, value in keyed_objects(path, member))


def keyed_objects(path: Path, member: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON file's member, or without one of the file itself, with their keys: "" in a list."""
    try:
        with path.open("rb") as file:
            for element in json_elements.of_object(file, str(path), member):
                if element.reason:
                    where = f"entry {element.number}" + (f" of {member}" if member else "")
                    raise ValueError(f"benchmark: '{path}', {where}: {element.reason}.")
                yield element.key, element.value
    except SourceError as error:
        raise ValueError(f"benchmark: {error}") from error


def example_of(
    id_: str, image_id: str, folder: Path, name: str, question: str, answers: Sequence[str]
) -> Example | None:
    """One about an image of a name below a folder; None, which is counted as left out, where nobody answered."""
    if not answers:
        return None
    images, unreadable = image_below(folder, name)
    return Example(id_, images, question, tuple(answers), fields={"image_id": image_id}, unreadable=unreadable)


def _coco(split: str, folder: Path, keep: Keep = None) -> Iterator[Example | None]:
    """Karpathy's split of COCO; an image is an entry."""
    path = folder / "coco/dataset_coco.json"
    for row in objects(path, "images"):
        name, row_split, id_ = texts(row, ("filename", "split", "cocoid"), path)
        if row_split != split or (keep is not None and not keep(id_)):
            continue
        captions = [texts(sentence, ("raw",), path)[0] for sentence in row.get("sentences", ())]
        path_below = f"{row.get('filepath', 'val2014')}/{name}"
        yield example_of(id_, f"coco {id_}", folder / "coco", path_below, "", captions)


def nocaps(folder: Path) -> Iterator[Example | None]:
    path = folder / "nocaps/nocaps_val_4500_captions.json"
    captions: dict[str, list[str]] = {}
    for row in objects(path, "annotations"):
        image_id, caption = texts(row, ("image_id", "caption"), path)
        captions.setdefault(image_id, []).append(caption)
    for row in objects(path, "images"):
        id_, name = texts(row, ("id", "file_name"), path)
        example = example_of(id_, f"nocaps {id_}", folder / "nocaps/val", name, "", captions.get(id_, ()))
        domain = {"domain": str(row.get("domain", ""))}
        yield None if example is None else replace(example, fields={**example.fields, **domain})


def _textcaps(split: str, folder: Path, keep: Keep = None) -> Iterator[Example | None]:
    """The file has a row for each caption; an image is an entry, once."""
    path = folder / f"textcaps/TextCaps_0.1_{split}.json"
    seen: set[str] = set()
    for row in objects(path, "data"):
        (id_,) = texts(row, ("image_id",), path)
        if id_ in seen or (keep is not None and not keep(id_)):
            continue
        seen.add(id_)
        captions = text_list(row, "reference_strs", path) or texts(row, ("caption_str",), path)
        yield example_of(id_, f"openimages {id_}", folder / "textcaps/train_images", f"{id_}.jpg", "", captions)


def _vqa(questions: str, annotations: str, images: str, folder: Path, keep: Keep = None) -> Iterator[Example | None]:
    """VQA's two files. images: the picture's path, with the image's id for "{}".

    OK-VQA's answers are stems, beside which their file has what was written: a field says how words are stemmed.
    """
    path = folder / annotations
    answers: dict[str, list[str]] = {}
    pairs: list[tuple[str, str]] = []
    for row in objects(path, "annotations"):
        (id_,) = texts(row, ("question_id",), path)
        if keep is None or keep(id_):
            answers[id_] = [texts(answer, ("answer",), path)[0] for answer in row.get("answers", ())]
            pairs += [(str(answer["raw_answer"]), str(answer["answer"])) for answer in row.get("answers", ())
                      if "raw_answer" in answer]  # fmt: skip
    stems = answer_stems.stems_of(pairs)
    path = folder / questions
    for row in objects(path, "questions"):
        id_, image_id, question = texts(row, ("question_id", "image_id", "question"), path)
        if keep is None or keep(id_):
            name = images.format(int(image_id)) if image_id.isdigit() else image_id
            example = example_of(id_, f"coco {image_id}", folder, name, question, answers.get(id_, ()))
            if example is not None and stems:
                of_answers = answer_stems.relevant(stems, example.answers)
                example = replace(example, fields={**example.fields, "stems": json.dumps(of_answers)})
            yield example


def _textvqa(split: str, folder: Path, keep: Keep = None) -> Iterator[Example | None]:
    path = folder / f"textvqa/TextVQA_0.5.1_{split}.json"
    for row in objects(path, "data"):
        id_, image_id, question = texts(row, ("question_id", "image_id", "question"), path)
        if keep is None or keep(id_):
            answers = text_list(row, "answers", path)
            name = f"{image_id}.jpg"
            yield example_of(id_, f"openimages {image_id}", folder / "textvqa/train_images", name, question, answers)


# ---------------------------------------------------------------- scores


def _message(example: Example, profile: Profile) -> Message:
    """Without demonstrations: not how these are asked, but what a page shows."""
    return multiple_choice.images_first(example, example.question)


def _score_caption(answer: str, example: Example, profile: Profile) -> Scored:
    """Whether there is a caption; CIDEr needs all of them at once."""
    text = fewshot.cut_answer(answer, "caption").strip()
    return Scored(float(bool(text)), text or None)


def _score_answer(answer: str, example: Example, profile: Profile) -> Scored:
    text = fewshot.cut_answer(answer, "question").strip()
    compared = stemmed_answer(text, example) if profile == "paper" else text
    return Scored(vqa.vqa_accuracy(compared, example.answers, profile), text or None)


def _cider(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """CIDEr-D times 100, as papers print it. Its document frequencies count as fixed in the standard error."""
    captions = {prediction.example.id: prediction.extracted or "" for prediction in predictions}
    references = {prediction.example.id: prediction.example.answers for prediction in predictions}
    tokenizer = caption_tokens.chosen()
    _, of_image = cider.cider(captions, references, tokenizer.tokenize_all)
    unparsed = {prediction.example.id for prediction in predictions if prediction.extracted is None}
    terms = [Term(id_, score, 1.0, id_ in unparsed) for id_, score in of_image.items()]
    table = {"CIDEr": replace(estimates.ratio(terms), note=tokenizer.name)}
    for domain in sorted({d for prediction in predictions if (d := prediction.example.fields.get("domain"))}):
        there = [p.example.id for p in predictions if p.example.fields.get("domain") == domain]
        table[domain] = estimates.ratio(Term(id_, of_image[id_], 1.0, id_ in unparsed) for id_ in there)
    return table


def accuracy(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """Over questions; the error is over images."""
    return {"accuracy": multiple_choice.accuracy(predictions, lambda p: p.example.fields["image_id"])}


def stemmed_answer(answer: str, example: Example) -> str:
    """An answer as OK-VQA's file stems its own ("ride" for "riding"). docs/reference/evaluation.md#vqa-accuracy."""
    return answer_stems.stemmed(answer, json.loads(example.fields.get("stems", "{}")))


def stemmed_accuracy(
    predictions: Sequence[Prediction], profile: Profile, beside: str, without: str, is_stemmed: bool = True
) -> Estimates:
    """Accuracy of OK-VQA, with a note that says whether answers were stemmed, as its references are.

    beside: of the note where they were, how the original stems. without: where they were not, what that means.
    is_stemmed: whether answers are compared as stems where the file has some.
    """
    if is_stemmed and all("stems" in prediction.example.fields for prediction in predictions):
        note = f"answers are stemmed as their file stems its own; {beside}"
    else:
        note = f"answers are not stemmed, as the references are: {without}"
    return {name: replace(one, note=note) for name, one in accuracy(predictions, profile).items()}


def _stemmed(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    words = ("OpenFlamingo's script asks WordNet", "not comparable with OpenFlamingo's scores")
    return stemmed_accuracy(predictions, profile, *words, is_stemmed=profile == "paper")


_COCO_QUESTIONS = "COCO's annotations at visualqa.org/download.html"
_FILES = {
    "vqav2": ("vqav2/v2_OpenEnded_mscoco_{}2014_questions.json", "vqav2/v2_mscoco_{}2014_annotations.json"),
    "okvqa": ("okvqa/OpenEnded_mscoco_{}2014_questions.json", "okvqa/mscoco_{}2014_annotations.json"),
}


def _of_coco(name: str, split: str) -> Callable[..., Iterator[Example | None]]:
    images = f"coco/{split}2014/COCO_{split}2014_{{:012d}}.jpg"
    return functools.partial(_vqa, *(file.format(split) for file in _FILES[name]), images)


def _questions(name: str, title: str, source: str, summarize: Summarize = accuracy) -> FewShot:
    return FewShot(
        name=name, title=title, source=source,
        published=(Original(tuple(file.format("val") for file in _FILES[name]), _of_coco(name, "val")),),
        message=_message, score=_score_answer, summarize=summarize, headline="accuracy", profiles=PROFILES,
        train=_of_coco(name, "train"),
    )  # fmt: skip


def _captions(name: str, title: str, source: str, files: tuple[str, ...], read: Read, train: Read) -> FewShot:
    return FewShot(
        name=name, title=title, source=source, published=(Original(files, read),), message=_message,
        score=_score_caption, summarize=_cider, headline="CIDEr", profiles=PROFILES, train=train, kind="caption",
    )  # fmt: skip


FEW_SHOT: tuple[FewShot, ...] = (
    _captions(
        "coco", "COCO captions", "cocodataset.org, splits at cs.stanford.edu/people/karpathy/deepimagesent",
        ("coco/dataset_coco.json",), functools.partial(_coco, "test"), functools.partial(_coco, "train"),
    ),
    _captions(
        "nocaps", "NoCaps", "nocaps.org/download", ("nocaps/nocaps_val_4500_captions.json", "coco/dataset_coco.json"),
        nocaps, functools.partial(_coco, "train"),
    ),
    _captions(
        "textcaps", "TextCaps", "textvqa.org/textcaps/dataset",
        ("textcaps/TextCaps_0.1_val.json", "textcaps/TextCaps_0.1_train.json"),
        functools.partial(_textcaps, "val"), functools.partial(_textcaps, "train"),
    ),
    _questions("vqav2", "VQAv2", _COCO_QUESTIONS),
    # Version 1 compared answers as they were.
    replace(
        _questions("okvqa", "OK-VQA", "okvqa.allenai.org/download.html, with COCO's pictures", _stemmed), version=2,
    ),
    FewShot(
        name="textvqa", title="TextVQA", source="textvqa.org/dataset",
        published=(
            Original(
                ("textvqa/TextVQA_0.5.1_val.json", "textvqa/TextVQA_0.5.1_train.json"),
                functools.partial(_textvqa, "val"),
            ),
        ),
        message=_message, score=_score_answer, summarize=accuracy, headline="accuracy", profiles=PROFILES,
        train=functools.partial(_textvqa, "train"),
    ),
)  # fmt: skip
"""Without a number of shots; `FewShot.with_shots` names one."""
