"""The commands of models: recipes, training, cards, and what a network sees."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli_options import (
    Device,
    JsonFlag,
    ManifestPath,
    ModelPath,
    RecipeOptions,
    Workers,
    option_groups,
)
from console import interruptible, print_json, print_table, progress_bar, report_failures, say, tell, training_callbacks
from errors import MammoseekError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""
roi_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See what the network sees.")
model_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Models without training, and their cards.")


@roi_app.command("sheet")
@option_groups
def roi_sheet(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write, .png; pages are numbered.")],
    model: Annotated[Path | None, typer.Option(help="Use this model's preparation.")] = None,
    *,
    recipe: RecipeOptions,
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

    preparation = read_card(model)[0].preparation if model else recipe.read().preparation
    frame = _of_granularity(read_manifest(manifest), preparation.granularity, manifest)
    with progress_bar("Drawing") as progress:
        report = contact_sheet(frame, preparation, output, limit=limit, workers=workers, progress=progress)
    for page in report.pages:
        typer.echo(str(page))
    report_failures(report.failures, "rows")


def _of_granularity(frame: "pd.DataFrame", granularity: str, manifest: Path) -> "pd.DataFrame":
    chosen = frame[frame["granularity"] == granularity].reset_index(drop=True)
    if chosen.empty:
        raise MammoseekError(
            manifest, f"has no rows of granularity {granularity}", "choose the other one by --granularity"
        )
    return chosen


@model_app.command("recipe")
@option_groups
def model_recipe(*, recipe: RecipeOptions) -> None:
    """Print a recipe with all its options as TOML: our defaults, or yours completed.

    \b
    Example:
      mammoseek model recipe --granularity breast > breast.toml
    """
    typer.echo(recipe.read().to_toml(), nl=False)


@model_app.command("pretrained")
@option_groups
def model_pretrained(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.")],
    *,
    recipe: RecipeOptions,
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

    chosen = recipe.read()
    known = None
    if fit is not None:
        from embedder.manifest import read_manifest
        from embedder.training import known_crops

        known = known_crops(read_manifest(fit), chosen.preparation)
    digest = pretrained_model(output, chosen.network, chosen.preparation, known)
    say(f"Model {digest[:12]} in {output}")


@model_app.command("compact")
def model_compact(
    model: ModelPath,
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
    tell(as_json, {"model": str(output), "digest": digest}, f"Model {digest[:12]} in {output}")


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
    tell(
        as_json,
        {"gallery": str(output), "model": str(output / "model"), **starter.to_dict()},
        f"Gallery of {starter.rows} {starter.granularity} rows in {output}, its model in {output / 'model'}",
        f"{starter.licence} Not a medical device: for research, not for diagnosis.",
    )


@model_app.command("info")
def model_info(model: ModelPath, as_json: JsonFlag = False) -> None:
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


@app.command("train")
@option_groups
def train_command(
    manifest: ManifestPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.")],
    *,
    recipe: RecipeOptions,
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

    chosen = recipe.read(*([f"training.epochs={epochs}"] if epochs else []))
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
    found = {"digest": result.digest, "model": str(output), "card": result.card.to_dict()}
    tell(as_json, found, f"Model {result.digest[:12]} in {output}")
    report_failures(result.failures, "rows")
