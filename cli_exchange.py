"""The commands of second opinions: triage, rescoring, what they are worth, and reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli_detections import (
    DetectionKind,
    DetectionOptions,
    DetectionsPath,
    DetectorName,
    DetectorVersion,
    ImageFolders,
    ImageManifest,
    say_reading,
)
from cli_options import (
    Device,
    GalleryPath,
    JsonFlag,
    Model,
    NameCases,
    Resamples,
    RescorerFile,
    Workers,
    option_groups,
)
from console import check_output, interruptible, print_json, print_table, progress_bar, report_failures, say, say_notes

if TYPE_CHECKING:
    import pandas as pd

    from exchange.secondreader import Opinion

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""
rescore_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="New scores, learned from detections whose truth is known."
)


@app.command("triage")
@option_groups
def triage_command(
    gallery: GalleryPath,
    path: DetectionsPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the opinions.")],
    *,
    source: DetectionOptions,
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
    reading = source.read(path, detector=detector, detector_version=detector_version)
    if not as_json:
        say_reading(path, reading)
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
        reading = DetectionOptions(images, manifest, kind=kind).read(place)
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
