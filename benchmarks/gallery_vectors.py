"""A million real tissue embeddings of mini-MIAS, with held-out queries, for the benchmarks of large galleries.

    python -m benchmarks.gallery_vectors --data path/to/mini-mias -o FOLDER --rows 1000000 --queries 10000

How they are made. Each film is prepared as for any embedding (breast only, chest wall to the left, contrast
normalised) and goes whole through the ImageNet backbone of `mammoseek model pretrained`, fully convolutionally. Its
last feature map has one cell for 32 x 32 pixels; the average of 3 x 3 cells around each cell whose middle lies on
the breast is what the pooled network would see of a crop of that place: one embedding of 1280 numbers. This is done
in turn at two scales (0.2 and 0.16 mm per pixel) and in the eight orientations of the square (flips and quarter
turns), until there are rows enough; of what there is, the rows are drawn at random, so that the first n rows of a
larger set are a set of n rows too. Principal components fitted on the gallery's women alone bring the 1280 numbers to
512, and each vector to unit length. No vector is interpolated or drawn from a distribution.

Every eighth woman is held out: queries are embeddings of her films, and none of her rows is in the gallery.

Files written: gallery.npy, queries.npy (float32), gallery-rows.npy, queries-rows.npy (where each row is from),
neighbours.npy and similarities.npy (the exact 100 nearest rows of each query), vectors.json (how it was made, digests).
With --check, also how hard the search is: local intrinsic dimension, and the recall of common FAISS indexes.
"""

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.peer_data import NEIGHBOURS, Floats, Numbers, nearest, recall
from benchmarks.setting import errors_told, find_data, machine_line
from embedder.datasets import read_dataset
from embedder.mammogram import read_mammogram
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig, prepare
from errors import MammoseekError

FeatureMaps = Callable[[torch.Tensor], torch.Tensor]

_faiss: Any = faiss  # Its Python wrappers take other arguments than the C++ classes that its stubs describe.

SCALES = (1.0, 1.25)
ORIENTATIONS = 8
WINDOW = 3
"""Cells of the feature map, each way, that one embedding averages."""
CELL = 32
"""Pixels of the network's input for one cell of its last feature map."""
SIDE = 128
"""Sides of the network's input are whole multiples of it: few shapes, for each new one costs the CPU a second."""
HELD_OUT = 8
"""Every so manieth woman gives queries only."""

ROW_TYPE = np.dtype(
    [("woman", "<i4"), ("film", "<i4"), ("scale", "<f4"), ("orientation", "<i4"), ("row", "<i4"), ("column", "<i4")]
)
"""Where an embedding is from: woman (1 to 161), film (1 to 322), scale, orientation, cell of the feature map."""


@dataclass(frozen=True, eq=False)
class Film:
    """A prepared film, cut to the breast.

    Attributes:
        woman: 1 to 161.
        number: 1 to 322.
        pixels: float32 in [0, 1], 0 outside the breast, with a margin of one cell.
        mask: float32, 1 on the breast.
    """

    woman: int
    number: int
    pixels: Floats
    mask: Floats


def main() -> None:
    """Make the vectors and write them."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Make, write and, where asked, check.

    Args:
        arguments: As `_parse` gives them.
    """
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(arguments.threads)
    start = time.perf_counter()
    made = make_vectors(
        find_data(arguments.data), arguments.rows, arguments.queries, arguments.dimension, arguments.threads
    )
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    seconds = time.perf_counter() - start
    similarities, neighbours = nearest(made["gallery"], made["queries"], min(NEIGHBOURS, arguments.rows))
    files = {**made, "neighbours": neighbours, "similarities": similarities}
    digests = {}
    for name, array in files.items():
        if isinstance(array, np.ndarray):
            np.save(folder / f"{name}.npy", array)
            digests[f"{name}.npy"] = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    description = {
        "made of": made["description"],
        "seconds": round(seconds, 1),
        "machine": machine_line(),
        "sha256 of the arrays": digests,
    }
    if arguments.check:
        description["hardness"] = hardness(made["gallery"], made["queries"], neighbours, similarities)
    (folder / "vectors.json").write_text(json.dumps(description, indent=1) + "\n")
    print(json.dumps(description, indent=1))


def make_vectors(data: Path, rows: int, queries: int, dimension: int, threads: int) -> dict[str, Any]:
    """Embed the films until there are rows enough.

    Args:
        data: Folder of mini-MIAS.
        rows: Rows of the gallery.
        queries: Queries.
        dimension: Length of a vector, at most 1280.
        threads: Films at once.

    Returns:
        `gallery`, `queries`, `gallery-rows`, `queries-rows` (arrays) and `description` (plain values).

    Raises:
        MammoseekError: The films do not give so many rows.
    """
    network = EmbedderNetwork(NetworkConfig(embedding_dimension=None), {}).eval()
    backbone = feature_maps(network)
    films = list(read_films(data, rows))
    held_out = {film.woman for film in films if film.woman % HELD_OUT == 0}
    parts: dict[bool, list[tuple[Floats, npt.NDArray[np.void]]]] = {False: [], True: []}
    passes = 0
    with ThreadPoolExecutor(threads) as pool, _one_thread_each():
        components = Components()
        known = [film for film in films if film.woman not in held_out]
        for features, _ in pool.map(lambda film: windows(backbone, film, SCALES[0], 0), known):
            components.add(features)
        mean, matrix, share = components.solve(dimension)

        def projected(film: Film, scale: float, orientation: int) -> tuple[Floats, npt.NDArray[np.void]]:
            features, places = windows(backbone, film, scale, orientation)
            vectors = (features - mean) @ matrix
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), places

        for orientation, scale in product(range(ORIENTATIONS), SCALES):
            missing = {False: _count(parts[False]) < rows, True: _count(parts[True]) < queries}
            if not any(missing.values()):
                break
            passes += 1
            wanted = [film for film in films if missing[film.woman in held_out]]
            found = pool.map(partial(projected, scale=scale, orientation=orientation), wanted)
            for film, part in zip(wanted, found, strict=True):
                parts[film.woman in held_out].append(part)
            print(f"pass {passes}: {_count(parts[False])} rows, {_count(parts[True])} queries", file=sys.stderr)
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, asked, held in (("gallery", rows, False), ("queries", queries, True)):
        there = _count(parts[held])
        if there < asked:
            raise MammoseekError(data, f"gives {there} rows for the {name}, not {asked}", "ask for fewer")
        order = random.permutation(there)[:asked]
        arrays[name] = np.concatenate([vectors for vectors, _ in parts[held]])[order]
        arrays[f"{name}-rows"] = np.concatenate([places for _, places in parts[held]])[order]
        arrays[f"{name}-there"] = there
    arrays["description"] = {
        "data": "mini-MIAS, research only",
        "films": len(films),
        "women in the gallery": len({film.woman for film in films} - held_out),
        "women held out for queries": len(held_out),
        "backbone": f"{network.config.backbone}, {network.weights_origin}",
        "preparation": PreparationConfig().digest,
        "window": f"mean of {WINDOW} x {WINDOW} cells of {CELL} pixels, at every cell on the breast",
        "passes": f"{passes} of {len(SCALES)} scales in {ORIENTATIONS} orientations",
        "embeddings computed": {name: arrays.pop(f"{name}-there") for name in ("gallery", "queries")},
        "rows": rows,
        "queries": queries,
        "dimension": dimension,
        "variance kept by the principal components": round(share, 4),
    }
    return arrays


def read_films(data: Path, rows: int) -> Iterator[Film]:
    """Yield prepared films: all of them, or for a small gallery the first women only.

    Args:
        data: Folder of mini-MIAS.
        rows: Rows that the gallery shall have.
    """
    frame = read_dataset("mini-mias", data).frame
    frame = frame[frame["granularity"] == "breast"].reset_index(drop=True)
    # Two films of a woman give some 700 cells a pass; one woman at least must be there to ask.
    women = max(HELD_OUT, rows // 500)
    config = PreparationConfig()
    for path, name in zip(frame["path"], frame["row_id"], strict=True):
        number = int(name.removeprefix("mdb"))
        woman = (number + 1) // 2
        if woman > women:
            return
        mammogram = read_mammogram(Path(path))
        prepared = prepare(mammogram.pixels, config, spacing_mm=mammogram.spacing_mm, view="MLO")
        assert prepared.mask is not None
        inside = [np.flatnonzero(prepared.mask.any(axis=axis)) for axis in (1, 0)]
        if any(len(places) == 0 for places in inside):
            continue
        cut = tuple(slice(places[0], places[-1] + 1) for places in inside)
        mask = np.pad(prepared.mask[cut].astype(np.float32), CELL)
        yield Film(woman, number, np.pad(prepared.pixels[cut], CELL) * mask, mask)


def feature_maps(network: EmbedderNetwork) -> FeatureMaps:
    """Return the function from grey images (1, 1, rows, columns) to the backbone's last feature maps.

    Batch norms are folded into the convolutions and the activations fused with them: the same maps to the sixth
    digit in half the time.
    """

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            normalised = (images - self.network.mean) / self.network.std
            return self.network.backbone.forward_features(normalised)  # type: ignore[operator]

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer is said to be old; nothing newer needs no C compiler
        traced = torch.jit.trace(Maps().eval(), torch.zeros(1, 1, 4 * SIDE, 4 * SIDE))
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def windows(backbone: FeatureMaps, film: Film, scale: float, orientation: int) -> tuple[Floats, npt.NDArray[np.void]]:
    """Embed every place of a film at one scale in one orientation.

    Args:
        backbone: As `feature_maps` gives it.
        film: The film.
        scale: 1 is a pixel of the network for a pixel of the film.
        orientation: 0 to 7: quarter turns, and from 4 on mirrored first.

    Returns:
        float32 (m, features) and where each is from (m,), of `ROW_TYPE`.
    """
    pixels, mask = (_oriented(image, scale, orientation) for image in (film.pixels, film.mask))
    with torch.inference_mode():
        features = backbone(torch.from_numpy(pixels)[None, None])
        # As the pooled network averages over a crop's cells.
        pooled = functional.avg_pool2d(features, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
        covered = functional.avg_pool2d(torch.from_numpy(mask)[None, None], CELL)[0, 0]
        rows, columns = torch.nonzero(covered >= 0.5, as_tuple=True)
        found = pooled[0, :, rows, columns].T.contiguous().numpy()
    places = np.zeros(len(found), ROW_TYPE)
    places["woman"], places["film"] = film.woman, film.number
    places["scale"], places["orientation"] = scale, orientation
    places["row"], places["column"] = rows.numpy(), columns.numpy()
    return found, places


class Components:
    """Principal components of rows that come in parts and are not kept."""

    def __init__(self) -> None:
        self.count = 0
        self.total: npt.NDArray[np.float64] | None = None
        self.products: npt.NDArray[np.float64] | None = None

    def add(self, part: Floats) -> None:
        """Take in (m, features) rows."""
        wide = part.astype(np.float64)
        total, products = wide.sum(axis=0), wide.T @ wide
        self.total = total if self.total is None else self.total + total
        self.products = products if self.products is None else self.products + products
        self.count += len(part)

    def solve(self, dimension: int) -> tuple[Floats, Floats, float]:
        """Return the mean (features,), the components (features, dimension) and the share of variance kept.

        Raises:
            MammoseekError: There are fewer rows, or features, than components.
        """
        if self.total is None or self.products is None or min(self.count - 1, len(self.total)) < dimension:
            raise MammoseekError("vectors", f"{self.count} rows do not give {dimension} components", "ask for fewer")
        mean = self.total / self.count
        values, vectors = np.linalg.eigh(self.products / self.count - np.outer(mean, mean))
        chosen = vectors[:, ::-1][:, :dimension]
        share = float(values[::-1][:dimension].sum() / values.sum())
        return mean.astype(np.float32), np.ascontiguousarray(chosen, dtype=np.float32), share


def hardness(gallery: Floats, queries: Floats, neighbours: Numbers, similarities: Floats) -> dict[str, object]:
    """Say how hard the search is.

    Args:
        gallery: float32 (n, d).
        queries: float32 (q, d).
        neighbours: int64 (q, 100), exact.
        similarities: float32 (q, 100) of these.

    Returns:
        Local intrinsic dimension over 100 neighbours, and recall@10 of common indexes at usual settings.
    """
    found: dict[str, object] = {
        "local intrinsic dimension": intrinsic_dimension(similarities),
        "similarity of the first, tenth and hundredth neighbour": [
            round(float(np.median(similarities[:, place])), 4) for place in (0, 9, -1)
        ],
    }
    for factory, parameters in (("HNSW32,Flat", "efSearch=64"), (f"IVF{_lists(len(gallery))},Flat", "nprobe=16")):
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        start = time.perf_counter()
        index.train(gallery)
        index.add(gallery)
        built = time.perf_counter() - start
        _faiss.ParameterSpace().set_index_parameters(index, parameters)
        answer = index.search(queries, 10)[1]
        found[f"recall@10 of {factory} at {parameters}"] = round(recall(answer, neighbours), 4)
        found[f"build seconds of {factory}"] = round(built, 1)
    return found


def intrinsic_dimension(similarities: Floats) -> dict[str, float]:
    """Return the maximum-likelihood local intrinsic dimension of the queries (Levina and Bickel, NIPS 2004).

    Args:
        similarities: float32 (q, k), cosines to each query's nearest rows, best first.

    Returns:
        Its mean, median and 10th and 90th percentiles over the queries.
    """
    distances = np.sqrt(np.maximum(2 - 2 * similarities.astype(np.float64), 1e-12))
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    dimensions = 1 / np.maximum(logs.mean(axis=1), 1e-9)
    low, median, high = np.percentile(dimensions, (10, 50, 90))
    values = {"mean": dimensions.mean(), "median": median, "10 %": low, "90 %": high}
    return {name: round(float(value), 2) for name, value in values.items()}


def _oriented(image: Floats, scale: float, orientation: int) -> Floats:
    """Turn an image, change its scale, and bring its sides to multiples that the backbone has met."""
    if scale != 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.float32)
    if orientation >= 4:
        image = image[:, ::-1]
    image = np.rot90(image, orientation % 4)
    return np.pad(image, [(0, -side % SIDE) for side in image.shape])


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the films share the cores, not the parts of one film: no thread waits for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _lists(rows: int) -> int:
    """Return about four times the square root, as a power of two."""
    return 2 ** max(round(np.log2(4 * np.sqrt(rows))), 2)


def _count(parts: list[tuple[Floats, npt.NDArray[np.void]]]) -> int:
    return sum(len(vectors) for vectors, _ in parts)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the gallery (1000000)")
    parser.add_argument("--queries", type=int, default=10_000, help="queries (10000)")
    parser.add_argument("--dimension", type=int, default=512, help="length of a vector (512)")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--check", action="store_true", help="measure how hard the search is (minutes)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
