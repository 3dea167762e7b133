"""The command `mammoseek`: the parts of the command line, put together."""

from typing import Annotated

import typer

import cli_dataset
import cli_demo
import cli_detections
import cli_evaluate
import cli_exchange
import cli_index
import cli_model
import cli_pacs
import cli_privacy
import cli_query
import cli_viewer
import cli_weak
import console

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Find similar cases in mammography: train an embedder, index findings, query, classify, evaluate."
    " Not a medical device: for research, not for diagnosis.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which `mammoseek --help` lists them.
app.add_typer(cli_model.app)
app.add_typer(cli_query.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_demo.app)
app.add_typer(cli_dataset.dataset_app, name="dataset")
app.add_typer(cli_model.roi_app, name="roi")
app.add_typer(cli_model.model_app, name="model")
app.add_typer(cli_index.index_app, name="index")
app.add_typer(cli_evaluate.benchmark_app, name="benchmark")
app.add_typer(cli_weak.weak_app, name="weak")
app.add_typer(cli_detections.app)
app.add_typer(cli_exchange.app)
app.add_typer(cli_detections.detections_app, name="detections")
app.add_typer(cli_exchange.rescore_app, name="rescore")
app.add_typer(cli_privacy.app)
app.add_typer(cli_pacs.pacs_app, name="pacs")
app.add_typer(cli_viewer.app)
app.add_typer(cli_viewer.verdicts_app, name="verdicts")
app.add_typer(cli_viewer.audit_app, name="audit")


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


if __name__ == "__main__":
    main()
