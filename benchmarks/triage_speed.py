"""What triage costs over embedding alone, and whether its memory stays flat over thousands of images.

    python -m benchmarks.triage_speed --data path/to/mini-mias -o benchmarks/results/triage-speed.csv

The gallery holds the lesions and normal tissue of mini-MIAS, embedded by the frozen ImageNet network. Detections are
places of normal tissue at the sizes of lesions, so many on each film as `--each` says. Two things are measured:

- triage against embedding alone: the same detections read, cropped and embedded in batches as large, and nothing else.
  Both are run in turns in one process with the same threads; the share above embedding is triage's processor time over
  the embedding's beside it, less one. Triage's own part is the exclusion, the search, votes, heads and calibrated risk,
  and the worklist that is written and synchronised to disk after every batch. All women who are asked about are in the
  gallery, the dearest case: votes and heads are fitted without each tenth of them. A triage that meets them first fits
  them, a listener that goes on has them fitted.
- memory: one detection on each of `--images` images (names of their own for the films, in turn), triaged in a process
  of its own that says what it holds after each batch. Given are the resident memory after a tenth of the images and at
  the end, and the difference.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data, machine_line, say
from classifiers.filling import new_gallery
from embedder.datasets import read_dataset
from embedder.embedding import pretrained_model
from embedder.findings import BOX_COLUMNS, patient_key
from embedder.normaltissue import candidate_places, label_tissue, normal_places, with_rows
from embedder.recipe import Recipe
from embedder.tissuemap import TissueMap
from exchange.detections import Detection, detections_frame
from exchange.secondreader import SecondReader
from exchange.triage import triage

BATCH = 32  # of `SecondReader`
_SCORE = 0.5
_KEPT = (
    "path",
    "dataset",
    "patient_id",
    "laterality",
    "view",
    "spacing_mm",
    "image_rows",
    "image_columns",
    *BOX_COLUMNS,
)


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure both and write them as one table.

    Args:
        arguments: As `_parse` gives them.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        frame = read_dataset("mini-mias", find_data(arguments.data)).frame
        frame = frame.assign(tissue=label_tissue(frame))
        tissue = TissueMap.read(frame)
        gallery = build_gallery(with_rows(frame, normal_places(tissue, per_image=2, seed=0)), work)
        detections = marks(frame, tissue, arguments.each)
        rows = speed_rows(gallery, detections, work, arguments.repeats)
        if arguments.images:
            rows += memory_rows(gallery, detections, work, arguments.images)
    table = pd.DataFrame(rows).assign(machine=machine_line())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")
    print(table.drop(columns="machine").to_string(index=False))


def build_gallery(frame: pd.DataFrame, work: Path) -> Path:
    """Return a gallery of the findings of a manifest with normal tissue, frozen network."""
    recipe = Recipe.default("finding")
    pretrained_model(work / "model", recipe.network, recipe.preparation)
    known = frame[(frame["granularity"] == "finding") & frame["tissue"].notna() & frame["x0"].notna()]
    new_gallery(known.reset_index(drop=True), work / "model", work / "gallery")
    return work / "gallery"


def marks(frame: pd.DataFrame, tissue: TissueMap, each: int) -> pd.DataFrame:
    """Return so many detections on each film whose normal tissue is known."""
    drawn = candidate_places(tissue, patient_key(frame).unique(), per_image=each, seed=1)
    places = with_rows(frame.iloc[:0], drawn)
    known = places[list(_KEPT)].astype("object").to_dict("records")
    return detections_frame(
        Detection(detection_id=f"d{number}", score=_SCORE, detector="drawn", **{str(name): row[name] for name in row})
        for number, row in enumerate(known)
    )


def embed_alone(reader: SecondReader, detections: pd.DataFrame) -> int:
    """Embed the detections in triage's batches, and keep nothing; return how many there were."""
    order = detections.sort_values(["patient_id", "path", "row_id"], kind="stable").index.to_numpy(np.int64)
    batches: list[npt.NDArray[np.int64]] = np.array_split(order, range(BATCH, len(order), BATCH))
    return sum(len(rows.positions) for rows in reader.embedder.embed_batches(detections, batches))


def speed_rows(gallery: Path, detections: pd.DataFrame, work: Path, repeats: int) -> list[dict[str, Any]]:
    """Return detections a second of embedding and of triage, and triage's share above embedding, by turns."""
    bare: list[Cost] = []
    triages: dict[str, list[Cost]] = {"triage, classifiers to be fitted": [], "triage, classifiers fitted": []}
    for repeat in range(repeats):
        reader = SecondReader(gallery, device="cpu")
        embed_alone(reader, detections.head(BATCH))
        with timed(bare):
            embed_alone(reader, detections)
        for name, taken in triages.items():
            with timed(taken):
                report = triage(reader, detections, work / f"{name}-{repeat}")
            assert report.answered == len(detections), "all were done"
            say(f"{repeat + 1} of {repeats}: {name} {taken[-1].processor:.1f} s, alone {bare[-1].processor:.1f} s")
    context = {
        "detections": len(detections),
        "images": int(detections["path"].nunique()),
        "repeats": repeats,
        "gallery rows": len(reader.gallery),
    }
    figures = {
        f"{name}, detections a second": [len(detections) / one.wall for one in taken]
        for name, taken in {"embedding alone": bare, **triages}.items()
    }
    for name, taken in triages.items():
        shares = [own.processor / one.processor - 1 for own, one in zip(taken, bare, strict=True)]
        figures[f"{name}: share above embedding"] = shares
    return [
        {"measure": name, "value": statistics.median(values), "low": min(values), "high": max(values), **context}
        for name, values in figures.items()
    ]


@dataclass(frozen=True)
class Cost:
    """Seconds that something took.

    Attributes:
        wall: By the clock on the wall.
        processor: Of processor time, all threads together.
    """

    wall: float
    processor: float


@contextmanager
def timed(costs: list[Cost]) -> Iterator[None]:
    """Add what the lines within take."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    costs.append(Cost(time.perf_counter() - wall, time.process_time() - processor))


def memory_rows(gallery: Path, detections: pd.DataFrame, work: Path, images: int) -> list[dict[str, Any]]:
    """Return what a triage of one detection on each of many images holds early and at the end, in MB."""
    first = detections.drop_duplicates("path").reset_index(drop=True)
    (work / "films").mkdir()
    rows = first.iloc[np.arange(images) % len(first)].reset_index(drop=True)
    paths = []
    for number, path in enumerate(rows["path"]):
        name = work / "films" / f"{number:05d}{Path(path).suffix}"
        name.symlink_to(path)
        paths.append(str(name))
    rows = rows.assign(path=paths, row_id=[f"m{number}" for number in range(images)])
    context = multiprocessing.get_context("spawn")
    report = work / "memory.json"
    child = context.Process(target=_held, args=(gallery, rows, work / "memory", report))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"Error: the triage of {images} images ended with {child.exitcode}")
    held = np.array(json.loads(report.read_text("utf-8")))
    early = held[held[:, 0] >= images // 10][0, 1]
    values = {
        f"resident after {images // 10} images, MB": early,
        f"resident after {images} images, MB": held[-1, 1],
        "growth in between, MB": held[-1, 1] - early,
        "highest, MB": held[:, 1].max(),
    }
    return [{"measure": name, "value": value, "detections": images, "images": images} for name, value in values.items()]


def _held(gallery: Path, detections: pd.DataFrame, output: Path, report: Path) -> None:
    held = []

    def note(done: int, _total: int) -> None:
        held.append((done, _resident_mb()))

    triage(SecondReader(gallery, device="cpu"), detections, output, progress=note)
    report.write_text(json.dumps(held), "utf-8")


def _resident_mb() -> float:
    """Return what this process holds in memory now (Linux)."""
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text("utf-8").splitlines())
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--each", type=int, default=6, help="detections on a film (6)")
    parser.add_argument(
        "--images", type=int, default=2000, help="images over which memory is watched; 0 for none (2000)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the speed (3)")
    parser.add_argument("--threads", type=int, help="threads of torch (its own number)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "triage-speed.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
