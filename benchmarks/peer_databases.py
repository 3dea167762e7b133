"""The databases within a process that mammoseek is measured beside: LanceDB, Qdrant's local mode and milvus-lite."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_data import Floats, Numbers
from benchmarks.peer_engines import GRAPH_EFFORT, GRAPH_LINKS, FaissGraphPeer, Peer, Source


class LancePeer(Peer):
    """LanceDB with inverted lists of product-quantised vectors, refined from the stored ones."""

    name = "lancedb IVF_PQ"
    # A sixteenth of the lists loses next to nothing; it is the codes that put near rows in a wrong order.
    grid = tuple(sorted({round(5 * 1.15**step) for step in range(36)}))
    filters = True

    def _build(self, source: Source) -> None:
        import lancedb
        import pyarrow as pa

        def batch(start: int, part: Floats) -> pa.RecordBatch:
            numbers = pa.array(np.arange(start, start + len(part)))
            shares = pa.array(source.shares[start : start + len(part)], pa.string())
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])
            return pa.record_batch({"number": numbers, "share": shares, "vector": vectors})

        schema = batch(0, source.sample(1)).schema
        batches = (batch(start, part) for start, part in source.parts())
        self.table: Any = lancedb.connect(self.folder / "lance").create_table(
            "rows", pa.RecordBatchReader.from_batches(schema, batches)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.table.create_index("vector", config=self._config(source))
            self.table.create_index("share", config=lancedb.index.Bitmap())

    def _config(self, source: Source) -> Any:
        """Return how the index is built."""
        from lancedb.index import IvfPq

        self.lists = max(round(np.sqrt(source.rows)), 1)
        self.probed = max(self.lists // 16, min(self.lists, 16))
        self.codes = source.dimension // 8
        return IvfPq(distance_type="dot", num_partitions=self.lists, num_sub_vectors=self.codes)

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        found = np.full((len(queries), k), -1, np.int64)
        asked = queries if len(queries) > 1 else queries[0]
        query = self._tuned(self.table.search(asked, vector_column_name="vector").distance_type("dot"))
        if share is not None:
            query = query.where(f"share = '{share}'", prefilter=True)
        answer = query.limit(k).select(["number", "_distance"]).to_arrow()
        numbers = answer["number"].to_numpy()
        if len(queries) == 1:
            found[0, : len(numbers)] = numbers
            return found
        places = answer["query_index"].to_numpy()
        within = np.arange(len(places)) - np.searchsorted(places, places)
        found[places, within] = numbers
        return found

    def _tuned(self, query: Any) -> Any:
        """Return a query with the search parameters."""
        return query.nprobes(self.probed).refine_factor(self.value)

    def _index_bytes(self) -> int:
        return _folder_bytes(self.folder / "lance")

    def _parameters(self) -> str:
        return f"{self.lists} lists, {self.codes} codes of 8 bits, nprobes {self.probed}, refine_factor {self.value}"


class LanceGraphPeer(LancePeer):
    """LanceDB with graphs of scalar-quantised vectors, refined from the stored ones."""

    name = "lancedb IVF_HNSW_SQ"
    grid = FaissGraphPeer.grid
    refine = 2

    def _config(self, source: Source) -> Any:
        from lancedb.index import HnswSq

        return HnswSq(distance_type="dot", num_partitions=1, m=GRAPH_LINKS, ef_construction=GRAPH_EFFORT)

    def _tuned(self, query: Any) -> Any:
        return query.nprobes(1).ef(max(self.value, 10 * self.refine)).refine_factor(self.refine)

    def _parameters(self) -> str:
        effort = f"m {GRAPH_LINKS}, ef_construction {GRAPH_EFFORT}"
        return f"1 list, {effort}, ef {self.value}, refine_factor {self.refine}"


class QdrantPeer(Peer):
    """Qdrant's local mode: exact, in numpy and Python."""

    name = "qdrant local"
    filters = True
    most_rows = 100_000
    note = "local mode compares every row; it copies two arrays of all rows for each row that is added"

    def _build(self, source: Source) -> None:
        from qdrant_client import QdrantClient
        from qdrant_client.models import Batch, Distance, VectorParams

        self.rows = source.rows
        self.bytes = source.rows * source.dimension * 4
        self.client = QdrantClient(":memory:")
        self.client.create_collection("rows", vectors_config=VectorParams(size=source.dimension, distance=Distance.DOT))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that local mode is not meant for so many rows
            for start, part in source.parts(5000):
                numbers: list[Any] = list(range(start, start + len(part)))
                payloads = [{"share": share} for share in source.shares[start : start + len(part)]]
                self.client.upsert("rows", Batch(ids=numbers, vectors=part.tolist(), payloads=payloads))

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        from qdrant_client.models import FieldCondition, Filter, MatchValue

        condition = None
        if share is not None:
            condition = Filter(must=[FieldCondition(key="share", match=MatchValue(value=share))])
        found = np.full((len(queries), k), -1, np.int64)
        for place, query in enumerate(queries):
            points = self.client.query_points(
                "rows", query=query, query_filter=condition, limit=k, with_payload=False
            ).points
            found[place, : len(points)] = [point.id for point in points]
        return found

    def _index_bytes(self) -> int:
        return self.bytes

    def _parameters(self) -> str:
        return "every row, in memory"


class MilvusPeer(Peer):
    """milvus-lite: Milvus in one Python process, with a FAISS graph for each of its segments."""

    name = "milvus-lite HNSW"
    grid = FaissGraphPeer.grid
    filters = True
    most_rows = 100_000
    note = "rows come in through a local socket, hundreds a second"

    def _build(self, source: Source) -> None:
        from pymilvus import DataType, MilvusClient

        self.client = MilvusClient(str(self.folder / "milvus.db"))
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("number", DataType.INT64, is_primary=True)
        schema.add_field("share", DataType.VARCHAR, max_length=32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=source.dimension)
        index = self.client.prepare_index_params()
        effort = {"M": GRAPH_LINKS, "efConstruction": GRAPH_EFFORT}
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=effort)
        self.client.create_collection("rows", schema=schema, index_params=index)
        for start, part in source.parts(5000):
            rows = [
                {"number": start + place, "share": source.shares[start + place], "vector": vector}
                for place, vector in enumerate(part)
            ]
            self.client.insert("rows", rows)
        self.client.flush("rows")
        self.client.load_collection("rows")

    def _search(self, queries: Floats, k: int, share: str | None) -> Numbers:
        found = np.full((len(queries), k), -1, np.int64)
        answers = self.client.search(
            "rows",
            list(queries),
            limit=k,
            filter="" if share is None else f'share == "{share}"',
            search_params={"metric_type": "IP", "params": {"ef": max(self.value, k)}},
        )
        for place, hits in enumerate(answers):
            found[place, : len(hits)] = [hit["number"] for hit in hits]
        return found

    def _index_bytes(self) -> int:
        return _folder_bytes(self.folder / "milvus.db")

    def _parameters(self) -> str:
        return f"HNSW, M {GRAPH_LINKS}, efConstruction {GRAPH_EFFORT}, ef {self.value}"

    def _close(self) -> None:
        self.client.close()


def _folder_bytes(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_size
    return sum((Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names)
