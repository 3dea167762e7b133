"""A gallery and its model together: fill it, keep the model with it, check both."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from embedder.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelError, load_model, write_atomically
from embedder.embedding import EmbeddedBatch, Embedder
from index import GalleryError
from index.layout import MODEL_FOLDER
from index.manifest import GalleryIdentity, check_identity, read_manifest
from index.milvus.address import is_milvus_address
from index.upkeep import (
    BuildReport,
    FileReport,
    RemovalReport,
    VerifyReport,
    build_gallery,
    gallery_info,
    remove_rows,
    verify_gallery,
)
from index.writer import create_gallery

Place = Path | str
"""Where a gallery lies: a folder, or an address on Milvus, see `index.milvus.address`."""


def new_gallery(
    frame: pd.DataFrame,
    model: Path,
    gallery: Place,
    *,
    thumbnails: bool = False,
    names_only: bool = False,
    engine: Mapping[str, Any] | None = None,
    ray: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Embed a manifest's rows of the model's granularity into a gallery; a folder keeps a copy of the model.

    Rows that are there already are skipped: a build that was stopped goes on. An image that fails costs its own rows.

    Args:
        frame: A manifest with absolute paths.
        model: Folder of the model.
        gallery: The gallery, new or of this same model.
        thumbnails: Keep a small picture of each ROI, which is patient data.
        names_only: Keep the names of the image files without their folders, for a gallery that is passed on.
        engine: Fields of `index.engines.EngineConfig` that are wanted.
        ray: Address of a Ray cluster that embeds, see `embedder.fleet`; this process where there is none.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        MammoseekError: The model can't be read, the gallery is of another model or can't be written, or the manifest
            has no row of the model's granularity.
    """
    embedder = Embedder.load(model, device="cpu" if ray else device)
    if ray is not None:
        from embedder.cluster import check_address

        check_address(ray)  # before a gallery is made for nothing
    if not is_milvus_address(str(gallery)):
        create_gallery(Path(gallery), _identity(embedder))
        _keep_model(model, Path(gallery))
    with _embedding(embedder, model, thumbnails, ray, device, workers) as embed:
        if names_only:
            embed = _without_folders(embed, dict(zip(frame["row_id"], frame["path"], strict=True)))
            frame = _named(frame)
        return _fill(frame, embedder, gallery, embed, engine or {}, device, progress)


def add_to_gallery(
    frame: pd.DataFrame,
    gallery: Place,
    *,
    model: Path | None = None,
    thumbnails: bool = False,
    ray: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Add a manifest's rows to a gallery that exists, see `new_gallery`.

    Args:
        frame: A manifest with absolute paths.
        gallery: The gallery.
        model: Folder of its model, where it is not the copy that it keeps.
        thumbnails: Keep a small picture of each ROI.
        ray: Address of a Ray cluster that embeds; this process where there is none.
        device: Where to compute.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.

    Raises:
        MammoseekError: As of `new_gallery`; or there is no such gallery.
    """
    embedder = gallery_embedder(gallery, model=model, device="cpu" if ray else device)
    folder = model or Path(gallery) / MODEL_FOLDER
    with _embedding(embedder, folder, thumbnails, ray, device, workers) as embed:
        return _fill(frame, embedder, gallery, embed, {}, device, progress)


def gallery_embedder(gallery: Place, *, model: Path | None = None, device: str = "auto") -> Embedder:
    """Load the model that a gallery is bound to.

    Args:
        gallery: The gallery.
        model: Folder of the model, where it is not the copy that the gallery keeps. One on Milvus keeps none.
        device: Where to compute.

    Raises:
        GalleryError: There is no gallery, or the model is not the one it is bound to.
        ModelError: The model is missing or damaged.
    """
    if is_milvus_address(str(gallery)):
        from index.milvus.gallery import MilvusGallery

        if model is None:
            raise ModelError(gallery, "a gallery on Milvus keeps no copy of its model", "name the model by --model")
        with MilvusGallery.open(str(gallery)) as stored:
            bound = stored.identity
    else:
        bound = read_manifest(Path(gallery)).identity
    embedder = Embedder.load(model or Path(gallery) / MODEL_FOLDER, device=device)
    check_identity(Path(gallery), bound, _identity(embedder))
    return embedder


def index_device(device: str) -> str:
    """Return where FAISS works, where a network works on some device: it knows no MPS, and is asked for a GPU by name.

    >>> index_device("auto"), index_device("cuda:0")
    ('cpu', 'cuda:0')
    """
    return device if device.startswith("cuda") else "cpu"


def take_out(gallery: Place, **conditions: Any) -> RemovalReport:
    """Take findings out of a gallery in a folder or on Milvus, see `index.upkeep.remove_rows`.

    Raises:
        MammoseekError: As of `index.upkeep.remove_rows`, or Milvus can't do it.
    """
    if is_milvus_address(str(gallery)):
        from index.milvus.gallery import MilvusGallery

        with MilvusGallery.open(str(gallery)) as stored:
            report = stored.remove(**conditions)
            if stored.address.file is not None:
                # A server rewrites its files in its own time; of an embedded one nobody else would take care.
                stored.rewrite()
            return report
    return remove_rows(Path(gallery), **conditions)


def describe_gallery(gallery: Place) -> dict[str, Any]:
    """Return what a gallery in a folder or on Milvus holds as plain values for JSON.

    Raises:
        GalleryError: There is no gallery, or it is damaged.
    """
    if is_milvus_address(str(gallery)):
        from index.milvus.gallery import MilvusGallery

        with MilvusGallery.open(str(gallery)) as stored:
            return stored.info()
    return gallery_info(Path(gallery))


def copy_gallery(
    source: Place,
    target: Place,
    *,
    thumbnails: bool = True,
    index: str = "FLAT",
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Copy a gallery from a folder to Milvus, or back, without loss; a copy that was stopped goes on.

    Args:
        source: The gallery.
        target: Where to.
        thumbnails: Whether to copy the pictures too.
        index: How Milvus is to find neighbours, by its own name of the index.
        progress: Called with rows done and rows in all.

    Raises:
        GalleryError: Both are folders or both on Milvus, or one of them can't be read or written.
    """
    from index.milvus.collections import MilvusIndex
    from index.milvus.copy import copy_from_milvus, copy_to_milvus

    there, here = (is_milvus_address(str(place)) for place in (target, source))
    if there == here:
        raise GalleryError(
            target,
            "is where the source is too: on Milvus, or in a folder",
            "copy a folder as it is; Milvus by a folder",
        )
    if there:
        kind = MilvusIndex(index)
        return copy_to_milvus(Path(source), str(target), index=kind, thumbnails=thumbnails, progress=progress)
    return copy_from_milvus(str(source), Path(target), thumbnails=thumbnails, progress=progress)


def verify_with_model(gallery: Path) -> VerifyReport:
    """Check every digest of a gallery, its model's copy included.

    Raises:
        GalleryError: There is no gallery, or its manifest is damaged.
    """
    report = verify_gallery(gallery)
    problem = ""
    try:
        _, _, digest = load_model(Path(gallery) / MODEL_FOLDER)
        if digest != read_manifest(Path(gallery)).identity.model_digest:
            problem = "is not the model that this gallery is bound to"
    except ModelError as error:
        problem = error.cause
    return VerifyReport((*report.files, FileReport(MODEL_FOLDER, "damaged" if problem else "good", 0, problem)))


def _identity(embedder: Embedder) -> GalleryIdentity:
    return GalleryIdentity(embedder.digest, embedder.preparation_digest, embedder.granularity, embedder.dimension)


def _keep_model(model: Path, gallery: Path) -> None:
    """Copy the model into the gallery, unless a whole copy is there."""
    target = Path(gallery) / MODEL_FOLDER
    try:
        load_model(target)
    except ModelError:
        for name in (WEIGHTS_FILE, CARD_FILE):
            write_atomically(target / name, (Path(model) / name).read_bytes())


@contextlib.contextmanager
def _embedding(
    embedder: Embedder, model: Path, thumbnails: bool, ray: str | None, device: str, workers: int | None
) -> Iterator[Callable[[pd.DataFrame], Iterable[EmbeddedBatch]]]:
    """Yield what embeds rows: this process, or the workers of a cluster."""
    if ray is None:
        yield lambda rows: embedder.embed_manifest(rows, thumbnails=thumbnails, workers=workers)
        return
    from embedder.fleet import Fleet, FleetConfig

    with Fleet(FleetConfig(ray, device=device, threads=workers or 1), model, embedder) as fleet:
        yield lambda rows: fleet.embed_manifest(rows, thumbnails=thumbnails)


def _without_folders(
    embed: Callable[[pd.DataFrame], Iterable[EmbeddedBatch]], places: Mapping[str, str]
) -> Callable[[pd.DataFrame], Iterable[EmbeddedBatch]]:
    """Return the same embedding, from and to rows that name image files and not where they lie.

    Args:
        embed: The embedding.
        places: By row id, the image's path.
    """

    def named(rows: pd.DataFrame) -> Iterable[EmbeddedBatch]:
        full = rows.assign(path=rows["row_id"].map(places).astype(rows["path"].dtype))
        for batch in embed(full):
            yield replace(batch, records=_named(batch.records))

    return named


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose images are called by their names, without folders."""
    names = rows["path"].map(lambda path: Path(path).name)
    return rows.assign(path=names.astype(rows["path"].dtype))


def _fill(
    frame: pd.DataFrame,
    embedder: Embedder,
    gallery: Place,
    embed: Callable[[pd.DataFrame], Iterable[EmbeddedBatch]],
    engine: Mapping[str, Any],
    device: str,
    progress: Callable[[int, int], None] | None,
) -> BuildReport:
    rows = frame[frame["granularity"] == embedder.granularity].reset_index(drop=True)
    if rows.empty:
        raise ModelError("manifest", f"has no rows of granularity {embedder.granularity}, which this model embeds")
    identity = _identity(embedder)
    if is_milvus_address(str(gallery)):
        from index.milvus.gallery import MilvusGallery

        if engine:
            raise GalleryError(gallery, "Milvus searches by its own index", "leave the engine's options out")
        with MilvusGallery.create(str(gallery), identity) as stored:
            return stored.build(rows, embed, progress=progress)
    where = index_device(device)
    return build_gallery(Path(gallery), identity, rows, embed, engine=engine, device=where, progress=progress)
