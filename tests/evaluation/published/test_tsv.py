"""VLMEvalKit's tables: quoting, pictures kept once, lists, what pandas loses, what cannot be read."""

import base64
import io

import PIL.Image
import pytest

from xgenmm_jax.evaluation.published.tsv import read_table


def picture(color, size=(4, 3), kind="PNG"):
    file = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def write(path, text):
    path.write_bytes(text.encode())
    return path


def table(tmp_path, header, *rows, reading="careful"):
    text = "\n".join("\t".join(row) for row in (header, *rows)) + "\n"
    return read_table(write(tmp_path / "T.tsv", text), (), reading)


def test_quoted_cells_keep_tabs_line_breaks_and_quotes(tmp_path):
    rows = table(
        tmp_path,
        ("index", "question", "image", "answer"),
        ("0", '"a\tb\nc ""d"""', picture("red"), 'say "x"'),
        ("1", '"open" end', picture("blue"), ""),
    ).rows
    assert rows[0].cells == {"question": 'a\tb\nc "d"', "answer": 'say "x"'}
    assert rows[1].cells == {"question": "open end"}
    assert rows[1].images[0].load().getpixel((0, 0)) == (0, 0, 255)


def test_pictures_of_other_rows_and_lists_and_equal_pictures_are_one(tmp_path):
    red, blue = picture("red"), picture("blue", (5, 6))
    rows = table(
        tmp_path, ("index", "image"), ("7", red), ("8", "7"), ("9", f"['{red}', '{blue}', '7']"), ("10", red)
    ).rows
    assert rows[0].images == rows[1].images == rows[3].images
    assert [image.size_px for image in rows[2].images] == [(4, 3), (5, 6), (4, 3)]
    assert rows[2].images[0] is rows[0].images[0]


def test_what_pandas_loses_is_lost_as_published_alone(tmp_path):
    """The option "None" vanishes, whole numbers beside a blank become floats, those without one lose their zeros."""
    header = ("index", "A", "B", "C", "image")
    rows = (("0", "None", "2", "007", picture("red")), ("1", "NA", "", "8", "0"))
    careful = table(tmp_path, header, *rows).rows
    assert careful[0].options() == {"A": "None", "B": "2", "C": "007"}
    assert careful[1].options() == {"A": "NA", "C": "8"}
    published = table(tmp_path, header, *rows, reading="as_published").rows
    assert published[0].options() == {"B": "2.0", "C": "7"}
    assert published[1].options() == {"C": "8"}


def test_rows_without_a_picture_are_counted_and_unreadable_ones_kept(tmp_path):
    cut = picture("red")[:40]
    read = table(tmp_path, ("index", "image"), ("0", picture("red")), ("1", ""), ("2", cut), ("3", "no such row"))
    assert read.without_image == 1
    assert [row.index for row in read.rows] == ["0", "2", "3"]
    assert "of row 2" in read.rows[1].unreadable
    assert "neither base64 nor the index of another row" in read.rows[2].unreadable
    assert read.rows[1].images == read.rows[2].images == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("index\tquestion\n0\twhy\n", "has no column 'image'; found: index, question"),
        ("index\timage\n0\tx\ty\n", "row 2 has 3 cells and the header 2"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=f"T.tsv'.*{sentence}"):
        read_table(write(tmp_path / "T.tsv", text), (), "careful")


def test_a_quote_without_an_end_and_two_columns_of_a_name_are_refused(tmp_path):
    """The first swallowed all rows behind it, the second shifted cells between rows."""
    text = f'index\timage\tquestion\n0\t{picture("red")}\t"open\n1\t{picture("blue")}\tlast\n'
    with pytest.raises(ValueError, match="a quoted cell without an end"):
        read_table(write(tmp_path / "T.tsv", text), (), "careful")
    text = f"index\timage\tA\tA\n0\t{picture('red')}\tx\ty\n"
    with pytest.raises(ValueError, match="two columns 'A'"):
        read_table(write(tmp_path / "T.tsv", text), (), "careful")


def test_a_short_list_of_references_and_a_byte_order_mark_are_read(tmp_path):
    text = f"\ufeffindex\timage\n1\t{picture('red')}\n2\t['1', '1']\n"
    rows = read_table(write(tmp_path / "T.tsv", text), (), "careful").rows
    assert len(rows[1].images) == 2 and not rows[1].unreadable
