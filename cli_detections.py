"""The commands of detections: as files in and out, and our own search for places to look at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli_options import (
    Dataset,
    Device,
    ImageOptions,
    JsonFlag,
    Model,
    Workers,
    option_groups,
)
from console import check_output, print_json, print_table, progress_bar, report_failures, say, say_notes
from errors import MammoseekError

if TYPE_CHECKING:
    from exchange.formats import Reading

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""
detections_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Detections of other programs, in and out as files."
)

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
DetectionKind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="csv, json, coco-results, coco, yolo, vindr, cbis-ddsm, masks or cad-sr; told by the content"
        " unless given.",
    ),
]
DetectorName = Annotated[str | None, typer.Option("--detector", help="The detector, where the file does not name it.")]
DetectorVersion = Annotated[str | None, typer.Option("--detector-version", help="Its version, likewise.")]


@dataclass(frozen=True)
class DetectionOptions:
    """Whose images detections are on, and as what their file is taken."""

    images: ImageFolders = None
    manifest: ImageManifest = None
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Data set of the women in --images: the gallery's name for it, so that a woman does not answer"
            " herself. The folder's name unless given.",
        ),
    ] = None
    patient_from_name: Annotated[
        str | None,
        typer.Option(
            "--patient-from-name",
            help="Regular expression whose one group is the woman, searched in the path below --images.",
            metavar="REGEX",
        ),
    ] = None
    kind: DetectionKind = None

    def read(self, path: Path, labels: list[str] | None = None, **given: Any) -> "Reading":
        """Read detections.

        Args:
            path: A file or a folder.
            labels: The lesion type that a label stands for, each as LABEL=TERM.
            given: Further fields of `exchange.formats.ReadOptions`.
        """
        from embedder.manifest import read_manifest
        from exchange.formats import ReadOptions, read_detections
        from exchange.images import ImageCatalogue, manifest_images

        wrong = [pair for pair in labels or [] if "=" not in pair]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]!r} is not LABEL=TERM", param_hint="--label")
        words = {word: term for word, _, term in (pair.rpartition("=") for pair in labels or [])}
        catalogue = None
        if self.images or self.manifest:
            known = manifest_images(read_manifest(self.manifest, check_images=False)) if self.manifest else []
            catalogue = ImageCatalogue(
                known, self.images or [], dataset=self.dataset, patient_from_name=self.patient_from_name
            )
        elif self.dataset or self.patient_from_name:
            raise typer.BadParameter("it is for the images of --images", param_hint="--dataset, --patient-from-name")
        options = ReadOptions(labels=words, **given)
        with progress_bar("Reading images") as progress:
            return read_detections(path, catalogue, self.kind, options=options, progress=progress)


@dataclass(frozen=True)
class FileOptions(DetectionOptions):
    """What a file of detections does not say itself besides."""

    companion: Annotated[
        Path | None, typer.Option(help="The COCO data set that COCO results refer to.", metavar="DATASET.JSON")
    ] = None
    names: Annotated[
        Path | None,
        typer.Option("--names", help="Names of classes, one a line or a YAML file's `names`.", metavar="FILE"),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="The lesion type that a label stands for. Repeatable.", metavar="LABEL=TERM"),
    ] = None
    detector: DetectorName = None
    detector_version: DetectorVersion = None
    minimum_area: Annotated[int, typer.Option(min=1, help="Parts of a mask with fewer pixels are left out.")] = 16
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Folder of the masks of a table of CBIS-DDSM.", metavar="FOLDER")
    ] = None

    def read_file(self, path: Path) -> "Reading":
        """Read detections with all that was said of them."""
        return self.read(
            path, self.label, companion=self.companion, names=self.names, detector=self.detector,
            detector_version=self.detector_version, minimum_area=self.minimum_area, masks=self.masks,
        )  # fmt: skip


@detections_app.command("convert")
@option_groups
def detections_convert(
    path: DetectionsPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write; for yolo and cad-sr a folder.")],
    to: Annotated[
        str | None, typer.Option("--to", help="csv, json, coco, yolo or cad-sr; by the suffix of OUT unless given.")
    ] = None,
    examined: Annotated[
        list[Path] | None,
        typer.Option(
            "--examined",
            help="For cad-sr: a DICOM image that the detector looked at, or a folder of them; without it nothing is"
            " said of images without detections. Repeatable.",
            metavar="PATH",
        ),
    ] = None,
    *,
    source: FileOptions,
    as_json: JsonFlag = False,
) -> None:
    """Read detections of any known kind, check them against their images, and write them as another kind.

    A row that can't be used is told with its reason and left out; the exit status is then 3. A CSV file that is
    written is a manifest of findings too. As cad-sr a DICOM report (Mammography CAD SR) is written for each study of
    DICOM images, which a PACS and a workstation take.

    \b
    Examples:
      mammoseek detections convert results.json --companion test.json --manifest test.csv -o detections.csv
      mammoseek detections convert labels/ --images films/ --patient-from-name '^(\\d+)_' -o detections.csv
      mammoseek detections convert finding_annotations.csv --images vindr/images -o truth.json --to coco
      mammoseek detections convert masks/ --manifest mini-mias.csv -o labels --to yolo
      mammoseek detections convert marks.csv --images study/ --examined study/ -o reports --to cad-sr
    """
    from exchange.cadwriting import Examined
    from exchange.formats import FOLDERS, WRITERS, check_new_folder, write_detections

    chosen = to or {".csv": "csv", ".json": "json"}.get(output.suffix.lower())
    if chosen not in WRITERS:
        raise typer.BadParameter(f"say one of {', '.join(WRITERS)}", param_hint="--to")
    if examined and chosen != "cad-sr":
        raise typer.BadParameter("it is for --to cad-sr", param_hint="--examined")
    if chosen in FOLDERS:
        check_new_folder(output)
    else:
        check_output(output)
    if output.exists() and output.resolve() == path.resolve():
        raise typer.BadParameter("it is what is read: name another file", param_hint="--output")
    reading = source.read_file(path)
    if reading.problems and not reading.detections:
        place, reason = reading.problems[0]
        raise MammoseekError(path, f"none of its rows can be used ({place}: {reason})", "nothing was written")
    if examined and reading.problems:
        # Else a report could say that there is nothing where a row that was left out says that there is.
        place, reason = reading.problems[0]
        raise MammoseekError(
            path, f"{len(reading.problems)} rows can't be used ({place}: {reason})", "correct them, or omit --examined"
        )
    looked_at = Examined.below(examined, source.detector, source.detector_version) if examined else None
    written = write_detections(output, reading.frame(), chosen, examined=looked_at)
    if as_json:
        print_json({"read": str(path), **reading.to_dict(), "written": [str(one) for one in written], "to": chosen})
    else:
        say_reading(path, reading)
        say(f"Wrote {len(reading.detections)} detections to {', '.join(str(one) for one in written)}")
    report_failures(reading.problems, "rows")


@detections_app.command("show")
@option_groups
def detections_show(
    path: DetectionsPath,
    *,
    source: FileOptions,
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
    reading = source.read_file(path)
    if as_json:
        print_json({"read": str(path), **reading.to_dict(), "rows": [asdict(one) for one in reading.detections]})
    else:
        say_reading(path, reading)
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


def say_reading(path: Path, reading: "Reading") -> None:
    """Say what was read: as what it was taken, and which of its rows can be used."""
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
    reading = DetectionOptions(images, manifest, kind=kind).read(path)
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
@option_groups
def detect(
    images: Annotated[list[Path], typer.Argument(help="Mammograms.", metavar="IMAGE...")],
    gallery: Annotated[
        Path,
        typer.Option(
            "--gallery", help="Gallery of lesions and normal tissue, see `mammoseek dataset normal`.", metavar="GALLERY"
        ),
    ],
    most: Annotated[int, typer.Option(min=1, max=1000, help="Candidates on an image, at most.")] = 5,
    minimum: Annotated[float, typer.Option(min=0.0, max=1.0, help="The least score.")] = 0.1,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table of candidates to write, .csv or .parquet.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each image with its heat map.", metavar="FOLDER")
    ] = None,
    cad_reports: Annotated[
        Path | None,
        typer.Option(
            "--cad-reports", help="New folder for a DICOM report (Mammography CAD SR) of each study.", metavar="FOLDER"
        ),
    ] = None,
    patient: Annotated[str | None, typer.Option(help="The images' woman, where the files do not name her.")] = None,
    dataset: Dataset = None,
    *,
    reading: ImageOptions,
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
      mammoseek detect study/*.dcm --gallery gallery --cad-reports reports
    """
    from classifiers.cases import Source
    from embedder.manifest import write_manifest
    from exchange.cadwriting import Examined
    from exchange.detecting import DETECTOR, DetectConfig, Detector, candidates_frame, draw_all
    from exchange.formats import check_new_folder, write_detections

    check_output(output)
    if cad_reports is not None:
        check_new_folder(cad_reports)
    if len(images) > 1 and reading.frame is not None:
        raise typer.BadParameter("a frame is of one image", param_hint="--frame")
    config = DetectConfig(most=most, minimum=minimum, looks=max(24, 2 * most))
    with progress_bar("Looking at known places") as progress:
        detector = Detector(gallery, model=model, device=device, config=config, progress=progress)
    sources = [
        Source(
            path=path,
            patient=patient,
            dataset=dataset,
            spacing_mm=reading.spacing_mm,
            view=reading.view,
            frame=reading.frame,
            allow_for_processing=reading.for_processing,
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
    if cad_reports is not None:
        # Of several frames one was looked at, which is no claim about the image.
        whole = tuple(answer.path for answer in answers if reading.frame is None)
        looked_at = Examined(whole, DETECTOR, detector.version)
        write_detections(cad_reports, candidates_frame(answers), "cad-sr", examined=looked_at)
        say(f"CAD reports in {cad_reports}")
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
