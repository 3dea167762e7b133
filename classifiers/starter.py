"""The starter models that come with mammoseek: a gallery of mini-MIAS vectors with its model, and what was measured."""

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from classifiers import ClassificationError
from classifiers.filling import verify_with_model
from index.durable import storage_error

CARD_FILE = "starter.json"
"""Beside each gallery: what `Starter` holds."""

NAMES = ("finding", "breast")


@dataclass(frozen=True)
class Starter:
    """What a reader must know of a starter model.

    Attributes:
        name: Its name.
        granularity: `finding` or `breast`.
        rows: Rows of the reference gallery.
        women: Their women.
        licence: Of the data that it was made from.
        protocol: How the figures were measured.
        figures: Label, score, and the figure with its interval.
        megabytes: Size of model and gallery.
    """

    name: str
    granularity: str
    rows: int
    women: int
    licence: str
    protocol: str
    figures: tuple[tuple[str, str, str], ...]
    megabytes: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def starter_folder(name: str) -> Path:
    """Return where a starter model's gallery lies in the installation; it must not be written to.

    Raises:
        ClassificationError: There is none of that name, or this installation lacks it.
    """
    if name not in NAMES:
        raise ClassificationError(f"model {name[:80]!r}", "is no starter model", f"there are {', '.join(NAMES)}")
    with contextlib.suppress(ModuleNotFoundError):
        folder = Path(str(files("starter"))) / name
        if (folder / CARD_FILE).is_file():
            return folder
    raise ClassificationError(
        f"model {name!r}", "is not in this installation", "install mammoseek again, from a whole checkout"
    )


def read_starter(name: str) -> Starter:
    """Return what is known of a starter model.

    Raises:
        ClassificationError: There is none of that name, or its card is damaged.
    """
    folder = starter_folder(name)
    try:
        content = json.loads((folder / CARD_FILE).read_text("utf-8"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Starter(
            name,
            str(content["granularity"]),
            int(content["rows"]),
            int(content["women"]),
            str(content["licence"]),
            str(content["protocol"]),
            tuple((str(label), str(score), str(figure)) for label, score, figure in content["figures"]),
            size / 1e6,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClassificationError(folder / CARD_FILE, f"is damaged ({error!r})", "install mammoseek again") from error


def list_starters() -> list[Starter]:
    """Return all starter models.

    Raises:
        ClassificationError: One is missing or damaged.
    """
    return [read_starter(name) for name in NAMES]


def get_starter(name: str, output: Path) -> Starter:
    """Copy a starter model's gallery into a folder of the user's, where it can be asked and added to.

    Args:
        name: Its name.
        output: A folder that is not there, or empty.

    Raises:
        ClassificationError: There is no such model, the folder holds something, can't be written, or the copy is not
            whole.
    """
    starter, source, output = read_starter(name), starter_folder(name), Path(output)
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ClassificationError(output, "is there already", "name a new folder")
        shutil.copytree(source, output, ignore=shutil.ignore_patterns(CARD_FILE), dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        if isinstance(error, shutil.Error):
            raise ClassificationError(output, f"the copy failed ({error})", "choose another folder") from error
        reason = storage_error(output, error)
        raise ClassificationError(output, reason.cause, reason.remedy) from error
    for file in verify_with_model(output).files:
        if file.state != "good":
            raise ClassificationError(output, f"{file.file} is not as it was made", "install mammoseek again")
    return starter
