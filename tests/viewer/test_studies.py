"""Which images are one study, and how they hang."""

from dataclasses import replace
from pathlib import Path

import pytest

from embedder.header import Header
from viewer.catalogue import ImageEntry, image_id
from viewer.imagedetails import ImageDetails
from viewer.studies import group_studies, hang, needs_flip

EMPTY = ImageDetails(Header(Path("x"), "PNG", 10, 10, 1, 8), *[None] * 10)


def image(name: str, **known: object) -> ImageEntry:
    details = replace(EMPTY, **known)  # type: ignore[arg-type]
    return ImageEntry(image_id(name), name, None, name, "films", listed=True, details=details)


def places(*entries: ImageEntry) -> dict[str, tuple[int, int]]:
    return {entry.name: (place.row, place.column) for entry, place in hang(entries)}


def test_four_views_hang_chest_walls_together() -> None:
    four = [image(f"{side}{view}", laterality=side, view=view) for view in ("MLO", "CC") for side in "LR"]
    assert places(*four) == {"RCC": (0, 0), "LCC": (0, 1), "RMLO": (1, 0), "LMLO": (1, 1)}
    assert [entry.name for entry, _ in hang(four)] == ["RCC", "LCC", "RMLO", "LMLO"]


def test_what_has_no_place_hangs_below() -> None:
    found = places(
        image("a", laterality="R", view="CC"),
        image("b", laterality="R", view="CC"),
        image("c", laterality="L", view="ML"),
        image("d"),
    )
    assert found["a"] == (0, 0)
    assert sorted(found.values()) == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert found["c"] == (1, 1)
    assert places(image("x")) == {"x": (0, 0)}


def test_studies_by_uid_by_woman_and_alone() -> None:
    entries = [
        image("a", woman="w", study_uid="1.2", date="2024-01-01", laterality="L"),
        image("b", woman="w", study_uid="1.2", date="2024-01-01", laterality="R"),
        image("c", woman="w", study_uid="1.3", date="2024-01-01"),
        image("d", woman="v"),
        image("e", woman="v"),
        image("f"),
        image("g"),
    ]
    found = {tuple(sorted(one.image for one in study.images)) for study in group_studies(entries)}
    ids = {name: image_id(name) for name in "abcdefg"}
    expected = [("a", "b"), ("c",), ("d", "e"), ("f",), ("g",)]
    assert found == {tuple(sorted(ids[name] for name in names)) for names in expected}


def test_images_that_an_archive_tore_apart_are_one_study() -> None:
    torn = [image(f"{n}", woman="w", study_uid=f"1.{n}", date="2016-10-04") for n in range(4)]
    assert len(group_studies(torn)) == 1
    other_day = [*torn, image("5", woman="w", study_uid="1.5", date="2017-01-01")]
    assert sorted(len(study.images) for study in group_studies(other_day)) == [1, 4]
    undated = [image(f"{n}", woman="w", study_uid=f"1.{n}") for n in range(3)]
    assert len(group_studies(undated)) == 3


@pytest.mark.parametrize(
    ("side", "wall", "flip"),
    [("R", "right", False), ("R", "left", True), ("L", "left", False), ("L", "right", True), (None, "right", False)],
)
def test_only_what_looks_away_is_mirrored(side: str | None, wall: str, flip: bool) -> None:
    assert needs_flip(side, wall) is flip


@pytest.mark.usefixtures("cbis_dicom")
def test_the_cbis_files_are_two_women_of_four_views(cbis_dicom: list[Path]) -> None:
    from viewer.imagedetails import read_details

    entries = []
    for path in cbis_dicom:
        details = read_details(str(path), None, None, names=False)
        entries.append(ImageEntry(image_id(str(path)), str(path), None, path.name, "cbis", details=details))
    studies = group_studies(entries)
    assert sorted(study.woman for study in studies) == ["P_00173", "P_00820"]
    for study in studies:
        hung = {(one.place.row, one.place.column): (one.view, one.laterality) for one in study.images}
        assert hung == {(0, 0): ("CC", "R"), (0, 1): ("CC", "L"), (1, 0): ("MLO", "R"), (1, 1): ("MLO", "L")}
        assert study.name is None
