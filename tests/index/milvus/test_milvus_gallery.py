import base64
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from index import GalleryError, QueryError, upkeep
from index.filters import parse_filter
from index.manifest import GalleryIdentity
from index.precedents import Precedents
from index.questions import Question

pytest.importorskip("pymilvus", reason="pymilvus is not installed (mammoseek[milvus])", exc_type=ImportError)
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (mammoseek[milvus])", exc_type=ImportError)

import contextlib

from index.milvus import link as milvuslink
from index.milvus.collections import MilvusIndex, write_values
from index.milvus.filter import translate
from index.milvus.gallery import MilvusGallery
from index.milvus.link import MilvusLink
from index.milvus.rows import LONGEST_NAME, LONGEST_RECORD


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"milvus://{tmp_path}/m.db/findings"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an embedded file is made once, to be copied."""
    return tmp_path_factory.mktemp("made") / "m.db"


@pytest.fixture
def gallery(
    made: Path, tmp_path: Path, address: str, identity: GalleryIdentity, make_findings: Any
) -> Iterator[MilvusGallery]:
    """The gallery of the folder's tests: 33 findings of 11 women."""
    if not made.exists():
        with MilvusGallery.create(f"milvus://{made}/findings", identity) as gallery:
            for batch in (make_findings(20), make_findings(13, first=20)):
                gallery.add(batch.vectors, batch.records, batch.thumbnails)
    shutil.copytree(made, tmp_path / "m.db")
    with MilvusGallery.open(address) as gallery:
        yield gallery


class TestCreation:
    def test_twice_is_once(self, gallery: MilvusGallery, address: str, identity: GalleryIdentity) -> None:
        with MilvusGallery.create(address, identity, MilvusIndex("HNSW")) as again:
            assert (len(again), again.identity, again.generation) == (33, identity, gallery.generation)
            assert again.index == MilvusIndex("FLAT")
            assert again.created == gallery.created

    @pytest.mark.parametrize("name", [field.name for field in fields(GalleryIdentity)])
    def test_another_identity_is_refused(
        self, gallery: MilvusGallery, address: str, identity: GalleryIdentity, name: str
    ) -> None:
        other = 17 if name == "dimension" else "other"
        with pytest.raises(GalleryError, match=f"was made with the {name.removesuffix('_digest')}"):
            MilvusGallery.create(address, replace(identity, **{name: other}))
        with MilvusGallery.open(address) as again:
            assert again.identity == identity

    def test_a_stopped_one_is_finished(
        self, address: str, identity: GalleryIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for step in ("create", "upsert", "prepare"):
            for stop in (1, 2):
                calls = []
                original = getattr(MilvusLink, step)

                def stopping(*arguments: Any, calls: Any = calls, stop: int = stop, original: Any = original) -> Any:
                    calls.append(arguments)
                    if len(calls) == stop:
                        raise KeyboardInterrupt
                    return original(*arguments)

                with monkeypatch.context() as patch:
                    patch.setattr(MilvusLink, step, stopping)
                    target = f"{address}_{step}_{stop}"
                    with contextlib.suppress(KeyboardInterrupt):
                        MilvusGallery.create(target, identity).close()
                with MilvusGallery.create(target, identity) as gallery:
                    assert (len(gallery), gallery.identity) == (0, identity)

    @pytest.mark.usefixtures("plain_faiss")
    def test_an_approximate_index(self, address: str, identity: GalleryIdentity, make_findings: Any) -> None:
        from index.milvus import query as milvusquery

        index = MilvusIndex("HNSW", {"M": 8, "efConstruction": 64}, {"ef": 32})
        batch = make_findings(300)
        with MilvusGallery.create(address, identity, index) as gallery:
            gallery.add(batch.vectors, batch.records)
            gallery.link._client.flush("findings")
            assert gallery.index == index
            assert gallery.info()["index"] == {
                "kind": "HNSW",
                "build": {"M": 8, "efConstruction": 64},
                "search": {"ef": 32},
            }
            answer = milvusquery.query_row(gallery, "row-0007", Question(5))
            assert len(answer.neighbours) == 5
            assert (np.diff(answer.similarities) <= 0).all()

    def test_a_collection_that_is_no_gallery(
        self, gallery: MilvusGallery, address: str, identity: GalleryIdentity
    ) -> None:
        gallery.link.drop("findings__about")
        with pytest.raises(GalleryError, match="no such gallery"):
            MilvusGallery.open(address)
        with pytest.raises(GalleryError, match="is a collection, but not a gallery"):
            MilvusGallery.create(address, identity)

    @pytest.mark.parametrize(
        ("values", "words"),
        [({"identity": []}, "damaged"), ({"identity": {"format": 99}}, "update mammoseek"), ({"state": {}}, "damaged")],
    )
    def test_damage_is_named(self, gallery: MilvusGallery, address: str, values: Any, words: str) -> None:
        write_values(gallery.link, values)
        with pytest.raises(GalleryError, match=words):
            MilvusGallery.open(address)


class TestAdding:
    def test_again_adds_nothing(self, gallery: MilvusGallery, make_findings: Any) -> None:
        batch = make_findings(20)
        before = gallery.generation
        report = gallery.add(batch.vectors, batch.records, batch.thumbnails)
        assert (report.added, report.already_there, report.failures, report.generation) == (0, 20, (), before)
        more = make_findings(40)
        report = gallery.add(more.vectors, more.records)
        # The 13 rows were stored with other vectors: as in a folder, it is the record that counts.
        assert (report.added, report.already_there, report.generation) == (7, 33, before + 1)
        assert len(gallery) == 40

    def test_a_row_with_another_content_is_refused(self, gallery: MilvusGallery, make_findings: Any) -> None:
        batch = make_findings(20)
        batch.records.loc[4, "age"] = 99.0
        report = gallery.add(batch.vectors, batch.records)
        assert (report.added, report.already_there) == (0, 19)
        assert report.failures[0][0] == "row-0004"
        assert "another age" in report.failures[0][1]
        with pytest.raises(GalleryError, match="already stored"):
            gallery.append(batch.vectors, batch.records)

    def test_what_does_not_fit_is_refused_and_nothing_stored(self, gallery: MilvusGallery, make_findings: Any) -> None:
        new = make_findings(3, first=100)
        clash = new.records.assign(age=["old", "older", "oldest"])
        long = new.records.assign(density="x" * LONGEST_RECORD)
        breast = new.records.assign(granularity="breast")
        wide = new.records.assign(patient_id="x" * (LONGEST_NAME + 1))
        twice = new.records.assign(row_id="row-0100")
        before = gallery.info()
        for vectors, records, words in (
            (new.vectors, clash, "of another kind"),
            (new.vectors, long, "limit on Milvus"),
            (new.vectors, wide, "its patient_id has 1001 bytes"),
            (new.vectors, breast, "granularity"),
            (new.vectors, twice, "twice"),
            (new.vectors * 2, new.records, "not of length 1"),
            (new.vectors[:2], new.records, "float32"),
            (new.vectors[:, :8], new.records, "float32"),
            (new.vectors, new.records.drop(columns="patient_id"), "patient_id"),
            (new.vectors, new.records.assign(rank=1), "answers use"),
        ):
            with pytest.raises(GalleryError, match=words):
                gallery.append(vectors, records)
        with pytest.raises(GalleryError, match="PNG"):
            gallery.append(new.vectors, new.records, [b"GIF8", b"", b""])
        assert gallery.info() == before

    def test_numbers_go_on_as_texts_where_texts_are_stored(self, gallery: MilvusGallery, make_findings: Any) -> None:
        new = make_findings(3, first=100)
        gallery.append(new.vectors, new.records.assign(density=[1.0, np.nan, 3.0]))
        assert [gallery.record_of(f"row-{i}")["density"] for i in ("0100", "0101", "0102")] == ["1", None, "3"]

    def test_a_column_that_was_empty_takes_its_kind_from_the_first_value(
        self, gallery: MilvusGallery, make_findings: Any
    ) -> None:
        first, second = make_findings(3, first=100), make_findings(3, first=200)
        gallery.append(first.vectors, first.records.assign(extra=np.nan))
        gallery.append(second.vectors, second.records.assign(extra=["a", None, "b"]))
        assert gallery.record_of("row-0100")["extra"] is None
        assert gallery.record_of("row-0200")["extra"] == "a"
        assert gallery.by_name["extra"].kind == "text"

    def test_whole_numbers_become_numbers_beside_numbers(self, gallery: MilvusGallery, make_findings: Any) -> None:
        first, second = make_findings(3, first=100), make_findings(3, first=200)
        gallery.append(first.vectors, first.records.assign(extra=[1, 2, 2**53 - 1]))
        assert gallery.by_name["extra"].kind == "integer"
        gallery.append(second.vectors, second.records.assign(extra=[0.5, None, 3.0]))
        found = [
            gallery.record_of(row)["extra"] for row in ("row-0100", "row-0102", "row-0200", "row-0201", "row-0202")
        ]
        assert found == [1.0, 2.0**53 - 1, 0.5, None, 3.0]
        assert [type(value) for value in found if value is not None] == [float] * 4
        rows = gallery.meeting(str(translate(parse_filter("extra in (1, 3)"), gallery.by_name)), ["_row"])
        assert [row["_row"] for row in rows] == ["row-0100", "row-0202"]

    def test_another_process_sees_it(self, gallery: MilvusGallery, address: str, make_findings: Any) -> None:
        with MilvusGallery.open(address) as other:
            new = make_findings(3, first=100)
            gallery.append(new.vectors, new.records.assign(extra=[1, 2, 3]))
            assert len(other) == 36
            more = make_findings(3, first=200)
            other.append(more.vectors, more.records.assign(another=[1, 2, 3]))
            assert [column.name for column in other.columns][-2:] == ["extra", "another"]
        numbers = [row["_number"] for page in gallery.scan("", []) for row in page]
        gallery.refresh()
        assert gallery.record_of("row-0200")["another"] == 1
        assert numbers == list(range(36))

    def test_a_build_embeds_what_is_new(self, gallery: MilvusGallery, make_findings: Any) -> None:
        rows = make_findings(36).records
        rows.loc[35, "row_id"] = rows.loc[34, "row_id"]
        rows.loc[33, "path"] = "bad\0path"
        rows.loc[31, "row_id"] = "row-fails"
        rows.loc[32, "row_id"] = "row-new"
        told: list[tuple[int, int]] = []
        asked: list[str] = []

        def embed(todo: pd.DataFrame) -> Iterator[Any]:
            asked.extend(todo["row_id"])
            vectors = np.eye(16, dtype=np.float32)[: len(todo)] * [[2], [1]]
            yield SimpleNamespace(records=todo, vectors=vectors.astype(np.float32), thumbnails=None, failures=[])

        report = gallery.build(rows, embed, progress=lambda done, of: told.append((done, of)))
        assert asked == ["row-fails", "row-new"]
        assert (report.added, report.already_there) == (1, 31)
        assert sorted(row for row, _ in report.failures) == ["row-0033", "row-0034", "row-0034", "row-fails"]
        assert told[-1] == (36, 36)
        assert gallery.build(rows[rows["row_id"] != "row-fails"], embed).added == 0


class TestRemoval:
    def test_a_woman(self, gallery: MilvusGallery, address: str) -> None:
        numbers = [row["_number"] for row in gallery.meeting('$meta["patient_id"] == "W002"', [])]
        assert len(numbers) == 3
        report = gallery.remove(patient="W002")
        assert (report.removed, report.remaining, report.women) == (3, 30, 1)
        assert report.row_ids == ("row-0006", "row-0007", "row-0008")
        assert report.generation == gallery.generation
        with MilvusGallery.open(address) as again:
            assert len(again) == 30
            assert again.pictures(numbers) == [b"", b"", b""]
            assert again.link.count("findings__pictures") == 30
            with pytest.raises(QueryError, match="no row"):
                again.record_of("row-0007")
            with pytest.raises(QueryError, match="nothing was removed"):
                again.remove(patient="W002")

    def test_what_was_known_of_precedents_is_forgotten(self, gallery: MilvusGallery, address: str) -> None:
        similarities = tuple(place / 32 for place in range(20))
        sample = Precedents(similarities, 33, gallery.identity.model_digest)
        gallery.store_sample(sample.to_bytes().decode())
        with MilvusGallery.open(address) as other:
            stored = other.precedents()
            assert stored == sample
        gallery.remove(patient="W002")
        with MilvusGallery.open(address) as other:
            assert gallery.precedents() is other.precedents() is None
        for unfit in ("{}", Precedents(similarities, 90, "a" * 64).to_bytes().decode()):
            gallery.store_sample(unfit)
            assert gallery.precedents() is None

    def test_her_numbers_are_not_used_again(self, gallery: MilvusGallery, make_findings: Any) -> None:
        gallery.remove(row_ids=["row-0032"])
        batch = make_findings(33)
        gallery.add(batch.vectors, batch.records)
        assert gallery.row("row-0032", ["_number"])["_number"] == 33
        assert gallery.thumbnail("row-0032") is None

    @pytest.mark.parametrize(
        ("options", "removed"),
        [
            ({"where": "density == 'A' and not age < 50"}, None),
            ({"where": "age is None", "patient": "W001"}, 1),
            ({"dataset": "films"}, 33),
            ({"row_ids": ["row-0001", "row-0005", "row-0001"]}, 2),
            ({"row_ids": ["row-0001", "row-0005"], "patient": "W001"}, 1),
            ({"where": "row_id is not None"}, 33),
        ],
    )
    def test_as_in_a_folder(
        self, gallery: MilvusGallery, gallery_folder: Path, options: dict[str, Any], removed: int | None
    ) -> None:
        here = upkeep.remove_rows(gallery_folder, **options)
        there = gallery.remove(**options)
        assert (there.removed, there.remaining, there.women) == (here.removed, here.remaining, here.women)
        assert there.row_ids == here.row_ids
        assert removed in (None, there.removed)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "nothing says what to remove"),
            ({"patient": "w002"}, "nothing was removed"),
            ({"patient": 'W002" or _row != "'}, "nothing was removed"),
            ({"patient": "W002", "dataset": "other"}, "nothing was removed"),
            ({"study": "1.2.3"}, "nothing was removed"),
            ({"where": "age > 1000"}, "nothing was removed"),
            ({"where": "nonsense == 1"}, "no column"),
            ({"where": "("}, "can't be read"),
            ({"row_ids": ["row-0001", "row-9999"]}, "row-9999"),
            ({"row_ids": ['"] or _row != "']}, "no row"),
        ],
    )
    def test_a_slip_of_the_pen_removes_nothing(self, gallery: MilvusGallery, options: Any, words: str) -> None:
        with pytest.raises(QueryError, match=words):
            gallery.remove(**options)
        assert len(gallery) == 33

    def test_what_milvus_keeps_is_told(self, gallery: MilvusGallery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MilvusLink, "delete", lambda *arguments: None)
        with pytest.raises(GalleryError, match="still holds"):
            gallery.remove(patient="W002")


def test_what_it_holds(gallery: MilvusGallery, gallery_folder: Path, address: str) -> None:
    here, there = upkeep.gallery_info(gallery_folder), gallery.info()
    for name in ("rows", "women", "datasets", "labels", "columns", "identity"):
        assert there[name] == here[name]
    assert there["folder"] == str(gallery.address) == address.replace("milvus:///", "milvus:///")
    assert there["generation"] == 2


class TestReaching:
    def test_no_server(self, unused_port: int) -> None:
        started = time.monotonic()
        with pytest.raises(GalleryError, match="no Milvus answers there"):
            MilvusGallery.open(f"milvus://127.0.0.1:{unused_port}/findings")
        assert time.monotonic() - started < 10

    def test_a_server_that_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(milvuslink, "CONNECT_SECONDS", 0.5)
        monkeypatch.setenv("MILVUS_USER", "reader")
        monkeypatch.setenv("MILVUS_PASSWORD", "hunter2")
        monkeypatch.setenv("MILVUS_TOKEN", "hunter3")
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            started = time.monotonic()
            with pytest.raises(GalleryError, match=r"within 0\.5 s") as error:
                MilvusGallery.open(f"milvus://127.0.0.1:{silent.getsockname()[1]}/findings")
            assert time.monotonic() - started < 5
        assert "hunter" not in str(error.value)

    def test_a_real_port(self, tmp_path: Path, identity: GalleryIdentity, make_findings: Any) -> None:
        """The same over TCP, as with a server: milvus-lite listens on a port of its own."""
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, database, port = start_server_in_thread(str(tmp_path / "served.db"))
        try:
            batch = make_findings(20)
            with MilvusGallery.create(f"milvus://127.0.0.1:{port}/findings", identity) as gallery:
                gallery.add(batch.vectors, batch.records, batch.thumbnails)
            with MilvusGallery.open(f"milvus://127.0.0.1:{port}/findings") as gallery:
                assert len(gallery) == 20
                assert gallery.thumbnail("row-0003") == batch.thumbnails[3]
                assert str(gallery.address) == f"milvus://127.0.0.1:{port}/findings"
        finally:
            server.stop(grace=0).wait()
            database.close()

    def test_no_gallery(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(GalleryError, match="no such gallery"):
            MilvusGallery.open(address)
        assert list(tmp_path.iterdir()) == []

    def test_no_collection(self, gallery: MilvusGallery, address: str) -> None:
        with pytest.raises(GalleryError, match="no such gallery"):
            MilvusGallery.open(f"{address}_of_others")

    def test_a_file_in_use(self, tmp_path: Path, address: str) -> None:
        from milvus_lite.db import MilvusLite

        other = MilvusLite(str(tmp_path / "m.db"))  # as another process has it
        try:
            with pytest.raises(GalleryError, match="can't be opened"):
                MilvusGallery.open(address)
        finally:
            other.close()

    def test_a_file_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "m.db").write_bytes(b"SQLite format 3\0")
        with pytest.raises(GalleryError, match="milvus-lite keeps a folder"):
            MilvusGallery.open(f"milvus://{tmp_path}/m.db/findings")

    @pytest.mark.parametrize("module", ["pymilvus", "milvus_lite"])
    def test_not_installed(self, address: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(GalleryError, match=r"mammoseek\[milvus\]"):
            MilvusGallery.open(address)

    def test_after_the_end(self, gallery: MilvusGallery) -> None:
        gallery.close()
        gallery.close()
        with pytest.raises(GalleryError, match="was closed"):
            len(gallery)

    def test_a_proxy_is_none_of_its_business(
        self, address: str, identity: GalleryIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with MilvusGallery.create(address, identity) as gallery:
            assert len(gallery) == 0

    def test_a_server_that_went_away(self, gallery: MilvusGallery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(milvuslink, "REQUEST_SECONDS", 1.0)
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(gallery.address.file))
        with pytest.raises(GalleryError, match="Milvus refused a request"):
            len(gallery)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestRewriting:
    def test_nothing_of_a_removed_woman_is_left(self, gallery: MilvusGallery, address: str, make_findings: Any) -> None:
        first, second = make_findings(20), make_findings(13, first=20)
        gallery.remove(patient="W002")
        kept = [row["_row"] for page in gallery.scan("", ["_row"]) for row in page]
        before = gallery.info()
        gallery.rewrite()
        assert gallery.info() == {**before, "generation": before["generation"] + 1, "updated": gallery.updated}
        assert [row["_row"] for page in gallery.scan("", ["_row"]) for row in page] == kept
        assert gallery.vector("row-0003").tobytes() == first.vectors[3].tobytes()
        assert gallery.thumbnail("row-0025") == second.thumbnails[5]
        gallery.close()
        assert gallery.address.file is not None
        files = [path for path in gallery.address.file.rglob("*") if path.is_file()]
        # Tables are compressed: their cells are looked at, and the bytes of every file.
        texts = [str(pq.read_table(path).to_pydict()) for path in files if path.suffix == ".parquet"]
        held = [path.read_bytes() for path in files] + [text.encode() for text in texts]
        picture = base64.b64encode(first.thumbnails[7])
        cell = str([float(number) for number in first.vectors[7]])[1:80].encode()
        for gone in (b"W002", b"w002", b"row-0007", first.vectors[7].tobytes(), picture, cell):
            assert not any(gone in data for data in held)
        # The same search finds what is kept.
        cell = str([float(number) for number in first.vectors[3]])[1:80].encode()
        for kept_one in (b"W001", b"row-0003", first.vectors[3].tobytes(), base64.b64encode(first.thumbnails[3]), cell):
            assert any(kept_one in data for data in held)
        with MilvusGallery.open(address) as again:
            assert len(again) == 30
            assert again.thumbnail("row-0025") == second.thumbnails[5]

    @pytest.mark.parametrize("step", ["create", "prepare", "upsert", "drop"])
    @pytest.mark.parametrize("stop", [1, 2])
    @pytest.mark.parametrize("after", [False, True])
    def test_a_stopped_one_loses_nothing(
        self, gallery: MilvusGallery, address: str, step: str, stop: int, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gallery.remove(patient="W002")
        before = gallery.info()
        calls = []
        original = getattr(MilvusLink, step)

        def stopping(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == stop and not after:
                raise KeyboardInterrupt
            result = original(*arguments)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            patch.setattr(MilvusLink, step, stopping)
            with pytest.raises(KeyboardInterrupt):
                gallery.rewrite()
        gallery.close()
        with MilvusGallery.open(address) as again:
            assert again.info()["labels"] == before["labels"]
            assert again.thumbnail("row-0025") is not None
            again.rewrite()
            assert again.info()["labels"] == before["labels"]
            assert again.thumbnail("row-0025") is not None
            kinds = [name.rstrip("0123456789") for name in sorted(again.link._client.list_collections())]
            assert kinds == ["findings__about", "findings__pictures", "findings__rows"]
