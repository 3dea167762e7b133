"""When a gallery's index is made, taken further or made anew: who adds rows should not have to think of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from index import GalleryError
from index.engines import EngineConfig
from index.gallery import Gallery
from index.manifest import Manifest
from index.precedents import sample_precedents, stored_precedents
from index.presets import choose
from index.reading import read_file
from index.writer import GalleryWriter

TAIL_ROWS = 10_000
"""Rows that may lie beside the index: a search reads each of them, in a few milliseconds."""

TAIL_SHARE = 0.01
"""The same as a share of the indexed rows, whichever is more."""

GROWTH = 4
"""How many times its rows a gallery may grow to before its index, whose cells were laid out for fewer, is made anew."""


def rebuild_index(
    folder: Path,
    changes: Mapping[str, Any],
    *,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Make a gallery's index anew from its vectors.

    Args:
        folder: The gallery.
        changes: Fields of `EngineConfig` that are wanted from now on; the others stay as they were.
        device: Where to build it.
        progress: Told in a line what is being done.

    Returns:
        What the engine says of itself.

    Raises:
        GalleryError: The gallery can't be read or written, it is empty, or the engine can't be had.
    """
    with GalleryWriter(folder) as writer:
        if not writer.manifest.rows:
            raise GalleryError(folder, "is empty, so there is nothing to index", "add rows by `mammoseek index add`")
        config = wanted_engine(writer.manifest, changes)
        description = dict(writer.rebuild_index(config, device=device, progress=progress).description)
        refresh_precedents(writer)
        return description


def refresh_index(
    writer: GalleryWriter,
    changes: Mapping[str, Any],
    *,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> None:
    """Bring the caches of a gallery up to date where that is worth its cost.

    Rows that were added since are taken into the index where they are many; an index that is missing, damaged, or laid
    out for a much smaller gallery is made anew; a gallery that is small enough is searched exactly and has none.

    Args:
        writer: The gallery's writer.
        changes: Fields of `EngineConfig` that are wanted from now on.
        device: Where to build it.
        progress: Told in a line what is being done.

    Raises:
        GalleryError: A cache can't be written, or the engine can't be had; the gallery is as good without it.
    """
    manifest = writer.manifest
    if not manifest.rows:
        return
    wanted = wanted_engine(manifest, changes)
    due = _due(writer.folder, manifest, wanted)
    if due == "extension":
        engine = Gallery.open(writer.folder, checked=False).index
        if engine.until:
            writer.store_index(engine.extended(), wanted)
        else:  # it can't be used: all rows are searched exactly, and none of them by an index
            due = "rebuilding"
    if due == "rebuilding":
        writer.rebuild_index(wanted, device=device, progress=progress)
    refresh_precedents(writer)


def wanted_engine(manifest: Manifest, changes: Mapping[str, Any]) -> EngineConfig:
    """Return which engine a gallery is to have: what it was asked for, with some changes."""
    config = _stored_engine(manifest)
    # Parameters were found for one engine, and mean something else to another.
    if changes.get("engine", config.engine) != config.engine:
        config = replace(config, search={}, training_rows=None)
    return replace(config, **changes)


def _stored_engine(manifest: Manifest) -> EngineConfig:
    """Return what the gallery was asked for; the default where it says what this mammoseek does not know."""
    try:
        return EngineConfig.from_dict(manifest.engine)
    except GalleryError:
        return EngineConfig()


def refresh_precedents(writer: GalleryWriter) -> None:
    """Keep how near the women of the gallery come to each other, where it is not kept or is out of date.

    Raises:
        GalleryError: It can't be written.
    """
    if stored_precedents(writer.folder, writer.manifest) is not None:
        return
    sample = sample_precedents(Gallery.open(writer.folder, checked=False))
    if sample is not None:
        writer.store_precedents(sample.to_bytes())


def _due(folder: Path, manifest: Manifest, wanted: EngineConfig) -> Literal["nothing", "extension", "rebuilding"]:
    """Return what the index needs, by the manifest and the index's file alone.

    No record is read: to add some rows to a million must not cost what it takes to open them.
    """
    if wanted != _stored_engine(manifest):
        return "rebuilding"
    if manifest.index is None:
        memory, dimension = wanted.memory_bytes, manifest.identity.dimension
        plan = choose(wanted.engine, manifest.rows, dimension, wanted.target_recall, memory)
        return "nothing" if plan is None else "rebuilding"
    # Its rows grow with every extension; its cells do not.
    laid_out_for = manifest.index.description.get("trained_for", manifest.rows)
    if isinstance(laid_out_for, int) and manifest.rows > GROWTH * max(1, laid_out_for):
        return "rebuilding"
    tail = sum(part.rows for part in manifest.segments if part.last >= manifest.index.until)  # at most
    if tail > max(TAIL_ROWS, TAIL_SHARE * (manifest.rows - tail)):
        return "extension"
    try:
        read_file(folder, manifest.index.cache)
    except (FileNotFoundError, GalleryError):
        return "rebuilding"
    return "nothing"
