"""The tiles of a manifest's images: embedded once, kept as files, read as often as folds of women need them."""

import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.checkpoint import ModelError, image_digests, write_atomically
from embedder.mammogram import Mammogram, read_mammogram
from embedder.rois import default_workers
from embedder.tiles import TileConfig, TileEmbedder
from errors import MammoseekError


@dataclass(frozen=True, eq=False)
class BagFiles:
    """The bags of a manifest's images.

    Attributes:
        frame: The manifest's rows that could be embedded, in order.
        files: Each row's file, float16 (cells, features).
        failures: Row id and message of those that could not.
    """

    frame: pd.DataFrame
    files: tuple[Path, ...]
    failures: list[tuple[str, str]]

    def features(self, row: int) -> npt.NDArray[np.float16]:
        """Return the features of a row's tiles, (cells, features), mapped from their file."""
        return np.asarray(np.load(self.files[row], mmap_mode="r", allow_pickle=False))

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "BagFiles":
        """Return some of the rows."""
        positions = [int(row) for row in rows]
        frame = self.frame.iloc[positions].reset_index(drop=True)
        return BagFiles(frame, tuple(self.files[row] for row in positions), self.failures)


def bags_digest(model_digest: str, config: TileConfig) -> str:
    """Return what names the way in which bags are made: 16 hexadecimal digits."""
    described = {"version": 1, "model": model_digest, **config.to_dict()}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def embed_bags(
    frame: pd.DataFrame,
    embedder: TileEmbedder,
    model_digest: str,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BagFiles:
    """Embed the tiles of every image of a manifest into a folder; files that are there are not made again.

    A file is named after the image's content, the model and the options: a changed one is another file.

    Args:
        frame: A manifest's rows of whole breasts, with absolute paths.
        embedder: The patch embedder.
        model_digest: Its model's digest.
        folder: Where the files go.
        workers: Threads that read images.
        progress: Called with images done and images in all.

    Raises:
        ModelError: The folder can't be written.
    """
    way = bags_digest(model_digest, embedder.config)
    known = image_digests(frame["path"], workers)
    workers = workers or default_workers()
    files: dict[int, Path] = {}
    failures: list[tuple[str, str]] = []
    pending: deque[tuple[int, Path, Future[Mammogram]]] = deque()
    rows = [row for _, row in frame.iterrows()]

    def finish() -> None:
        position, file, future = pending.popleft()
        row = rows[position]
        try:
            mammogram = future.result()
            spacing = mammogram.spacing_mm if pd.isna(row["spacing_mm"]) else float(row["spacing_mm"])
            view = mammogram.view if pd.isna(row["view"]) else str(row["view"])
            _write(file, embedder.bag(mammogram.pixels, spacing_mm=spacing, view=view).features)
            files[position] = file
        except ModelError:
            raise
        except MammoseekError as error:
            failures.append((str(row["row_id"]), str(error)))

    with ThreadPoolExecutor(workers, thread_name_prefix="mammoseek-read") as pool:
        try:
            for position, row in enumerate(rows):
                # What can't be read has no digest, and its reader will say why.
                file = folder / f"{known.get(row['path'], 'unread')}-{way}.npy"
                if file.is_file():
                    files[position] = file
                else:
                    pending.append((position, file, pool.submit(read_mammogram, Path(row["path"]))))
                if len(pending) >= 2 * workers:
                    finish()
                if progress is not None:
                    progress(position + 1 - len(pending), len(rows))
            while pending:
                finish()
                if progress is not None:
                    progress(len(rows) - len(pending), len(rows))
        finally:
            for _, _, future in pending:
                future.cancel()
    kept = sorted(files)
    return BagFiles(frame.iloc[kept].reset_index(drop=True), tuple(files[position] for position in kept), failures)


def _write(file: Path, features: npt.NDArray[np.float16]) -> None:
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    write_atomically(file, content.getvalue(), lasting=False)
