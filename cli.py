"""The command `mammoseek`: reads arguments, calls one function of a room, prints."""

from pathlib import Path
from typing import Annotated, Any

import typer

import cli_exchange
import cli_pacs
import cli_privacy
import console
from console import (
    check_output,
    interruptible,
    print_json,
    print_table,
    progress_bar,
    report_failures,
    say,
    training_callbacks,
)
from errors import MammoseekError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Find similar cases in mammography: train an embedder, index findings, query, classify, evaluate."
    " Not a medical device: for research, not for diagnosis.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="From data sets to manifests.")
roi_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See what the network sees.")
model_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Models without training, and their cards.")
index_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Galleries: build, add, remove, info, verify."
)
benchmark_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Declared benchmarks: run one, compare two."
)
app.add_typer(dataset_app, name="dataset")
app.add_typer(roi_app, name="roi")
app.add_typer(model_app, name="model")
app.add_typer(index_app, name="index")
app.add_typer(benchmark_app, name="benchmark")
weak_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Whole images that say only cancer or none.")
app.add_typer(weak_app, name="weak")

app.add_typer(cli_exchange.app)
app.add_typer(cli_privacy.app)
app.add_typer(cli_pacs.pacs_app, name="pacs")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ManifestPath = Annotated[Path, typer.Argument(help="Manifest, .csv or .parquet.", metavar="MANIFEST")]
GalleryPath = Annotated[Path, typer.Argument(help="Folder of the gallery.", metavar="GALLERY")]
# A text: a path would lose one of an address's slashes.
GalleryPlace = Annotated[
    str,
    typer.Argument(help="Folder of the gallery, or milvus://host:port/collection.", metavar="GALLERY"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[int | None, typer.Option(min=1, max=256, help="Threads that read images; one a core unless set.")]
Granularity = Annotated[str | None, typer.Option(help="finding or breast.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe, see `mammoseek model recipe`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Set one option of the recipe, such as training.epochs=10. Repeatable.", metavar="NAME=VALUE"
    ),
]
WeakSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one option, such as scorer.method=attention. Repeatable.", metavar="NAME=VALUE"),
]
Model = Annotated[Path | None, typer.Option("--model", help="The model, where it is not the copy kept in the gallery.")]
Ray = Annotated[
    str | None,
    typer.Option(help="Embed on a Ray cluster: local, auto, or ray://host:port.", metavar="ADDRESS"),
]
Engine = Annotated[
    str | None, typer.Option(help="Search engine, see `mammoseek index rebuild`; auto unless given.", metavar="ENGINE")
]
TargetRecall = Annotated[
    float | None, typer.Option(min=0.5, max=1.0, help="Share of the 10 nearest that must be found; 0.98 unless given.")
]
IndexMemory = Annotated[
    float | None, typer.Option("--memory", min=0.001, help="GiB that the index may take beside the vectors.")
]
BoxText = Annotated[
    str | None, typer.Option("--box", help="The place, in pixels of the stored image.", metavar="X0,Y0,X1,Y1")
]
Where = Annotated[
    str | None,
    typer.Option(help="Only neighbours for which this holds, such as \"density == 'dense' and view == 'MLO'\"."),
]
Patient = Annotated[str | None, typer.Option(help="The query's woman, where the file does not name her.")]
Dataset = Annotated[str | None, typer.Option(help="The data set whose id --patient is; every data set unless named.")]
SamePatient = Annotated[bool, typer.Option("--include-same-patient", help="Let the woman's own findings answer.")]
Frame = Annotated[int | None, typer.Option(min=1, help="The frame of a multi-frame image, from 1.")]
ForProcessing = Annotated[bool, typer.Option("--for-processing", help="Accept a For Processing image.")]
ImagePath = Annotated[
    Path | None, typer.Argument(help="The mammogram: DICOM, PNG, JPEG, PGM or TIFF.", metavar="IMAGE")
]
Spacing = Annotated[
    float | None, typer.Option("--spacing-mm", min=0.001, max=5.0, help="mm per pixel, where the file does not say.")
]
View = Annotated[str | None, typer.Option(help="The view (CC, MLO, …), where the file does not say.")]


def main() -> None:
    """Run the command line."""
    import warnings

    # What libraries warn their programmers of is no message to mammoseek's users; our own messages are printed.
    warnings.simplefilter("ignore")
    console.run(app)


def _version(show: bool) -> None:
    if show:
        from embedder.checkpoint import code_version

        typer.echo(f"mammoseek {code_version()}")
        raise typer.Exit


@app.callback()
def _root(
    _version_flag: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


# ----------------------------------------------------------------------------------------------- data sets


@dataset_app.command("read")
def dataset_read(
    name: Annotated[str, typer.Argument(help="mini-mias, cbis-ddsm, rsna or table.")],
    path: Annotated[Path, typer.Argument(help="The data set's folder, or the table's file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write, .csv or .parquet.")],
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
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write, .csv or .parquet.")],
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
    if as_json:
        print_json({"manifest": str(output), **found.to_dict()})
    else:
        say(f"Wrote {len(found.frame)} rows to {output}: {found.added} of normal tissue on {found.images} images")
        if found.left_out:
            say(f"{found.left_out} images were left out: what is normal on them is not known")
    report_failures(found.failures, "images")


@dataset_app.command("mine")
def dataset_mine(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="Folder of a model of findings.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write, .csv or .parquet.")],
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
    if as_json:
        print_json({"manifest": str(output), **found.to_dict()})
    else:
        looked = f"{found.candidates} places of {found.women} training women"
        say(f"Wrote {len(found.frame)} rows to {output}: {found.added} hard negatives of {looked}")
    report_failures(found.failures, "rows")


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


# ------------------------------------------------------------------------------------- what the network sees


@roi_app.command("sheet")
def roi_sheet(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write, .png; pages are numbered.")],
    model: Annotated[Path | None, typer.Option(help="Use this model's preparation.")] = None,
    granularity: Granularity = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show at most, spread evenly.")] = 64,
    workers: Workers = None,
) -> None:
    """Draw contact sheets of exactly what the network will see, to be checked by eye.

    \b
    Examples:
      mammoseek roi sheet mini-mias.csv -o sheet.png
      mammoseek roi sheet mini-mias.csv --granularity breast --set preparation.remove_pectoral=true -o breasts.png
    """
    from embedder.checkpoint import read_card
    from embedder.contactsheet import contact_sheet
    from embedder.manifest import read_manifest

    preparation = read_card(model)[0].preparation if model else _recipe(recipe, settings, granularity).preparation
    frame = _of_granularity(read_manifest(manifest), preparation.granularity, manifest)
    with progress_bar("Drawing") as progress:
        report = contact_sheet(frame, preparation, output, limit=limit, workers=workers, progress=progress)
    for page in report.pages:
        typer.echo(str(page))
    report_failures(report.failures, "rows")


def _recipe(path: Path | None, settings: list[str] | None, granularity: str | None):  # type: ignore[no-untyped-def]
    from embedder.recipe import Recipe

    recipe = Recipe.read(path, granularity) if path else Recipe.default(granularity or "finding")
    recipe = recipe.with_settings(settings or [])
    if granularity is not None and recipe.preparation.granularity != granularity:
        raise typer.BadParameter(
            f"the recipe is for granularity {recipe.preparation.granularity}", param_hint="--granularity"
        )
    return recipe


def _of_granularity(frame, granularity: str, manifest: Path):  # type: ignore[no-untyped-def]
    chosen = frame[frame["granularity"] == granularity].reset_index(drop=True)
    if chosen.empty:
        raise MammoseekError(
            manifest, f"has no rows of granularity {granularity}", "choose the other one by --granularity"
        )
    return chosen


# -------------------------------------------------------------------------------------------------- models


@model_app.command("recipe")
def model_recipe(granularity: Granularity = None, recipe: RecipeFile = None, settings: Settings = None) -> None:
    """Print a recipe with all its options as TOML: our defaults, or yours completed.

    \b
    Example:
      mammoseek model recipe --granularity breast > breast.toml
    """
    typer.echo(_recipe(recipe, settings, granularity).to_toml(), nl=False)


@model_app.command("pretrained")
def model_pretrained(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.")],
    granularity: Granularity = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            "--fit", metavar="MANIFEST", help="Standardise hand-crafted descriptors on these rows; `test` is left out."
        ),
    ] = None,
) -> None:
    """Make a model without training: a pretrained backbone's pooled features as vectors.

    Hand-crafted descriptors (--set preparation.descriptors) are put beside them, standardised on the rows of --fit.

    \b
    Examples:
      mammoseek model pretrained -o frozen
      mammoseek model pretrained --set network.backbone=resnet18 --set network.weights=resnet18.safetensors -o frozen
      mammoseek model pretrained --set 'preparation.descriptors=["margin","texture"]' --fit manifest.csv -o fused
    """
    from embedder.embedding import pretrained_model

    chosen = _recipe(recipe, settings, granularity)
    known = None
    if fit is not None:
        from embedder.manifest import read_manifest
        from embedder.training import known_crops

        known = known_crops(read_manifest(fit), chosen.preparation)
    digest = pretrained_model(output, chosen.network, chosen.preparation, known)
    say(f"Model {digest[:12]} in {output}")


@model_app.command("compact")
def model_compact(
    model: Annotated[Path, typer.Argument(help="Folder of the model.", metavar="MODEL")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new model.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a model with 16-bit weights, half the size, for passing it on. It is another model: index anew with it.

    \b
    Example:
      mammoseek model compact model -o small-model
    """
    from embedder.checkpoint import compact_model

    digest = compact_model(model, output)
    if as_json:
        print_json({"model": str(output), "digest": digest})
    else:
        say(f"Model {digest[:12]} in {output}")


@model_app.command("list")
def model_list(as_json: JsonFlag = False) -> None:
    """List the starter models that come with mammoseek, with what was measured of them.

    \b
    Example:
      mammoseek model list
    """
    from classifiers.starter import list_starters

    found = list_starters()
    if as_json:
        print_json([starter.to_dict() for starter in found])
        return
    rows = [[each.name, each.granularity, each.rows, each.women, f"{each.megabytes:.1f} MB"] for each in found]
    print_table(("name", "granularity", "reference rows", "women", "size"), rows)
    for each in found:
        typer.echo(f"\n{each.name}: {each.licence} Measured by {each.protocol}.")
        print_table(("label", "score", "measured on unseen women"), [list(figure) for figure in each.figures])
    typer.echo("\nNot a medical device: for research, not for diagnosis. `mammoseek model get NAME -o FOLDER`")


@model_app.command("get")
def model_get(
    name: Annotated[str, typer.Argument(help="See `mammoseek model list`.", metavar="NAME")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the gallery; its model is in model/.")],
    as_json: JsonFlag = False,
) -> None:
    """Take a starter model and its reference gallery, ready to be asked, or to start a training from.

    \b
    Examples:
      mammoseek model get finding -o starter
      mammoseek query starter image.dcm --box 1200,800,1500,1130
      mammoseek train mine.csv -o mine --set network.weights=starter/model/model.safetensors
    """
    from classifiers.starter import get_starter

    starter = get_starter(name, output)
    if as_json:
        print_json({"gallery": str(output), "model": str(output / "model"), **starter.to_dict()})
        return
    say(f"Gallery of {starter.rows} {starter.granularity} rows in {output}, its model in {output / 'model'}")
    say(f"{starter.licence} Not a medical device: for research, not for diagnosis.")


@model_app.command("info")
def model_info(
    model: Annotated[Path, typer.Argument(help="Folder of the model.", metavar="MODEL")], as_json: JsonFlag = False
) -> None:
    """Check a model's digest and show its card.

    \b
    Example:
      mammoseek model info model
    """
    from embedder.checkpoint import load_model

    _, card, digest = load_model(model)
    if as_json:
        print_json({"digest": digest, **card.to_dict()})
        return
    rows: list[tuple[str, object]] = [
        ("digest", digest),
        ("granularity", card.preparation.granularity),
        ("backbone", card.network.backbone),
        ("first weights", card.weights_origin),
        ("embedding", card.network.embedding_dimension or "pooled features"),
        ("input", f"{card.preparation.height} × {card.preparation.width} pixels"),
        ("code", card.code_version),
    ]
    rows += [(f"head {name}", ", ".join(classes)) for name, classes in card.heads.items()]
    rows += [(f"data: {name}", value) for name, value in card.data.items()]
    for name, value in card.figures.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"figure: {name} {part}".rstrip(), _figure(found)) for part, found in parts]
    print_table(("what", "value"), rows)


def _figure(found: object) -> object:
    """Return a figure of a card with its context in one cell."""
    if not isinstance(found, dict) or "value" not in found:
        return found
    ends = "no interval" if found["low"] is None else f"{found['low']:.2f}, {found['high']:.2f}"
    asked = f"{found['rows']} rows of {found['women']} women"
    return f"{found['value']:.2f} [{ends}], {asked} among {found['gallery_rows']} of {found['gallery_women']}"


# ------------------------------------------------------------------------------------------------ training


@app.command("train")
def train_command(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.")],
    granularity: Granularity = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Short for --set training.epochs=N.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label column to learn; all that can be unless given.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Train an embedder with classification and triplet losses; a stopped training goes on when it is called again.

    \b
    Examples:
      mammoseek train mini-mias.csv -o model
      mammoseek train mini-mias.csv --granularity breast --epochs 20 -o breast-model
      mammoseek train cbis.parquet --recipe my.toml --set training.objective.miner=batch-hard --device cuda -o model
    """
    from embedder.manifest import read_manifest
    from embedder.training import train

    settings = [*(settings or []), *([f"training.epochs={epochs}"] if epochs else [])]
    chosen = _recipe(recipe, settings, granularity)
    frame = read_manifest(manifest)
    with (
        interruptible("The last whole epoch is kept: run the same command again to go on."),
        progress_bar("Reading crops") as progress,
    ):
        result = train(
            frame,
            output,
            network=chosen.network,
            preparation=chosen.preparation,
            training=chosen.training,
            labels=tuple(label) if label else chosen.labels,
            metric_labels=chosen.metric_labels,
            device=device,
            workers=workers,
            callbacks=training_callbacks(progress),
        )
    if as_json:
        print_json({"digest": result.digest, "model": str(output), "card": result.card.to_dict()})
    else:
        say(f"Model {result.digest[:12]} in {output}")
    report_failures(result.failures, "rows")


# ----------------------------------------------------------------------------------------------- galleries


@index_app.command("build")
def index_build(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="Folder of the model.")],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Folder of the gallery, or milvus://host:port/collection.")
    ],
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep a small picture of each ROI in the gallery: it is patient data.")
    ] = False,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Keep the names of the image files without their folders.")
    ] = False,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = None,
    engine: Engine = None,
    target_recall: TargetRecall = None,
    memory: IndexMemory = None,
    as_json: JsonFlag = False,
) -> None:
    """Embed a manifest's rows into a gallery; rows that are there already are skipped, so a stopped build goes on.

    \b
    Examples:
      mammoseek index build mini-mias.csv --model model -o gallery
      mammoseek index build archive.parquet --model model --thumbnails -o gallery
      mammoseek index build archive.parquet --model model -o gallery --ray auto --engine ivf-pq
    """
    config = _engine_config(engine, target_recall, memory)
    further = {"engine": config, "names_only": names_only}
    _fill(manifest, model, output, thumbnails, device, workers, ray, further, as_json)


@index_app.command("add")
def index_add(
    gallery: GalleryPlace,
    manifest: ManifestPath,
    model: Model = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Keep a small picture of each ROI.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a manifest's rows to a gallery; rows that are there already are skipped.

    \b
    Example:
      mammoseek index add gallery tonight.csv
    """
    _fill(manifest, model, gallery, thumbnails, device, workers, ray, None, as_json)


def _fill(
    manifest: Path,
    model: Path | None,
    gallery: str,
    thumbnails: bool,
    device: str,
    workers: int | None,
    ray: str | None,
    further: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Fill a gallery: a new one with these further options, or one that is there (None)."""
    from classifiers.filling import add_to_gallery, new_gallery
    from embedder.manifest import read_manifest

    frame = read_manifest(manifest)
    with (
        interruptible("What was written is kept: run the same command again to go on."),
        progress_bar("Embedding") as progress,
    ):
        options: dict[str, Any] = {"thumbnails": thumbnails, "device": device, "workers": workers, "progress": progress}
        options["ray"] = ray
        if further is not None:
            assert model is not None
            report = new_gallery(frame, model, gallery, **further, **options)
        else:
            report = add_to_gallery(frame, gallery, model=model, **options)
    for line in report.cleaned:
        say(f"Cleaned up after a stopped writer: {line}")
    if as_json:
        print_json(
            {
                "gallery": str(gallery),
                "added": report.added,
                "already_there": report.already_there,
                "failures": report.failures,
                "notes": report.notes,
            }
        )
    else:
        there = f", {report.already_there} were there already" if report.already_there else ""
        say(f"Added {report.added} rows to {gallery}{there}")
    for note in report.notes:
        say(f"Note: {note}")
    report_failures(report.failures, "rows")


@index_app.command("remove")
def index_remove(
    gallery: GalleryPlace,
    patient: Annotated[str | None, typer.Option(help="Remove this woman.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Remove this data set, or the --patient of this data set.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Remove this examination.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Remove this row. Repeatable.")] = None,
    where: Annotated[str | None, typer.Option(help="Remove rows for which this holds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove rows so that their vectors, records and pictures are in no file of the gallery afterwards.

    Every file is read back and searched to prove it, and `removals.log` in the gallery says that it was done, without
    saying who was removed.

    \b
    Examples:
      mammoseek index remove gallery --patient mias-007 --dataset mini-mias
      mammoseek index remove gallery --where "dataset == 'trial' and age < 40"
    """
    from classifiers.filling import take_out

    with interruptible("Nothing was removed unless it was said: run the same command again."):
        report = take_out(gallery, patient=patient, dataset=dataset, study=study, row_ids=row or (), where=where)
    if as_json:
        print_json(report.to_dict())
    else:
        checked = "no question finds them" if "milvus" in gallery[:6] else "nothing of them is in any file"
        say(f"Removed {report.removed} rows, {report.remaining} are left. Checked: {checked}.")


@index_app.command("info")
def index_info(gallery: GalleryPlace, as_json: JsonFlag = False) -> None:
    """Show what a gallery holds and what it is bound to.

    \b
    Example:
      mammoseek index info gallery
    """
    from classifiers.filling import describe_gallery

    found = describe_gallery(gallery)
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", _line(item)) for key, item in value.items()]
        else:
            rows.append((name, _line(value)))
    print_table(("what", "value"), rows)


def _line(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or None
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    return value


@index_app.command("verify")
def index_verify(
    gallery: GalleryPath,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make a damaged index again, and delete what a killed writer left.")
    ] = False,
    drop_damaged: Annotated[
        bool, typer.Option("--drop-damaged", help="Give up damaged segments, after listing their rows.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check every digest of a gallery and name what is damaged, with the rows that it held.

    \b
    Examples:
      mammoseek index verify gallery
      mammoseek index verify gallery --repair
    """
    from classifiers.filling import verify_with_model
    from index.repair import repair_gallery

    report = verify_with_model(gallery)
    mended: tuple[str, ...] = ()
    if repair or drop_damaged:
        mended = repair_gallery(gallery, drop_damaged=drop_damaged)
        after = verify_with_model(gallery)
    else:
        after = report
    if as_json:
        print_json({**after.to_dict(), "before": report.to_dict(), "mended": mended} if mended else after.to_dict())
    else:
        print_table(
            ("file", "state", "rows", "what is wrong"), [(f.file, f.state, f.rows, f.problem) for f in report.files]
        )
        for file in report.damaged:
            if file.row_ids:
                more = f" and {len(file.row_ids) - 20} more" if len(file.row_ids) > 20 else ""
                typer.echo(f"{file.file} held {', '.join(file.row_ids[:20])}{more}")
        for line in mended:
            say(line)
        say("All is well." if after.ok else "The gallery is damaged.")
    if not after.ok:
        raise typer.Exit(console.EXIT_FAILED)


@index_app.command("rebuild")
def index_rebuild(
    gallery: GalleryPath,
    engine: Engine = None,
    target_recall: TargetRecall = None,
    memory: IndexMemory = None,
    training_rows: Annotated[int | None, typer.Option(min=1, help="Rows that the index is trained on.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--search", help="A search parameter, found by measuring unless given.", metavar="NAME=VALUE"),
    ] = None,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Make a gallery's index anew from its vectors, perhaps with another engine.

    Engines: auto (chosen by rows, memory and recall), exact, float16, int8, hnsw, ivf, ivf-sq, ivf-pq, or a FAISS
    factory string. All but exact propose candidates, which are then compared exactly with the query.

    \b
    Examples:
      mammoseek index rebuild gallery
      mammoseek index rebuild gallery --engine ivf-pq --target-recall 0.99
      mammoseek index rebuild gallery --engine "IVF4096,SQ8" --search nprobe=32 --device cuda
    """
    from classifiers.filling import index_device
    from index.indexing import rebuild_index

    config = _engine_config(engine, target_recall, memory, training_rows, parameter)
    with interruptible("The gallery is as it was: run the same command again."):
        description = rebuild_index(gallery, config, device=index_device(device), progress=say)
    if as_json:
        print_json(description)
        return
    print_table(("what", "value"), [(name, _line(value)) for name, value in description.items()])


@index_app.command("compact")
def index_compact(gallery: GalleryPath, as_json: JsonFlag = False) -> None:
    """Join the small segments that nightly additions leave; `index add` does it where many have gathered.

    \b
    Example:
      mammoseek index compact gallery
    """
    from index.writer import GalleryWriter

    with interruptible("The gallery is as it was: run the same command again."), GalleryWriter(gallery) as writer:
        fewer = writer.compact()
        segments, cleaned = len(writer.manifest.segments), writer.cleaned
    for line in cleaned:
        say(f"Cleaned up after a stopped writer: {line}")
    if as_json:
        print_json({"gallery": str(gallery), "segments": segments, "fewer": fewer})
    else:
        say(f"{segments} segments, {fewer} fewer than before")


@index_app.command("typicality")
def index_typicality(
    gallery: GalleryPlace,
    label: Annotated[str, typer.Option(help="The label column to judge by, such as pathology.", metavar="COLUMN")],
    below: Annotated[
        float | None, typer.Option(help="Only rows with a smaller score; 0.5 is chance.", metavar="SCORE")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List a gallery's rows by how well their neighbours agree with their label, most doubtful first.

    Ten neighbours are asked, one of each other woman, and compared with how frequent the label is: 0.5 is what women
    drawn at random would say, 0 a label that all neighbours contradict. A doubtful row is a rare case, a bad crop or a
    wrong label: look at it before you believe either.

    \b
    Examples:
      mammoseek index typicality gallery --label pathology
      mammoseek index typicality gallery --label density --below 0.3 --json
    """
    from index.doubtful import judge_rows

    with progress_bar("Asking neighbours") as progress:
        found = judge_rows(gallery, label, below=below, progress=progress).to_dict()
    if as_json:
        print_json(found)
        return
    rows = [
        (*(row[name] for name in ("row_id", "dataset", "patient_id", "label", "typicality")), _line(row["neighbours"]))
        for row in found["rows"]
    ]
    print_table(("row", "data set", "woman", label, "typicality", "neighbours"), rows)
    context = found["context"]
    named = "" if below is None else f", {len(rows)} are below {below:g}"
    typer.echo(
        f"{found['judged']} of {context['rows']} {context['granularity']}s could be judged{named}; 0.5 is chance."
        f" {label} is known of {context['labelled_rows']}, of {context['labelled_women']} women."
        f" Model {context['model_digest'][:12]}, gallery generation {context['gallery_generation']}."
    )


@index_app.command("copy")
def index_copy(
    source: Annotated[str, typer.Argument(help="Folder of the gallery, or its address on Milvus.")],
    target: Annotated[str, typer.Argument(help="Where to: an address on Milvus, or a folder.")],
    thumbnails: Annotated[bool, typer.Option(help="Copy the small pictures too.")] = True,
    milvus_index: Annotated[str, typer.Option(help="Milvus's index: FLAT is exact, HNSW is not.")] = "FLAT",
    as_json: JsonFlag = False,
) -> None:
    """Copy a gallery from a folder to Milvus, or back, without loss; a copy that was stopped goes on.

    \b
    Examples:
      mammoseek index copy gallery milvus://localhost:19530/findings
      mammoseek index copy gallery milvus:///data/findings.db/findings
      mammoseek index copy milvus://localhost:19530/findings gallery-back
    """
    from classifiers.filling import copy_gallery

    with interruptible("Run the same command again: the copy goes on."), progress_bar("Copying") as progress:
        report = copy_gallery(source, target, thumbnails=thumbnails, index=milvus_index, progress=progress)
    if as_json:
        print_json({"added": report.added, "already_there": report.already_there, "failures": report.failures})
    else:
        say(f"Copied {report.added} rows to {target}, {report.already_there} were there already")
    report_failures(report.failures, "rows")


def _engine_config(
    engine: str | None,
    target_recall: float | None,
    memory: float | None,
    training_rows: int | None = None,
    parameters: list[str] | None = None,
) -> dict[str, Any]:
    """Return what is asked of an engine; of what is not, the gallery goes on as it was asked before."""
    asked: dict[str, Any] = {
        "engine": engine,
        "target_recall": target_recall,
        "memory_bytes": None if memory is None else int(memory * (1 << 30)),
        "training_rows": training_rows,
    }
    if parameters:
        asked["search"] = {}
        for pair in parameters:
            name, _, value = pair.partition("=")
            try:
                asked["search"][name] = float(value)
            except ValueError:
                raise typer.BadParameter(f"{pair!r} is not NAME=NUMBER", param_hint="--search") from None
    return {name: value for name, value in asked.items() if value is not None}


# --------------------------------------------------------------------------------------- query and classify


@app.command("query")
def query_command(
    gallery: GalleryPlace,
    image: ImagePath = None,
    box: BoxText = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask with a row of the gallery instead of an image. Repeated: views of one finding.", metavar="ROW_ID"
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another view of the same finding. Repeatable.", metavar="IMAGE@X0,Y0,X1,Y1"),
    ] = None,
    fusion: Annotated[str, typer.Option(help="Several views: the mean of their similarities, or the max.")] = "mean",
    k: Annotated[int | None, typer.Option("-k", help="How many neighbours; 10 unless --minimum is given.")] = None,
    minimum: Annotated[
        float | None, typer.Option(help="Smallest similarity of a neighbour. Without -k: all that reach it.")
    ] = None,
    where: Where = None,
    typical_only: Annotated[
        str | None,
        typer.Option(
            help="Only neighbours whose own neighbours don't contradict their label: pathology, or pathology:0.5 for a"
            " typicality of 0.5 (chance) or more instead of 0.3. Rows without the label are not held out.",
            metavar="LABEL",
        ),
    ] = None,
    group_by: Annotated[str, typer.Option(help="Limit the rows of one woman, study or lesion.")] = "woman",
    per_group: Annotated[int, typer.Option(min=0, help="Rows of one group at most; 0 for no limit.")] = 1,
    per_class: Annotated[
        str | None,
        typer.Option(help="The nearest of each class: pathology, or COLUMN=VALUE,VALUE.", metavar="COLUMN"),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(help="Prefer what agrees, as in margin:0.1 or density=D:0.05. Repeatable.", metavar="FACET"),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="A row that is alike: the query moves toward it.", metavar="ROW_ID")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="A row that is not: the query moves away from it.", metavar="ROW_ID")
    ] = None,
    least_percentile: Annotated[
        float,
        typer.Option(help="No close precedent where fewer per cent of the gallery's women have one so far."),
    ] = 5.0,
    patient: Patient = None,
    dataset: Dataset = None,
    include_same_patient: SamePatient = False,
    spacing_mm: Spacing = None,
    view: View = None,
    frame: Frame = None,
    for_processing: ForProcessing = False,
    model: Model = None,
    montage: Annotated[Path | None, typer.Option(help="Write a picture of the query and its neighbours.")] = None,
    device: Device = "cpu",
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Go on without damaged segments.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the most similar findings of other women, with what is known of them: one of each woman, unless asked.

    \b
    Examples:
      mammoseek query gallery mdb028.png --box 282,653,395,766 --spacing-mm 0.2 -k 5 --montage answer.png
      mammoseek query gallery --row mdb028-1 --where "pathology in ('benign', 'malignant')" --json
      mammoseek query gallery cc.dcm --box 900,700,1100,930 --also mlo.dcm@1200,800,1500,1130 --per-class pathology
      mammoseek query gallery --row mdb028-1 --prefer margin:0.1 --prefer density:0.05 --like mdb010-1 --unlike mdb005-1
      mammoseek query gallery --row mdb028-1 --minimum 0.9
      mammoseek query gallery --row mdb028-1 --typical-only pathology
      mammoseek query milvus://localhost:19530/findings --row mdb028-1
    """
    from classifiers.cases import ask_source
    from index.answers import Question
    from index.facets import Facet
    from index.grouping import PerClass
    from index.refinement import Refinement
    from index.typicalrows import Typical

    names: list[str | None] = [*row] if row else [None]
    first, *further = [
        _source(image, box, name, patient, dataset, spacing_mm, view, frame, for_processing) for name in names
    ]
    further += [_other_view(text, spacing_mm, for_processing) for text in also or ()]
    answer = ask_source(
        gallery,
        first,
        Question(
            k=k if k is not None or minimum is not None else 10,
            where=where,
            include_same_patient=include_same_patient,
            minimum=minimum,
            group_by=group_by,
            per_group=per_group,
            per_class=None if per_class is None else PerClass.parse(per_class),
            facets=tuple(Facet.parse(text) for text in prefer or ()),
            refinement=Refinement(tuple(like or ()), tuple(unlike or ())) if like or unlike else None,
            fusion=fusion,  # type: ignore[arg-type]
            least_percentile=least_percentile,
            typical=None if typical_only is None else Typical.parse(typical_only),
        ),
        further=further,
        model=model,
        device=device,
        montage=montage,
        skip_damaged=skip_damaged,
    )
    found = answer.to_dict()
    if as_json:
        print_json(found)
    else:
        shown = [name.replace("_", " ") for name in _SHOWN]
        for title, neighbours in _lists(found):
            rows = [
                (
                    *(n["rank"], n["row_id"], n["patient_id"], n["similarity"]),
                    *(n.get(name) for name in _SHOWN),
                    Path(n["path"] or "").name,
                )
                for n in neighbours
            ]
            print_table(("rank", "row", "woman", "similarity", *shown, "image"), rows, title)
        excluded = found["excluded_patient"]
        typer.echo(f"Left out: {excluded} ({found['excluded_rows']} rows)" if excluded else "Left out: nobody")
        near = found["closeness"]
        if near and near["percentile"] is not None and not near["no_close_precedent"]:
            typer.echo(
                f"Closest precedent: {near['best_similarity']:.3f}, closer than what {near['percentile']:.0f} % of"
                " the gallery's women find among the others"
            )
        _print_notes(found["notes"])
    if montage:
        say(f"Montage in {montage}")


def _lists(found: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the neighbours of an answer as one list, or as one of each class."""
    neighbours = found["neighbours"]
    if found["classes"] is None:
        return [("", neighbours)]
    lists, start = [], 0
    for part in found["classes"]:
        lists.append((f"{part['value']}:", neighbours[start : start + part["neighbours"]]))
        start += part["neighbours"]
    return lists


def _other_view(text: str, spacing_mm: float | None, for_processing: bool):  # type: ignore[no-untyped-def]
    from classifiers.cases import Source
    from embedder.findings import Box

    path, at, box = text.rpartition("@")
    return Source(
        path=Path(path if at else box),
        box=Box.parse(box) if at else None,
        spacing_mm=spacing_mm,
        allow_for_processing=for_processing,
    )


_SHOWN = ("lesion_type", "pathology", "density", "laterality", "view")


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        typer.echo(f"Note: {note}")


def _source(  # type: ignore[no-untyped-def]
    image: Path | None,
    box: str | None,
    row: str | None,
    patient: str | None,
    dataset: str | None,
    spacing_mm: float | None,
    view: str | None,
    frame: int | None,
    for_processing: bool,
):
    from classifiers.cases import Source
    from embedder.findings import VIEWS, Box

    if (image is None) == (row is None):
        raise typer.BadParameter("name either an IMAGE or a --row of the gallery")
    if view is not None and view not in VIEWS:
        raise typer.BadParameter(f"{view!r} is none of {', '.join(VIEWS)}", param_hint="--view")
    return Source(
        path=image,
        box=Box.parse(box) if box is not None else None,
        row_id=row,
        patient=patient,
        dataset=dataset,
        spacing_mm=spacing_mm,
        view=view,
        frame=frame,
        allow_for_processing=for_processing,
    )


@app.command("classify")
def classify_command(
    gallery: GalleryPlace,
    image: ImagePath = None,
    box: BoxText = None,
    row: Annotated[
        list[str] | None,
        typer.Option(help="Classify a row of the gallery. Repeated: views of one finding.", metavar="ROW_ID"),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another view of the same finding, or the other breast, repeatable.", metavar="IMAGE[@X0,Y0,X1,Y1]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A label column; every usual one that can be answered unless given.")
    ] = None,
    patient: Patient = None,
    dataset: Dataset = None,
    spacing_mm: Spacing = None,
    view: View = None,
    frame: Frame = None,
    for_processing: ForProcessing = False,
    model: Model = None,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Classify a place by the vote of its neighbours and by a linear head, side by side, with calibrated probabilities.

    The woman's own findings neither vote nor train: everything is fitted on other women.

    \b
    Examples:
      mammoseek classify gallery mdb028.png --box 282,653,395,766 --spacing-mm 0.2 --target pathology
      mammoseek classify gallery --row mdb028-1 --json
      mammoseek classify breasts mdb027.png --also mdb028.png --target density
    """
    from classifiers.cases import classify_source

    names: list[str | None] = [*row] if row else [None]
    first, *further = [
        _source(image, box, name, patient, dataset, spacing_mm, view, frame, for_processing) for name in names
    ]
    further += [_other_view(text, spacing_mm, for_processing) for text in also or ()]
    found = classify_source(
        gallery,
        first,
        further=further,
        targets=tuple(target) if target else None,
        model=model,
        device=device,
    ).to_dict()
    if as_json:
        print_json(found)
        return
    for answer in found["targets"]:
        _print_classification(answer)
    typer.echo(f"Left out: {found['excluded_patient'] or 'nobody'}")
    _print_notes(found["notes"])


def _print_classification(found: dict[str, Any]) -> None:
    methods = {"kNN vote": found["knn"], "linear head": found["head"]}
    probabilities = [part.get("probabilities") or {} for part in methods.values()]
    rows = [(name, *(known.get(name) for known in probabilities)) for name in found["classes"]]
    print_table((found["target"], *methods), rows)
    for label, part in methods.items():
        typer.echo(f"  {label}: {part['basis']}")
    risk = found["risk"]
    if risk["probability"] is not None:
        parts = ", ".join(f"{name} {part:+.2f}" for name, part in risk["parts"].items())
        typer.echo(f"  risk ({risk['positive']}): {risk['probability']:.3f} (log odds: {parts}); {risk['basis']}")
    typer.echo("")


# ---------------------------------------------------------------------------------------------- evaluation


@app.command("evaluate")
def evaluate_command(
    manifest: ManifestPath,
    model: Annotated[Path | None, typer.Option(help="Score this model on women it has not seen.")] = None,
    cross_validate: Annotated[
        int | None,
        typer.Option(
            "--cross-validate", min=2, max=20, help="Train a fresh model in each of this many folds of women."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the scorecard as JSON.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the folds' models; kept, and gone on with when called again.")
    ] = None,
    granularity: Granularity = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="In cross-validation: the pretrained backbone, not trained.")
    ] = False,
    target: Annotated[list[str] | None, typer.Option(help="A label column to score. Repeatable.")] = None,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Bootstrap resamples of the women.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of folds and resamples.")] = 0,
    device: Device = "auto",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Score retrieval and classification on held-out women, with 95 % intervals over women.

    \b
    Examples:
      mammoseek evaluate mini-mias.csv --model frozen
      mammoseek evaluate mini-mias.csv --cross-validate 5 --work folds -o scorecard.json
      mammoseek evaluate mini-mias.csv --cross-validate 5 --granularity breast --frozen --json
    """
    from classifiers.crossvalidation import cross_validate as run_folds
    from classifiers.crossvalidation import evaluate_model
    from embedder.manifest import read_manifest

    if (model is None) == (cross_validate is None):
        raise typer.BadParameter("name either --model or --cross-validate")
    if model is not None and (granularity or recipe or settings or frozen or work):
        raise typer.BadParameter("--granularity, --recipe, --set, --frozen and --work go with --cross-validate")
    if output is not None:
        check_output(output)
    frame = read_manifest(manifest)
    targets = tuple(target) if target else None
    with (
        interruptible("Finished folds are kept where --work names a folder: run the same command again to go on."),
        progress_bar("Evaluating") as progress,
    ):
        if model is not None:
            scorecard = evaluate_model(
                frame,
                model,
                targets=targets,
                resamples=resamples,
                seed=seed,
                device=device,
                workers=workers,
                progress=progress,
            )
        else:
            assert cross_validate is not None
            scorecard = run_folds(
                frame,
                _recipe(recipe, settings, granularity),
                folds=cross_validate,
                frozen=frozen,
                work=work,
                targets=targets,
                resamples=resamples,
                seed=seed,
                device=device,
                workers=workers,
                progress=progress,
            ).scorecard
    if as_json:
        print_json(scorecard.to_dict())
    else:
        typer.echo(scorecard.to_text())
    if output is not None:
        scorecard.save(output)
        say(f"Scorecard in {output}")


# ------------------------------------------------------------------------------------- weakly labelled images


@weak_app.command("train")
def weak_train(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="The patch embedder: a model folder, see `mammoseek model pretrained`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new model.")],
    settings: WeakSettings = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps the tiles' features, to go on after a stop.")
    ] = None,
    device: Device = "cpu",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Learn from whole images labelled as a cancer or none which of their places speak for one.

    \b
    Examples:
      mammoseek weak train rsna.csv --model frozen -o weak --work tiles
      mammoseek weak train rsna.csv --model frozen -o attending --set scorer.method=attention
    """
    from classifiers.weakmodel import train_weak
    from embedder.manifest import read_manifest
    from embedder.weakrecipe import WeakRecipe

    recipe = WeakRecipe().with_settings(settings or [])
    with interruptible("Features are kept where --work names a folder."), progress_bar("Embedding") as progress:
        card = train_weak(
            read_manifest(manifest), model, output, recipe, work=work, device=device, workers=workers, progress=progress
        )
    if as_json:
        print_json(card)
    else:
        print_table(("level", "AUC of cross-fitted scores", "low", "high"), _aucs(card["figures"]))
    say(f"Model in {output}, of {card['data']['images']} images of {card['data']['women']} women")
    report_failures([(name, message) for name, message in card["data"]["left_out"]], "images")


@weak_app.command("score")
def weak_score(
    model: Annotated[Path, typer.Argument(help="Folder of the model.", metavar="MODEL")],
    images: Annotated[list[Path], typer.Argument(help="Mammograms.", metavar="IMAGE...")],
    picture: Annotated[Path | None, typer.Option(help="Draw the evidence over the mammogram; for one image.")] = None,
    places: Annotated[int, typer.Option(min=0, max=100, help="Places to look at, at most.")] = 5,
    frame: Frame = None,
    for_processing: ForProcessing = False,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Give the probability of a cancer in each imaged breast, and the places that speak for one.

    \b
    Examples:
      mammoseek weak score weak image.dcm --picture evidence.png
      mammoseek weak score weak *.dcm --json
    """
    from classifiers.weakmodel import WeakModel, draw_answer
    from embedder.montage import check_montage_path

    if picture is not None:
        if len(images) != 1:
            raise typer.BadParameter("one picture is of one image", param_hint="--picture")
        check_montage_path(picture)
    scorer = WeakModel.load(model, device=device)
    answers, failures = scorer.score_all(images, most=places, frame=frame, allow_for_processing=for_processing)
    if as_json:
        print_json({"answers": [answer.to_dict() for answer in answers], "failures": dict(failures)})
    else:
        for answer in answers:
            print_table(
                ("place", "box", "evidence", "attention"),
                [(n, p.box, p.evidence, p.attention) for n, p in enumerate(answer.places, 1)],
                f"{answer.path}: probability of a cancer {answer.probability:.3f}",
            )
            _print_notes(list(answer.notes))
    if picture is not None and answers:
        draw_answer(answers[0], picture, frame=frame, allow_for_processing=for_processing)
        say(f"Picture in {picture}")
    report_failures(failures, "images")


@weak_app.command("evaluate")
def weak_evaluate(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="The patch embedder: a model folder.")],
    cross_validate: Annotated[int, typer.Option("--cross-validate", min=2, max=20, help="Folds of women.")] = 5,
    settings: WeakSettings = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of folds and of what is learned.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps the tiles' features, to go on after a stop.")
    ] = None,
    device: Device = "cpu",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Score images and women by models of other women, with 95 % intervals over women.

    \b
    Example:
      mammoseek weak evaluate rsna.csv --model frozen --cross-validate 5 --work tiles
    """
    from classifiers.weaklabels import cross_validate_weak
    from embedder.manifest import read_manifest
    from embedder.weakrecipe import WeakRecipe

    recipe = WeakRecipe().with_settings(settings or [])
    with interruptible("Features are kept where --work names a folder."), progress_bar("Embedding") as progress:
        found = cross_validate_weak(
            read_manifest(manifest),
            model,
            recipe,
            folds=cross_validate,
            seed=seed,
            work=work,
            device=device,
            workers=workers,
            progress=progress,
        )
    scores = found.scores(seed=seed)
    if as_json:
        print_json({level: {name: e.to_dict() for name, e in part.items()} for level, part in scores.items()})
    else:
        rows = [
            (level, name, e.value, e.low, e.high, e.items, e.women)
            for level, part in scores.items()
            for name, e in part.items()
        ]
        print_table(("level", "score", "value", "low", "high", "items", "women"), rows)
    report_failures(found.failures, "images")


def _aucs(figures: dict[str, Any]) -> list[tuple[object, ...]]:
    return [(level, e["value"], e["low"], e["high"]) for level, e in figures["auc of cross-fitted scores"].items()]


# ---------------------------------------------------------------------------------------------- benchmark


@benchmark_app.command("retrieval")
def benchmark_retrieval(
    protocol: Annotated[Path, typer.Argument(help="The protocol, a TOML file.", metavar="PROTOCOL")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run: page, scorecard, predictions.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set that the protocol names.")] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a declared benchmark: leaks are looked for first, then folds are made, scored, and shown on one page.

    A protocol names a data set (or manifest = "mine.csv"), its folds and seeds, a recipe and the labels to score:

    \b
      name = "Lesion types on mini-MIAS"
      dataset = "mini-mias"
      granularity = "finding"        # or "breast"
      labels = ["native_lesion_type", "pathology"]
      folds = 5                      # or fold_column = "fold", a column of the manifest
      seeds = [0, 1, 2]
      model = "trained"              # or "pretrained": the recipe's backbone as it is
      recipe = "recipe.toml"         # or a table; settings = ["training.epochs=20"] changes it
      views = { density = "woman" }  # asked together for a label: the views of a lesion, a breast or a woman
      resamples = 2000

    Figures are means over the seeds, with 95 % intervals over women. The page shows images and names women by their
    ids. A run that was stopped goes on when it is called again.

    \b
    Examples:
      mammoseek benchmark retrieval finding.toml --data mini-mias -o finding-run
      mammoseek benchmark retrieval mine.toml -o my-run --json
    """
    from classifiers.benchmark import PAGE_FILE, run_benchmark
    from classifiers.protocol import Protocol

    declared = Protocol.read(protocol)
    with interruptible("Finished folds are kept: run the same command again to go on."):
        with progress_bar("Reading") as progress:
            frame = declared.read_rows(data, progress=progress)
        with progress_bar("Benchmark") as progress:
            run = run_benchmark(declared, frame, output, device=device, workers=workers, progress=progress)
    if as_json:
        print_json(run.scorecard.to_dict())
    else:
        typer.echo(run.scorecard.to_text())
    say(f"Page in {output / PAGE_FILE}")


@benchmark_app.command("compare")
def benchmark_compare(
    first: Annotated[Path, typer.Argument(help="Folder of run A.")],
    second: Annotated[Path, typer.Argument(help="Folder of run B, of the same rows, folds and seeds.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What a run is called: twice, for A and B; else by their protocols.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the comparison as JSON.")] = None,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Bootstrap resamples of the women.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the resamples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Compare two runs of one benchmark: A minus B, by a bootstrap that draws the same women for both.

    \b
    Examples:
      mammoseek benchmark compare fine-tuned frozen
      mammoseek benchmark compare fine-tuned frozen --name tuned --name frozen --json
    """
    from classifiers.benchmark import compare_benchmarks

    if name is not None and len(name) != 2:
        raise typer.BadParameter("--name is given twice or not at all")
    if output is not None:
        check_output(output)
    names = None if name is None else (name[0], name[1])
    found = compare_benchmarks(first, second, names=names, resamples=resamples, seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(found.to_text())
    if output is not None:
        found.save(output)
        say(f"Comparison in {output}")


# --------------------------------------------------------------------------------------------------- demo


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for all that the demo makes.")] = Path(
        "demo-output"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of mini-MIAS; else ../shared/data/mini-mias, data/mini-mias, or its official home."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training.")] = None,
    device: Device = "auto",
) -> None:
    """Show the whole line on real mammograms: read, train, index, query, classify, score held-out women.

    \b
    Examples:
      mammoseek demo
      mammoseek demo --data ~/mini-mias -o demo-output
    """
    from demo import run_demo

    with interruptible("Run the demo again: finished steps are not repeated."):
        run_demo(output, data=data, epochs=epochs, device=device)


if __name__ == "__main__":
    main()
