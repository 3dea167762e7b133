"""Fetch what a query finds into a folder, each file whole or not at all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from errors import MammoseekError
from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.config import PacsConfig
from exchange.pacs.failures import Patience, with_retries
from exchange.pacs.instances import Instance, identify_file
from exchange.pacs.query import Query
from index.durable import TEMPORARY_SUFFIX, make_folder, storage_error, write_whole


@dataclass
class Fetched:
    """What became of a fetch.

    Args:
        found: Instances that the query found.
        files: Files that are there now, in the order of their UIDs.
        kept: How many of them were there before.
        failures: What is missing, and why.
    """

    found: int = 0
    files: list[Path] = field(default_factory=list)
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def fetch(
    config: PacsConfig,
    query: Query,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fetched:
    """Fetch what a query finds to `<folder>/<study>/<series>/<instance>.dcm`.

    A file that is there whole is not fetched again. One instance that can't be had does not keep the others.

    Args:
        config: The PACS.
        query: What to find.
        folder: Is made where it is not there.
        progress: Told of instances done, and in all.

    Raises:
        ExchangeError: The query fails, or the folder can't be written to.
    """
    result = Fetched()
    with open_archive(config) as archive:
        instances = archive.find(query)
        result.failures += archive.odd
        result.found = len(instances)
        _remove_halves(folder)
        patience, given_up = Patience(), ""
        for number, instance in enumerate(instances):
            progress(number, len(instances))
            path = folder / instance.path
            if _is_there(path, instance, config.limits.instance_bytes):
                result.kept += 1
                result.files.append(path)
                continue
            if given_up:
                result.failures.append((instance.sop_uid, f"was not tried: {given_up}"))
                continue
            try:
                data = with_retries(config.retries, lambda wanted=instance: archive.retrieve(wanted))  # type: ignore[misc]
            except ExchangeError as error:
                result.failures.append((instance.sop_uid, str(error)))
                given_up = str(error) if patience.is_over(error) else ""
                continue
            patience.succeeded()
            try:
                make_folder(path.parent)
                write_whole(path, data)
            except OSError as error:
                told = storage_error(path, error)
                raise ExchangeError(told.subject, told.cause, "make room, and fetch again: it goes on") from error
            result.files.append(path)
        progress(len(instances), len(instances))
    return result


def _is_there(path: Path, instance: Instance, largest: int) -> bool:
    """Tell whether an instance's file is there: it was put there in one step, so that its head vouches for it."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        return identify_file(path, largest)[0].sop_uid == instance.sop_uid
    except MammoseekError:
        return False


def _remove_halves(folder: Path) -> None:
    """Remove what a fetch left that was killed while it wrote."""
    for half in folder.glob(f"*/*/*.dcm.*{TEMPORARY_SUFFIX}"):
        half.unlink(missing_ok=True)
