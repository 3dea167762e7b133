"""What the command line shows: errors as one message, progress bars, tables, JSON."""

import contextlib
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from errors import MammoseekError

if TYPE_CHECKING:
    from embedder.training import EpochReport, TrainingCallbacks

EXIT_FAILED = 1
EXIT_PARTLY = 3
EXIT_INTERRUPTED = 130

# What is wrong with the machine or with a name, not with mammoseek.
_OUTSIDE_CAUSES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EMFILE),
}

_stderr = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line for the reader, on standard error: standard output belongs to the answer."""
    _stderr.print(text, markup=False)


def print_json(value: object) -> None:
    """Print a value as JSON with sorted keys; what JSON can't say (NaN) is null."""
    typer.echo(json.dumps(without_nan(value), indent=2, sort_keys=True, ensure_ascii=False, default=str))


def without_nan(value: Any) -> Any:
    """Return a nested value with every number that is not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table on standard output; an unknown cell is a dash. Off a terminal it is as wide as it needs to be."""
    from rich.table import Table

    # A pipe has no width of its own: nothing is cut there.
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 4096)
    if title:
        typer.echo(title)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    with console.capture() as captured:
        console.print(table)
    # The last column is padded to its width, which helps nobody.
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("[", "\\[")


def tell(as_json: bool, value: object, *lines: str) -> None:
    """Tell what was done: as JSON where that is asked for, else in lines for the reader."""
    if as_json:
        print_json(value)
        return
    for line in lines:
        say(line)


def print_notes(notes: Iterable[str]) -> None:
    """Print the notes of an answer below it."""
    for note in notes:
        typer.echo(f"Note: {note}")


def say_notes(notes: Iterable[str]) -> None:
    """Say what is to be noted of the input, for the reader."""
    for note in notes:
        say(f"note: {note}")


@contextlib.contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Show a progress bar on standard error.

    Yields:
        A function of items done, items in all, and optionally a new label. Off a terminal nothing is drawn.
    """
    if quiet or not _stderr.is_terminal:
        yield lambda *_args, **_kwargs: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_stderr, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def update(done: int, total: int, description: str | None = None) -> None:
            progress.update(task, completed=done, total=total, description=description or label)

        yield update


def training_callbacks(progress: Callable[..., None], every: int = 1) -> "TrainingCallbacks":
    """Return callbacks that show a training on a progress bar, and say a line every so many epochs."""
    from embedder.training import TrainingCallbacks

    def batch(epoch: int, done: int, total: int) -> None:
        progress(done, total, f"Epoch {epoch + 1}")

    def report(epoch: "EpochReport") -> None:
        if (epoch.epoch + 1) % every and epoch.epoch + 1 < epoch.epochs:
            return
        losses = ", ".join(f"{name} {value:.3f}" for name, value in epoch.losses.items())
        held_out = ", ".join(f"{name} {value:.3f}" for name, value in epoch.validation.items())
        star = " *" if epoch.best and held_out else ""
        say(
            f"epoch {epoch.epoch + 1}/{epoch.epochs}: {losses}"
            + (f"; held-out MAP@R {held_out}{star}" if held_out else "")
        )

    return TrainingCallbacks(reading=progress, batch=batch, epoch=report)


def report_failures(failures: Sequence[tuple[str, str]], what: str) -> None:
    """List what failed at the end of a batch, and leave with the status that says so; nothing where all went well."""
    if not failures:
        return
    say(f"{len(failures)} {what} failed:")
    for name, message in failures[:50]:
        say(f"  {name}: {message}")
    if len(failures) > 50:
        say(f"  and {len(failures) - 50} more")
    raise typer.Exit(EXIT_PARTLY)


def check_output(path: Path | None) -> None:
    """Refuse a file that can't be written before hours of work are done for it.

    Args:
        path: The file; None where nothing is to be written.

    Raises:
        MammoseekError: It is a folder, or its folder is not there.
    """
    if path is None:
        return
    if path.is_dir():
        raise MammoseekError(path, "is a folder", "name a file in it")
    if not path.absolute().parent.is_dir():
        raise MammoseekError(path, "its folder is not there", "make it first, or name another one")


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Turn Ctrl-C into one line that says what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted. {message}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def run(app: typer.Typer) -> None:
    """Run the command line: a mistake of the input costs one message and a non-zero status, no traceback."""
    try:
        app()
    except MammoseekError as error:
        say(f"Error: {error}")
        sys.exit(EXIT_FAILED)
    except BrokenPipeError:
        # Whoever reads our output has gone (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        say("Interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    except MemoryError:
        say("Error: this machine's memory is too small for that; use fewer rows, smaller images or fewer workers")
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.errno not in _OUTSIDE_CAUSES:
            raise
        say(f"Error: {str(error.filename or 'a file')[:200]}: {error.strerror}")
        sys.exit(EXIT_FAILED)
