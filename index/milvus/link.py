"""The connection to Milvus: every request with a time limit, every failure told plainly."""

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from index import GalleryError
from index.milvus.address import MilvusAddress

CONNECT_SECONDS = 5.0
"""How long a server may take to answer at first."""

REQUEST_SECONDS = 120.0
"""How long it may take over one request."""

LOAD_SECONDS = 600.0
"""How long it may take to get a collection ready."""

MOST_RESULTS = 16_384
"""Rows that Milvus returns at most to one question."""

PAGE_ROWS = 4_000
"""Row numbers that one page of a full reading covers."""

_LONGEST_REASON = 300

_Result = TypeVar("_Result")

_embedded: dict[str, int] = {}  # how many connections of this process use an embedded file
_embedded_lock = threading.Lock()


class MilvusLink:
    """A connection to the Milvus that holds a gallery.

    Args:
        address: Where.
        create: Whether an embedded file may be made; a question must not leave one behind.

    Raises:
        GalleryError: pymilvus or milvus-lite is not installed, or nothing answers there.
    """

    def __init__(self, address: MilvusAddress, *, create: bool = False) -> None:
        self.address = address
        pymilvus = _import("pymilvus", address)
        # It logs every refusal with its traceback before it raises it.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self.types: Any = pymilvus.DataType
        self._failure: type[Exception] = pymilvus.MilvusException
        if address.file is not None:
            self._check_file(address.file, create=create)
        options: dict[str, Any] = {
            "token": os.environ.get("MILVUS_TOKEN", ""),
            "user": os.environ.get("MILVUS_USER", ""),
            "password": os.environ.get("MILVUS_PASSWORD", ""),
        }
        if address.file is not None:
            # It listens on this machine only, and nobody asks who is there; a proxy would lead elsewhere.
            options = {"grpc_options": {"grpc.enable_http_proxy": 0}}
        try:
            self._client: Any = pymilvus.MilvusClient(
                # Shared ones are told apart by neither user nor database, and live on when they are closed.
                address.uri,
                db_name=address.database,
                timeout=CONNECT_SECONDS,
                dedicated=True,
                **options,
            )
        except (self._failure, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        self._open = True
        if address.file is not None:
            with _embedded_lock:
                key = os.path.abspath(address.file)  # noqa: PTH100 -- the name that milvus-lite goes by
                _embedded[key] = _embedded.get(key, 0) + 1

    def close(self) -> None:
        """End the connection, and the embedded server with the last one to its file."""
        if not self._open:
            return
        self._open = False
        self._client.close()
        if self.address.file is not None:
            key = os.path.abspath(self.address.file)  # noqa: PTH100
            with _embedded_lock:
                _embedded[key] -= 1
                last = not _embedded[key]
            if last:
                manager: Any = importlib.import_module("milvus_lite.server_manager")
                manager.server_manager_instance.release_server(key)

    def has(self, collection: str) -> bool:
        """Return whether a collection exists."""
        return bool(self._call(self._client.has_collection, collection))

    def create(self, collection: str, fields: Sequence[dict[str, Any]]) -> None:
        """Make a collection; further keys of a row go to its dynamic field."""
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        for field in fields:
            schema.add_field(**field)
        self._call(self._client.create_collection, collection, schema=schema, consistency_level="Strong")

    def prepare(self, collection: str, indexes: Sequence[dict[str, Any]]) -> None:
        """Have the missing indexes of a collection made, and load it."""
        made = set(self._call(self._client.list_indexes, collection))
        parameters = self._client.prepare_index_params()
        for index in indexes:
            if index["field_name"] not in made:
                parameters.add_index(index_name=index["field_name"], **index)
        if len(parameters):
            # Loading waits for them.
            self._call(self._client.create_index, collection, index_params=parameters, sync=False)
        self.load(collection)

    def load(self, collection: str) -> None:
        """Have a collection ready for questions; it may have to be read from the disk first."""
        # Who may only ask may not load, and need not: someone else did.
        if self._call(self._client.get_load_state, collection)["state"].name != "Loaded":
            self._call(self._client.load_collection, collection, timeout=LOAD_SECONDS)

    def describe(self, collection: str) -> dict[str, Any]:
        """Return what Milvus knows of a collection."""
        return dict(self._call(self._client.describe_collection, collection))

    def drop(self, collection: str) -> None:
        """Delete a collection."""
        self._call(self._client.drop_collection, collection)

    def upsert(self, collection: str, rows: Sequence[dict[str, Any]]) -> None:
        """Store rows; one with the key of a stored row takes its place."""
        self._call(self._client.upsert, collection, list(rows))

    def delete(self, collection: str, condition: str) -> None:
        """Delete the rows that meet a condition."""
        self._call(self._client.delete, collection, filter=condition, consistency_level="Strong")

    def query(
        self, collection: str, condition: str, fields: Sequence[str], limit: int = MOST_RESULTS
    ) -> list[dict[str, Any]]:
        """Return the fields of the rows that meet a condition, in no order, everything that was stored considered."""
        found = self._call(
            self._client.query,
            collection,
            filter=condition,
            output_fields=list(fields),
            limit=limit,
            consistency_level="Strong",
        )
        return [dict(row) for row in found]

    def count(self, collection: str, condition: str = "") -> int:
        """Return how many rows meet a condition."""
        found = self._call(
            self._client.query,
            collection,
            filter=condition,
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        return int(found[0]["count(*)"])

    def pages(
        self, collection: str, condition: str, fields: Sequence[str], field: str, stop: int, *, start: int = 0
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows that meet a condition, some at a time, in the order of a field that numbers them.

        Args:
            collection: Which.
            condition: Which rows; empty for all.
            fields: What to return of each.
            field: The field with their numbers.
            stop: The numbers lie below it.
            start: The smallest number.
        """
        for first in range(start, stop, PAGE_ROWS):
            within = f"{field} >= {first} and {field} < {min(first + PAGE_ROWS, stop)}"
            rows = self.query(collection, f"({condition}) and {within}" if condition else within, [*fields, field])
            if rows:
                yield sorted(rows, key=lambda row: row[field])

    def search(
        self,
        collection: str,
        queries: Any,
        *,
        field: str,
        limit: int,
        condition: str,
        fields: Sequence[str],
        parameters: dict[str, Any],
    ) -> list[list[dict[str, Any]]]:
        """Return the rows with the largest inner product with each query, of those that meet a condition."""
        found = self._call(
            self._client.search,
            collection,
            data=list(queries),
            anns_field=field,
            limit=limit,
            filter=condition,
            output_fields=list(fields),
            search_params={"metric_type": "IP", "params": parameters},
            consistency_level="Strong",
        )
        return [[{"score": hit["distance"], **hit["entity"]} for hit in hits] for hits in found]

    def _call(self, function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
        if not self._open:
            raise GalleryError(self.address, "the connection was closed", "open the gallery again")
        try:
            return function(*arguments, **{"timeout": REQUEST_SECONDS, **options})
        except (self._failure, OSError) as error:
            raise GalleryError(self.address, f"Milvus refused a request ({_reason(error)})") from error

    def _unreachable(self, error: Exception) -> GalleryError:
        if self.address.file is not None:
            return GalleryError(
                self.address,
                f"the embedded file can't be opened ({_reason(error)})",
                "close the other process that uses it, or name another file",
            )
        return GalleryError(
            self.address,
            f"no Milvus answers there within {CONNECT_SECONDS:g} s ({_reason(error)})",
            "start the server, or correct the address, and set MILVUS_TOKEN or MILVUS_USER and MILVUS_PASSWORD"
            " if it asks who you are",
        )

    def _check_file(self, file: Path, *, create: bool) -> None:
        _import("milvus_lite", self.address)
        if file.is_file():
            raise GalleryError(self.address, f"{file} is a file, and milvus-lite keeps a folder", "name another one")
        if not create and not file.exists():
            raise no_gallery(self.address)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GalleryError(self.address, f"{file.parent} can't be made ({error.strerror})") from error


def no_gallery(address: MilvusAddress) -> GalleryError:
    """Return the error for a gallery that is not there."""
    return GalleryError(
        address,
        "there is no such gallery",
        "make one with `mammoseek index build` or copy one there, or check the name",
    )


def _import(module: str, address: MilvusAddress) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise GalleryError(
            address,
            f"{module.replace('_', '-')} is not installed ({error})",
            "install it by `pip install 'mammoseek[milvus]'`",
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "message", "") or error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
