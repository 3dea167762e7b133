"""A copy is found however it was stored, and no two different images are taken for one."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.datasets import read_dataset
from embedder.duplicates import ALIKE, alike_pairs, find_duplicates, fine_detail

Make = Callable[..., pd.DataFrame]


def breast(seed: int) -> np.ndarray:
    """Draw a half disc of clouds as fine as tissue: uint8 (400, 300)."""
    random = np.random.default_rng(seed)
    cloud = sum(cv2.GaussianBlur(random.normal(size=(400, 300)), (0, 0), s) * s**1.2 for s in (1.5, 3, 6, 12, 25))
    rows, columns = np.mgrid[:400, :300]
    inside = ((rows - 200) / 180) ** 2 + (columns / 240) ** 2 < 1
    return np.where(inside, np.clip(120 + 25 * cloud, 40, 255), 0).astype(np.uint8)


def manifest(frame: pd.DataFrame, paths: list[Path]) -> pd.DataFrame:
    """Return one row for each image, each of another woman."""
    made = pd.concat([frame.iloc[[0]]] * len(paths), ignore_index=True)
    names = [f"woman-{number}" for number in range(len(paths))]
    return made.assign(path=list(map(str, paths)), row_id=names, patient_id=names)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "16 bit": lambda image: (image.astype(np.uint16) << 6) + 11,
    "half its size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "brighter": lambda image: np.where(image > 0, np.clip(image * 0.7 + 60, 0, 255), 0).astype(np.uint8),
    "in a wider frame": lambda image: np.pad(image, ((40, 10), (0, 80))),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found(how: str, synthetic_manifest: Make, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths[:4]):
        cv2.imwrite(str(path), breast(number))
    cv2.imwrite(str(paths[4]), COPIES[how](breast(2)))
    [found] = find_duplicates(manifest(synthetic_manifest(1), paths), workers=2)
    assert {found.first, found.second} == {str(paths[2]), str(paths[4])}
    assert sorted(found.women) == ["synthetic/woman-2", "synthetic/woman-4"]
    assert ALIKE <= found.likeness <= 1.001


def test_a_jpeg_of_it_is_found_and_an_unreadable_image_left_out(synthetic_manifest: Make, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.jpg", "d.png")]
    cv2.imwrite(str(paths[0]), breast(0))
    cv2.imwrite(str(paths[1]), breast(1))
    cv2.imwrite(str(paths[2]), breast(1), [cv2.IMWRITE_JPEG_QUALITY, 80])
    paths[3].write_bytes(b"no image")
    seen: list[tuple[int, int]] = []
    [found] = find_duplicates(manifest(synthetic_manifest(1), paths), progress=lambda *done: seen.append(done))
    assert {found.first, found.second} == {str(paths[1]), str(paths[2])}
    assert seen[-1] == (4, 4)


def test_one_womans_own_images_are_none_of_our_business(synthetic_manifest: Make, tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        cv2.imwrite(str(path), breast(0))
    frame = manifest(synthetic_manifest(1), paths)
    assert len(find_duplicates(frame)) == 1
    assert find_duplicates(frame.assign(patient_id="one")) == []


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(deadline=None, max_examples=30)
def test_pairs_are_what_comparing_every_two_finds(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    details = random.normal(size=(count, 6)).astype(np.float32)
    details /= np.linalg.norm(details, axis=1, keepdims=True)
    women = random.integers(0, 4, count).astype(str).astype(object)
    slow = {
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if women[a] != women[b] and float(details[a] @ details[b]) >= ALIKE
    }
    assert {(a, b) for a, b, _ in alike_pairs(details, women)} == slow


def test_nothing_to_see_is_like_nothing() -> None:
    empty = fine_detail(np.zeros((160, 112), np.float32))
    assert (empty == 0).all()
    assert alike_pairs(np.stack([empty, empty]), np.array(["a", "b"], object)) == []


def test_no_two_women_of_mini_mias_are_taken_for_one(mini_mias: Path, tmp_path: Path) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    frame = frame[frame["granularity"] == "breast"].iloc[::6].reset_index(drop=True)
    assert find_duplicates(frame) == []
    copy = tmp_path / "elsewhere.jpg"
    image = cv2.imread(frame["path"].iloc[7], cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(copy), cv2.resize(image[:, ::-1], None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
    planted = pd.concat([frame, frame.iloc[[7]].assign(path=str(copy), row_id="planted", patient_id="planted")])
    [found] = find_duplicates(planted.reset_index(drop=True))
    assert {found.first, found.second} == {frame["path"].iloc[7], str(copy)}
