"""What the API says of a row: its other views are one row on each other image, of what may be the same finding."""

from types import SimpleNamespace

import pytest

from index.gallery import Gallery
from index.upkeep import build_gallery
from tests.index.conftest import IDENTITY, findings
from viewer.telling import AnswerTeller


@pytest.fixture
def gallery(tmp_path) -> Gallery:
    """One woman: a lesion and normal tissue on the CC, the same, another lesion and normal tissue on the MLO."""
    given = findings(9)
    given.records = given.records.assign(
        patient_id=["W0"] * 7 + ["W1"] * 2,
        path=["cc.png", "cc.png", "mlo.png", "mlo.png", "mlo.png", "mlo.png", "left.png", "mlo.png", "cc.png"],
        view=["CC", "CC", "MLO", "MLO", "MLO", "MLO", "MLO", "MLO", "CC"],
        laterality=["R"] * 6 + ["L"] + ["R"] * 2,
        tissue=["lesion", "normal", "normal", "lesion", "lesion", "normal", "lesion", "lesion", "lesion"],
        lesion_id=["a", None, None, "b", "a", None, "a", "a", None],
    )
    build_gallery(tmp_path / "gallery", IDENTITY, given.records, lambda _: [given])
    return Gallery.open(tmp_path / "gallery")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("row-0000", ["row-0004"]),  # the same lesion, not the other one
        ("row-0003", []),  # the CC holds another lesion, and normal tissue
        ("row-0001", ["row-0002"]),  # of normal tissue one place is as good as another
        ("row-0006", []),  # the other breast
        ("row-0007", ["row-0008"]),  # another woman's lesion of the same name is not hers
    ],
)
def test_other_views_are_one_row_on_each_other_image(gallery: Gallery, row: str, expected: list[str]) -> None:
    teller = AnswerTeller(gallery, SimpleNamespace(of_row=lambda position: None), "0")  # type: ignore[arg-type]
    told = teller.row(int(gallery.table.find("row_id", row)[0]))
    assert [one["row"] for one in told["other_views"]] == expected
    assert told["has_picture"]  # its thumbnail, since its image is not here
