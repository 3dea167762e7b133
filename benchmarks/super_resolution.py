"""Super-resolution: train the network, and measure what it is worth to pixels and to retrieval.

    python -m benchmarks.super_resolution --rsna path/to/rsna --mini-mias path/to/mini-mias --network network

The network is trained on the films of four fifths of the women of RSNA into the folder `--network`, unless it is there
already. Films of women that it has not seen, those of the last fifth and of mini-MIAS, are then halved (each pixel the
mean of four) and enlarged again by the network, by bicubic and by Lanczos interpolation, and compared with what they
were, inside the breast: peak signal-to-noise ratio (dB, full scale 1) and structural similarity (Wang et al., IEEE
Trans Image Process 13, 2004).

Its effect on retrieval is measured with the packaged network, as a preparation at inputs where most crops are larger
than their place on the film: the frozen ImageNet network in five folds of mini-MIAS's women, against the same without.
Every row has the paired difference and its 95 % interval over women. A run of many differences finds some that exclude
0 by chance; `--seeds` draws the folds more than once.

A network that is retrained with other options gets a new name: its folder goes beside the packaged ones in
`embedder/superresolution`, its name and digest into `NETWORKS` there and into `PreparationConfig`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from skimage.metrics import structural_similarity

from benchmarks.cross_validation import RESULTS
from benchmarks.practices import compared
from benchmarks.setting import errors_told, find_data, machine_line
from classifiers.crossvalidation import cross_validate
from embedder.datasets import read_dataset
from embedder.findings import patient_key
from embedder.mammogram import read_mammogram
from embedder.preparation import prepare
from embedder.recipe import Recipe
from embedder.rois import read_rois
from embedder.superresolution import NETWORKS
from embedder.superresolution.network import (
    CARD_FILE,
    SCALE,
    Pixels,
    SuperResolution,
    bicubic,
    load_network,
)
from embedder.superresolution.training import (
    PREPARATION,
    SuperResolutionTraining,
    halved,
    save_network,
    train_super_resolution,
)
from errors import MammoseekError
from index.metrics import bootstrap_interval, paired_difference

LICENCE = "trained on films that are for research only (RSNA 2022 screening, by the rules of its competition)"
INPUT = ("preparation.height=224", "preparation.width=224")
NETWORK = "srcnn-rsna"
PARTS = ("pixels", "retrieval")
INTERPOLATIONS = ("bicubic", "lanczos")


def split_women(frame: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a manifest by woman.

    Args:
        frame: A manifest.
        share: Of the women, for the first part.
        seed: Of the split.

    Returns:
        Two manifests that share no woman.
    """
    keys = patient_key(frame)
    women = np.sort(keys.unique())
    first = np.random.default_rng(seed).permutation(women)[: round(share * len(women))]
    chosen = keys.isin(first)
    return frame[chosen].reset_index(drop=True), frame[~chosen].reset_index(drop=True)


def fidelity(found: Pixels, truth: Pixels, mask: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Compare an image with what it should be, inside a mask.

    Args:
        found: float32 (rows, columns) in [0, 1].
        truth: The same, as it was.
        mask: bool (rows, columns).

    Returns:
        `psnr` in dB, `ssim` up to 1 (Gaussian window of sigma 1.5).
    """
    error = float(np.mean((found[mask].astype(np.float64) - truth[mask]) ** 2))
    _, similar = structural_similarity(
        found, truth, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return {"psnr": -10 * float(np.log10(max(error, 1e-12))), "ssim": float(similar[mask].mean())}


def enlarged(pixels: Pixels, network: SuperResolution) -> dict[str, Pixels]:
    """Enlarge an image by two in every way that is compared.

    Args:
        pixels: float32 (rows, columns) in [0, 1].
        network: The network, which is one of them.
    """
    size = (SCALE * pixels.shape[1], SCALE * pixels.shape[0])
    lanczos = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4), np.float32)
    return {
        "bicubic": np.clip(bicubic(pixels), 0, 1),
        "lanczos": np.clip(lanczos, 0, 1),
        NETWORK: network.enlarge(pixels),
    }


def measure_films(frame: pd.DataFrame, network: SuperResolution, progress: str) -> pd.DataFrame:
    """Halve and enlarge one film of each woman.

    Args:
        frame: A manifest of women that the network has not seen.
        network: The network.
        progress: What the line on the terminal says is under way.

    Returns:
        One row for each film and way to enlarge it: `woman`, `run`, `psnr`, `ssim`.
    """
    frame = frame.assign(woman=patient_key(frame)).sort_values("row_id").drop_duplicates("woman")
    rows: list[dict[str, Any]] = []
    for done, (_, film) in enumerate(frame.iterrows(), 1):
        prepared = prepare(read_mammogram(str(film["path"])).pixels, PREPARATION)
        assert prepared.mask is not None, "this preparation finds the breast"
        across, down = (np.flatnonzero(prepared.mask.any(axis=axis)) for axis in (0, 1))
        height, width = ((place[-1] + 1 - place[0]) // SCALE * SCALE for place in (down, across))
        place = slice(down[0], down[0] + height), slice(across[0], across[0] + width)
        truth, mask = np.ascontiguousarray(prepared.pixels[place]), prepared.mask[place]
        for run, found in enlarged(halved(truth), network).items():
            rows.append({"woman": film["woman"], "run": run, **fidelity(found, truth, mask)})
        print(f"\r{progress}: {done}/{len(frame)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return pd.DataFrame(rows)


def fidelity_rows(films: pd.DataFrame, resamples: int) -> list[dict[str, Any]]:
    """Return the table's rows of a set of films: the network against each interpolation.

    Args:
        films: As `measure_films` returns them.
        resamples: Bootstrap resamples of the women.
    """
    rows = []
    for score in ("psnr", "ssim"):
        by_run = films.pivot_table(index="woman", columns="run", values=score)
        women = by_run.index.to_numpy(dtype=object)
        figure = bootstrap_interval(by_run[NETWORK], women, resamples=resamples)
        for against in INTERPOLATIONS:
            difference = paired_difference(by_run[NETWORK], by_run[against], women, resamples=resamples)
            rows.append(
                {
                    "part": "pixels",
                    "score": score,
                    **{name: getattr(figure, name) for name in ("value", "low", "high")},
                    "default": float(by_run[against].mean()),
                    "difference": difference.value,
                    "difference_low": difference.low,
                    "difference_high": difference.high,
                    "items": difference.items,
                    "women": difference.women,
                    "run": NETWORK,
                    "against": against,
                }
            )
    return rows


def retrieval_rows(frame: pd.DataFrame, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Cross-validate the frozen network with and without super-resolution.

    Args:
        frame: The manifest of mini-MIAS.
        seed: Of the folds.
        resamples: Bootstrap resamples of the women.
    """
    plain = Recipe.default("finding").with_settings(INPUT)
    changed = plain.with_settings([f"preparation.super_resolution={NETWORK}"])
    runs = [cross_validate(frame, recipe, frozen=True, resamples=resamples, seed=seed) for recipe in (changed, plain)]
    named = {"run": f"frozen, 224 x 224, {NETWORK}", "against": "frozen, 224 x 224", "seed": seed}
    return [{**row, **named} for row in compared(runs[0], runs[1], resamples, seed)]


def finer_than_film(frame: pd.DataFrame) -> int:
    """Return how many findings of a manifest have a crop of finer pixels than their film's: those are enlarged.

    Args:
        frame: A manifest whose films have a known spacing.
    """
    findings = frame[frame["granularity"] == "finding"].reset_index(drop=True)
    preparation = Recipe.default("finding").with_settings(INPUT).preparation
    spacings = [read.crop.mm_per_pixel if read.crop is not None else None for read in read_rois(findings, preparation)]
    return sum(crop is not None and crop < film for crop, film in zip(spacings, findings["spacing_mm"], strict=True))


def main() -> None:
    """Train where that is to be done, measure, and write the table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Run the parts that are asked for; the table is written anew after each.

    Args:
        arguments: As `_parse` gives them.
    """
    options = SuperResolutionTraining(steps=arguments.steps, seed=arguments.seed)
    rsna = read_dataset("rsna", arguments.rsna).frame
    learned, unseen = split_women(rsna, 0.8, options.seed)
    network = _network(arguments.network, learned, options, LICENCE)
    mias = read_dataset("mini-mias", find_data(arguments.mini_mias)).frame
    rows: list[dict[str, Any]] = []
    if "pixels" in arguments.parts:
        for name, films in (("rsna", unseen), ("mini-mias", mias)):
            measured = measure_films(films, network, f"films of {name}")
            rows += [{"data": name, **row} for row in fidelity_rows(measured, arguments.resamples)]
            _write(rows, network, arguments.output)
    if "retrieval" in arguments.parts:
        if network.digest != NETWORKS[NETWORK]:
            raise MammoseekError(arguments.network, f"is not {NETWORK}, which retrieval is measured with")
        enlarged_crops = finer_than_film(mias)
        for seed in range(arguments.seeds):
            found = retrieval_rows(mias, seed, arguments.resamples)
            rows += [{"data": "mini-mias", **row, "crops_enlarged": enlarged_crops} for row in found]
            _write(rows, network, arguments.output)
            print(f"retrieval: seed {seed}", file=sys.stderr, flush=True)


def _network(folder: Path, frame: pd.DataFrame, options: SuperResolutionTraining, licence: str) -> SuperResolution:
    """Return the network in a folder, trained first where there is none."""
    if not (folder / CARD_FILE).exists():
        trained = train_super_resolution(frame, options, licence=licence, progress=_say)
        print(file=sys.stderr)
        save_network(folder, trained)
    return load_network(folder)


def _say(what: str, done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        print(f"\r{what}: {done}/{total}", end="", file=sys.stderr, flush=True)


def _write(rows: list[dict[str, Any]], network: SuperResolution, output: Path) -> None:
    first = ["data", "part", "label", "score", "run", "against"]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*first, *(name for name in table if name not in first)])
    table = table.assign(network=network.digest[:12], machine=machine_line())
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False, float_format="%.4f")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rsna", type=Path, required=True, help="folder of the RSNA set")
    parser.add_argument("--mini-mias", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--network", type=Path, required=True, help="folder of the network; trained if it is not there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--steps", type=int, default=3000, help="batches of the training (3000)")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (0)")
    parser.add_argument("--seeds", type=int, default=1, help="how often the folds of retrieval are drawn (1)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "super-resolution.csv", help="CSV to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
