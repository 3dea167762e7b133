"""Small galleries of made-up findings, for all tests of the room."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index.engines import EngineConfig
from index.exact import ExactEngine
from index.manifest import GalleryIdentity
from index.presets import Plan
from index.upkeep import build_gallery
from index.vectors import Positions, StoredVectors

DIMENSION = 16
IDENTITY = GalleryIdentity("a" * 64, "b" * 64, "finding", DIMENSION)


def findings(count: int, *, first: int = 0, seed: int = 0, dimension: int = DIMENSION) -> SimpleNamespace:
    """Return `count` findings as an embedder hands them over: three of each woman, two on each image."""
    rng = np.random.default_rng([seed, first])
    vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = range(first, first + count)
    records = pd.DataFrame(
        {
            "row_id": [f"row-{i:04d}" for i in numbers],
            "path": [f"/images/{i // 2:04d}.png" for i in numbers],
            "granularity": "finding",
            "x0": [10 + i for i in numbers],
            "y0": 20,
            "x1": [60 + i for i in numbers],
            "y1": 90,
            "dataset": "films",
            "patient_id": [f"W{i // 3:03d}" for i in numbers],
            "density": ["ABCD"[i % 4] if i % 5 else None for i in numbers],
            "age": [float(40 + i % 30) if i % 3 else np.nan for i in numbers],
            "view": ["MLO" if i % 2 else "CC" for i in numbers],
        }
    )
    thumbnails = [b"\x89PNG\r\n\x1a\n" + rng.bytes(60) for _ in numbers]
    return SimpleNamespace(records=records, vectors=vectors, thumbnails=thumbnails, failures=[])


class Model:
    """An embedder that knows a few vectors, and counts how often it is asked."""

    granularity = "finding"
    dimension = 16

    def __init__(self, vector: np.ndarray, patient: str | None = None, sop_uid: str | None = None) -> None:
        self.digest, self.preparation_digest = "a" * 64, "b" * 64
        self.vector, self.patient, self.header = vector, patient, SimpleNamespace(sop_uid=sop_uid)
        self.asked: list[Any] = []

    def embed(self, path: Path, box: Any = None, *, spacing_mm: Any = None, view: Any = None) -> Any:
        self.asked.append((path, box, spacing_mm, view))
        return SimpleNamespace(vector=self.vector, patient_id=self.patient, path=path, header=self.header)


class StubEngine(ExactEngine):
    """An engine with an index to store, as the approximate ones have: the rows' numbers and a float16 copy of each.

    Its answers are the exact ones, so that any answer of a gallery can be checked.
    """

    def __init__(self, vectors: StoredVectors, numbers: Positions, names: Any, until: int) -> None:
        super().__init__(vectors, names)
        self.until = until
        self.numbers = numbers[numbers < until]
        self.copy = np.concatenate([np.empty((0, vectors.dimension), np.float32), *vectors.blocks]).astype(np.float16)
        self.copy = self.copy[: len(self.numbers)]
        self._all = vectors, numbers, names
        rows = len(self.numbers)
        self.description = {"engine": "stub", "rows": rows, "trained_for": rows, "recall": 1.0}

    def to_bytes(self) -> bytes:
        return self.numbers.tobytes() + self.copy.tobytes()

    def without(self, removed: Positions) -> "StubEngine":
        kept = ~np.isin(self.numbers, removed)
        self.numbers, self.copy = self.numbers[kept], self.copy[kept]
        self.description = {**self.description, "rows": len(self.numbers)}
        return self

    def extended(self) -> "StubEngine":
        vectors, numbers, names = self._all
        engine = StubEngine(vectors, numbers, names, int(numbers[-1]) + 1)
        engine.description = {**self.description, "rows": len(numbers)}
        return engine


def build_stub(
    config: EngineConfig, vectors: StoredVectors, numbers: Positions, names: Any, **options: Any
) -> StubEngine:
    return StubEngine(vectors, numbers, names, int(numbers[-1]) + 1 if len(numbers) else 0)


def open_stub(
    data: bytes, description: Any, until: int, vectors: StoredVectors, numbers: Positions, names: Any, **options: Any
) -> StubEngine:
    engine = StubEngine(vectors, numbers, names, until)
    if data != engine.to_bytes():
        raise ValueError("it is not of these rows")
    engine.description = description
    return engine


@pytest.fixture
def index_engine(monkeypatch: pytest.MonkeyPatch) -> type[StubEngine]:
    """Every gallery of the test gets an engine that stores an index."""
    monkeypatch.setattr("index.writer.build_engine", build_stub)
    monkeypatch.setattr("index.gallery.open_engine", open_stub)
    monkeypatch.setattr("index.indexing.choose", lambda *asked: Plan("stub", 0, 0))
    return StubEngine


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cuts the power, and a process that is killed leaves its writes to the kernel."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make_findings() -> Callable[..., SimpleNamespace]:
    return findings


@pytest.fixture
def identity() -> GalleryIdentity:
    return IDENTITY


@pytest.fixture
def make_gallery(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that builds a gallery of some findings, one segment per batch given."""

    def make(*batches: Any, name: str = "gallery", identity: GalleryIdentity = IDENTITY) -> Path:
        folder = tmp_path / name
        for batch in batches or (findings(20), findings(13, first=20)):
            build_gallery(folder, identity, batch.records, lambda todo, batch=batch: [batch])
        return folder

    return make


@pytest.fixture
def gallery_folder(make_gallery: Callable[..., Path]) -> Path:
    """A gallery of 33 findings of 11 women in two segments, with thumbnails."""
    return make_gallery()


@pytest.fixture
def make_model() -> type[Model]:
    return Model
