"""The speed benchmark's own parts: ROI files that hold what the pipeline would crop, and ratios within each repeat."""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.embedding_speed import cut_rois, measure
from embedder.findings import Finding, findings_frame
from embedder.preparation import PreparationConfig


def test_an_roi_file_is_the_finding_with_its_context_padded_at_the_border(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(1, 255, (300, 400), np.uint8)
    cv2.imwrite(str(tmp_path / "film.png"), film)
    row = Finding("a", str(tmp_path / "film.png"), "finding", "d", "p", x0=100, y0=100, x1=200, y1=180)
    corner = Finding("b", str(tmp_path / "film.png"), "finding", "d", "p", x0=0, y0=0, x1=100, y1=100)
    frame = cut_rois(findings_frame([row, corner]), PreparationConfig(context=1.5), tmp_path)
    first, second = (cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in frame["path"])
    assert np.array_equal(first, film[65:215, 75:225])
    assert frame.iloc[0][["x0", "y0", "x1", "y1"]].tolist() == [25, 25, 125, 125]
    assert (second[:25] == 0).all()
    assert np.array_equal(second[25:, 25:], film[:125, :125])


def test_a_pipeline_of_half_the_speed_has_half_the_ratio() -> None:
    calls: list[str] = []

    def work(name: str, seconds: float) -> Callable[[], int]:
        def run() -> int:
            calls.append(name)
            time.sleep(seconds)
            return 10

        return run

    [slow] = measure(work("bare", 0.05), {"slow": work("slow", 0.1)}, 3, torch.device("cpu"))
    assert calls == ["bare", "slow"] * 4  # once to warm up, then interleaved
    assert slow.ratio == pytest.approx(0.5, abs=0.1)
    assert slow.ratio_low <= slow.ratio <= slow.ratio_high
    assert (slow.images, slow.repeats) == (10, 3)
