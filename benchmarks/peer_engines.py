"""The libraries that mammoseek is measured beside: bare FAISS, hnswlib and usearch; databases in `peer_databases`.

Each is set up as its own documentation advises for inner products of unit vectors, asked for row numbers alone, and
has one search parameter that trades recall for time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.peer_data import Floats, Numbers, make_shares, plain_search

_faiss: Any = faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

PART = 50_000
"""Rows read and handed over at a time."""

GRAPH_LINKS = 16
GRAPH_EFFORT = 100
"""M and efConstruction of every graph: what two cores build of a million rows in minutes, the same for all."""


@dataclass(frozen=True, eq=False)
class Source:
    """Vectors in an .npy file, read in parts, so that no copy of them counts as a peer's memory.

    Attributes:
        path: float32 (n, d).
        rows: How many of its first rows count.
        women: int32 (rows,), the real woman of each.
    """

    path: Path
    rows: int
    women: npt.NDArray[np.int32]

    @classmethod
    def of_folder(cls, folder: Path, rows: int) -> "Source":
        """Take the first rows of what `benchmarks.gallery_vectors` wrote."""
        places = np.load(folder / "gallery-rows.npy", mmap_mode="r")
        return cls(folder / "gallery.npy", rows, np.array(places["woman"][:rows]))

    @cached_property
    def shares(self) -> npt.NDArray[np.object_]:
        """(rows,) objects of str, a column to filter on."""
        return make_shares(self.rows)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(np.load(self.path, mmap_mode="r").shape[1])

    def parts(self, rows: int = PART) -> Iterator[tuple[int, Floats]]:
        """Yield (first row, vectors) of all rows, in order."""
        with self.path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            for start in range(0, self.rows, rows):
                count = min(rows, self.rows - start)
                yield start, np.fromfile(file, kind, count * shape[1]).reshape(count, shape[1])

    def sample(self, rows: int) -> Floats:
        """Return so many rows, drawn at random with a fixed seed."""
        chosen = np.sort(np.random.default_rng(0).permutation(self.rows)[:rows])
        taken = [part[chosen[(chosen >= start) & (chosen < start + len(part))] - start] for start, part in self.parts()]
        return np.concatenate(taken)


class Peer(ABC):
    """A search engine under measurement.

    Attributes:
        name: As it stands in the table.
        grid: Values of the search parameter from fast to thorough; one value where there is nothing to set.
        filters: It can restrict a search to rows of one share.
        most_rows: The largest gallery that it is measured on, because more takes hours or memory that is not there.
        note: What the reader of the table should know.
    """

    name: ClassVar[str]
    grid: ClassVar[tuple[int, ...]] = (0,)
    filters: ClassVar[bool] = False
    most_rows: ClassVar[int | None] = None
    note: ClassVar[str] = ""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        self.threads = threads
        self.value = self.grid[-1]

    def set(self, value: int) -> None:
        """Take another value of the search parameter."""
        self.value = value

    def build(self, source: Source) -> None:
        """Take in all rows and make what searches them."""
        self._build(source)

    def search(self, queries: Floats, k: int, share: str | None = None) -> Numbers:
        """Return int64 (q, k) rows, best first, -1 where there is none; only those of a share where one is named."""
        return self._search(queries, k, share)

    def index_bytes(self) -> int:
        """Return the bytes of the index, the vectors included, as saved on disk."""
        return self._index_bytes()

    def parameters(self) -> str:
        """Return how it was built and is searched."""
        return self._parameters()

    def close(self) -> None:
        """Let go of what would outlive the process."""
        self._close()

    @abstractmethod
    def _build(self, source: Source) -> None: ...

    @abstractmethod
    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers: ...

    @abstractmethod
    def _index_bytes(self) -> int: ...

    @abstractmethod
    def _parameters(self) -> str: ...

    def _close(self) -> None:
        return None


class FlatPeer(Peer):
    """`faiss.IndexFlatIP`: every row is compared."""

    name = "faiss IndexFlatIP"
    filters = True

    def _build(self, source: Source) -> None:
        _faiss.omp_set_num_threads(self.threads)
        self.index: Any = _faiss.IndexFlatIP(source.dimension)
        # Room for all at once: growing by doubling would need up to three times the vectors for a moment.
        self.index.codes.resize(source.rows * source.dimension * 4)
        self.index.codes.resize(0)
        for _, part in source.parts():
            self.index.add(part)
        self.shares = _Selectors(source.shares)

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        if share is None:
            return plain_search(self.index)(queries, k)[1]
        parameters = _faiss.SearchParameters(sel=self.shares.selector(share))
        return plain_search(self.index)(queries, k, params=parameters)[1]

    def _index_bytes(self) -> int:
        return _saved_by_faiss(self.index, self.folder)

    def _parameters(self) -> str:
        return "every row"


class FaissGraphPeer(Peer):
    """`faiss.IndexHNSWFlat`."""

    name = "faiss HNSW"
    grid = tuple(sorted({round(12 * 1.12**step) for step in range(48)}))
    filters = True

    def _build(self, source: Source) -> None:
        _faiss.omp_set_num_threads(self.threads)
        self.index: Any = _faiss.IndexHNSWFlat(source.dimension, GRAPH_LINKS, _faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = GRAPH_EFFORT
        for _, part in source.parts():
            self.index.add(part)
        self.shares = _Selectors(source.shares)

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        parameters = _faiss.SearchParametersHNSW(efSearch=max(self.value, k))
        if share is not None:
            parameters.sel = self.shares.selector(share)
        return plain_search(self.index)(queries, k, params=parameters)[1]

    def _index_bytes(self) -> int:
        return _saved_by_faiss(self.index, self.folder)

    def _parameters(self) -> str:
        return f"M {GRAPH_LINKS}, efConstruction {GRAPH_EFFORT}, efSearch {self.value}"


class HnswlibPeer(Peer):
    """hnswlib."""

    name = "hnswlib"
    grid = FaissGraphPeer.grid
    filters = True

    def _build(self, source: Source) -> None:
        import hnswlib

        self.index = hnswlib.Index("ip", source.dimension)
        self.index.init_index(source.rows, M=GRAPH_LINKS, ef_construction=GRAPH_EFFORT, random_seed=0)
        for start, part in source.parts():
            self.index.add_items(part, np.arange(start, start + len(part)), num_threads=self.threads)
        self.shares = source.shares
        self.conditions: dict[str, Callable[[int], bool]] = {}

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        self.index.set_ef(max(self.value, k))
        condition: Callable[[int], bool] | None = None
        # It calls Python for every row that it meets, for which its manual asks for one thread.
        threads = self.threads
        if share is not None:
            if share not in self.conditions:
                self.conditions[share] = (self.shares == share).tolist().__getitem__
            condition, threads = self.conditions[share], 1
        try:
            found = self.index.knn_query(queries, k, num_threads=threads, filter=condition)[0]
        except RuntimeError:  # it finds fewer than k allowed rows, and then returns none at all
            return np.full((len(queries), k), -1, np.int64)
        return found.astype(np.int64)

    def _index_bytes(self) -> int:
        return self.index.index_file_size()

    def _parameters(self) -> str:
        return f"M {GRAPH_LINKS}, ef_construction {GRAPH_EFFORT}, ef {self.value}"


class UsearchPeer(Peer):
    """usearch, vectors kept in float32."""

    name = "usearch"
    grid = FaissGraphPeer.grid

    def _build(self, source: Source) -> None:
        from usearch.index import Index

        self.index: Any = Index(
            ndim=source.dimension, metric="ip", dtype="f32", connectivity=GRAPH_LINKS, expansion_add=GRAPH_EFFORT
        )
        for start, part in source.parts():
            self.index.add(np.arange(start, start + len(part)), part, threads=self.threads)

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        self.index.expansion_search = max(self.value, k)
        matches = self.index.search(queries, k, threads=self.threads)
        return np.asarray(matches.keys, np.int64).reshape(len(queries), -1)

    def _index_bytes(self) -> int:
        return self.index.serialized_length

    def _parameters(self) -> str:
        return f"connectivity {GRAPH_LINKS}, expansion_add {GRAPH_EFFORT}, expansion_search {self.value}"


class _Selectors:
    """FAISS selectors by share, kept with their bits."""

    def __init__(self, shares: npt.NDArray[np.object_]) -> None:
        self._shares = shares
        self._made: dict[str, Any] = {}

    def selector(self, share: str) -> Any:
        if share not in self._made:
            self._made[share] = _faiss.IDSelectorBitmap(np.packbits(self._shares == share, bitorder="little"))
        return self._made[share]


def _saved_by_faiss(index: Any, folder: Path) -> int:
    path = folder / "index.faiss"
    _faiss.write_index(index, str(path))
    size = path.stat().st_size
    path.unlink()
    return size
