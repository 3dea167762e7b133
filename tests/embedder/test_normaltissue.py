"""Normal tissue: in the breast, away from every mark, as large and as placed as lesions, and only where it is known."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedder.breast import breast_mask
from embedder.datasets import read_dataset
from embedder.findings import COLUMNS, TISSUE_TERMS, Box, FindingError, patient_key
from embedder.mammogram import read_mammogram
from embedder.manifest import ManifestError, read_manifest, validate, write_manifest
from embedder.normaltissue import (
    NormalTissue,
    add_normal_tissue,
    candidate_places,
    label_tissue,
    normal_places,
    overlap,
    with_rows,
)
from embedder.preparation import PreparationConfig
from embedder.rois import row_box
from embedder.roles import label_classes
from embedder.tissuemap import Lesion, TissueImage, TissueMap

UNKNOWN = ["u0.png", "u1.png", "u2.png"]


@pytest.fixture(scope="module")
def added(tissue_manifest: pd.DataFrame) -> NormalTissue:
    return add_normal_tissue(tissue_manifest, per_image=2)


@pytest.fixture(scope="module")
def read(tissue_manifest: pd.DataFrame) -> TissueMap:
    return TissueMap.read(tissue_manifest.assign(tissue=label_tissue(tissue_manifest)))


def new_rows(found: NormalTissue) -> pd.DataFrame:
    return found.frame[found.frame["tissue"] == "normal"].reset_index(drop=True)


def assert_normal(places: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Every place is breast to 95 % by a slow count of pixels, and the crop around it shows no pixel of a mark."""
    config = PreparationConfig()
    marks = frame[frame["granularity"] == "finding"]
    for _, row in places.iterrows():
        mask = breast_mask(read_mammogram(Path(row["path"])).pixels)
        # The mask is looked up on a copy of 256 pixels: an outline may lie a pixel of it aside.
        assert mask[row["y0"] : row["y1"], row["x0"] : row["x1"]].mean() >= 0.93
        side = max(config.context * max(row["x1"] - row["x0"], row["y1"] - row["y0"]), config.floor_mm / 0.4)
        middle = np.array([row["x0"] + row["x1"], row["y0"] + row["y1"]]) / 2
        for _, mark in marks[marks["path"] == row["path"]].iterrows():
            apart_x = middle[0] - side / 2 >= mark["x1"] or middle[0] + side / 2 <= mark["x0"]
            apart_y = middle[1] - side / 2 >= mark["y1"] or middle[1] + side / 2 <= mark["y0"]
            assert apart_x or apart_y, row["row_id"]


def test_every_place_is_normal_tissue(added: NormalTissue, tissue_manifest: pd.DataFrame) -> None:
    places = new_rows(added)
    assert added.added == len(places) > 20
    assert_normal(places, tissue_manifest)
    # On films with a lesion too: else a film, not the tissue on it, would tell lesion from normal.
    assert places["path"].str.endswith("l.png").sum() >= 5
    for _, rows in places.groupby("path"):
        boxes = [row_box(row) for _, row in rows.iterrows()]
        assert len(boxes) <= 2
        assert len(boxes) < 2 or overlap(*boxes) == 0  # type: ignore[arg-type]


def test_films_whose_normal_tissue_is_unknown_give_none(added: NormalTissue) -> None:
    assert added.left_out == len(UNKNOWN)
    assert not set(UNKNOWN) & {Path(path).name for path in new_rows(added)["path"]}


def test_sizes_are_those_of_the_lesions_each_in_turn(read: TissueMap) -> None:
    places = normal_places(read, per_image=1, seed=3)
    lesions = [(lesion.width, lesion.height) for lesion in read.templates]
    found = Counter(zip(places["x1"] - places["x0"], places["y1"] - places["y0"], strict=True))
    assert len(places) == 20
    assert found == {size: 2 * times for size, times in Counter(lesions).items()}


def test_places_are_those_of_other_womens_lesions(read: TissueMap, tissue_manifest: pd.DataFrame) -> None:
    images = {image.key: image for image in read.images}
    for _, row in normal_places(read, per_image=2, seed=0).iterrows():
        image = images[row["row_id"].split("-")[0]]
        across, down = image.place_of(Box(row["x0"], row["y0"], row["x1"], row["y1"]))
        near = [
            lesion.woman
            for lesion in read.templates
            if abs(lesion.across - across) < 0.02 and abs(lesion.down - down) < 0.02
        ]
        assert set(near) - {image.woman}, row["row_id"]


def test_no_place_leaves_the_breast() -> None:
    """The breast is the left 60 of 100 columns: a place of 10 pixels at its edge is half breast."""
    mask = np.zeros((100, 100), np.bool_)
    mask[:, :60] = True
    film = TissueImage("a", "d", "d/w", {"path": "a.png"}, 100, 100, None, mask, False, ())
    lesions = [Lesion("d", f"d/{n}", 10, 10, None, across, 0.5) for n, across in enumerate((1.0, 1.0, 0.95, 0.5))]
    read = TissueMap([film], lesions, frozenset(), 0, [])
    places = normal_places(read, per_image=1, seed=0)
    assert places[["x0", "x1"]].to_numpy().tolist() == [[25, 35]]
    drawn = candidate_places(read, ["d/w"], per_image=20, seed=0)
    assert len(drawn) > 3
    assert drawn["x1"].max() <= 60


def test_what_is_not_known_of_a_place_stays_unknown(added: NormalTissue, tissue_manifest: pd.DataFrame) -> None:
    places = new_rows(added)
    unknown = ["lesion_type", "native_lesion_type", "pathology", "margin", "assessment"]
    assert places[unknown].isna().all(axis=None)
    breasts = tissue_manifest[tissue_manifest["granularity"] == "breast"].set_index("path")
    for name in ("density", "view", "laterality", "patient_id", "spacing_mm"):
        assert (places[name].to_numpy() == breasts.loc[places["path"], name].to_numpy()).all()
    # The labels that were there are learned as before.
    findings = tissue_manifest[tissue_manifest["granularity"] == "finding"]
    before = label_classes(findings)
    after = label_classes(added.frame[added.frame["granularity"] == "finding"])
    assert after.pop("tissue") == TISSUE_TERMS
    assert after == before
    assert added.frame.iloc[: len(tissue_manifest)][list(COLUMNS)].equals(tissue_manifest)


def test_the_draw_knows_neither_order_nor_folder(
    tissue_manifest: pd.DataFrame, added: NormalTissue, tmp_path: Path
) -> None:
    def boxes(found: NormalTissue) -> list[tuple[object, ...]]:
        rows = new_rows(found).sort_values("row_id")
        return list(rows[["row_id", "x0", "y0", "x1", "y1"]].itertuples(index=False, name=None))

    moved = tissue_manifest.assign(path=[shutil.copy(path, tmp_path) for path in tissue_manifest["path"]])
    again = add_normal_tissue(moved.sample(frac=1, random_state=1).reset_index(drop=True), workers=1)
    assert boxes(again) == boxes(added)
    assert boxes(add_normal_tissue(tissue_manifest, seed=1)) != boxes(added)


def test_a_manifest_with_normal_tissue_is_written_and_read(added: NormalTissue, tmp_path: Path) -> None:
    write_manifest(added.frame, tmp_path / "m.csv")
    back = read_manifest(tmp_path / "m.csv")
    assert back["tissue"].fillna("").tolist() == added.frame["tissue"].fillna("").tolist()
    assert back["x0"].equals(added.frame["x0"])


def test_another_word_for_tissue_is_refused(tissue_manifest: pd.DataFrame) -> None:
    validate(tissue_manifest.assign(tissue="lesion"))
    with pytest.raises(ManifestError, match=r"row 1, column tissue: 'fatty' is none of lesion, normal"):
        validate(tissue_manifest.assign(tissue="fatty"))


def test_sizes_are_those_on_the_patient(tissue_manifest: pd.DataFrame) -> None:
    coarse = tissue_manifest["path"].str.endswith("r.png")
    frame = tissue_manifest.assign(spacing_mm=tissue_manifest["spacing_mm"].where(~coarse, 0.8))
    places = new_rows(add_normal_tissue(frame, per_image=1))
    on_coarse = places["path"].str.endswith("r.png")
    assert on_coarse.any()
    lesions = frame[frame["granularity"] == "finding"]
    widths = set((lesions["x1"] - lesions["x0"]).astype(int))
    assert set((places["x1"] - places["x0"])[on_coarse]) <= {round(width / 2) for width in widths}
    assert set((places["x1"] - places["x0"])[~on_coarse]) <= widths


@pytest.mark.parametrize(
    ("labels", "tissue"),
    [
        ({"lesion_type": "mass", "pathology": None}, "lesion"),
        ({"lesion_type": None, "pathology": "malignant"}, "lesion"),
        ({"lesion_type": None, "pathology": None, "margin": "spiculated"}, "lesion"),
        ({"lesion_type": None, "pathology": "normal"}, "normal"),
        ({"lesion_type": None, "pathology": "no cancer"}, None),
        ({"lesion_type": None, "pathology": None}, None),
        ({"lesion_type": "mass", "tissue": "normal"}, "normal"),
    ],
)
def test_what_a_row_says_of_its_tissue(
    tissue_manifest: pd.DataFrame, labels: dict[str, str | None], tissue: str | None
) -> None:
    finding = tissue_manifest[tissue_manifest["granularity"] == "finding"].iloc[:1]
    assert label_tissue(finding.assign(**labels)).tolist() == [tissue]
    assert label_tissue(finding.assign(granularity="breast", lesion_type="mass")).tolist() == [None]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("t00l", {"pathology": "malignant"}),  # a cancer beside the benign mass that is marked
        ("t00l", {"lesion_type": "asymmetry"}),  # a lesion of a kind that no mark has
        ("t00r", {"pathology": "benign"}),
        ("t00r", {"pathology": None}),
        ("t00r", {"lesion_type": "mass"}),
    ],
)
def test_a_breast_that_tells_of_an_unmarked_lesion_gives_none(
    tissue_manifest: pd.DataFrame, name: str, changes: dict[str, str | None]
) -> None:
    frame = tissue_manifest.copy()
    for column, value in changes.items():
        frame.loc[frame["row_id"] == name, column] = value
    frame = frame[frame["patient_id"].isin([f"t{n}" for n in range(4)])]
    found = add_normal_tissue(frame)
    assert found.left_out == 1
    assert f"{name}.png" not in {Path(path).name for path in new_rows(found)["path"]}


def test_a_mark_of_which_nothing_is_known_keeps_its_place(tissue_manifest: pd.DataFrame) -> None:
    frame = tissue_manifest.copy()
    finding = frame["granularity"] == "finding"
    frame.loc[finding & (frame["patient_id"] == "t0"), ["lesion_type", "pathology"]] = None
    frame.loc[frame["row_id"] == "t00l", ["lesion_type", "pathology"]] = [None, "normal"]
    places = new_rows(add_normal_tissue(frame))
    assert not places["path"].str.endswith("t00l.png").any()


def test_candidates_are_normal_and_of_the_women_asked_for(read: TissueMap, tissue_manifest: pd.DataFrame) -> None:
    women = ["tissue/t1", "tissue/t2", "tissue/unplaced"]
    places = candidate_places(read, women, per_image=6, seed=0)
    assert set(patient_key(places)) == {"tissue/t1", "tissue/t2"}
    assert places.groupby("path").size().max() == 6
    assert not places[["path", "x0", "y0", "x1", "y1"]].duplicated().any()
    assert_normal(places, tissue_manifest)
    # One woman's candidates are the same whoever else is asked for.
    alone = candidate_places(read, women[:1], per_image=6, seed=0)
    pd.testing.assert_frame_equal(alone, places[patient_key(places) == women[0]].reset_index(drop=True))


def test_a_bad_image_costs_its_own_places_only(tissue_manifest: pd.DataFrame, tmp_path: Path) -> None:
    broken = tmp_path / "t00r.png"
    broken.write_bytes(Path(tissue_manifest["path"].iloc[0]).read_bytes()[:400])
    small = tissue_manifest["row_id"] == "t01r"
    frame = tissue_manifest.assign(
        path=tissue_manifest["path"].where(tissue_manifest["row_id"] != "t00r", str(broken)),
        image_rows=tissue_manifest["image_rows"].where(~small, 100),
    )
    found = add_normal_tissue(frame)
    assert sorted(Path(path).name for path, _ in found.failures) == ["t00r.png", "t01r.png"]
    assert any("boxes are for 200 × 100" in cause for _, cause in found.failures)
    assert found.images >= 15


def test_bad_input_is_told(tissue_manifest: pd.DataFrame, added: NormalTissue, tmp_path: Path) -> None:
    lesions = tissue_manifest["granularity"] == "finding"
    nowhere = tissue_manifest.assign(path=str(tmp_path / "nowhere.png"))
    for frame, message in (
        (tissue_manifest[~lesions], "no lesion"),
        (added.frame, "normal tissue already"),
        (tissue_manifest[tissue_manifest["patient_id"] == "unplaced"], "no lesion"),
        (nowhere, r"no image whose normal tissue is known \(.*nowhere.png: there is no such file"),
    ):
        with pytest.raises(FindingError, match=message):
            add_normal_tissue(frame.reset_index(drop=True))
    for per_image in (0, -1, 10**6):
        with pytest.raises(FindingError, match="out of range"):
            add_normal_tissue(tissue_manifest, per_image=per_image)
    # Of one woman alone, no other woman's lesion says where to look.
    alone = tissue_manifest[tissue_manifest["patient_id"] == "t0"].reset_index(drop=True)
    assert add_normal_tissue(alone).added == 0


def test_added_rows_keep_the_types(added: NormalTissue, tissue_manifest: pd.DataFrame) -> None:
    assert added.frame.dtypes[list(COLUMNS)].equals(tissue_manifest.dtypes[list(COLUMNS)])
    own = tissue_manifest.assign(reader="A", score=1.5)
    found = with_rows(own.assign(tissue=None), new_rows(added))
    assert found["reader"].notna().sum() == len(tissue_manifest)
    assert found["score"].dtype == np.float64
    validate(found)


def test_mini_mias_is_read_as_before_and_gives_places_as_its_lesions_are(mini_mias: Path) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    assert list(frame.columns) == list(COLUMNS)
    # mdb059 and mdb216 have a lesion without a place; the others of these women do not.
    some = frame[frame["patient_id"].isin([f"mias-{n:03d}" for n in (1, 2, 3, 5, 6, 8, 30, 108, 140)])]
    found = add_normal_tissue(some.reset_index(drop=True), per_image=1)
    names = {Path(path).stem for path in new_rows(found)["path"]}
    assert names == set(some.loc[some["granularity"] == "breast", "row_id"]) - {"mdb059", "mdb216"}
    assert found.left_out == 2
