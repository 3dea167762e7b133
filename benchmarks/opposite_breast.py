"""A control: does the embedder know the lesion, or the film? The same place on the other breast should be at chance.

    python -m benchmarks.cross_validation --data path/to/mini-mias --work folds
    python -m benchmarks.opposite_breast --data path/to/mini-mias --work folds/finding-fine-tuned

mini-MIAS is sorted by kind of lesion, so its films may be sorted by batch of digitisation too, and a network can
learn to tell batches apart. Each test finding whose other breast is normal is asked twice, with its own place and
with the mirrored place on the normal breast, by its fold's model among the fold's training findings. Both answers are
scored against the finding's label: what the mirrored place scores above a random order of the gallery is not
knowledge of the lesion.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data
from classifiers.evaluation import compare_retrieval, score_retrieval
from classifiers.predictions import read_json
from embedder.datasets import read_dataset
from embedder.embedding import Embedder
from embedder.findings import patient_key
from errors import MammoseekError
from index.metrics import retrieval_scores

LABELS = ("lesion_type", "native_lesion_type", "pathology")
SHUFFLES = 20


def mirrored_places(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the findings whose woman's other breast is normal, moved to the mirrored place on that breast.

    Args:
        frame: The manifest of mini-MIAS, findings and breasts.
    """
    breasts = frame[frame["granularity"] == "breast"]
    normal = breasts[breasts["pathology"] == "normal"].set_index(["patient_id", "laterality"])
    rows = []
    for _, finding in frame[frame["granularity"] == "finding"].iterrows():
        other = (finding["patient_id"], "R" if finding["laterality"] == "L" else "L")
        if other in normal.index:
            columns = int(finding["image_columns"])
            moved = {"x0": columns - finding["x1"], "x1": columns - finding["x0"], "laterality": other[1]}
            rows.append({**finding, **moved, "path": normal.loc[other, "path"]})
    return pd.DataFrame(rows).astype(frame.dtypes).reset_index(drop=True)


def main() -> None:
    """Run the control and write its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--work", type=Path, required=True, help="folder of the folds, see benchmarks.cross_validation")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "mini-mias-opposite-breast.csv")
    arguments = parser.parse_args()
    with errors_told():
        run(find_data(arguments.data), arguments.work, arguments.output)


def run(data: Path, work: Path, output: Path) -> None:
    """Ask every fold's model with the findings and with their mirrored places, and write the scores.

    Args:
        data: Folder of mini-MIAS.
        work: Folder of the folds' models and predictions.
        output: The table to write.
    """
    frame = read_dataset("mini-mias", data).frame
    findings = frame[frame["granularity"] == "finding"].reset_index(drop=True)
    mirrored = mirrored_places(frame)
    parts: dict[str, dict[str, list[pd.DataFrame]]] = {name: {} for name in ("lesion", "mirrored", "random")}
    women: list[str] = []
    folds = sorted(work.glob("fold-*"))
    if not folds:
        raise MammoseekError(work, "holds no folds", "make them by benchmarks.cross_validation --work")
    for place in folds:
        embedder = Embedder.load(place, device="cpu")
        test = set(read_json(place / "predictions.json")["plan"]["test_rows"])
        gallery = findings[~findings["row_id"].isin(test)].reset_index(drop=True)
        places = mirrored[mirrored["row_id"].isin(test)].reset_index(drop=True)
        lesions = findings.set_index("row_id").loc[places["row_id"]].reset_index()
        vectors = {
            "gallery": _embed(embedder, gallery),
            "lesion": _embed(embedder, lesions),
            "mirrored": _embed(embedder, places),
        }
        women += patient_key(places).tolist()
        generator = np.random.default_rng(0)
        for label in LABELS:
            for name in ("lesion", "mirrored"):
                scores = _scores(vectors[name], places, vectors["gallery"], gallery, label)
                parts[name].setdefault(label, []).append(scores)
            shuffled = [
                _scores(vectors["lesion"], places, generator.permutation(vectors["gallery"]), gallery, label)
                for _ in range(SHUFFLES)
            ]
            mean = sum(shuffled[1:], shuffled[0]) / SHUFFLES
            parts["random"].setdefault(label, []).append(mean)
    rows = []
    for label in LABELS:
        pooled = {name: pd.concat(found[label], ignore_index=True) for name, found in parts.items()}
        estimates = {name: score_retrieval(scores, np.array(women, dtype=object)) for name, scores in pooled.items()}
        estimates["mirrored minus random"] = compare_retrieval(
            pooled["mirrored"], pooled["random"], np.array(women, dtype=object)
        )
        for name, found in estimates.items():
            for score in ("precision@10", "map@r"):
                estimate = found[score]
                rows.append(
                    {
                        "label": label,
                        "asked with": name,
                        "score": score,
                        **{key: getattr(estimate, key) for key in ("value", "low", "high", "items", "women")},
                    }
                )
                print(f"{label:20s} {name:22s} {score:13s} {estimate}")
    output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output, index=False, float_format="%.4f")


def _embed(embedder: Embedder, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    for batch in embedder.embed_manifest(frame):
        if batch.failures:
            raise MammoseekError(batch.failures[0][0], batch.failures[0][1])
        vectors.update(zip(batch.records["row_id"], batch.vectors, strict=True))
    return np.stack([vectors[row_id] for row_id in frame["row_id"]])


def _scores(
    queries: npt.NDArray[np.float32],
    places: pd.DataFrame,
    gallery: npt.NDArray[np.float32],
    findings: pd.DataFrame,
    label: str,
) -> pd.DataFrame:
    return retrieval_scores(
        queries,
        places[label].to_numpy(dtype=object),
        patient_key(places).to_numpy(dtype=object),
        gallery,
        findings[label].to_numpy(dtype=object),
        patient_key(findings).to_numpy(dtype=object),
    )


if __name__ == "__main__":
    main()
