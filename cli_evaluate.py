"""The commands that score: a model on women it has not seen, and declared benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli_options import (
    Device,
    JsonFlag,
    ManifestPath,
    RecipeOptions,
    Resamples,
    Workers,
    option_groups,
)
from console import check_output, interruptible, print_json, progress_bar, say

if TYPE_CHECKING:
    from classifiers.comparison import Comparison
    from classifiers.scorecard import Scorecard

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""
benchmark_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Declared benchmarks: run one, compare two."
)


@app.command("evaluate")
@option_groups
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
    *,
    recipe: RecipeOptions,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="In cross-validation: the pretrained backbone, not trained.")
    ] = False,
    target: Annotated[list[str] | None, typer.Option(help="A label column to score. Repeatable.")] = None,
    resamples: Resamples = 2000,
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
    if model is not None and (recipe.given or frozen or work):
        raise typer.BadParameter("--granularity, --recipe, --set, --frozen and --work go with --cross-validate")
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
                recipe.read(),
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
    _show(scorecard, as_json)
    if output is not None:
        scorecard.save(output)
        say(f"Scorecard in {output}")


def _show(scored: "Scorecard | Comparison", as_json: bool) -> None:
    if as_json:
        print_json(scored.to_dict())
    else:
        typer.echo(scored.to_text())


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
    _show(run.scorecard, as_json)
    say(f"Page in {output / PAGE_FILE}")


@benchmark_app.command("compare")
def benchmark_compare(
    first: Annotated[Path, typer.Argument(help="Folder of run A.")],
    second: Annotated[Path, typer.Argument(help="Folder of run B, of the same rows, folds and seeds.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What a run is called: twice, for A and B; else by their protocols.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the comparison as JSON.")] = None,
    resamples: Resamples = 2000,
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
    check_output(output)
    names = None if name is None else (name[0], name[1])
    found = compare_benchmarks(first, second, names=names, resamples=resamples, seed=seed)
    _show(found, as_json)
    if output is not None:
        found.save(output)
        say(f"Comparison in {output}")
