"""mammoseek itself among its peers, through the public query call, and the gallery that the benchmarks search in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.peer_data import Floats, Numbers, make_records
from benchmarks.peer_engines import Peer, Source
from index.answers import Question
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.manifest import GalleryIdentity
from index.retrieval import ask_many
from index.writer import GalleryWriter, create_gallery

SEGMENT_ROWS = 125_000
"""Rows added at a time."""


def make_gallery(folder: Path, source: Source, rows_of_a_woman: int | None = None) -> None:
    """Make a gallery of vectors and made-up records, without an index.

    Args:
        folder: A new folder.
        source: The vectors.
        rows_of_a_woman: As `peer_data.make_records` takes it.

    Raises:
        GalleryError: It can't be written.
    """
    create_gallery(folder, GalleryIdentity("0" * 64, "0" * 64, "finding", source.dimension))
    records = make_records(source.women, rows_of_a_woman)
    with GalleryWriter(folder) as writer:
        for start, part in source.parts(SEGMENT_ROWS):
            writer.append(part, records.iloc[start : start + len(part)].reset_index(drop=True))


def women_asked(gallery: Gallery, queries: int) -> list[str]:
    """Return whom each query is to be taken for: women of the gallery, so that there is somebody to exclude."""
    random = np.random.default_rng(0)
    return [gallery.patient_key(int(position)) for position in random.integers(0, len(gallery), queries)]


def positions_of(answers: Sequence[Any], k: int) -> Numbers:
    """Return int64 (q, k) positions of answers, -1 where there is none."""
    found = np.full((len(answers), k), -1, np.int64)
    for place, answer in enumerate(answers):
        found[place, : len(answer.positions)] = answer.positions
    return found


class MammoseekPeer(Peer):
    """mammoseek's gallery with the engine that it chooses itself, asked through `index.retrieval.ask_many`."""

    name = "mammoseek auto"
    filters = True
    engine: ClassVar[str] = "auto"

    def _build(self, source: Source) -> None:
        place = self.folder / "gallery"
        make_gallery(place, source)
        rebuild_index(place, {"engine": self.engine, "threads": self.threads})
        self.gallery = Gallery.open(place)
        self.gallery.index  # noqa: B018 - reads the index, which is part of opening

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        question = Question(k, None if share is None else f"share == '{share}'", per_group=0)
        return positions_of(ask_many(self.gallery, queries, [None] * len(queries), question), k)

    def _index_bytes(self) -> int:
        return sum(entry.bytes for entry in self.gallery.manifest.entries)

    def _parameters(self) -> str:
        described = self.gallery.index.description
        return ", ".join(f"{name} {described[name]}" for name in ("engine", "factory", "search") if name in described)


class MammoseekGraphPeer(MammoseekPeer):
    """The same with a graph over bfloat16 vectors."""

    name = "mammoseek hnsw"
    engine = "hnsw"


class MammoseekExactPeer(MammoseekPeer):
    """The same with exact search."""

    name = "mammoseek exact"
    engine = "exact"
