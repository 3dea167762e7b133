"""Does it help to let typical cases only answer? Measured on mini-MIAS with the frozen ImageNet network.

    python -m benchmarks.typicality --data path/to/mini-mias -o benchmarks/results/typicality.csv

Women are split into folds as in a cross-validation. In each fold the gallery is the training women's, and so is all
that is known of typicality: the test women ask the whole gallery, then the rows that are typical enough for each of
`THRESHOLDS`, then, as a control, as many rows of each class drawn at random (the mean of `DRAWS` draws): what is ahead
of that is owed to which rows were held out, not to how many of which class are left.

Scores are of each query: precision@10 and MAP@R of its ranking, and of the kNN vote (not calibrated) whether it is
right (`accuracy`) and its Brier score (lower is better). A query whose label is of no row that is left counts as a
miss in retrieval. A gallery with fewer rows has fewer to find: where fewer than ten rows of the query's label are left,
its precision@10 can't be 1, and MAP@R looks at fewer places; `relevant` and `below_10` say how often that is so.
Differences are paired, with 95 % intervals over women. In the rows of the seed `all` each query counts by its mean over
the seeds, which is one interval for all; these are also given by the query's class, since what rare classes lose
vanishes in a mean.

Dozens of differences are looked at here: some exclude 0 by chance.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data
from classifiers.folds import patient_folds
from classifiers.labels import spread_columns
from classifiers.neighbours import NeighbourVote
from embedder.datasets import read_dataset
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import GRANULARITIES, patient_key
from embedder.manifest import manifest_digest
from embedder.recipe import Recipe
from errors import MammoseekError
from index.metrics import RELEVANT, bootstrap_interval, paired_difference, retrieval_scores
from index.typicality import typicality

LABELS = {"finding": ("lesion_type", "native_lesion_type", "pathology"), "breast": ("density",)}
STRATA = {"finding": "native_lesion_type", "breast": "density"}
THRESHOLDS = (0.2, 0.3, 0.5, 0.7)
SEEDS = (0, 1, 2)
DRAWS = 5
SCORES = ("precision@10", "map@r", "accuracy", "brier")

Vectors = npt.NDArray[np.float32]
Objects = npt.NDArray[np.object_]


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure every label and write the table.

    Args:
        arguments: As `_parse` gives them.
    """
    frame = read_dataset("mini-mias", find_data(arguments.data)).frame
    table: list[dict[str, Any]] = []
    for granularity in arguments.granularity:
        rows = frame[frame["granularity"] == granularity].reset_index(drop=True)
        vectors, digest = embed_frozen(rows, granularity)
        context = {"folds": arguments.folds, "model": digest[:12], "manifest": manifest_digest(rows)[:12]}
        for label in LABELS[granularity]:
            found = measured(vectors, rows, label, STRATA[granularity], arguments)
            table += [{"granularity": granularity, "label": label, **row, **context} for row in found]
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(table).to_csv(arguments.output, index=False, float_format="%.4f")
            for row in found:
                if row["seed"] == "all" and row["class"] == "all":
                    difference = (
                        f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
                    )
                    print(
                        f"{label:20s} {row['least']} {row['score']:13s} {row['whole']:.3f} {difference}",
                        file=sys.stderr,
                    )


def embed_frozen(rows: pd.DataFrame, granularity: str) -> tuple[Vectors, str]:
    """Return the vectors of a manifest's rows by the network that was not trained, float32 (n, d), and its digest.

    Raises:
        MammoseekError: An image can't be read.
    """
    recipe = Recipe.default(granularity)
    with tempfile.TemporaryDirectory() as folder:
        digest = pretrained_model(Path(folder) / "frozen", recipe.network, recipe.preparation)
        embedder = Embedder.load(Path(folder) / "frozen", device="cpu")
        vectors: dict[str, Vectors] = {}
        for batch in embedder.embed_manifest(rows):
            if batch.failures:
                raise MammoseekError(batch.failures[0][0], batch.failures[0][1])
            vectors.update(zip(batch.records["row_id"], batch.vectors, strict=True))
    return np.stack([vectors[row_id] for row_id in rows["row_id"]]), digest


def measured(
    vectors: Vectors, rows: pd.DataFrame, label: str, strata: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the table's rows of one label.

    Args:
        vectors: float32 (n, d), unit length.
        rows: (n rows) of a manifest.
        label: The label column.
        strata: The column by which folds are stratified.
        arguments: As `_parse` gives them.
    """
    keys = patient_key(rows).to_numpy(dtype=object)
    runs = [
        asked_in_folds(vectors, rows, label, rows[strata].to_numpy(dtype=object), keys, arguments.folds, seed)
        for seed in arguments.seeds
    ]
    mean = {name: sum((run[name] for run in runs[1:]), runs[0][name]) / len(runs) for name in runs[0]}
    labels = rows[label].to_numpy(dtype=object)
    everyone = ~np.asarray(pd.isna(labels), np.bool_)
    table = []
    for seed, found in [*zip(map(str, arguments.seeds), runs, strict=True), ("all", mean)]:
        groups = {"all": everyone}
        if seed == "all":
            groups |= {term: labels == term for term in sorted(set(labels[everyone]))}
        for least in THRESHOLDS:
            for term, chosen in groups.items():
                table += [
                    {"class": term, "seed": seed, "least": least, **row}
                    for row in _compared(found, least, keys, chosen, arguments.resamples)
                ]
    return table


def asked_in_folds(
    vectors: Vectors, rows: pd.DataFrame, label: str, strata: Objects, keys: Objects, folds: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Return the scores of every row, asked in its own fold, by which gallery answered.

    Args:
        vectors: float32 (n, d), unit length.
        rows: (n rows) of a manifest.
        label: The label column.
        strata: (n,) labels by which folds are stratified.
        keys: (n,) women's keys.
        folds: How many folds.
        seed: Of folds and random galleries.

    Returns:
        `whole`, and for each threshold `typical 0.5` and `random 0.5`: (n rows) of `SCORES`, of RELEVANT and of
        `held_out`, the share of the gallery that did not answer.
    """
    labels = rows[label].to_numpy(dtype=object)
    random = np.random.default_rng(seed)
    parts: dict[str, list[pd.DataFrame]] = {}
    for fold in patient_folds(keys, strata, folds, seed):
        train = fold.train[~np.asarray(pd.isna(labels[fold.train]), np.bool_)]
        scores = typicality(vectors[train], labels[train], keys[train], row_ids=rows["row_id"].iloc[train].tolist())
        whole = _asked(vectors, labels, keys, train, fold.test).assign(held_out=0.0)
        parts.setdefault("whole", []).append(whole)
        for least in THRESHOLDS:
            kept = ~(scores < least)  # what can't be judged answers
            parts.setdefault(f"typical {least}", []).append(
                _asked(vectors, labels, keys, train[kept], fold.test).assign(held_out=1 - kept.mean())
            )
            drawn = [
                _asked(vectors, labels, keys, train[draw_alike(kept, labels[train], random)], fold.test)
                for _ in range(DRAWS)
            ]
            control = sum(drawn[1:], drawn[0]) / DRAWS
            parts.setdefault(f"random {least}", []).append(control.assign(held_out=1 - kept.mean()))
    return {name: pd.concat(found).sort_index() for name, found in parts.items()}


def draw_alike(kept: npt.NDArray[np.bool_], labels: Objects, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return as many rows of each class as are kept, drawn at random: bool (n,)."""
    drawn = np.zeros(len(kept), np.bool_)
    for term in set(labels):
        own = np.flatnonzero(labels == term)
        drawn[random.choice(own, int(kept[own].sum()), replace=False)] = True
    return drawn


def _asked(
    vectors: Vectors,
    labels: Objects,
    keys: Objects,
    gallery: npt.NDArray[np.int64],
    queries: npt.NDArray[np.int64],
) -> pd.DataFrame:
    """Return the scores of some queries, indexed by their rows; NaN for one without a label."""
    found = retrieval_scores(
        vectors[queries], labels[queries], keys[queries], vectors[gallery], labels[gallery], keys[gallery]
    )[["precision@10", "map@r", RELEVANT]].fillna(0.0)
    found.index = queries
    vote = NeighbourVote().fit(vectors[gallery], labels[gallery], keys[gallery])
    terms = sorted({str(term) for term in labels if not pd.isna(term)})
    probabilities = spread_columns(vote.predict_proba(vectors[queries]), vote.classes_, terms)
    truth = np.array([[str(label) == term for term in terms] for label in labels[queries]])
    found["accuracy"] = truth[np.arange(len(queries)), probabilities.argmax(axis=1)].astype(float)
    found["brier"] = ((probabilities - truth) ** 2).sum(axis=1)
    found[np.asarray(pd.isna(labels[queries]), np.bool_)] = np.nan
    return found.astype(np.float64)


def _compared(
    found: dict[str, pd.DataFrame], least: float, keys: Objects, chosen: npt.NDArray[np.bool_], resamples: int
) -> list[dict[str, Any]]:
    """Return one row of the table for each score: the whole gallery, the typical one, the random one."""
    whole, typical, control = (found[name][chosen] for name in ("whole", f"typical {least}", f"random {least}"))
    women = keys[chosen]
    table = []
    for score in SCORES:
        value = bootstrap_interval(typical[score], women, resamples=resamples)
        row: dict[str, Any] = {"score": score, "whole": whole[score].mean(), "random": control[score].mean()}
        row |= {"typical": value.value, "low": value.low, "high": value.high}
        for name, other in (("difference", whole), ("difference_to_random", control)):
            difference = paired_difference(typical[score], other[score], women, resamples=resamples)
            row |= {name: difference.value, f"{name}_low": difference.low, f"{name}_high": difference.high}
        row |= {"held_out": typical["held_out"].mean(), "queries": value.items, "women": value.women}
        row |= {"relevant_whole": whole[RELEVANT].mean(), "relevant": typical[RELEVANT].mean()}
        row |= {"below_10_whole": (whole[RELEVANT] < 10).mean(), "below_10": (typical[RELEVANT] < 10).mean()}
        table.append(row)
    return table


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--granularity", nargs="+", choices=GRANULARITIES, default=list(GRANULARITIES))
    parser.add_argument("--folds", type=int, default=5, help="folds of women (5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the folds (0 1 2)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of the women (2000)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "typicality.csv", help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
