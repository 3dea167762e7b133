"""The command that shows the whole line."""

from pathlib import Path
from typing import Annotated

import typer

from cli_options import Device
from console import interruptible

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""


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
