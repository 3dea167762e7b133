"""Images at hand by their SOP instance UID."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from exchange.storedimages import StoredImage, images_by_uid


def test_images_are_found_by_uid_and_the_rest_is_told(
    write_dicom: Callable[..., Path], ramp: np.ndarray, tmp_path: Path
) -> None:
    first = write_dicom(
        ramp,
        bits=12,
        name="a.dcm",
        SOPInstanceUID="1.2.3.1",
        ImageLaterality="R",
        ViewPosition="MLO",
        ImagerPixelSpacing=[0.07, 0.07],
    )
    again = write_dicom(ramp, bits=12, name="b.dcm", SOPInstanceUID="1.2.3.1")
    (tmp_path / "c.dcm").write_bytes(b"no image")
    seen: list[tuple[int, int]] = []
    paths = [again, first, tmp_path / "c.dcm", first]
    images, left_out = images_by_uid(paths, "clinic", lambda done, total: seen.append((done, total)))
    assert images == {"1.2.3.1": StoredImage(first, "clinic", "W7", 40, 50, 0.07, "R", "MLO")}
    assert [name for name, _ in left_out] == [str(again), str(tmp_path / "c.dcm")]
    assert left_out[0][1] == f"it is the same image as {first}"
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_picture_without_a_uid_is_told(mini_mias: Path) -> None:
    picture = next((mini_mias / "images").iterdir())
    images, ((name, message),) = images_by_uid([picture], "mias")
    assert (images, name) == ({}, str(picture))
    assert "no SOP Instance UID" in message
