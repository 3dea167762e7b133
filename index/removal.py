"""The proof that nothing of a removed finding is left in any file of its gallery."""

from collections.abc import Sequence
from pathlib import Path

from index import GalleryError
from index.gallery import read_segment
from index.layout import MODEL_FOLDER, all_files
from index.manifest import Manifest
from index.segments import Segment

_SHORTEST_PATTERN = 32  # bytes: anything shorter could stand in other data by chance


def prove_removed(folder: Path, manifest: Manifest, removed: Sequence[Segment]) -> None:
    """Read every file of a gallery back and search it for what was removed.

    A row id must be gone from the records. The bytes of a vector or a picture must be gone from every file,
    but for the rows that are kept: two findings can look the same.

    Args:
        folder: The gallery.
        manifest: What it consists of now.
        removed: What was taken out, with pictures.

    Raises:
        GalleryError: Something is left.
    """
    gone = {row_id for segment in removed for row_id in segment.columns["row_id"].cells}
    patterns = {vector.tobytes() for segment in removed for vector in segment.vectors}
    patterns |= {picture for segment in removed for picture in segment.thumbnails or ()}
    patterns = {pattern for pattern in patterns if len(pattern) >= _SHORTEST_PATTERN}
    entries = {entry.file: entry for entry in manifest.segments}
    for name in all_files(folder):
        if name.startswith(f"{MODEL_FOLDER}/"):
            continue  # no writer of this room puts anything there
        data = (folder / name).read_bytes()
        if name in entries:
            segment = read_segment(folder, entries[name], manifest.identity.dimension, thumbnails=True)
            if not gone.isdisjoint(segment.columns["row_id"].cells):
                raise GalleryError(folder / name, "still holds a removed row", "remove it again")
            # Whatever stands in these two blocks belongs to a row that is kept.
            data = data.replace(segment.vectors.tobytes(), b"", 1)
            if pictures := b"".join(segment.thumbnails or ()):
                data = data.replace(pictures, b"", 1)
        if any(pattern in data for pattern in patterns):
            raise GalleryError(folder / name, "still holds a part of a removed row", "delete this file by hand")
