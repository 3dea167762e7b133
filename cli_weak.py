"""The commands of whole images that say only cancer or none."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli_options import Device, ForProcessing, Frame, JsonFlag, ManifestPath, ModelPath, Workers
from console import interruptible, print_json, print_notes, print_table, progress_bar, report_failures, say

weak_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Whole images that say only cancer or none.")

WeakSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one option, such as scorer.method=attention. Repeatable.", metavar="NAME=VALUE"),
]
WorkFolder = Annotated[Path | None, typer.Option(help="Folder that keeps the tiles' features, to go on after a stop.")]


@weak_app.command("train")
def weak_train(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="The patch embedder: a model folder, see `mammoseek model pretrained`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new model.")],
    settings: WeakSettings = None,
    work: WorkFolder = None,
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
    model: ModelPath,
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
            print_notes(answer.notes)
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
    work: WorkFolder = None,
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
