import numpy as np
import pytest

from embedder.breast import breast_mask
from embedder.mammogram import read_mammogram
from embedder.preparation import PreparationError
from embedder.tissue import study_files, tissue_grid


def test_every_square_is_breast_by_a_slow_count(mini_mias):
    mammogram = read_mammogram(mini_mias / "images" / "mdb003.png")
    mask = breast_mask(mammogram.pixels)
    boxes = tissue_grid(mammogram, side=96, limit=1000)
    assert len(boxes) > 5
    for box in boxes:
        assert (box.width, box.height) == (96, 96)
        assert mask[box.y0 : box.y1, box.x0 : box.x1].mean() >= 0.95
    assert len({(box.x0, box.y0) for box in boxes}) == len(boxes)


def test_a_mirrored_film_gives_mirrored_squares_in_stored_coordinates(mini_mias):
    mammogram = read_mammogram(mini_mias / "images" / "mdb004.png")
    mask = breast_mask(mammogram.pixels)
    for box in tissue_grid(mammogram, side=64):
        assert mask[box.y0 : box.y1, box.x0 : box.x1].mean() >= 0.9


def test_the_limit_spreads_over_the_breast(mini_mias):
    mammogram = read_mammogram(mini_mias / "images" / "mdb003.png")
    everything = tissue_grid(mammogram, side=48, limit=1000)
    few = tissue_grid(mammogram, side=48, limit=5)
    assert len(few) == 5
    assert few[0] == everything[0]
    assert few[-1] == everything[-1]
    assert set(few) <= set(everything)


@pytest.mark.parametrize("side", [0, -3, 1025])
def test_a_square_that_does_not_fit_is_refused(mini_mias, side):
    mammogram = read_mammogram(mini_mias / "images" / "mdb003.png")
    with pytest.raises(PreparationError, match="does not fit"):
        tissue_grid(mammogram, side=side)


def test_study_files_are_found_below_and_sorted(tmp_path):
    for name in ("b/2.dcm", "a/1.dcm", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(np.zeros(4, np.uint8).tobytes())
    assert [p.relative_to(tmp_path).as_posix() for p in study_files(tmp_path)] == ["a/1.dcm", "b/2.dcm"]
