"""Places worth looking at: the best first, apart from each other, on the right pixels; and their picture."""

import cv2
import numpy as np
import pytest

from embedder.findings import Box
from embedder.heatmap import draw_heat_map, heat
from embedder.montage import MontageError
from embedder.places import around, find_places
from embedder.tiles import Bag, Grid

GRID = Grid(image_rows=640, image_columns=640, rows=320, columns=320, y0=16, x0=0, mirrored=False)


def bag_of(grid: Grid = GRID, rows: int = 16, columns: int = 12) -> Bag:
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    return Bag(np.zeros((len(cells), 1), np.float16), cells.astype(np.int16), grid)


def planted(bag: Bag, spots: dict[tuple[int, int], float]) -> np.ndarray:
    evidence = np.full(len(bag.cells), -0.01, np.float32)
    for spot, value in spots.items():
        evidence[int(np.flatnonzero((bag.cells == spot).all(axis=1))[0])] = value
    return evidence


@pytest.mark.parametrize("mirrored", [False, True])
def test_planted_spots_are_found_best_first_on_their_pixels(mirrored):
    grid = Grid(640, 640, 320, 320, 16, 0, mirrored)
    bag = bag_of(grid)
    evidence = planted(bag, {(3, 4): 1.0, (12, 8): 2.0})
    places = find_places(bag, evidence, np.full(len(evidence), 1 / len(evidence)), 2)
    assert [round(place.evidence, 2) for place in places] == [1.92, 0.92]
    for place, (row, column) in zip(places, [(12, 8), (3, 4)], strict=True):
        x, y = 2 * (16 * column + 8), 2 * (16 + 16 * row + 8)
        assert place.box.x0 <= (640 - x if mirrored else x) < place.box.x1
        assert place.box.y0 <= y < place.box.y1


def test_places_do_not_overlap_and_speak_for_it():
    bag = bag_of()
    evidence = np.random.default_rng(0).normal(size=len(bag.cells)).astype(np.float32)
    places = find_places(bag, evidence, np.zeros(len(evidence)), 50)
    assert len(places) > 3
    values = [place.evidence for place in places]
    assert values == sorted(values, reverse=True)
    assert min(values) > 0
    for number, one in enumerate(places):
        for other in places[:number]:
            assert (
                one.box.x1 <= other.box.x0
                or other.box.x1 <= one.box.x0
                or one.box.y1 <= other.box.y0
                or (other.box.y1 <= one.box.y0)
            )
    assert find_places(bag, -np.abs(evidence), np.zeros(len(evidence))) == []
    assert find_places(bag, evidence, np.zeros(len(evidence)), 0) == []


def test_a_cell_gathers_what_its_neighbours_on_the_breast_have():
    bag = bag_of()
    values = np.random.default_rng(0).normal(size=len(bag.cells))
    gathered = around(bag, values)
    for number, (row, column) in enumerate(bag.cells.tolist()):
        near = (abs(bag.cells - np.array([row, column])) <= 1).all(axis=1)
        assert gathered[number] == pytest.approx(values[near].sum())


def test_the_heat_lies_on_the_stored_image(tmp_path):
    for mirrored in (False, True):
        bag = bag_of(Grid(640, 640, 320, 320, 16, 0, mirrored))
        evidence = planted(bag, {(10, 3): 1.0})
        warm = heat(bag, evidence)
        row, column = np.unravel_index(warm.argmax(), warm.shape)
        assert abs(row - (16 + 168)) <= 24
        assert abs(column - (320 - 56 if mirrored else 56)) <= 24
        assert 0 <= warm.min() <= warm.max() <= 1.001
    assert heat(bag, -np.ones(len(bag.cells))).max() == 0


def test_a_picture_is_written_or_refused(tmp_path):
    bag = bag_of()
    evidence = planted(bag, {(10, 3): 1.0})
    places = find_places(bag, evidence, np.zeros(len(evidence)))
    assert isinstance(places[0].box, Box)
    draw_heat_map(np.full((640, 640), 0.4, np.float32), bag, evidence, places, tmp_path / "a.png", heading="one")
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 400
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(MontageError, match="no picture by its name"):
        draw_heat_map(np.zeros((640, 640), np.float32), bag, evidence, places, tmp_path / "a.txt")
