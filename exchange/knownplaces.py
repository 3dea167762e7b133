"""Known lesions and normal tissue, embedded in the midst of their surroundings, to judge all places of an image by.

A gallery keeps the vectors of crops. A dense look sees a place with the tissue around it, so its vectors are others
(`embedder.dense`), and what is judged by crops hardly finds lesions: on mini-MIAS a fifth of them at one false positive
an image, against six in ten with these. So known places are embedded anew from the gallery's images, once a gallery:
the vectors are kept in its cache, which every writer empties, and a removed woman's with it.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from embedder.dense import DenseEmbedder
from embedder.embedding import Embedder, Vectors
from embedder.findings import Box
from embedder.mammogram import read_mammogram
from embedder.preparation import prepare
from embedder.rois import frame_number
from errors import MammoseekError
from exchange.tissuejudge import LESION, NORMAL
from index.durable import write_whole
from index.gallery import Gallery
from index.layout import CACHE_FOLDER, DENSE_SUFFIX, file_name
from index.manifest import read_manifest
from index.vectors import Positions

MOST = 1000
"""Known places that are embedded, at most; up to half of them lesions."""

_FORMAT = 1
_LARGEST_FILE = 1 << 28  # bytes
_UNIT_TOLERANCE = 1e-3

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class KnownPlaces:
    """Known places and their vectors.

    Attributes:
        positions: int64 (n,), increasing: rows of the gallery.
        vectors: float32 (n, d), unit length.
        unread: Rows that were to be embedded too, but whose image is not there or not to be read.
    """

    positions: Positions
    vectors: Vectors
    unread: int


def known_places(
    gallery: Gallery,
    embedder: Embedder,
    dense: DenseEmbedder,
    tissue: npt.NDArray[np.object_],
    *,
    most: int = MOST,
    progress: Progress | None = None,
) -> KnownPlaces:
    """Return a gallery's known places, from its cache where they are there.

    Args:
        gallery: Of findings, with images.
        embedder: Its model.
        dense: The same.
        tissue: (rows,) `LESION`, `NORMAL` or neither.
        most: How many, at most. Which ones follows from their row ids.
        progress: Called with images done and images in all, where they are embedded.
    """
    chosen = _chosen(gallery, tissue, most)
    path = gallery.folder / file_name(CACHE_FOLDER, _key(gallery, embedder, chosen), DENSE_SUFFIX)
    kept = _read(path, dense.dimension, chosen)
    if kept is not None:
        return kept
    found = _embed(gallery, dense, chosen, progress)
    with contextlib.suppress(OSError):  # where nothing can be written, they are embedded anew next time
        write_whole(path, _to_bytes(found))
        # A removal in between must not leave the vectors of whom it removed.
        if read_manifest(gallery.folder).segments_digest != gallery.manifest.segments_digest:
            path.unlink()
    return found


def _chosen(gallery: Gallery, tissue: npt.NDArray[np.object_], most: int) -> Positions:
    """Return the rows, lesions and normal tissue, that come first by the digests of their ids."""
    ids = gallery.row_ids
    ranked = {
        kind: sorted(
            np.flatnonzero(tissue == kind).tolist(), key=lambda row: hashlib.sha256(str(ids[row]).encode()).digest()
        )
        for kind in (LESION, NORMAL)
    }
    lesions = ranked[LESION][: max(most // 2, most - len(ranked[NORMAL]))]
    return np.array(sorted(lesions + ranked[NORMAL][: most - len(lesions)]), np.int64)


def _key(gallery: Gallery, embedder: Embedder, chosen: Positions) -> str:
    said = {
        "format": _FORMAT,
        "segments": gallery.manifest.segments_digest,
        "model": embedder.digest,
        "rows": hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _embed(gallery: Gallery, dense: DenseEmbedder, chosen: Positions, progress: Progress | None) -> KnownPlaces:
    records = gallery.table.frame(chosen)
    images = [rows for _, rows in records.assign(position=chosen).groupby("path", sort=True)]
    found: dict[int, npt.NDArray[np.float32]] = {}
    for done, rows in enumerate(images, start=1):
        first = rows.iloc[0]
        path = Path(str(first["path"]))
        spacing, view = (first.get(name) for name in ("spacing_mm", "view"))
        try:
            mammogram = read_mammogram(path, frame=frame_number(path, first.get("frame")))
            prepared = prepare(
                mammogram.pixels,
                dense.preparation,
                spacing_mm=mammogram.spacing_mm if spacing is None or spacing != spacing else float(spacing),
                view=mammogram.view if view is None or view != view else str(view),
            )
            boxes = [Box(*(int(side) for side in box)) for box in rows[["x0", "y0", "x1", "y1"]].to_numpy()]
            found |= dict(zip(rows["position"].tolist(), dense.in_place(prepared, boxes), strict=True))
        except MammoseekError:
            pass  # counted below
        if progress is not None:
            progress(done, len(images))
    positions = np.array(sorted(found), np.int64)
    vectors = np.array([found[position] for position in positions.tolist()], np.float32)
    return KnownPlaces(positions, vectors.reshape(-1, dense.dimension), len(chosen) - len(positions))


def _to_bytes(known: KnownPlaces) -> bytes:
    """Return a digest, then the arrays."""
    data = safetensors.numpy.save({"positions": known.positions, "vectors": known.vectors})
    return hashlib.sha256(data).digest() + data


def _read(path: Path, dimension: int, chosen: Positions) -> KnownPlaces | None:
    """Return what was kept; None where nothing was, or it is not whole: it is made again then."""
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST_FILE:
            return None
        content = path.read_bytes()
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            return None
        arrays = safetensors.numpy.load(data)
    except (OSError, SafetensorError, ValueError):
        return None
    positions, vectors = arrays.get("positions"), arrays.get("vectors")
    if positions is None or vectors is None or vectors.shape != (len(positions), dimension):
        return None
    whole = vectors.dtype == np.float32 and np.isin(positions, chosen).all()
    if not whole or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=_UNIT_TOLERANCE):
        return None
    return KnownPlaces(positions.astype(np.int64), vectors, len(chosen) - len(positions))
