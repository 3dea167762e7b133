"""Ray and one process: do they give the same gallery, and how fast is each?

    python -m benchmarks.ray_gallery --data path/to/mini-mias -o benchmarks/results/ray-gallery.csv

Findings of mini-MIAS, each on a film of its own (a link to the film, so that every row is read and decoded anew), are
embedded into a gallery by one process and by the workers of a local cluster, in turn. The files of both galleries are
compared byte by byte. The cluster is started beforehand and its workers are warm: what that takes is a row of its own.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.setting import describe_machine, errors_told, find_data
from classifiers.filling import new_gallery
from embedder.cluster import connected
from embedder.datasets import read_dataset
from embedder.embedding import pretrained_model
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

CLOCK = ("created", "updated", "checksum")
"""What of a gallery's manifest depends on the time of day."""


def films_of_their_own(frame: pd.DataFrame, rows: int, folder: Path) -> pd.DataFrame:
    """Return so many findings, from the first again where there are fewer, each on a film and of a woman of its own.

    Args:
        frame: Findings on films.
        rows: How many.
        folder: Where the links to the films are made.
    """
    places = [place % len(frame) for place in range(rows)]
    found = frame.iloc[places].reset_index(drop=True)
    links = [folder / f"film-{row}.png" for row in range(rows)]
    for link, film in zip(links, found["path"], strict=True):
        link.symlink_to(film)
    return found.assign(
        row_id=[f"row-{row}" for row in range(rows)],
        patient_id=[f"woman-{row}" for row in range(rows)],
        path=[str(link) for link in links],
    )


def contents(gallery: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a gallery's files by name, and its manifest without the time of day."""
    files = {str(path.relative_to(gallery)): path.read_bytes() for path in gallery.rglob("*") if path.is_file()}
    del files["writer.lock"]  # says who wrote last
    manifest = json.loads(files.pop("gallery.json"))
    return files, {name: value for name, value in manifest.items() if name not in CLOCK}


def measure(frame: pd.DataFrame, model: Path, repeats: int, folder: Path) -> pd.DataFrame:
    """Build the gallery both ways, in turn.

    Args:
        frame: The findings.
        model: Folder of the model.
        repeats: How often each way.
        folder: Where galleries are made.
    """
    ways: dict[str, str | None] = {"one process": None, "Ray, local cluster": "local"}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    same = True
    start = time.perf_counter()
    with connected("local") as ray:
        # The first lot warms every worker.
        new_gallery(frame, model, folder / "warm", device="cpu", ray="local")
        warm_up = time.perf_counter() - start
        workers = int(ray.cluster_resources()["CPU"])
        for repeat in range(repeats):
            for way, address in ways.items():
                start = time.perf_counter()
                new_gallery(frame, model, folder / f"{way}-{repeat}", device="cpu", ray=address)
                seconds[way].append(time.perf_counter() - start)
            one, many = (contents(folder / f"{way}-{repeat}") for way in ways)
            same = same and one == many
    rows = [
        {
            "way": way,
            "workers": workers if ways[way] else 1,
            "rows": len(frame),
            "repeats": repeats,
            "rows_per_second": round(len(frame) / statistics.median(seconds[way]), 1),
            "ratio": round(
                statistics.median(one / own for one, own in zip(seconds["one process"], seconds[way], strict=True)), 3
            ),
            "same_bytes": same,
        }
        for way in ways
    ]
    cold = {
        "way": "Ray, cluster started and workers cold",
        "workers": workers,
        "rows": len(frame),
        "repeats": 1,
        "rows_per_second": round(len(frame) / warm_up, 1),
        "ratio": round(statistics.median(seconds["one process"]) / warm_up, 3),
        "same_bytes": contents(folder / "warm") == one,
    }
    return pd.DataFrame([*rows, cold])


def main() -> None:
    """Run the benchmark, print its table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--rows", type=int, default=1024, help="findings (1024)")
    parser.add_argument("--repeats", type=int, default=3, help="galleries each way (3)")
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args()
    with errors_told():
        frame = read_dataset("mini-mias", find_data(arguments.data)).frame
        frame = frame[frame["granularity"] == "finding"].reset_index(drop=True)
        with tempfile.TemporaryDirectory(prefix="mammoseek-bench-") as name:
            folder = Path(name)
            pretrained_model(folder / "model", NetworkConfig("tf_efficientnet_lite0", "none"), PreparationConfig())
            films = films_of_their_own(frame, arguments.rows, folder)
            table = measure(films, folder / "model", arguments.repeats, folder)
    machine: dict[str, Any] = describe_machine(torch.device("cpu"))
    table = table.assign(**machine)
    print(table.to_string(index=False))
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.output, index=False)
    if not table["same_bytes"].all():
        sys.exit("Error: the galleries differ")


if __name__ == "__main__":
    main()
