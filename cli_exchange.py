"""The commands of the room `exchange`: detections in and out, triage, rescoring."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli_options import (
    Dataset,
    Device,
    ForProcessing,
    Frame,
    GalleryPath,
    JsonFlag,
    Model,
    NameCases,
    Resamples,
    RescorerFile,
    Spacing,
    View,
    Workers,
)
from console import check_output, interruptible, print_json, print_table, progress_bar, report_failures, say, say_notes
from errors import MammoseekError

if TYPE_CHECKING:
    import pandas as pd

    from exchange.formats import Reading
    from exchange.secondreader import Opinion

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`, and the groups below it."""
detections_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Detections of other programs, in and out as files."
)
rescore_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="New scores, learned from detections whose truth is known."
)
app.add_typer(detections_app, name="detections")
app.add_typer(rescore_app, name="rescore")

DetectionsPath = Annotated[
    Path, typer.Argument(help="Detections: a file, or a folder of labels or masks.", metavar="IN")
]
ImageFolders = Annotated[
    list[Path] | None,
    typer.Option("--images", help="Folder of the images that the detections are on. Repeatable.", metavar="FOLDER"),
]
ImageManifest = Annotated[
    Path | None, typer.Option("--manifest", help="Manifest that says which woman each image is of.", metavar="MANIFEST")
]
ImagesDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Data set of the women in --images: the gallery's name for it, so that a woman does not answer herself."
        " The folder's name unless given.",
    ),
]
PatientRule = Annotated[
    str | None,
    typer.Option(
        "--patient-from-name",
        help="Regular expression whose one group is the woman, searched in the path below --images.",
        metavar="REGEX",
    ),
]
DetectionKind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="csv, json, coco-results, coco, yolo, vindr, cbis-ddsm, masks or cad-sr; told by the content"
        " unless given.",
    ),
]
Companion = Annotated[
    Path | None, typer.Option(help="The COCO data set that COCO results refer to.", metavar="DATASET.JSON")
]
ClassNames = Annotated[
    Path | None, typer.Option("--names", help="Names of classes, one a line or a YAML file's `names`.", metavar="FILE")
]
LabelWords = Annotated[
    list[str] | None,
    typer.Option("--label", help="The lesion type that a label stands for. Repeatable.", metavar="LABEL=TERM"),
]
DetectorName = Annotated[str | None, typer.Option("--detector", help="The detector, where the file does not name it.")]
DetectorVersion = Annotated[str | None, typer.Option("--detector-version", help="Its version, likewise.")]
MinimumArea = Annotated[int, typer.Option(min=1, help="Parts of a mask with fewer pixels are left out.")]
MaskFolder = Annotated[
    Path | None, typer.Option("--masks", help="Folder of the masks of a table of CBIS-DDSM.", metavar="FOLDER")
]


@detections_app.command("convert")
def detections_convert(
    path: DetectionsPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write; for yolo a folder.")],
    to: Annotated[
        str | None, typer.Option("--to", help="csv, json, coco or yolo; by the suffix of OUT unless given.")
    ] = None,
    images: ImageFolders = None,
    manifest: ImageManifest = None,
    dataset: ImagesDataset = None,
    patient_from_name: PatientRule = None,
    kind: DetectionKind = None,
    companion: Companion = None,
    names: ClassNames = None,
    label: LabelWords = None,
    detector: DetectorName = None,
    detector_version: DetectorVersion = None,
    minimum_area: MinimumArea = 16,
    masks: MaskFolder = None,
    as_json: JsonFlag = False,
) -> None:
    """Read detections of any known kind, check them against their images, and write them as another kind.

    A row that can't be used is told with its reason and left out; the exit status is then 3. A CSV file that is
    written is a manifest of findings too.

    \b
    Examples:
      mammoseek detections convert results.json --companion test.json --manifest test.csv -o detections.csv
      mammoseek detections convert labels/ --images films/ --patient-from-name '^(\\d+)_' -o detections.csv
      mammoseek detections convert finding_annotations.csv --images vindr/images -o truth.json --to coco
      mammoseek detections convert masks/ --manifest mini-mias.csv -o labels --to yolo
    """
    from exchange.formats import WRITERS, write_detections

    chosen = to or {".csv": "csv", ".json": "json"}.get(output.suffix.lower())
    if chosen not in WRITERS:
        raise typer.BadParameter(f"say one of {', '.join(WRITERS)}", param_hint="--to")
    if chosen != "yolo":
        check_output(output)
    if output.exists() and output.resolve() == path.resolve():
        raise typer.BadParameter("it is what is read: name another file", param_hint="--output")
    reading = _read_detections(
        path, images, manifest, dataset, patient_from_name, kind=kind, label=label, companion=companion, names=names,
        detector=detector, detector_version=detector_version, minimum_area=minimum_area, masks=masks,
    )  # fmt: skip
    if reading.problems and not reading.detections:
        place, reason = reading.problems[0]
        raise MammoseekError(path, f"none of its rows can be used ({place}: {reason})", "nothing was written")
    written = write_detections(output, reading.frame(), chosen)
    if as_json:
        print_json({"read": str(path), **reading.to_dict(), "written": [str(one) for one in written], "to": chosen})
    else:
        _say_reading(path, reading)
        say(f"Wrote {len(reading.detections)} detections to {', '.join(str(one) for one in written)}")
    report_failures(reading.problems, "rows")


@detections_app.command("show")
def detections_show(
    path: DetectionsPath,
    images: ImageFolders = None,
    manifest: ImageManifest = None,
    dataset: ImagesDataset = None,
    patient_from_name: PatientRule = None,
    kind: DetectionKind = None,
    companion: Companion = None,
    names: ClassNames = None,
    label: LabelWords = None,
    detector: DetectorName = None,
    detector_version: DetectorVersion = None,
    minimum_area: MinimumArea = 16,
    masks: MaskFolder = None,
    limit: Annotated[int, typer.Option(min=1, help="Detections to show, those with the highest scores first.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show what a file of detections holds: as what it was taken, which rows can be used, and why others can't.

    \b
    Examples:
      mammoseek detections show detections.csv
      mammoseek detections show results.json --companion test.json --images films/ --limit 50
      mammoseek detections show labels/ --manifest test.csv --json
    """
    reading = _read_detections(
        path, images, manifest, dataset, patient_from_name, kind=kind, label=label, companion=companion, names=names,
        detector=detector, detector_version=detector_version, minimum_area=minimum_area, masks=masks,
    )  # fmt: skip
    if as_json:
        print_json({"read": str(path), **reading.to_dict(), "rows": [asdict(one) for one in reading.detections]})
    else:
        _say_reading(path, reading)
        first = sorted(reading.detections, key=lambda one: -1.0 if one.score is None else one.score, reverse=True)
        rows = [
            (
                one.detection_id,
                Path(one.path).name,
                f"{one.dataset}/{one.patient_id}",
                f"{one.x0},{one.y0},{one.x1},{one.y1}",
                one.score,
                one.lesion_type,
                one.native_label,
                one.note,
            )
            for one in first[:limit]
        ]
        print_table(("id", "image", "woman", "box", "score", "lesion type", "label", "note"), rows)
        if len(first) > limit:
            say(f"and {len(first) - limit} more; --limit shows more")
    report_failures(reading.problems, "rows")


def _read_detections(
    path: Path,
    images: list[Path] | None,
    manifest: Path | None,
    dataset: str | None = None,
    patient_from_name: str | None = None,
    *,
    kind: str | None = None,
    label: list[str] | None = None,
    **given: Any,
) -> "Reading":
    """Read detections; `given` are further fields of `exchange.formats.ReadOptions`."""
    from embedder.manifest import read_manifest
    from exchange.formats import ReadOptions, read_detections
    from exchange.images import ImageCatalogue, manifest_images

    wrong = [pair for pair in label or [] if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not LABEL=TERM", param_hint="--label")
    words = {word: term for word, _, term in (pair.rpartition("=") for pair in label or [])}
    catalogue = None
    if images or manifest:
        known = manifest_images(read_manifest(manifest, check_images=False)) if manifest else []
        catalogue = ImageCatalogue(known, images or [], dataset=dataset, patient_from_name=patient_from_name)
    elif dataset or patient_from_name:
        raise typer.BadParameter("it is for the images of --images", param_hint="--dataset, --patient-from-name")
    with progress_bar("Reading images") as progress:
        return read_detections(path, catalogue, kind, options=ReadOptions(labels=words, **given), progress=progress)


def _say_reading(path: Path, reading: "Reading") -> None:
    from exchange.formats import KINDS

    say(f"{path}: taken for {KINDS[reading.kind]} ({reading.kind}), as {reading.because}")
    women = len({(one.dataset, one.patient_id) for one in reading.detections})
    images = len({one.path for one in reading.detections})
    left_out = f"{len(reading.problems)} rows left out" if reading.problems else "every row can be used"
    say(f"{len(reading.detections)} detections on {images} images of {women} women; {left_out}")
    say_notes(reading.notes)


@detections_app.command("merge")
def detections_merge(
    path: DetectionsPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write, .csv.")],
    iou: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Boxes of an image that overlap by more mark one place.")
    ] = 0.5,
    union: Annotated[
        bool,
        typer.Option("--union", help="Let the best of a place take in the others' boxes instead of dropping them."),
    ] = False,
    same_type: Annotated[
        bool, typer.Option("--same-type", help="Keep detections of different lesion types apart.")
    ] = False,
    views: Annotated[
        bool, typer.Option("--views", help="Pair the CC and MLO views of a breast by the distance from the nipple.")
    ] = False,
    most_mm: Annotated[
        float, typer.Option("--most-mm", min=0.1, max=100.0, help="With --views: largest difference of the distances.")
    ] = 15.0,
    images: ImageFolders = None,
    manifest: ImageManifest = None,
    kind: DetectionKind = None,
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep one detection of each place of an image; on request pair the two views of a breast.

    \b
    Examples:
      mammoseek detections merge cad.csv -o once.csv
      mammoseek detections merge cad.csv --iou 0.3 --union --views -o lesions.csv
    """
    from exchange.formats import write_detections
    from exchange.suppression import SuppressionConfig, suppress
    from exchange.twoviews import PairingConfig, find_nipples, pair_views

    check_output(output)
    reading = _read_detections(path, images, manifest, kind=kind)
    given = reading.frame()
    kept = suppress(given, SuppressionConfig(iou, merge=union, same_type=same_type))
    failures = list(reading.problems)
    before = kept["lesion_id"].notna().sum()
    if views:
        paths = sorted(set(kept.loc[kept["view"].isin(["CC", "MLO"]) & kept["x0"].notna(), "path"].astype(str)))
        with progress_bar("Looking for nipples") as progress:
            nipples, unread = find_nipples(paths, workers=workers, progress=progress)
        failures += unread
        kept = pair_views(kept, nipples, PairingConfig(most_mm))
    write_detections(output, kept, "csv")
    counts = {
        "given": len(given),
        "kept": len(kept),
        "pairs": int(kept["lesion_id"].notna().sum() - before) // 2,
        "failures": [list(failure) for failure in failures],
    }
    if as_json:
        print_json(counts)
    else:
        typer.echo(f"{len(kept)} of {len(given)} detections kept, {counts['pairs']} pairs of two views, in {output}")
    report_failures(failures, "rows or images")


@app.command("detect")
def detect(
    images: Annotated[list[Path], typer.Argument(help="Mammograms.", metavar="IMAGE...")],
    gallery: Annotated[
        Path,
        typer.Option(help="Gallery of lesions and normal tissue, see `mammoseek dataset normal`.", metavar="GALLERY"),
    ],
    most: Annotated[int, typer.Option(min=1, max=1000, help="Candidates on an image, at most.")] = 5,
    minimum: Annotated[float, typer.Option(min=0.0, max=1.0, help="The least score.")] = 0.1,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table of candidates to write, .csv or .parquet.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each image with its heat map.", metavar="FOLDER")
    ] = None,
    patient: Annotated[str | None, typer.Option(help="The images' woman, where the files do not name her.")] = None,
    dataset: Dataset = None,
    spacing_mm: Spacing = None,
    view: View = None,
    frame: Frame = None,
    for_processing: ForProcessing = False,
    model: Model = None,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Propose places to look at: what resembles known lesions more than normal tissue, other women's.

    A score orders the places of an image; it is no probability of cancer. Where there is a trained detector, its
    output is the better input.

    \b
    Examples:
      mammoseek detect image.dcm --gallery gallery --pictures heat
      mammoseek detect *.png --gallery gallery --spacing-mm 0.2 -o candidates.csv
      mammoseek detect image.dcm --gallery gallery --most 10 --minimum 0.3 --json
    """
    from classifiers.cases import Source
    from embedder.manifest import write_manifest
    from exchange.detecting import DetectConfig, Detector, candidates_frame, draw_all

    check_output(output)
    if len(images) > 1 and frame is not None:
        raise typer.BadParameter("a frame is of one image", param_hint="--frame")
    config = DetectConfig(most=most, minimum=minimum, looks=max(24, 2 * most))
    detector = Detector(gallery, model=model, device=device, config=config)
    sources = [
        Source(
            path=path,
            patient=patient,
            dataset=dataset,
            spacing_mm=spacing_mm,
            view=view,
            frame=frame,
            allow_for_processing=for_processing,
        )
        for path in images
    ]
    with progress_bar("Searching") as progress:
        answers, failures = detector.detect_all(sources, progress=progress)
    if output is not None:
        write_manifest(candidates_frame(answers), output)
        say(f"Candidates in {output}")
    if pictures is not None:
        draw_all(answers, pictures)
        say(f"Pictures in {pictures}")
    if as_json:
        print_json({"images": [answer.to_dict() for answer in answers], "failures": dict(failures)})
    else:
        for answer in answers:
            rows = [
                (rank, f"{one.x0},{one.y0},{one.x1},{one.y1}", f"{one.score:.3f}")
                for rank, one in enumerate(answer.detections, 1)
            ]
            print_table(("place", "box", "score"), rows, str(answer.path))
            say_notes(answer.notes)
    report_failures(failures, "images")


# ------------------------------------------------------------------------------------------------- triage


@app.command("triage")
def triage_command(
    gallery: GalleryPath,
    path: DetectionsPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the opinions.")],
    images: ImageFolders = None,
    manifest: ImageManifest = None,
    dataset: ImagesDataset = None,
    patient_from_name: PatientRule = None,
    kind: DetectionKind = None,
    detector: DetectorName = None,
    detector_version: DetectorVersion = None,
    neighbours: Annotated[int, typer.Option("-k", min=1, max=1000, help="Similar findings, one of each woman.")] = 10,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Boxes that overlap by more (IoU) are one detection; 1 keeps all.")
    ] = 0.5,
    pair: Annotated[
        bool, typer.Option("--pair", help="Take detections as far from the nipple in CC and MLO for one lesion.")
    ] = False,
    rescorer: RescorerFile = None,
    reports: Annotated[
        bool, typer.Option("--reports", help="Write a DICOM structured report for each study of DICOM images.")
    ] = False,
    captures: Annotated[
        bool, typer.Option("--captures", help="With --reports: montages as secondary captures, without names, too.")
    ] = False,
    name_cases: NameCases = False,
    pictures: Annotated[int, typer.Option(min=0, max=1000, help="Detections with pictures on the page.")] = 40,
    model: Model = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a second opinion on every detection: similar findings of other women, votes, risk, and a new score.

    The folder holds a table (triage.csv), all that is said (opinions.json), detections in COCO's format (coco.json) and
    a page with pictures (index.html); it is patient data. Stopped? Run the same command again: it goes on. A bad image
    costs its own detections; the exit status is then 3.

    \b
    Examples:
      mammoseek triage gallery detections.csv -o triage
      mammoseek triage gallery results.json --manifest archive.csv --rescorer rescorer.json -o triage
      mammoseek triage gallery cad-report.dcm --images study/ --reports -o triage
    """
    from exchange.formats import write_detections
    from exchange.rescoring import Rescorer
    from exchange.secondreader import OpinionConfig, SecondReader
    from exchange.suppression import SuppressionConfig, suppress
    from exchange.triage import TABLE_FILE, read_opinions, triage
    from exchange.triagepage import PAGE_FILE, write_triage_page
    from exchange.triagereports import write_reports

    reader = SecondReader(
        gallery,
        model=model,
        rescorer=Rescorer.load(rescorer) if rescorer is not None else None,
        config=OpinionConfig(neighbours, name_cases),
        device=device,
    )
    reading = _read_detections(
        path, images, manifest, dataset, patient_from_name, kind=kind, detector=detector,
        detector_version=detector_version,
    )  # fmt: skip
    if not as_json:
        _say_reading(path, reading)
    frame = reading.frame()
    if overlap < 1:
        frame = suppress(frame, SuppressionConfig(overlap))
    failures = list(reading.problems)
    if pair:
        frame, notes = _paired(frame)
        say_notes(notes)
    with (
        interruptible("What is answered is kept: run the same command again to go on."),
        progress_bar("Second opinions") as progress,
    ):
        report = triage(reader, frame, output, workers=workers, progress=progress)
    failures += report.failures
    opinions = list(read_opinions(output))
    new = {one.opinion.detection_id: one.opinion.rescored for one in opinions}
    answered = frame[frame["row_id"].isin(new)].reset_index(drop=True)
    if reader.rescorer is not None:
        answered = answered.assign(score=answered["row_id"].map(new).astype("float64"))
    write_detections(output / "coco.json", answered, "coco")
    write_triage_page(output, reader, pictured=pictures)
    written: list[Path] = []
    if reports:
        written, unreported = write_reports(output, (one.opinion for one in opinions), reader, captures=captures)
        failures += unreported
    if as_json:
        print_json(
            {
                "detections": report.detections,
                "merged": len(reading.detections) - len(frame),
                "answered": report.answered,
                "kept": report.kept,
                "no_close_precedent": sum(bool(one.opinion.no_close_precedent) for one in opinions),
                "reports": [str(place) for place in written],
                "failures": [list(failure) for failure in failures],
                "table": str(output / TABLE_FILE),
                "page": str(output / PAGE_FILE),
            }
        )
    else:
        first = sorted(opinions, key=lambda one: (-one.urgency, one.opinion.detection_id))[:10]
        names = ("detection", "woman", "detector", "new score", "lesion", "malignancy", "nearest", "outcomes")
        print_table(names, [_urgent(one) for one in first])
        say(f"{report.answered} of {report.detections} detections answered, {report.kept} of them before")
        say(f"Page: {output / PAGE_FILE}")
        if written:
            say(f"{len(written)} DICOM files to send in {written[0].parent}")
    report_failures(failures, "detections")


def _urgent(one: "Opinion") -> tuple[object, ...]:
    from exchange.triagepage import outcome_counts

    said = one.opinion
    nearest: object = said.similar[0].similarity if said.similar else None
    if said.no_close_precedent:
        nearest = "no close precedent"
    risk = None if said.risk is None else said.risk.probability
    return (
        said.detection_id,
        one.woman,
        said.score,
        said.rescored,
        one.lesion,
        risk,
        nearest,
        outcome_counts(said.similar),
    )


def _paired(frame: "pd.DataFrame") -> tuple["pd.DataFrame", tuple[str, ...]]:
    from exchange.twoviews import find_nipples, pair_views

    nipples, problems = find_nipples(sorted(set(frame["path"])))
    paired = pair_views(frame, nipples)
    return paired, tuple(f"{path}: {reason}" for path, reason in problems)


TriageFolder = Annotated[Path, typer.Argument(help="Folder of a triage.", metavar="TRIAGE")]
TruthPath = Annotated[Path, typer.Argument(help="Manifest with the lesions' boxes.", metavar="TRUTH")]


@rescore_app.command("fit")
def rescore_fit(
    folder: TriageFolder,
    truth: TruthPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="File of the rescoring.")],
    as_json: JsonFlag = False,
) -> None:
    """Learn from a triage whose truth is known how a detector's score and the gallery's evidence go together.

    \b
    Example:
      mammoseek rescore fit triage-of-last-year truth.csv -o rescorer.json
      mammoseek triage gallery tonight.csv --rescorer rescorer.json -o tonight
    """
    from embedder.manifest import read_manifest
    from exchange.judgedopinions import judge_opinions

    check_output(output)
    judged = judge_opinions(folder, read_manifest(truth, check_images=False))
    fitted = judged.fit()
    fitted.save(output)
    if as_json:
        print_json({"rescorer": str(output), "basis": fitted.basis, **fitted.to_dict(), "notes": list(judged.notes)})
        return
    say_notes(judged.notes)
    say(f"{int(judged.hits.sum())} of {len(judged.hits)} detections mark a lesion; {fitted.basis}")


@rescore_app.command("cross-validate")
def rescore_cross_validate(
    folder: TriageFolder,
    truth: TruthPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table of the detections with new scores, .csv.")],
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds of women.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Give every detection of a triage the new score of a rescoring that was fitted without her woman.

    The gallery's own model must not have been trained on these women either.

    \b
    Example:
      mammoseek rescore cross-validate triage truth.csv -o rescored.csv
      mammoseek evaluate-detections truth.csv detections.csv --rescored rescored.csv -o evaluation
    """
    from embedder.manifest import read_manifest
    from exchange.formats import write_detections
    from exchange.judgedopinions import judge_opinions

    check_output(output)
    judged = judge_opinions(folder, read_manifest(truth, check_images=False))
    write_detections(output, judged.cross_fitted(folds=folds, seed=seed), "csv")
    if as_json:
        print_json({"table": str(output), "detections": len(judged.hits), "notes": list(judged.notes)})
        return
    say_notes(judged.notes)
    say(f"Wrote {len(judged.hits)} detections with new scores to {output}")


@app.command("evaluate-detections")
def evaluate_detections(
    truth: Annotated[
        Path,
        typer.Argument(
            help="Manifest of every image that was looked at: findings with their boxes, and whole breasts.",
            metavar="TRUTH",
        ),
    ],
    path: DetectionsPath,
    rescored: Annotated[
        Path | None, typer.Option(help="Detections to compare with them, such as the same with other scores.")
    ] = None,
    images: ImageFolders = None,
    manifest: ImageManifest = None,
    kind: DetectionKind = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for a page with plots, JSON, text and each detection's outcome."),
    ] = None,
    rule: Annotated[
        str, typer.Option(help="What a hit is: centre (the box's middle lies in the lesion) or iou (boxes overlap).")
    ] = "centre",
    iou: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="With --rule iou: least intersection over union.")
    ] = 0.2,
    duplicates: Annotated[
        str, typer.Option(help="A second hit on a lesion: ignored, or false (a false positive, as COCO has it).")
    ] = "ignored",
    resamples: Resamples = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the resamples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Score detections against truth: FROC and average precision, with 95 % intervals over women.

    False positives are counted over all images of TRUTH, those without a lesion or a detection too.

    \b
    Examples:
      mammoseek evaluate-detections truth.csv cad.csv -o evaluation
      mammoseek evaluate-detections truth.csv cad.csv --rescored cad-rescored.csv -o evaluation
      mammoseek evaluate-detections truth.csv cad.csv --rule iou --iou 0.5 --json
    """
    from embedder.manifest import read_manifest
    from exchange.froc import FrocConfig, score_detections
    from exchange.froccomparison import compare_detections
    from exchange.frocpage import PAGE, evaluation_json, evaluation_text, write_evaluation
    from exchange.judging import read_truth
    from exchange.matching import MatchingRule

    config = FrocConfig(MatchingRule(rule, iou=iou, duplicates=duplicates), resamples=resamples, seed=seed)
    known = read_truth(read_manifest(truth, check_images=False))
    given = {"given": path} if rescored is None else {"given": path, "rescored": rescored}
    failures: list[tuple[str, str]] = []
    tables = {}
    for name, place in given.items():
        reading = _read_detections(place, images, manifest, kind=kind)
        tables[name] = reading.frame()
        failures += [(f"{place.name}, {row}", reason) for row, reason in reading.problems]
    scores = {}
    for name, table in tables.items():
        with progress_bar(f"Scoring what is {name}") as progress:
            scores[name] = score_detections(known, table, config, progress=progress)
    comparison = None
    if rescored is not None:
        with progress_bar("Comparing") as progress:
            comparison = compare_detections(known, tables["given"], tables["rescored"], config, progress=progress)
    if as_json:
        print_json(evaluation_json(scores, comparison))
    else:
        typer.echo(evaluation_text(scores, comparison), nl=False)
    if output is not None:
        write_evaluation(output, scores, comparison)
        say(f"Page in {output / PAGE}")
    report_failures(failures, "rows")


@app.command("report")
def report_command(
    report: Annotated[Path, typer.Argument(help="A structured report that mammoseek wrote, .dcm.", metavar="REPORT")],
    as_json: JsonFlag = False,
) -> None:
    """Print what a structured report of mammoseek says of each finding.

    \b
    Examples:
      mammoseek report triage/reports/2.25.1234.dcm
      mammoseek report report.dcm --json
    """
    from exchange.reportreading import read_opinions
    from exchange.srfile import read_sr_file

    found = read_opinions(read_sr_file(report))
    if as_json:
        print_json(found.to_dict())
        return
    print_table(
        ("detection", "image", "box", "score", "rescored", "risk", "no close precedent", "outcomes of similar cases"),
        [
            (
                one.detection_id,
                one.sop_uid,
                one.box and ",".join(map(str, one.box)),
                one.score,
                one.rescored,
                one.risk and one.risk.probability,
                one.no_close_precedent,
                ", ".join(case.outcome or "unknown" for case in one.similar),
            )
            for one in found.opinions
        ],
        f"Study {found.study_uid}, model {found.model_digest[:12]}, gallery generation {found.gallery_generation}",
    )
    for one in found.opinions:
        for note in one.notes:
            say(f"note: {one.detection_id}: {note}")
