"""How sure it is that a gallery holds a close precedent at all.

A search always returns its nearest rows, however far they are. Whether they are near is judged by what a woman of the
gallery finds among the others: of up to 1,000 women, drawn at random with a fixed seed, one random row each is asked
against the rows of all other women, and the similarity of the nearest is kept. An answer's best similarity, of rows
that are not its own woman's, stands at some percentile of that sample. Below the 5th percentile (or as the question
says) the answer says that there is no close precedent: 95 of 100 women of the gallery would not be told so. This is
the nearest-neighbour test of out-of-distribution detection (Sun, Ming, Zhu and Li, Out-of-distribution detection with
deep nearest neighbors, ICML 2022), with the gallery as its own calibration.

A filter makes the nearest row farther, and the answer says so rightly: among the rows that may answer there is no close
precedent. The views of one finding, fused, are compared with the same sample, which is of single rows.
"""

import bisect
import json
import math
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index import GalleryError
from index.gallery import Gallery
from index.manifest import Manifest
from index.reading import read_file

MOST_WOMEN = 1_000
"""Women in a sample."""

FEWEST_WOMEN = 20
"""Women that a percentile takes: the 5th of fewer is anybody's guess."""

MOST_ROWS_AT_ONCE = 20_000
"""Rows of a gallery whose sample is computed when an answer needs it and none is stored."""

_FORMAT = 1
_LARGEST_FILE = 64 << 10  # bytes; 1,000 similarities take some 20,000
_SEED = 20_240_701
_CHANGED = 1.25  # a sample of so many times more or fewer rows says nothing of a gallery
_BATCH = 128


@dataclass(frozen=True)
class Precedents:
    """What women of a gallery find among the others.

    Attributes:
        similarities: Upwards: of one random row of each of some women to the nearest row of another woman.
        rows: How many rows the gallery had.
        model_digest: The model that made its vectors.
    """

    similarities: tuple[float, ...]
    rows: int
    model_digest: str

    def percentile(self, similarity: float) -> float:
        """Return the share of the women, in per cent, whose nearest precedent is no closer than this.

        >>> Precedents((0.6, 0.7, 0.8, 0.9), 9, "m").percentile(0.75)
        50.0
        """
        return 100.0 * bisect.bisect_right(self.similarities, similarity) / len(self.similarities)

    def to_bytes(self) -> bytes:
        """Return it as JSON for the gallery; it names nobody."""
        content = {
            "format": _FORMAT,
            "rows": self.rows,
            "model_digest": self.model_digest,
            "similarities": self.similarities,
        }
        return json.dumps(content).encode()


def sample_precedents(gallery: Gallery) -> Precedents | None:
    """Ask the gallery for its women's nearest precedents, see the head of this module.

    Args:
        gallery: The gallery. The same content gives the same sample.

    Returns:
        None where there are too few women.
    """
    women = int(gallery.women.max()) + 1 if len(gallery) else 0
    if women < FEWEST_WOMEN:
        return None
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.choice(women, min(women, MOST_WOMEN), replace=False))
    own = [gallery.rows_of([int(woman)]) for woman in chosen]
    rows = np.array([rows[random.integers(len(rows))] for rows in own])
    nearest = []
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        hits = gallery.index.search(gallery.vectors.take(rows[part]), 1, barred=own[part])
        nearest.append(hits.similarities[:, 0])
    similarities = np.sort(np.concatenate(nearest)).tolist()
    return Precedents(tuple(similarities), len(gallery), gallery.identity.model_digest)


def parse_precedents(data: bytes) -> Precedents:
    """Read what `Precedents.to_bytes` returned.

    Raises:
        ValueError: It is something else.
    """
    if len(data) > _LARGEST_FILE:
        raise ValueError("it is too large")
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("it has another format")
    rows, model, listed = (content.get(name) for name in ("rows", "model_digest", "similarities"))
    if type(rows) is not int or not 0 < rows < 2**62 or not isinstance(model, str) or not isinstance(listed, list):
        raise ValueError("something is missing")
    if not FEWEST_WOMEN <= len(listed) <= MOST_WOMEN:
        raise ValueError("it is of too few women, or too many")
    if not all(type(value) is float and math.isfinite(value) and -1.01 <= value <= 1.01 for value in listed):
        raise ValueError("it holds what is no similarity")
    if listed != sorted(listed):
        raise ValueError("it is not sorted")
    return Precedents(tuple(listed), rows, model)


_KNOWN: "weakref.WeakKeyDictionary[Gallery, Precedents | None]" = weakref.WeakKeyDictionary()


def precedents_of(gallery: Gallery) -> Precedents | None:
    """Return a gallery's sample: the stored one, else a fresh one where the gallery is small; None where there is none.

    A stored sample serves until the gallery has changed by a quarter of its rows.
    """
    if gallery not in _KNOWN:
        stored = stored_precedents(gallery.folder, gallery.manifest)
        _KNOWN[gallery] = sample_precedents(gallery) if stored is None and len(gallery) <= MOST_ROWS_AT_ONCE else stored
    return _KNOWN[gallery]


def stored_precedents(folder: Path, manifest: Manifest) -> Precedents | None:
    """Return the sample that a gallery keeps; None where it keeps none that still serves.

    Args:
        folder: The gallery.
        manifest: What it consists of.
    """
    entry = manifest.precedents
    if entry is None or entry.bytes > _LARGEST_FILE:
        return None
    try:
        found = parse_precedents(read_file(folder, entry))
    except (FileNotFoundError, GalleryError, ValueError):
        return None  # a cache: the answer says that it is not known, and `index rebuild` makes it again
    same = found.model_digest == manifest.identity.model_digest
    return found if same and 1 / _CHANGED <= manifest.rows / found.rows <= _CHANGED else None


@dataclass(frozen=True)
class Closeness:
    """How close an answer's nearest precedent is.

    Attributes:
        best: The best similarity of a row that is not the query's own woman's; None where no such row answers.
        percentile: Where it stands in the gallery's sample, 0 to 100; None where there is no sample.
        women: How many women the sample is of.
        least: The percentile below which a precedent is not called close.
    """

    best: float | None
    percentile: float | None
    women: int
    least: float

    @property
    def no_close_precedent(self) -> bool | None:
        """Whether there is no close precedent; None where it is not known."""
        if self.best is None:
            return True
        return None if self.percentile is None else self.percentile < self.least

    @property
    def note(self) -> str | None:
        """What a reader must know of it; None where the precedents are close."""
        if self.best is None:
            return "no close precedent: no other woman's finding answers"
        if self.percentile is None:
            return (
                "whether the neighbours are close precedents is not known: the gallery has no sample to compare them "
                f"with; `mammoseek index rebuild` makes one where there are {FEWEST_WOMEN} women or more"
            )
        if self.no_close_precedent:
            return (
                f"no close precedent: the nearest of these findings has the similarity {self.best:.3f}, and "
                f"{100 - self.percentile:.1f} % of the gallery's women have a closer one among the others; "
                "don't read them as similar cases"
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "best_similarity": self.best,
            "percentile": self.percentile,
            "sample_women": self.women,
            "least_percentile": float(self.least),
            "no_close_precedent": self.no_close_precedent,
        }


def closeness(precedents: Precedents | None, best: float | None, least: float) -> Closeness:
    """Return how close a precedent is.

    Args:
        precedents: The gallery's sample; None where there is none.
        best: The best similarity of a row that is not the query's own woman's; None where no such row answers.
        least: The percentile below which it is not called close.
    """
    if precedents is None:
        return Closeness(best, None, 0, least)
    percentile = None if best is None else precedents.percentile(best)
    return Closeness(best, percentile, len(precedents.similarities), least)
