from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from embedder.contactsheet import SheetError, contact_sheet
from embedder.findings import Finding, findings_frame
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop, row_box

CONFIG = PreparationConfig(height=170, width=200)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """Twenty findings, no two crops alike."""
    rows, columns = np.mgrid[:200, :200]
    findings = []
    for number in range(20):
        picture = np.where((rows - 100) ** 2 + columns**2 < 9000, 80 + (rows + number * columns) % 120, 2)
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), picture.astype(np.uint8))
        findings.append(
            Finding(
                f"film-{number:02d}", str(path), "finding", "d", f"w{number}", 20, 80, 50, 110,
                spacing_mm=0.2, lesion_type="mass", pathology="malignant", density="dense",
            )
        )  # fmt: skip
    return findings_frame(findings)


def picture_of(page: Path) -> np.ndarray:
    with Image.open(page) as picture:
        return np.asarray(picture)


def tile(page: Path, row: int, column: int, config: PreparationConfig = CONFIG) -> np.ndarray:
    """Cut a picture out of a page: a gap of 10 beside and 28 above, four lines of 17 and 4 below each."""
    top = 28 + row * (config.height + 4 * 17 + 4 + 10)
    left = 10 + column * (config.width + 10)
    return picture_of(page)[top : top + config.height, left : left + config.width]


def test_a_tile_is_what_the_network_sees(frame: pd.DataFrame, tmp_path: Path) -> None:
    report = contact_sheet(frame, CONFIG, tmp_path / "out" / "sheet.png", columns=8)
    assert report.pages == (tmp_path / "out" / "sheet.png",)
    assert (report.shown, report.failures) == (20, ())
    for number in (0, 9, 19):
        row = frame.iloc[number]
        crop, _ = read_crop(Path(row["path"]), row_box(row), CONFIG, spacing_mm=0.2)
        picture = tile(report.pages[0], *divmod(number, 8))
        grey = np.round(crop.pixels * 255)
        marked = (picture != picture[:, :, :1]).any(axis=2)  # the frame is the only colour
        assert np.abs(picture[:, :, 0].astype(float) - grey)[~marked].max() <= 1
        # The frame lies on the box: one pixel wide, within it.
        assert crop.box is not None
        ys, xs = np.nonzero(marked)
        edges = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(edges - np.array(crop.box)).max() <= 1
        assert marked.sum() < 2.2 * (edges[2] - edges[0] + edges[3] - edges[1])


def test_pages_and_progress(frame: pd.DataFrame, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = contact_sheet(
        frame, CONFIG, tmp_path / "sheet.png", columns=2, progress=lambda done, total: calls.append((done, total))
    )
    assert [page.name for page in report.pages] == ["sheet-1.png", "sheet-2.png"]
    assert calls == [(done, 20) for done in range(1, 21)]
    sizes = [picture_of(page).shape for page in report.pages]
    assert sizes[0][1] == sizes[1][1] == 10 + 2 * 210
    assert sizes[0][0] > sizes[1][0]
    # The thirteenth row is the first of the second page.
    whole = contact_sheet(frame, CONFIG, tmp_path / "whole.png", columns=20)
    np.testing.assert_array_equal(tile(report.pages[1], 0, 0), tile(whole.pages[0], 0, 12))


def test_rows_are_spread_evenly_or_drawn_by_seed(frame: pd.DataFrame, tmp_path: Path) -> None:
    whole = contact_sheet(frame, CONFIG, tmp_path / "whole.png", columns=20).pages[0]
    pictures = [tile(whole, 0, number) for number in range(20)]

    def shown(seed: int | None) -> list[int]:
        page = contact_sheet(frame, CONFIG, tmp_path / "some.png", columns=5, limit=5, seed=seed).pages[0]
        return [
            next(i for i, picture in enumerate(pictures) if np.array_equal(picture, tile(page, 0, column)))
            for column in range(5)
        ]

    assert shown(None) == [0, 5, 10, 14, 19]
    assert shown(1) == shown(1) == sorted(shown(1))
    assert len({tuple(shown(seed)) for seed in range(4)}) > 1


def test_failures_are_listed_and_shown(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[2, "path"] = str(tmp_path / "none.png")
    report = contact_sheet(frame.iloc[:4], CONFIG, tmp_path / "sheet.png")
    assert report.shown == 3
    [(row_id, message)] = report.failures
    assert row_id == "film-02"
    assert "no such file" in message
    assert (tile(report.pages[0], 0, 2)[5, 5] == 0xDD).all()
    # Nothing but failures is still a page.
    report = contact_sheet(frame.iloc[[2]], CONFIG, tmp_path / "sheet.png")
    assert (report.shown, len(report.pages), len(report.failures)) == (0, 1, 1)


def test_captions_fit(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A long id is cut to its tile: the neighbour's caption is the same with and without it."""
    plain = contact_sheet(frame.iloc[:2], CONFIG, tmp_path / "plain.png").pages[0]
    long = frame.iloc[:2].copy()
    long.loc[0, "row_id"] = "very " * 3000 + "long"
    wide = contact_sheet(long, CONFIG, tmp_path / "wide.png").pages[0]
    below = [picture_of(page)[28 + CONFIG.height :, 220:] for page in (plain, wide)]
    np.testing.assert_array_equal(*below)
    captions = [picture_of(page)[28 + CONFIG.height :, :210] for page in (plain, wide)]
    assert (captions[0] != captions[1]).any()


def test_large_crops_are_reduced_and_unknown_labels_are_no_trouble(frame: pd.DataFrame, tmp_path: Path) -> None:
    bare = frame.iloc[:1].copy()
    bare[["lesion_type", "pathology", "density", "spacing_mm"]] = None
    config = PreparationConfig(height=1024, width=512)
    page = contact_sheet(bare, config, tmp_path / "sheet.png").pages[0]
    assert picture_of(page).shape == (28 + 512 + 4 * 17 + 4 + 10, 256 + 20, 3)


@pytest.mark.parametrize("name", ["sheet.pdf", "sheet"])
def test_only_png(frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    with pytest.raises(SheetError, match=r"not \.png"):
        contact_sheet(frame, CONFIG, tmp_path / name)


def test_what_cannot_be_drawn(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="no rows"):
        contact_sheet(frame.iloc[:0], CONFIG, tmp_path / "sheet.png")
    with pytest.raises(SheetError, match="granularity breast only"):
        contact_sheet(frame, PreparationConfig(granularity="breast"), tmp_path / "sheet.png")
    with pytest.raises(SheetError, match="at least one"):
        contact_sheet(frame, CONFIG, tmp_path / "sheet.png", limit=0)
    with pytest.raises(SheetError, match="can't be written"):
        contact_sheet(frame.iloc[:1], CONFIG, Path(frame["path"][0]) / "sheet.png")
    assert not list(tmp_path.glob("sheet*"))
