"""Mending a gallery: what can be made again is made again, and what is lost is given up only when that is asked for."""

from pathlib import Path

from index import GalleryError
from index.indexing import refresh_index
from index.writer import GalleryWriter


def repair_gallery(folder: Path, *, drop_damaged: bool = False) -> tuple[str, ...]:
    """Delete what a killed writer left, make a damaged index again, and perhaps give up damaged segments.

    Args:
        folder: The gallery.
        drop_damaged: Go on without the segments that are damaged or missing. Their rows can be added again.

    Returns:
        A line for each thing that was done.

    Raises:
        GalleryError: The gallery can't be written, or a segment is damaged and is not to be given up.
    """
    done: list[str] = []
    with GalleryWriter(folder) as writer:
        done += [f"Deleted what a stopped writer left: {name}" for name in writer.cleaned]
        if drop_damaged:
            done += [f"Gave up {name}" for name in writer.drop_damaged()]
        before = writer.manifest
        try:
            refresh_index(writer, {})
        except GalleryError as error:
            raise GalleryError(
                error.subject, error.cause, "restore it from a copy, or add --drop-damaged to go on without its rows"
            ) from error
        if writer.manifest != before:
            done.append("Made the index and its companions anew")
    return tuple(done)
