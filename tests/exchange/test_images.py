"""Which image a name means."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from exchange import ExchangeError
from exchange.images import ImageCatalogue, ImageFacts, manifest_images


def picture(path: Path, rows: int = 60, columns: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((rows, columns), np.uint8)).save(path)
    return path


def test_a_film_is_found_by_path_by_name_and_by_stem(tmp_path: Path) -> None:
    film = picture(tmp_path / "films" / "w1" / "cc.png")
    picture(tmp_path / "films" / "w1" / "mlo.png")
    catalogue = ImageCatalogue(folders=[tmp_path / "films"])
    for name in (
        "w1/cc.png",
        "cc.png",
        "cc",
        "w1/cc",
        "cc.dcm",
        str(film),
        "D:\\elsewhere\\w1\\cc.png",
        "./w1//cc.png",
    ):
        assert catalogue.image(name).path == str(film), name
    facts = catalogue.image("cc")
    assert (facts.rows, facts.columns, facts.dataset, facts.dataset_assumed, facts.patient_id) == (
        60,
        40,
        "films",
        True,
        None,
    )


def test_two_films_of_one_stem_are_refused_with_both_named(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a" / "cc.png"), picture(tmp_path / "b" / "cc.pgm")
    catalogue = ImageCatalogue(folders=[tmp_path])
    with pytest.raises(ExchangeError) as caught:
        catalogue.image("cc")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert catalogue.image("cc.pgm").path == str(second)
    assert catalogue.image("a/cc").path == str(first)


def test_the_same_name_in_another_womans_folder_is_not_hers(tmp_path: Path) -> None:
    picture(tmp_path / "case-1" / "1-1.png")
    with pytest.raises(ExchangeError, match="no image has this name"):
        ImageCatalogue(folders=[tmp_path]).image("case-2/1-1.png")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "films/../../secret.png", "secret", "C:\\secret.png"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.png")
    picture(tmp_path / "films" / "cc.png")
    catalogue = ImageCatalogue(folders=[tmp_path / "films"])
    with pytest.raises(ExchangeError):
        catalogue.image(name)
    with pytest.raises(ExchangeError):
        catalogue.image(str(tmp_path / "secret.png"))


def test_a_loop_of_links_is_listed_once(tmp_path: Path) -> None:
    film = picture(tmp_path / "films" / "cc.png")
    (tmp_path / "films" / "again").symlink_to(tmp_path / "films")
    (tmp_path / "films" / "self").symlink_to("self")
    (tmp_path / "films" / "copy.png").symlink_to(film)
    catalogue = ImageCatalogue(folders=[tmp_path / "films", tmp_path / "films"])
    assert len(catalogue) == 2  # `self` is a link to nowhere, and fails when it is asked for
    assert catalogue.image("cc").path == catalogue.image("copy.png").path == str(film)
    with pytest.raises(ExchangeError):
        catalogue.image("self")


def test_dicom_is_found_by_instance_uid_and_says_who_she_is(
    tmp_path: Path, write_dicom: Callable[..., Path], ramp: np.ndarray
) -> None:
    file = write_dicom(ramp, name="IM0001", SOPInstanceUID="1.2.3.4", ImageLaterality="R", ViewPosition="MLO")
    (tmp_path / "1.9.9").write_bytes(b"no image")
    catalogue = ImageCatalogue(folders=[tmp_path], dataset="site")
    facts = catalogue.image("1.2.3.4")
    assert facts.path == str(file)
    assert (facts.patient_id, facts.dataset, facts.study_id, facts.sop_uid) == ("W7", "site", "1.2.3", "1.2.3.4")
    assert (facts.laterality, facts.view, facts.frames, facts.dataset_assumed) == ("R", "MLO", 1, False)
    with pytest.raises(ExchangeError, match="no image has this name"):
        catalogue.image("1.2.3.5")


def test_real_files_are_found_by_instance_uid(cbis_dicom: list[Path]) -> None:
    catalogue = ImageCatalogue(folders=[cbis_dicom[0].parent.parent])
    by_name = catalogue.look_up(f"{file.parent.name}/{file.name}" for file in cbis_dicom)
    assert [facts.path for facts in by_name.values() if isinstance(facts, ImageFacts)] == [
        str(file) for file in cbis_dicom
    ]
    for facts in by_name.values():
        assert isinstance(facts, ImageFacts)
        assert facts.sop_uid is not None
        assert catalogue.image(facts.sop_uid) == facts
        assert facts.patient_id is not None


def test_a_placeholder_is_no_woman_and_a_rule_tells_her_from_the_name(
    tmp_path: Path, write_dicom: Callable[..., Path], ramp: np.ndarray
) -> None:
    write_dicom(ramp, name="p17_cc.dcm", PatientID="NULL")
    assert ImageCatalogue(folders=[tmp_path]).image("p17_cc").patient_id is None
    assert ImageCatalogue(folders=[tmp_path], patient_from_name=r"^(p\d+)_").image("p17_cc").patient_id == "p17"


@pytest.mark.parametrize("rule", ["(", "no group", "(two)(groups)"])
def test_a_wrong_rule_is_refused(rule: str) -> None:
    with pytest.raises(ExchangeError):
        ImageCatalogue(patient_from_name=rule)


def test_a_manifest_tells_the_woman_and_the_file_its_size(synthetic_manifest: Callable[..., pd.DataFrame]) -> None:
    frame = synthetic_manifest(2, view_count=2).assign(sop_uid=["1.2.1", "1.2.2", "1.2.3", "1.2.4"])
    frame["image_rows"] = 77  # stale: the file was exported anew
    catalogue = ImageCatalogue(manifest_images(frame))
    facts = catalogue.image("w1-0.png")
    assert (facts.patient_id, facts.dataset, facts.rows, facts.spacing_mm, facts.view) == (
        "w1",
        "synthetic",
        120,
        0.4,
        "CC",
    )
    assert catalogue.image("1.2.3").path == facts.path


def test_an_image_of_a_manifest_need_not_be_there(tmp_path: Path) -> None:
    known = ImageFacts(str(tmp_path / "gone.png"), "d", "w1", rows=50, columns=60)
    assert ImageCatalogue([known]).image("gone").rows == 50


def test_a_damaged_file_costs_only_itself(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 9)
    (tmp_path / "empty.dcm").write_bytes(b"")
    found = ImageCatalogue(folders=[tmp_path]).look_up(["good", "bad", "empty", "none"])
    assert [isinstance(facts, ImageFacts) for facts in found.values()] == [True, False, False, False]
    assert str(found["empty"]).startswith(str(tmp_path / "empty.dcm"))


@pytest.mark.parametrize("folder", ["missing", "file.png", "a\0b"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / "file.png")
    with pytest.raises(ExchangeError):
        ImageCatalogue(folders=[tmp_path / folder])


def test_headers_are_read_only_of_images_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    picture(tmp_path / "asked.png")
    read: list[str] = []
    from exchange import images

    real = images.read_header
    monkeypatch.setattr(images, "read_header", lambda path: (read.append(os.path.basename(path)), real(path))[1])  # noqa: PTH119
    catalogue = ImageCatalogue(folders=[tmp_path])
    assert len(catalogue) == 301
    catalogue.look_up(["asked", "asked.png", str(tmp_path / "asked.png")])
    assert read == ["asked.png"]
