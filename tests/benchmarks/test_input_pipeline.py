"""The benchmark of images into rows: its sides give the same pixels, its figures come from the tables they name."""

import io

import numpy as np
import PIL.Image
import pytest

from benchmarks import input_pipeline, rounds


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.radial_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def test_the_sides_have_the_same_pixels_and_times(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "IMAGES", 2)
    blobs = [jpeg(820, 900), jpeg(97, 301)]
    input_pipeline.write(tmp_path, blobs)
    mean, most = input_pipeline.check_pixels(tmp_path, blobs)  # ends where ours are not Pillow's
    assert 0 < mean < most < 30
    sides = [
        input_pipeline.Rows(tmp_path, "stage1", from_files=True),
        input_pipeline.Rows(tmp_path, "stage1", is_scaled=True),
        input_pipeline.Pillow(blobs, "stage2", is_normalized=True),
    ]
    assert all(side.run(1) > 0 for side in sides)


def test_other_pixels_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "IMAGES", 2)
    blobs = [jpeg(120, 50), jpeg(97, 101)]
    input_pipeline.write(tmp_path, blobs)
    with pytest.raises(SystemExit, match="stage1: the crops of image 0 are not Pillow's"):
        input_pipeline.check_pixels(tmp_path, blobs[::-1])


def test_step_times_are_those_of_the_pods():
    for stage in input_pipeline.VIEWS:
        for pod, chips in input_pipeline.PODS.items():
            bound_s, tokens_a_chip = input_pipeline.planned(stage, pod)
            assert 0.3 < bound_s / (512 * 4096 / (tokens_a_chip * chips)) < 0.7


def test_photographs_have_the_size_and_are_not_enlarged():
    blobs = input_pipeline.photos()
    sizes = {PIL.Image.open(io.BytesIO(blob)).size for blob in blobs}
    assert len(set(blobs)) == input_pipeline.IMAGES and sizes == {(1280, 960)}
    first = np.asarray(PIL.Image.open(io.BytesIO(blobs[0]))).astype(int)
    # The first is 512 wide, and mirrored behind that.
    assert np.abs(first[:512, :512] - first[:512, 1023:511:-1]).mean() < 3


@pytest.mark.parametrize(("ours", "scaled", "missed"), [(0.013, 0.008, 0), (0.0141, 0.008, 1), (0.013, 0.009, 1)])
def test_a_missed_bound_ends_it_with_1(monkeypatch, capsys, ours, scaled, missed):
    def timed(makes, *_, **__):
        seconds = {"stage1": ours, "stage1 scaled": scaled}
        return {name: rounds.Timed((seconds.get(name, 0.014),) * 3, {}) for name in makes}, {}

    monkeypatch.setattr(input_pipeline.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(input_pipeline, "photos", lambda: [jpeg(64, 48)])
    monkeypatch.setattr(input_pipeline, "check_pixels", lambda *_: (0.9, 33))
    monkeypatch.setattr(input_pipeline.step_sizes, "WINDOWS", 1)
    monkeypatch.setattr(input_pipeline.rounds, "alternate", timed)
    input_pipeline.images_of_a_step.cache_clear()
    assert input_pipeline.main() == missed
    out = capsys.readouterr().out
    assert out.count("MISSED") == missed and "v5p:4x4x8, stage2" in out
    input_pipeline.images_of_a_step.cache_clear()
