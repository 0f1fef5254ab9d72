"""Labeled images of a user, and their split."""

import json

import pytest

from xgenmm_jax.probing.labeled_images import LabeledImages, read_labeled, split


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def test_a_folder_holds_a_folder_for_each_label(tmp_path):
    files = [tmp_path / name for name in ("cat/2.jpg", "cat/more/1.PNG", "dog/a b.webp")]
    touch(*files, tmp_path / "cat" / "notes.txt", tmp_path / "cat" / "._2.jpg", tmp_path / ".cache" / "3.jpg")
    labeled = read_labeled(tmp_path)
    assert labeled == LabeledImages(files, ["cat", "cat", "dog"], ["cat/2.jpg", "cat/more/1.PNG", "dog/a b.webp"])


@pytest.mark.parametrize("form", ["csv", "csv of Excel", "jsonl", "Hugging Face"])
def test_a_table_names_paths_and_labels(tmp_path, form):
    touch(tmp_path / "images" / "größe,1.jpg", tmp_path / "2.jpg")
    rows = [("images/größe,1.jpg", "cat"), ("2.jpg", "7")]
    if form == "jsonl":
        table = tmp_path / "table.jsonl"
        text = "\n".join(json.dumps({"path": path, "label": label, "more": 1}) for path, label in rows)
        text = text.replace('"7"', "7") + "\n"
    else:
        table = tmp_path / "table.csv"
        column = "file_name" if form == "Hugging Face" else "path"
        ends, mark = ("\r\n", "\ufeff") if form == "csv of Excel" else ("\n", "")
        text = mark + ends.join([f"id,{column},label", *(f'1,"{path}",{label}' for path, label in rows)]) + ends
    table.write_bytes(text.encode())
    labeled = read_labeled(table)
    assert labeled.images == [tmp_path / path for path, _ in rows]
    assert labeled.labels == ["cat", "7"] and labeled.names == [path for path, _ in rows]


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label\n1.jpg,\n", "line 2 has no label"),
        ("path,label\n,cat\n", "line 2 has no path or file_name"),
        ("image,label\n1.jpg,cat\n", "line 2 has no path or file_name"),
        ("path,label\n1.jpg,cat\n1.jpg,dog\n", "line 3 names '1.jpg' again"),
        ("path,label\n1.jpg,cat\n2.jpg,cat\n", "line 3: no file"),
        ("path,label\n", "got none in"),
    ],
)
def test_a_wrong_line_of_a_table_is_named(tmp_path, text, message):
    touch(tmp_path / "1.jpg")
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_labeled(table)


def test_a_label_without_images_and_a_missing_folder_are_named(tmp_path):
    touch(tmp_path / "cat" / "1.jpg", tmp_path / "dog" / "1.txt")
    with pytest.raises(ValueError, match="label 'dog' .* has no images; wanted PNG, JPEG"):
        read_labeled(tmp_path)
    with pytest.raises(ValueError, match="no folder or file .*birds'; give FOLDER/LABEL/IMAGE"):
        read_labeled(tmp_path / "birds")


def labeled(counts, tmp_path):
    names = [f"{label}/{n}.png" for label, count in counts.items() for n in range(count)]
    return LabeledImages([tmp_path / name for name in names], [name.split("/")[0] for name in names], names)


def test_a_split_has_the_same_part_of_every_label_and_shares_nothing(tmp_path):
    birds = labeled({"owl": 40, "wren": 8, "kite": 2}, tmp_path)
    train, test = split(birds, 0.25)
    assert [test.labels.count(label) for label in ("owl", "wren", "kite")] == [10, 2, 1]
    assert sorted(train.names + test.names) == sorted(birds.names)
    assert train.images + test.images == [tmp_path / name for name in train.names + test.names]


def test_a_split_goes_by_seed_and_not_by_order(tmp_path):
    birds = labeled({"owl": 40, "wren": 8}, tmp_path)
    backwards = LabeledImages(*(part[::-1] for part in birds))
    tests = [set(split(part, seed=seed)[1].names) for part, seed in ((birds, 0), (backwards, 0), (birds, 1))]
    assert tests[0] == tests[1] != tests[2]


@pytest.mark.parametrize(
    "counts, part, message",
    [
        ({"owl": 3, "wren": 1}, 0.5, "one image alone of 'wren'"),
        ({"owl": 3}, 0.5, "one label alone, 'owl'"),
        ({"owl": 3, "wren": 3}, 1.0, "test part of 1.0"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, counts, part, message):
    with pytest.raises(ValueError, match=message):
        split(labeled(counts, tmp_path), part)
