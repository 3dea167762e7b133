"""CBIS-DDSM and tables of its kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exchange import ExchangeError
from exchange.formats import ReadOptions, read_detections
from exchange.images import ImageCatalogue

HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,mass margins,"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
CASE = "Mass-Training_P_00001_LEFT_CC"


def row(lesion: int, case: str = CASE) -> str:
    paths = f'{case}/1.2/1.3/000000.dcm,{case}_{lesion}/1.2/1.4/000001.dcm,"{case}_{lesion}/1.2/1.4/000000.dcm\n"'
    return f"P_00001,3,LEFT,CC,{lesion},mass,OVAL,SPICULATED,4,MALIGNANT,4,{paths}\n"


@pytest.fixture
def tree(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """A film of one woman and the masks of two lesions, one of them of half the film's size."""
    film = np.arange(300 * 200, dtype=np.uint16).reshape(300, 200)
    large, small = np.zeros((300, 200), np.uint8), np.zeros((150, 100), np.uint8)
    large[20:60, 10:30] = small[50:60, 40:50] = 255
    images = tmp_path / "CBIS-DDSM"
    for folder, pixels in ((CASE, film), (f"{CASE}_1", large), (f"{CASE}_2", small)):
        (images / folder / "study" / "series").mkdir(parents=True)
        name = f"CBIS-DDSM/{folder}/study/series/1-1.dcm"
        write_dicom(pixels, name=name, PatientID=folder, PatientOrientation="CC")
    return tmp_path


def test_a_folder_is_read_whole_without_a_catalogue(tree: Path) -> None:
    (tree / "mass_case_description_train_set.csv").write_text(HEADER + row(1) + row(2) + row(3))
    reading = read_detections(tree)
    assert reading.kind == "cbis-ddsm"
    one, two = reading.detections
    assert (one.detection_id, one.dataset, one.patient_id) == (f"{CASE}_1", "cbis-ddsm", "P_00001")
    assert (one.x0, one.y0, one.x1, one.y1, one.laterality, one.view) == (10, 20, 30, 60, "L", "CC")
    assert (two.x0, two.y0, two.x1, two.y1, two.lesion_type, two.native_label) == (80, 100, 100, 120, "mass", "mass")
    assert [place for place, _ in reading.problems] == [f"{CASE}_3"]


def test_a_table_of_its_kind_finds_films_in_the_catalogue_and_masks_in_their_folder(tree: Path) -> None:
    table = tree / "my table.csv"
    table.write_text(HEADER + row(1) + row(2) + row(3) + row(1, "Mass-Training_P_00002_LEFT_CC") + row(1, "../../etc"))
    films = ImageCatalogue(folders=[tree / "CBIS-DDSM" / CASE])
    reading = read_detections(table, films, options=ReadOptions(masks=tree))
    assert reading.kind == "cbis-ddsm"
    one, two = reading.detections
    assert (one.detection_id, one.patient_id, one.x0, one.y0, one.x1, one.y1) == (
        f"{CASE}_1",
        "P_00001",
        10,
        20,
        30,
        60,
    )
    assert (two.x0, two.y0, two.x1, two.y1, two.note) == (
        80,
        100,
        100,
        120,
        "the mask was scaled to the size of its image",
    )
    assert [place for place, _ in reading.problems] == ["row 3", "row 4", "row 5"]
    with pytest.raises(ExchangeError, match="does not say which images"):
        read_detections(table)
