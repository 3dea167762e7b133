"""The commands of data sets: from images and tables to manifests."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli_options import Device, JsonFlag, ManifestPath, Workers
from console import check_output, interruptible, print_json, print_table, progress_bar, report_failures, say, tell

dataset_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="From data sets to manifests.")

ManifestToWrite = Annotated[Path, typer.Option("-o", "--output", help="Manifest to write, .csv or .parquet.")]


@dataset_app.command("read")
def dataset_read(
    name: Annotated[str, typer.Argument(help="mini-mias, cbis-ddsm, rsna or table.")],
    path: Annotated[Path, typer.Argument(help="The data set's folder, or the table's file.")],
    output: ManifestToWrite,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="For `table`: the manifest's column and the table's, as patient_id=woman.",
            metavar="OURS=THEIRS",
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="For `table`: the name of the data set.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read a public data set in its official layout, or a table of your own, into a manifest.

    \b
    Examples:
      mammoseek dataset read mini-mias ~/mini-mias -o mini-mias.csv
      mammoseek dataset read cbis-ddsm ~/CBIS-DDSM -o cbis.parquet
      mammoseek dataset read table findings.csv --column path=image --column patient_id=woman -o mine.csv
    """
    from embedder.datasets import read_dataset
    from embedder.manifest import write_manifest

    options: dict[str, Any] = {}
    if column:
        pairs = [pair.partition("=") for pair in column]
        wrong = [pair for pair in column if "=" not in pair]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]!r} is not OURS=THEIRS", param_hint="--column")
        options["columns"] = {ours: theirs for ours, _, theirs in pairs}
    if dataset:
        options["dataset"] = dataset
    check_output(output)
    if output.exists() and output.resolve() == path.resolve():
        raise typer.BadParameter("it is the table that is read: name another file", param_hint="--output")
    with progress_bar("Reading") as progress:
        reading = read_dataset(name, path, progress=progress, **options)
    write_manifest(reading.frame, output)
    if as_json:
        print_json({"manifest": str(output), **reading.to_dict()})
        return
    typer.echo(reading.summary())
    say(f"Wrote {len(reading.frame)} rows to {output}")


@dataset_app.command("check")
def dataset_check(manifest: ManifestPath, as_json: JsonFlag = False) -> None:
    """Check a manifest: types, terms, boxes inside their images, duplicate ids, women in one split only.

    \b
    Example:
      mammoseek dataset check mini-mias.csv
    """
    from embedder.findings import patient_key
    from embedder.manifest import manifest_digest, read_manifest

    frame = read_manifest(manifest)
    missing = sorted(path for path in frame["path"].unique() if not Path(path).is_file())
    found = {
        "manifest": str(manifest),
        "rows": len(frame),
        "women": int(patient_key(frame).nunique()),
        "findings": int((frame["granularity"] == "finding").sum()),
        "breasts": int((frame["granularity"] == "breast").sum()),
        "digest": manifest_digest(frame),
        "missing_images": missing,
    }
    if as_json:
        print_json(found)
    else:
        print_table(("what", "value"), [(k, v if k != "missing_images" else len(missing)) for k, v in found.items()])
    report_failures([(path, "there is no such image") for path in missing], "images")


@dataset_app.command("terms")
def dataset_terms(as_json: JsonFlag = False) -> None:
    """Show the columns of a manifest and the terms that each one knows.

    \b
    Example:
      mammoseek dataset terms
    """
    from embedder.findings import COLUMNS, KNOWN_TERMS, REQUIRED_COLUMNS, TISSUE_TERMS

    terms = {**KNOWN_TERMS, "tissue": TISSUE_TERMS}
    if as_json:
        print_json({"columns": COLUMNS, "required": REQUIRED_COLUMNS, "terms": terms})
        return
    rows = [(name, "required" if name in REQUIRED_COLUMNS else "", ", ".join(terms.get(name, ()))) for name in COLUMNS]
    rows.append(("tissue", "where added", ", ".join(TISSUE_TERMS)))
    print_table(("column", "", "terms"), rows)


@dataset_app.command("normal")
def dataset_normal(
    manifest: ManifestPath,
    output: ManifestToWrite,
    per_image: Annotated[int, typer.Option(min=1, max=1000, help="Places on an image, at most.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the draw.")] = 0,
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Add places of normal tissue, as large and as placed as lesions, and a label `tissue`: lesion or normal.

    They lie in the breast, away from all marks, on images whose normal tissue is known: none where a lesion has no
    place, or where nothing is said of the breast.

    \b
    Examples:
      mammoseek dataset normal mini-mias.csv -o with-normal.csv
      mammoseek dataset normal mini-mias.csv --per-image 1 --seed 7 -o with-normal.parquet
    """
    from embedder.manifest import read_manifest, write_manifest
    from embedder.normaltissue import add_normal_tissue

    check_output(output)
    frame = read_manifest(manifest)
    with progress_bar("Reading") as progress:
        found = add_normal_tissue(frame, per_image=per_image, seed=seed, workers=workers, progress=progress)
    write_manifest(found.frame, output)
    told = [f"Wrote {len(found.frame)} rows to {output}: {found.added} of normal tissue on {found.images} images"]
    if found.left_out:
        told.append(f"{found.left_out} images were left out: what is normal on them is not known")
    tell(as_json, {"manifest": str(output), **found.to_dict()}, *told)
    report_failures(found.failures, "images")


@dataset_app.command("mine")
def dataset_mine(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="Folder of a model of findings.")],
    output: ManifestToWrite,
    per_image: Annotated[int, typer.Option(min=1, max=1000, help="Places to add on an image, at most.")] = 2,
    candidates: Annotated[int, typer.Option(min=1, max=10_000, help="Places to look at on an image.")] = 12,
    minimum: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The least probability of a lesion that makes a place hard.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the draw.")] = 0,
    device: Device = "auto",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Add hard negatives: normal tissue of the training women that a model takes for lesions, for a second training.

    Test and validation women are left alone. What is mined is for training, not for a cross-validation: the model
    that chose it has seen every training woman.

    \b
    Example:
      mammoseek dataset mine with-normal.csv --model model -o harder.csv
    """
    from classifiers.mining import mine_hard_negatives
    from embedder.manifest import read_manifest, write_manifest

    check_output(output)
    frame = read_manifest(manifest)
    with progress_bar("Reading") as progress:
        found = mine_hard_negatives(
            frame,
            model,
            per_image=per_image,
            candidates=candidates,
            minimum=minimum,
            seed=seed,
            device=device,
            workers=workers,
            progress=progress,
        )
    write_manifest(found.frame, output)
    looked = f"{found.candidates} places of {found.women} training women"
    told = f"Wrote {len(found.frame)} rows to {output}: {found.added} hard negatives of {looked}"
    tell(as_json, {"manifest": str(output), **found.to_dict()}, told)
    report_failures(found.failures, "rows")


@dataset_app.command("false-alarms")
def dataset_false_alarms(
    manifest: ManifestPath,
    gallery: Annotated[
        Path, typer.Option("--gallery", help="Gallery of these women's lesions and normal tissue.", metavar="GALLERY")
    ],
    output: ManifestToWrite,
    per_image: Annotated[int, typer.Option(min=1, max=1000, help="Places to add on an image, at most.")] = 5,
    minimum: Annotated[float, typer.Option(min=0.0, max=1.0, help="The least score of a false alarm.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the parts that the women are taken in.")] = 0,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Add what `mammoseek detect` marks on the training women's images where nothing is, as normal tissue.

    Train on the new manifest, or build the gallery from it, and search again: fewer places of that kind are marked.
    A woman's images are searched with what is known of others. Test and validation women are left alone.

    \b
    Example:
      mammoseek dataset false-alarms with-normal.csv --gallery gallery -o harder.csv
      mammoseek train harder.csv -o second-model
      mammoseek index build harder.csv --model second-model -o second-gallery
    """
    from embedder.manifest import read_manifest, write_manifest
    from exchange.falsealarms import add_false_alarms

    check_output(output)
    frame = read_manifest(manifest)
    with progress_bar("Searching") as progress:
        found = add_false_alarms(
            frame, gallery, per_image=per_image, minimum=minimum, seed=seed, device=device, progress=progress
        )
    write_manifest(found.frame, output)
    looked = f"on {found.images} of {found.searched} images of {found.women} women"
    told = f"Wrote {len(found.frame)} rows to {output}: {found.added} false alarms {looked}"
    tell(as_json, {"manifest": str(output), **found.to_dict()}, told)
    report_failures(found.failures, "images")


@dataset_app.command("download")
def dataset_download(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")],
    url: Annotated[str | None, typer.Option(help="Another place that serves the official archive.")] = None,
) -> None:
    """Download mini-MIAS from its official home; an interrupted download goes on where it stopped.

    \b
    Example:
      mammoseek dataset download data/mini-mias
    """
    from embedder.datasets.download import OFFICIAL_URL, download_mini_mias

    with interruptible("Run the same command again: the download goes on."), progress_bar("Downloading") as progress:
        place = download_mini_mias(folder, url=url or OFFICIAL_URL, progress=progress)
    say(f"mini-MIAS lies in {place}; its licence allows research only.")
