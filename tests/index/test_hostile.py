"""Galleries that somebody made to do harm: their digests and checksums fit, and what they say is not so.

Each is used in a child process with little memory, as a user would: opened, asked, verified, changed and mended. It may
answer, or refuse by an error of mammoseek; any other exception, a signal or a memory blow-up fails the test.
"""

import hashlib
import io
import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pytest

from benchmarks.gallery_crashes import IDENTITY, append, records_of, vectors_of
from errors import MammoseekError
from index import GalleryError
from index.engines import EngineConfig, build_engine, open_engine
from index.filters import parse_filter
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.layout import all_files
from index.manifest import MANIFEST_NAME, read_manifest
from index.repair import repair_gallery
from index.segments import decode_segment, split_segment
from index.upkeep import gallery_info, remove_rows, verify_gallery
from index.vectors import StoredVectors
from index.writer import GalleryWriter, create_gallery

_faiss: Any = faiss
MEMORY = 256 << 20  # bytes that a child may take beyond what it has when it starts
SECONDS = 40  # that it may take
FLIPS = 150
FORGED = 8
FAISS_CASES = 40
BIG = [0, 1, 2**64 - 1, 2**63 - 1, 2**63, 2**40, 2**32, 2**31, 1000, 18_000]


def harmless(action: Callable[[], object]) -> str:
    """Run something in a child with little memory; return the error of mammoseek that it ended by, "" where by none.

    Raises:
        AssertionError: It ended in any other way.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        signal.alarm(SECONDS)
        said, code = "", 0
        try:
            action()
        except MammoseekError as error:
            said = str(error)
        except BaseException as error:
            said, code = f"{type(error).__name__}: {error}", 1
        os.write(writing, said.encode("utf-8", "replace")[:4000])
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    assert not os.WIFSIGNALED(status), f"ended by signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0, said
    return said


def use(folder: Path) -> None:
    """Do with a gallery what a user does; each step is tried even where those before it were refused.

    Raises:
        MammoseekError: The first refusal.
    """
    refusals = []
    vector = vectors_of([7])

    def ask(**options: Any) -> None:
        gallery = Gallery.open(folder, **options)
        gallery.index.search(vector, 3, allowed=gallery.passing(parse_filter("age > 3")))
        for position in range(0, len(gallery), 7):
            json.dumps(gallery.record(position), allow_nan=False)
            gallery.thumbnail(gallery.row_id(position))
        assert len(gallery.women) == len(gallery.records) == len(gallery)
        json.dumps(gallery_info(folder)).encode()

    def change() -> None:
        with GalleryWriter(folder) as writer:
            writer.present(records_of([3, 70_000]))
            append(writer, [70_000, 70_001])
            writer.compact()

    steps: Sequence[Callable[[], object]] = (
        ask,
        lambda: ask(checked=False),
        lambda: ask(skip_damaged=True),
        lambda: json.dumps(verify_gallery(folder).to_dict()).encode(),
        change,
        lambda: remove_rows(folder, patient="woman 000002"),
        lambda: remove_rows(folder, row_ids=["row 000030"]),
        lambda: repair_gallery(folder),
        lambda: repair_gallery(folder, drop_damaged=True),
        ask,
    )
    for step in steps:
        try:
            with np.errstate(all="ignore"):  # vectors that were not checked
                step()
        except MammoseekError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


@dataclass
class Attack:
    """A gallery to be changed, and put right so that every digest fits.

    Attributes:
        folder: Where it lies.
        content: Its manifest.
    """

    folder: Path
    content: dict[str, Any]

    def segment(self, number: int = 0) -> dict[str, Any]:
        """Return what the manifest says of a segment."""
        entry: dict[str, Any] = self.content["segments"][number]
        return entry

    def data(self, entry: dict[str, Any]) -> bytearray:
        return bytearray((self.folder / entry["file"]).read_bytes())

    def put(self, entry: dict[str, Any], data: bytes) -> None:
        """Write a file's new content and let its entry say so; a file that is removed stays so."""
        path = self.folder / entry["file"]
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        entry["sha256"], entry["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
        if "rest_sha256" in entry:
            start = entry["vectors_at"]
            end = start + entry["rows"] * self.content["identity"]["dimension"] * 4
            entry["rest_sha256"] = hashlib.sha256(data[:start] + data[end:]).hexdigest()

    def tamper(self, change: Callable[[h5py.File], Any], number: int = 0) -> None:
        """Change a segment's HDF5 file by the library itself."""
        buffer = io.BytesIO(self.data(self.segment(number)))
        with h5py.File(buffer, "r+") as file:
            change(file)
        self.put(self.segment(number), buffer.getvalue())

    def commit(self) -> None:
        """Write the manifest with a checksum that fits."""
        self.content.pop("checksum", None)
        checksum = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()
        (self.folder / MANIFEST_NAME).write_text(json.dumps({**self.content, "checksum": checksum}))


@pytest.fixture
def attack(tmp_path: Path, index_engine: Any) -> Attack:
    """A gallery of 60 rows in two segments, with pictures, an index and precedents."""
    folder = tmp_path / "gallery"
    create_gallery(folder, IDENTITY)
    with GalleryWriter(folder) as writer:
        append(writer, range(40))
        append(writer, range(40, 60))
        writer.rebuild_index()
        writer.store_precedents(b'{"format": 1}')
    return Attack(folder, json.loads((folder / MANIFEST_NAME).read_text()))


def test_the_helpers_of_these_tests_leave_a_gallery_that_passes(attack: Attack) -> None:
    attack.tamper(lambda file: None)
    attack.put(attack.segment()["keys"], attack.data(attack.segment()["keys"]))
    attack.commit()
    assert verify_gallery(attack.folder).ok
    assert harmless(lambda: use(attack.folder)) == ""
    with pytest.raises(AssertionError, match="ZeroDivision"):
        harmless(lambda: 1 / 0)
    with pytest.raises(AssertionError, match="signal 11"):
        harmless(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(AssertionError, match="MemoryError"):
        harmless(lambda: bytearray(2 * MEMORY))


def replaced(name: str, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, **options)

    return change


def linked(name: str, link: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = link

    return change


def virtual(file: h5py.File) -> None:
    del file["numbers"]
    layout = h5py.VirtualLayout((40,), np.int64)
    layout[:] = h5py.VirtualSource("/etc/passwd", "numbers", (40,), np.int64)
    file.create_virtual_dataset("numbers", layout)


def many(file: h5py.File) -> None:
    for number in range(1500):
        file[f"records/age{number}"] = file["numbers"]


TAMPERED: dict[str, Callable[[h5py.File], Any]] = {
    "an external link": linked("records/age", h5py.ExternalLink("/etc/passwd", "/records")),
    "a soft link": linked("records/age", h5py.SoftLink("/numbers")),
    "a soft link to itself": linked("records", h5py.SoftLink("/records")),
    "a group in itself": lambda file: file["records"].__setitem__("age ", file["records"]),
    "object references": replaced("records/age", shape=(40,), dtype=h5py.ref_dtype),
    "region references": replaced("records/age", shape=(40,), dtype=h5py.regionref_dtype),
    "texts of any length": replaced("records/age", data=["x"] * 40, dtype=h5py.string_dtype()),
    "vectors of any length": replaced("records/age", shape=(40,), dtype=h5py.vlen_dtype(np.int64)),
    "compound numbers": replaced("records/age", shape=(40,), dtype=[("a", "i8"), ("b", "f8")]),
    "raw data elsewhere": replaced(
        "numbers", shape=(40,), dtype="i8", external=[("/etc/passwd", 0, 320)]
    ),
    "a virtual dataset": virtual,
    "a compressed bomb": replaced("records/dataset/text", shape=(1 << 36,), dtype="u1", compression=9),
    "a chunked dataset": replaced("numbers", data=np.arange(40), chunks=(40,), compression=9),
    "a dataset that grows": replaced("numbers", data=np.arange(40), maxshape=(None,)),
    "a huge dataset": replaced("records/row_id/text", shape=(1 << 50,), dtype="u1"),
    "many datasets in one place": many,
    "a huge attribute": lambda file: file.attrs.create("format", np.full(8000, 2), dtype=np.int64),
    "numbers that go down": replaced("numbers", data=np.arange(40)[::-1].copy()),
    "numbers that go round": replaced("numbers", data=np.array([0, 2**63 - 1, -(2**63), *range(3, 40)])),
    "the same number twice": replaced("numbers", data=np.array([0, 0, *range(2, 40)])),
    "a text cut in a character": replaced("records/dataset/text", data=np.frombuffer(b"\xc3", np.uint8)),
    "a zero byte in a text": replaced("records/dataset/text", data=np.frombuffer(b"\0", np.uint8)),
    "no text at all": replaced("records/dataset/codes", data=np.full(40, -1, np.int32)),
    "texts without an end": replaced("records/dataset/ends", data=np.array([2**62])),
    "texts that end before they begin": replaced("records/row_id/ends", data=np.arange(40)[::-1].copy()),
    "codes of no text": replaced("records/row_id/codes", data=np.arange(1, 41, dtype=np.int32)),
    "the same row twice": replaced("records/row_id/codes", data=np.array([0, *range(39)], np.int32)),
    "pictures that end nowhere": replaced("pictures/ends", data=np.full(40, 2**62)),
    "pictures that end early": replaced("pictures/ends", data=np.zeros(40, np.int64)),
    "another column": replaced("records/more", data=np.zeros(40)),
    "a column of another kind": replaced("records/age", data=np.full(40, 2, np.uint8)),
    "a name that is no UTF-8": lambda file: file.create_dataset(b"records/\xff", data=np.zeros(40)),
    "no records": lambda file: file.__delitem__("records"),
    "infinite ages": replaced("records/age", data=np.full(40, np.inf)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TAMPERED))
def test_hdf5_that_does_harm_is_refused(attack: Attack, name: str) -> None:
    attack.tamper(TAMPERED[name])
    attack.commit()
    tells_later = {"the same row twice", "a zero byte in a text", "infinite ages"}
    said = harmless(lambda: use(attack.folder))
    assert attack.segment()["file"] in said or name in tells_later
    if name == "the same row twice":
        assert not verify_gallery(attack.folder).ok


def swap_segments(attack: Attack) -> None:
    one, other = attack.segment(0), attack.segment(1)
    first, second = attack.data(one), attack.data(other)
    attack.put(one, second)
    attack.put(other, first)


def rows_twice(attack: Attack) -> None:
    attack.content["segments"][1] = {**attack.segment(0), "first": 40, "last": 79}
    attack.content["next_number"] = 80


def huge(attack: Attack) -> None:
    entry = attack.segment()
    entry["rows"], entry["bytes"], entry["last"] = 2**40, 2**47, 2**41
    entry["keys"]["bytes"] = 2**43
    attack.content["segments"], attack.content["next_number"] = [entry], 2**42


def sparse(attack: Attack) -> None:
    """A file that is really as large as it says, and takes no room on the disk."""
    entry = attack.segment(1)
    rows = 3 * MEMORY // 2 // 64
    entry["rows"], entry["last"] = rows, 40 + rows
    entry["bytes"], entry["keys"]["bytes"] = entry["vectors_at"] + rows * 64 + 9, 8 * rows
    attack.content["next_number"] = 2**28
    for name, size in ((entry["file"], entry["bytes"]), (entry["keys"]["file"], 8 * rows)):
        with (attack.folder / name).open("r+b") as file:
            file.truncate(size)


def many_segments(attack: Attack) -> None:
    entry = attack.segment()
    attack.content["segments"] = [
        {**entry, "file": f"segments/{n:032x}.h5", "first": 100 * n, "last": 100 * n + 39} for n in range(1000)
    ]
    attack.content["next_number"] = 10**6


def lying_keys(attack: Attack) -> None:
    attack.put(attack.segment()["keys"], np.zeros(40, np.uint64).tobytes())


def keys_downwards(attack: Attack) -> None:
    keys = attack.segment()["keys"]
    attack.put(keys, np.frombuffer(bytes(attack.data(keys)), np.uint64)[::-1].tobytes())


def other_pictures(attack: Attack) -> None:
    entry = attack.segment()["pictures"]
    attack.put(entry, b"\x89PNG\r\n\x1a\n" + bytes(len(attack.data(entry)) - 8))


def not_unit(value: float) -> Callable[[Attack], None]:
    def change(attack: Attack) -> None:
        entry = attack.segment()
        data = attack.data(entry)
        data[entry["vectors_at"] : entry["vectors_at"] + 64] = np.full(16, value, np.float32).tobytes()
        attack.put(entry, data)

    return change


def said(path: str, value: Any) -> Callable[[Attack], None]:
    def change(attack: Attack) -> None:
        *steps, last = path.split(".")
        target: Any = attack.content
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        target[last] = value

    return change


def index_of(data: bytes) -> Callable[[Attack], None]:
    return lambda attack: attack.put(attack.content["index"]["cache"], data)


FORGERIES: dict[str, Callable[[Attack], Any]] = {
    "segments swapped": swap_segments,
    "a segment twice": rows_twice,
    "rows of a huge segment": huge,
    "a sparse segment": sparse,
    "thousands of segments": many_segments,
    "keys that lie": lying_keys,
    "keys that go down": keys_downwards,
    "other pictures": other_pictures,
    "vectors that are no numbers": not_unit(np.nan),
    "infinite vectors": not_unit(np.inf),
    "vectors of length 0": not_unit(0.0),
    "another dimension": said("identity.dimension", 8),
    "a long dimension": said("identity.dimension", 65_536),
    "another granularity": said("identity.granularity", "breast"),
    "a column that is not there": said("columns", {"row_id": "text"}),
    "a column of another kind": said("columns.age", "text"),
    "an engine of nonsense": said("engine", {"nonsense": 1}),
    "an engine of strange values": said("engine", {"engine": 5, "target_recall": "x", "search": [], "threads": -1}),
    "an index of which nothing is said": said("index.description", {}),
    "an index of no bytes": index_of(b"x"),
    "an index of other bytes": index_of(b"IxFI" + bytes(400)),
    "an index that holds rows of later": said("index.until", 40),
    "precedents of nonsense": said("precedents", None),
    "a far generation": said("generation", 2**62),
}


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_forged_manifests_do_no_harm(attack: Attack, name: str) -> None:
    FORGERIES[name](attack)
    attack.commit()
    harmless_ones = {
        "keys that lie", "keys that go down", "an engine of nonsense", "an engine of strange values",
        "an index of which nothing is said", "an index of no bytes", "an index of other bytes",
        "an index that holds rows of later", "precedents of nonsense",
    }  # fmt: skip
    assert (harmless(lambda: use(attack.folder)) == "") <= (name in harmless_ones)


def test_one_manifest_for_another_is_refused(attack: Attack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create_gallery(other, IDENTITY)
    with GalleryWriter(other) as writer:
        append(writer, range(60))
    (attack.folder / MANIFEST_NAME).write_bytes((other / MANIFEST_NAME).read_bytes())
    assert "the segment is missing" in harmless(lambda: use(attack.folder))


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "pipe", "folder", "device"])
@pytest.mark.parametrize("place", ["segment", "keys", "index", "manifest"])
def test_what_is_no_plain_file_does_no_harm(attack: Attack, tmp_path: Path, kind: str, place: str) -> None:
    names = {
        "segment": attack.segment()["file"],
        "keys": attack.segment()["keys"]["file"],
        "index": attack.content["index"]["cache"]["file"],
        "manifest": MANIFEST_NAME,
    }
    path = attack.folder / names[place]
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"link to a file": "/etc/passwd", "link to a folder": "/etc", "device": "/dev/zero"}[kind]
        path.symlink_to(target)
    before = Path("/etc/passwd").read_bytes()
    harmless(lambda: use(attack.folder))
    assert Path("/etc/passwd").read_bytes() == before


def mutated(data: bytes, generator: np.random.Generator, *, spare: tuple[int, int] = (0, 0)) -> bytes:
    """Return some bytes with a few of them changed as those who look for holes do; a part is left as it is."""
    content = bytearray(data)
    places = [place for place in range(0, len(data), 1) if not spare[0] <= place < spare[1]]
    kind = int(generator.integers(4))
    for _ in range(int(generator.integers(1, 5))):
        place = int(places[generator.integers(len(places))])
        if kind == 0:
            content[place] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            content[place] = int(generator.integers(256))
        elif kind == 2:
            value = struct.pack("<Q", int(BIG[generator.integers(len(BIG))]))
            if not spare[0] - 8 < place < spare[1] and place + 8 <= len(content):
                content[place : place + 8] = value
        else:
            other = int(places[generator.integers(len(places))])
            content[place : place + 1] = content[other : other + 1]
    return bytes(content)


def test_bytes_flipped_in_hdf5_with_digests_that_fit(attack: Attack) -> None:
    """The library that parses it is asked directly, and often; see below for whole galleries."""
    entry = read_manifest(attack.folder).segments[0]
    data = bytes(attack.data(attack.segment()))
    spare = (entry.vectors_at, entry.vectors_at + 40 * 64)

    def flip() -> None:
        generator = np.random.default_rng(0)
        refused = 0
        for _ in range(FLIPS):
            content = mutated(data, generator, spare=spare)
            try:
                pieces = split_segment(content, rows=40, dimension=16, vectors_at=entry.vectors_at)
                assert decode_segment(pieces, subject="segment").rows == 40
            except GalleryError:
                refused += 1
        assert FLIPS // 4 < refused < FLIPS

    assert harmless(flip) == ""


def test_bytes_flipped_anywhere_with_digests_that_fit(attack: Attack) -> None:
    names = [entry.file for entry in read_manifest(attack.folder).entries]
    whole = {name: (attack.folder / name).read_bytes() for name in all_files(attack.folder)}
    generator = np.random.default_rng(1)
    for number in range(FORGED):
        name = names[number % len(names)]
        attack.content = json.loads(whole[MANIFEST_NAME])
        entries = [e for s in attack.content["segments"] for e in (s, s["keys"], s["pictures"])]
        entries += [attack.content["index"]["cache"], attack.content["precedents"]]
        attack.put(next(e for e in entries if e["file"] == name), mutated(whole[name], generator))
        attack.commit()
        harmless(lambda: use(attack.folder))
        for left in all_files(attack.folder):
            (attack.folder / left).unlink()
        for own, data in whole.items():
            (attack.folder / own).write_bytes(data)


def test_manifests_made_of_anything(attack: Attack) -> None:
    """Values of every part of the manifest exchanged for others, with a checksum that fits."""
    generator = np.random.default_rng(2)
    values = [
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**62,
        2**63,
        10**40,
        1.5,
        float("nan"),
        "",
        "x",
        "../../x",
        [],
        {},
        [[]],
        {"a": 1},
    ]
    original = json.dumps(attack.content)

    def places(part: Any) -> list[tuple[Any, Any]]:
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else []
        return [(part, key) for key in keys] + [place for key in keys for place in places(part[key])]

    def exchange() -> None:
        for _ in range(400):
            attack.content = json.loads(original)
            for part, key in [
                places(attack.content)[generator.integers(len(places(attack.content)))] for _ in range(2)
            ]:
                part[key] = values[generator.integers(len(values))]
            attack.commit()
            try:
                gallery = Gallery.open(attack.folder)
                _ = gallery.index
            except GalleryError:
                continue

    assert harmless(exchange) == ""


class TestIndexes:
    """A FAISS file by whoever, under a digest that fits."""

    ROWS = 1100

    @pytest.fixture
    def stored(self) -> tuple[StoredVectors, np.ndarray, Any]:
        vectors = np.random.default_rng(3).normal(size=(self.ROWS, 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        numbers = np.arange(self.ROWS) * 2
        return (
            StoredVectors([vectors], 16),
            numbers,
            lambda places: np.array([f"{place:05d}" for place in places], object),
        )

    @pytest.mark.parametrize("preset", ["int8", "hnsw", "ivf", "ivf-pq"])
    def test_changed_bytes(self, stored: tuple[StoredVectors, np.ndarray, Any], preset: str) -> None:
        vectors, numbers, names = stored
        engine = build_engine(EngineConfig(preset, threads=1), vectors, numbers, names)
        data, description = engine.to_bytes(), dict(engine.description)
        queries = vectors.take(np.arange(3))

        def ask(content: bytes) -> None:
            opened = open_engine(content, description, engine.until, vectors, numbers, names)
            opened.search(queries, 5)
            opened.search(queries, 5, allowed=numbers % 3 == 0, barred=[np.array([1, 2])] * 3)
            left = opened.without(numbers[:4])
            assert left is None or len(left.to_bytes()) > 0

        def change() -> None:
            np.seterr(all="ignore")  # centres of cells that are no numbers
            generator = np.random.default_rng(4)
            refused = 0
            for number in range(FAISS_CASES):
                # The head is where the sizes stand.
                cut = len(data) if number % 2 else 300
                content = mutated(data[:cut], generator) + data[cut:]
                try:
                    ask(content if number % 5 else content[: int(generator.integers(len(content)))])
                except ValueError:
                    refused += 1
            assert 0 < refused < FAISS_CASES

        assert harmless(lambda: ask(data)) == ""
        assert harmless(change) == ""

    @pytest.mark.parametrize(
        "factory",
        ["Flat", "IDMap,Flat", "IDMap2,Flat", "IVF8,Flat", "PQ4x4", "IDMap,LSH", "HNSW8", "IDMap,PCA4,Flat",
         "SQ8", "IVF8,PQ4+8", "PQ4x4,RFlat", "IMI2x2,Flat"],
    )  # fmt: skip
    def test_made_by_hand(self, stored: tuple[StoredVectors, np.ndarray, Any], factory: str) -> None:
        """Every other kind of index that FAISS reads, of the right vectors, of others, of fewer."""
        vectors, numbers, names = stored
        description = {"search": {"candidates": 10, "nprobe": 2, "efSearch": 16}, "threads": 1, "engine": factory}

        made = []
        others = ((self.ROWS, 16), (self.ROWS - 1, 16), (self.ROWS, 8))
        for metric in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
            for rows, dimension in others if metric == faiss.METRIC_INNER_PRODUCT else others[:1]:
                own = np.ascontiguousarray(vectors.whole()[:rows, :dimension])
                try:
                    index = _faiss.index_factory(dimension, factory, metric)
                    index.train(own)
                    if any(kind in factory for kind in ("IDMap", "IVF", "IMI")):
                        index.add_with_ids(own, numbers[:rows])
                    else:
                        index.add(own)
                except RuntimeError:
                    continue  # there is no such index
                fits = (rows, dimension, metric) == (self.ROWS, 16, faiss.METRIC_INNER_PRODUCT)
                made.append((fits, bytes(_faiss.serialize_index(index).tobytes())))

        def ask() -> None:
            for fits, data in made:
                try:
                    engine = open_engine(data, description, int(numbers[-1]) + 1, vectors, numbers, names)
                except ValueError:
                    continue
                assert fits
                engine.search(vectors.take(np.arange(3)), 5)

        assert made
        assert harmless(ask) == ""

    @pytest.mark.parametrize(
        "description",
        [{}, {"search": None}, {"search": {"candidates": 0}}, {"search": {"candidates": "10", "nprobe": 1}},
         {"search": {"candidates": 1e300, "nprobe": 1}}, {"search": {"candidates": 10, "nprobe": float("nan")}},
         {"search": {"candidates": 10, "nprobe": -1}}, {"search": {"candidates": 10, "nprobe": 1}, "threads": 10**9}],
    )  # fmt: skip
    def test_of_strange_parameters(
        self, stored: tuple[StoredVectors, np.ndarray, Any], description: dict[str, Any]
    ) -> None:
        vectors, numbers, names = stored
        engine = build_engine(EngineConfig("ivf", threads=1), vectors, numbers, names)
        with pytest.raises(ValueError):
            open_engine(engine.to_bytes(), description, engine.until, vectors, numbers, names)

    @pytest.mark.parametrize("failure", [RuntimeError("not trained"), ValueError("cannot reshape")])
    def test_a_first_question_is_asked_before_it_is_trusted(
        self, stored: tuple[StoredVectors, np.ndarray, Any], monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        vectors, numbers, names = stored
        engine = build_engine(EngineConfig("int8", threads=1), vectors, numbers, names)

        def fail(*arguments: Any, **options: Any) -> None:
            raise failure

        monkeypatch.setattr(type(engine), "search", fail)
        with pytest.raises(ValueError, match="can't be searched"):
            open_engine(engine.to_bytes(), engine.description, engine.until, vectors, numbers, names)


def test_a_gallery_whose_real_index_was_made_by_hand_answers_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    create_gallery(folder, IDENTITY)
    with GalleryWriter(folder) as writer:
        append(writer, range(1000))
    rebuild_index(folder, {"engine": "ivf"})
    gallery = Gallery.open(folder)
    assert gallery.index.description["engine"] == "ivf"
    attack = Attack(folder, json.loads((folder / MANIFEST_NAME).read_text()))
    other = _faiss.index_factory(16, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    other.add_with_ids(vectors_of(range(5000, 6000)), np.arange(1000) + 7)
    attack.put(attack.content["index"]["cache"], bytes(_faiss.serialize_index(other).tobytes()))
    attack.commit()
    gallery = Gallery.open(folder)
    assert gallery.index.description["engine"] == "exact"
    assert len(gallery.notes) == 1
    assert harmless(lambda: use(folder)) == ""
