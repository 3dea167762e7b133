"""The benchmark's measures are what they say, no woman is on both sides, and the table has its differences."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks.super_resolution import (
    NETWORK,
    enlarged,
    fidelity,
    fidelity_rows,
    finer_than_film,
    measure_films,
    split_women,
)
from embedder.findings import patient_key
from embedder.superresolution import packaged_network


def test_no_woman_is_in_both_parts(synthetic_manifest: Callable[..., pd.DataFrame]) -> None:
    frame = synthetic_manifest(10, view_count=2)
    first, second = split_women(frame, 0.8, 0)
    assert (patient_key(first).nunique(), patient_key(second).nunique()) == (8, 2)
    assert not set(patient_key(first)) & set(patient_key(second))
    assert sorted([*first["row_id"], *second["row_id"]]) == sorted(frame["row_id"])
    assert set(split_women(frame, 0.8, 1)[1]["row_id"]) != set(second["row_id"])


def test_fidelity_counts_inside_the_mask_only() -> None:
    truth = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    mask = np.zeros((40, 40), np.bool_)
    mask[:, :20] = True
    found = np.where(mask, truth + np.float32(0.1), 0).astype(np.float32)
    assert fidelity(found, truth, mask)["psnr"] == pytest.approx(20.0, abs=1e-4)
    same = fidelity(truth, truth, mask)
    assert (same["psnr"], same["ssim"]) == (120.0, pytest.approx(1.0))


def test_the_table_has_each_difference(synthetic_manifest: Callable[..., pd.DataFrame]) -> None:
    films = measure_films(synthetic_manifest(4, view_count=2), packaged_network(NETWORK), "films")
    assert len(films) == 4 * 3  # one film of each woman, three ways
    rows = pd.DataFrame(fidelity_rows(films, resamples=50))
    assert list(zip(rows["score"], rows["against"], strict=True)) == [
        (score, against) for score in ("psnr", "ssim") for against in ("bicubic", "lanczos")
    ]
    assert (rows["women"] == 4).all()
    assert np.allclose(rows["difference"], rows["value"] - rows["default"])
    assert ((rows["difference_low"] <= rows["difference"]) & (rows["difference"] <= rows["difference_high"])).all()


def test_every_way_gives_the_same_size() -> None:
    found = enlarged(np.random.default_rng(0).random((9, 14), dtype=np.float32), packaged_network(NETWORK))
    assert set(found) == {"bicubic", "lanczos", NETWORK}
    assert {image.shape for image in found.values()} == {(18, 28)}


def test_crops_that_are_finer_than_their_film_are_counted(synthetic_manifest: Callable[..., pd.DataFrame]) -> None:
    frame = synthetic_manifest(4)
    # 24 pixels of 0.4 mm are seen on 20 mm, 0.09 mm to each of 224 pixels; of films of 0.05 mm, 224 pixels are coarser.
    assert finer_than_film(frame) == 4
    frame.loc[0, "spacing_mm"] = 0.05
    assert finer_than_film(frame) == 3
