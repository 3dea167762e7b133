from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index import GalleryError
from index.layout import REMOVALS_NAME, all_files, is_unfinished, stray_files, sweep
from index.manifest import MANIFEST_NAME, read_manifest

UNFINISHED = [
    "segments/0a.h5",
    "segments/0a.h5.12.tmp",
    "cache/0c.faiss",
    "cache/0c.faiss.7.tmp",
    "cache/0d.precedents",
    "segments/0a.keys",
    "segments/0a.pictures",
    "segments/0a.pictures.5.tmp",
    f"{MANIFEST_NAME}.99.tmp",
]
FOREIGN = ["notes.txt", "segments/notes.h5", "segments/more/0a.h5", "other/0a.h5", "gallery.json.bak", "0a.h5.1.tmp"]


def test_a_gallery_has_no_strays(gallery_folder: Path) -> None:
    (gallery_folder / REMOVALS_NAME).write_text("")
    assert stray_files(gallery_folder, read_manifest(gallery_folder)) == []
    assert sweep(gallery_folder, read_manifest(gallery_folder)) == ()


def test_a_sweep_deletes_what_a_killed_writer_left_and_nothing_else(gallery_folder: Path) -> None:
    before = all_files(gallery_folder)
    for name in [*UNFINISHED, *FOREIGN, "model/card.json"]:
        (gallery_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (gallery_folder / name).write_bytes(b"x")
    manifest = read_manifest(gallery_folder)
    assert stray_files(gallery_folder, manifest) == sorted(UNFINISHED + FOREIGN)
    assert [name for name in FOREIGN if is_unfinished(name)] == []
    assert sweep(gallery_folder, manifest) == tuple(sorted(UNFINISHED))
    assert all_files(gallery_folder) == sorted([*before, *FOREIGN, "model/card.json"])


def test_a_sweep_never_follows_a_link_out_of_the_gallery(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    gallery, other = make_gallery(make_findings(6), name="one"), make_gallery(make_findings(9), name="two")
    for file in (gallery / "segments").iterdir():
        file.unlink()
    (gallery / "segments").rmdir()
    (gallery / "segments").symlink_to(other / "segments")
    before = all_files(other)
    with pytest.raises(GalleryError, match="is a link"):
        sweep(gallery, read_manifest(gallery))
    assert all_files(other) == before
