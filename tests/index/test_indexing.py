from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index import GalleryError, indexing
from index.engines import EngineConfig
from index.gallery import Gallery
from index.indexing import rebuild_index, refresh_index, wanted_engine
from index.manifest import GalleryIdentity, read_manifest, write_manifest
from index.writer import GalleryWriter, create_gallery


@pytest.fixture
def folder(gallery_folder: Path, index_engine: Any) -> Path:
    """A gallery of 33 rows, all of them in its index."""
    rebuild_index(gallery_folder, {"engine": "stub"})
    return gallery_folder


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, index_engine: Any) -> list[str]:
    """Which engines were built, and which extended."""
    told: list[str] = []
    build, extend = GalleryWriter.rebuild_index, index_engine.extended

    def note_build(writer: GalleryWriter, config: Any = None, **options: Any) -> Any:
        told.append(f"built {config.engine}")
        return build(writer, config, **options)

    def note_extension(engine: Any) -> Any:
        told.append("extended")
        return extend(engine)

    monkeypatch.setattr(GalleryWriter, "rebuild_index", note_build)
    monkeypatch.setattr(index_engine, "extended", note_extension)
    return told


def add(folder: Path, batch: Any, **changes: Any) -> None:
    with GalleryWriter(folder) as writer:
        writer.append(batch.vectors, batch.records)
        refresh_index(writer, changes)


def test_an_index_is_of_all_rows_and_remembers_what_was_asked_for(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.index is not None
    assert manifest.index.until == manifest.next_number == 33
    assert EngineConfig.from_dict(manifest.engine).engine == "stub"
    assert Gallery.open(folder).generation == 2  # an index is no change of what the gallery holds


def test_a_few_more_rows_lie_beside_it(folder: Path, built: list[str], make_findings: Callable[..., Any]) -> None:
    add(folder, make_findings(5, first=40))
    gallery = Gallery.open(folder)
    assert built == []
    assert gallery.manifest.index is not None
    assert gallery.manifest.index.until == 33
    assert (gallery.index.description["rows"], len(gallery)) == (33, 38)


def test_a_few_more_rows_cost_no_look_at_all_the_others(
    gallery_folder: Path, index_engine: Any, make_findings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(gallery_folder, make_findings(60, first=100), engine="stub")  # women enough for a sample of precedents
    assert read_manifest(gallery_folder).precedents is not None

    def refuse(*asked: Any, **options: Any) -> None:
        raise AssertionError("the gallery was opened")

    with monkeypatch.context() as patched:
        patched.setattr(indexing.Gallery, "open", refuse)
        add(gallery_folder, make_findings(2, first=300))
        with pytest.raises(AssertionError, match="was opened"):
            add(gallery_folder, make_findings(60, first=400))  # by half as many more the sample is out of date
    assert len(Gallery.open(gallery_folder)) == 33 + 60 + 2 + 60


def test_many_are_taken_in(
    folder: Path, built: list[str], make_findings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "TAIL_ROWS", 3)
    add(folder, make_findings(5, first=40))
    assert built == ["extended"]
    manifest = read_manifest(folder)
    assert manifest.index is not None
    assert manifest.index.until == manifest.next_number == 38
    assert Gallery.open(folder).index.description["rows"] == 38


def test_it_is_laid_out_anew_for_a_gallery_that_has_outgrown_it(
    folder: Path, built: list[str], make_findings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it was extended on the way."""
    monkeypatch.setattr(indexing, "TAIL_ROWS", 3)
    manifest = read_manifest(folder)
    assert manifest.index is not None
    description = {**manifest.index.description, "trained_for": 10}
    write_manifest(folder, replace(manifest, index=replace(manifest.index, description=description)))
    add(folder, make_findings(5, first=40))
    add(folder, make_findings(5, first=50))
    assert built == ["extended", "built stub"]


def test_another_engine_is_built_and_a_damaged_index_again(
    folder: Path, built: list[str], make_findings: Callable[..., Any]
) -> None:
    add(folder, make_findings(5, first=40), engine="other")
    assert built == ["built other"]
    index = read_manifest(folder).index
    assert index is not None
    (folder / index.cache.file).write_bytes(b"x")
    with GalleryWriter(folder) as writer:
        refresh_index(writer, {})
    assert built == ["built other", "built other"]
    assert Gallery.open(folder).notes == ()


def test_an_empty_gallery_has_nothing_to_index(tmp_path: Path, identity: GalleryIdentity) -> None:
    create_gallery(tmp_path, identity)
    with pytest.raises(GalleryError, match="is empty"):
        rebuild_index(tmp_path, {})
    with GalleryWriter(tmp_path) as writer:
        refresh_index(writer, {})
    assert read_manifest(tmp_path).index is None


def test_the_parameters_of_one_engine_are_not_those_of_another(folder: Path) -> None:
    manifest = read_manifest(folder)
    tuned = replace(manifest, engine=EngineConfig("ivf", threads=3, search={"nprobe": 9}, training_rows=7).to_dict())
    assert wanted_engine(tuned, {}) == EngineConfig("ivf", threads=3, search={"nprobe": 9}, training_rows=7)
    assert wanted_engine(tuned, {"threads": 2}).search == {"nprobe": 9}
    assert wanted_engine(tuned, {"engine": "hnsw"}) == EngineConfig("hnsw", threads=3)
    assert wanted_engine(replace(manifest, engine={"nonsense": 1}), {}) == EngineConfig()
