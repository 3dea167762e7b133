import numpy as np
import pytest
from PIL import Image

from embedder.crops import RoiCrop
from embedder.montage import MontageError, Panel, draw_montage


def panel(value: float, title: str, outcome: str | None = None) -> Panel:
    crop = RoiCrop(np.full((64, 64), value, np.float32), 20.0, 20.0 / 64, (20.0, 20.0, 44.0, 44.0))
    return Panel(crop, title, ("mass", "benign"), outcome)


@pytest.mark.parametrize("count", [0, 1, 5, 11])
def test_every_panel_is_drawn_with_its_pixels(tmp_path, count):
    path = tmp_path / "new" / "answer.png"
    greys = [0.2 + 0.05 * i for i in range(count + 1)]
    panels = [panel(grey, f"#{i}") for i, grey in enumerate(greys)]
    draw_montage(panels[0], panels[1:], path, heading="similar findings")
    with Image.open(path) as picture:
        drawn = np.asarray(picture.convert("L")).astype(int)
    for grey in greys:
        share = float((np.abs(drawn - round(grey * 255)) <= 1).mean())
        assert share > 0.3 / (count + 1) * 0.6, f"the panel of grey {grey} is not there"


def test_outcomes_colour_the_frames(tmp_path):
    path = tmp_path / "answer.png"
    draw_montage(panel(0.1, "query"), [panel(0.5, "1", "malignant"), panel(0.5, "2", "benign")], path)
    with Image.open(path) as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0xC0, 0x39, 0x2B), (0x24, 0x71, 0xA3)):
        assert (drawn == colour).all(axis=1).sum() > 200
    assert not (drawn == (0x1E, 0x84, 0x49)).all(axis=1).any()


def test_an_image_that_is_not_here_leaves_its_panel_and_no_error(tmp_path):
    path = tmp_path / "answer.png"
    draw_montage(panel(0.1, "query"), [Panel(None, "1", ("mass",))], path)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", ["answer.xyz", "answer", "file/answer.png", "folder.png"])
def test_a_place_that_can_not_be_written_costs_one_clear_error(tmp_path, name):
    (tmp_path / "file").write_text("a file, no folder")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MontageError, match=name.split("/")[0]):
        draw_montage(panel(0.1, "query"), [], tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.png"], "nothing is left behind"


def test_a_thousand_neighbours_do_not_make_a_picture_that_nobody_can_open(tmp_path):
    path = tmp_path / "answer.png"
    draw_montage(panel(0.1, "query"), [panel(0.5, str(i)) for i in range(1000)], path)
    with Image.open(path) as picture:
        assert picture.size[1] < 5000
