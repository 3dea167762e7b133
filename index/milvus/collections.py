"""The collections of a gallery on Milvus: their names, their fields and their indexes.

`NAME` holds the rows; `NAME__about` what the gallery is bound to, its columns and its state, as JSON by name; and
`NAME__pictures` the thumbnails, where there are any. A gallery that was written anew has its rows and pictures in
another edition of the two, which the state names.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from index import GalleryError
from index.manifest import GalleryIdentity, now
from index.milvus.address import MilvusAddress, side_collection
from index.milvus.link import MilvusLink
from index.milvus.rows import DATASET, KEY, LONGEST_FOLDED, LONGEST_NAME, NUMBER, PATIENT, RECORD, ROW, VECTOR

MILVUS_FORMAT = 1

NAME, VALUE = "_name", "_value"
"""The fields of the collections that hold no findings: a key, and a text."""

TINY = np.zeros(2, np.float32)
"""Their vector: every collection must have one."""

_LONGEST_TEXT = 65_535  # bytes that Milvus takes


@dataclass(frozen=True)
class MilvusIndex:
    """How Milvus finds neighbours.

    Attributes:
        kind: Milvus's name of the index. FLAT is exact, and its answers are those of a folder; HNSW, IVF_FLAT, DISKANN
            and others are for many millions of rows and find most of the neighbours.
        build: Its parameters, such as M and efConstruction of HNSW.
        search: The parameters of a search, such as nprobe of IVF_FLAT. The `ef` of HNSW is at least what is asked for.
    """

    kind: str = "FLAT"
    build: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)


def about_collection(address: MilvusAddress) -> str:
    """Return the name of the collection that says what a gallery is."""
    return side_collection(address.collection, "about")


def rows_collection(address: MilvusAddress, edition: int) -> str:
    """Return the name of the collection that holds the rows."""
    return side_collection(address.collection, f"rows{edition}") if edition else address.collection


def pictures_collection(address: MilvusAddress, edition: int) -> str:
    """Return the name of the collection that holds the thumbnails."""
    return side_collection(address.collection, f"pictures{edition or ''}")


def create_collections(link: MilvusLink, identity: GalleryIdentity, index: MilvusIndex) -> None:
    """Make a gallery's collections; a gallery that is there is left as it is, and one that was half made is finished.

    Raises:
        GalleryError: The collection is there and no gallery's, or Milvus can't make it so.
    """
    about, rows = about_collection(link.address), rows_collection(link.address, 0)
    if not link.has(about) and link.has(rows):
        raise GalleryError(link.address, "is a collection, but not a gallery", "name another one")
    create_side(link, about)
    if read_values(link):
        return
    moment = now()
    create_rows(link, rows, identity.dimension, index)
    # With this the gallery is there.
    bound = {"format": MILVUS_FORMAT, "identity": asdict(identity), "index": asdict(index), "created": moment}
    state = {"generation": 0, "edition": 0, "next_number": 0, "pending": None, "updated": moment}
    write_values(link, {"identity": bound, "state": state})


def create_rows(link: MilvusLink, name: str, dimension: int, index: MilvusIndex) -> None:
    """Make a collection for rows where it is not there, index it and load it."""
    if not link.has(name):
        names: dict[str, Any] = {"datatype": link.types.VARCHAR, "max_length": LONGEST_FOLDED}
        fields = [
            {"field_name": ROW, "datatype": link.types.VARCHAR, "max_length": LONGEST_NAME, "is_primary": True},
            {"field_name": NUMBER, "datatype": link.types.INT64},
            {"field_name": VECTOR, "datatype": link.types.FLOAT_VECTOR, "dim": dimension},
            {"field_name": RECORD, "datatype": link.types.VARCHAR, "max_length": _LONGEST_TEXT},
            *({"field_name": field_name, **names} for field_name in (KEY, DATASET, PATIENT)),
        ]
        link.create(name, fields)
    vectors: dict[str, Any] = {"field_name": VECTOR, "index_type": index.kind, "metric_type": "IP"}
    if index.build:
        vectors["params"] = dict(index.build)
    link.prepare(name, [vectors, {"field_name": NUMBER, "index_type": "INVERTED"}])


def create_side(link: MilvusLink, name: str) -> None:
    """Make a collection of texts where it is not there, index it and load it."""
    if not link.has(name):
        fields = [
            {"field_name": NAME, "datatype": link.types.VARCHAR, "max_length": LONGEST_NAME, "is_primary": True},
            {"field_name": NUMBER, "datatype": link.types.INT64},
            {"field_name": VECTOR, "datatype": link.types.FLOAT_VECTOR, "dim": len(TINY)},
            {"field_name": VALUE, "datatype": link.types.VARCHAR, "max_length": _LONGEST_TEXT},
        ]
        link.create(name, fields)
    vectors = {"field_name": VECTOR, "index_type": "FLAT", "metric_type": "IP"}
    link.prepare(name, [vectors, {"field_name": NUMBER, "index_type": "INVERTED"}])


def read_values(link: MilvusLink) -> dict[str, Any]:
    """Return what is said of a gallery, by name.

    Raises:
        ValueError: It can't be read.
    """
    found = link.query(about_collection(link.address), f'{NAME} != ""', [NAME, VALUE])
    return {row[NAME]: json.loads(row[VALUE]) for row in found}


def write_values(link: MilvusLink, values: dict[str, Any]) -> None:
    """Say something of a gallery, in the place of what was said under the same name."""
    rows = [{NAME: name, NUMBER: 0, VALUE: json.dumps(value), VECTOR: TINY} for name, value in values.items()]
    if rows:
        link.upsert(about_collection(link.address), rows)
