"""Store files in an archive, each one once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.config import PacsConfig
from exchange.pacs.failures import Patience, TransientError, with_retries
from exchange.pacs.instances import identify_file
from exchange.pacs.journal import Journal


@dataclass
class Stored:
    """What became of a store.

    Args:
        sent: Files that the archive said it keeps, now.
        kept: Files that the journal says it kept before.
        failures: What was not stored, and why.
        transient: Whether all failures may pass by themselves.
    """

    sent: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    transient: bool = True


def store(
    config: PacsConfig,
    files: Sequence[Path],
    journal: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Stored:
    """Store DICOM files; what the journal says was stored there is not sent again.

    Args:
        config: The PACS.
        files: The files; one that is no DICOM is a failure and does not keep the others.
        journal: File that keeps what was sent, so that a run that was killed goes on; None to send all.
        progress: Told of files done, and in all.

    Raises:
        ExchangeError: The PACS or the journal can't be used at all.
    """
    result, kept = Stored(), Journal(journal)
    largest = config.limits.instance_bytes
    with open_archive(config) as archive:
        patience, given_up = Patience(), ""
        for number, path in enumerate(files):
            progress(number, len(files))
            try:
                instance, data = identify_file(path, largest)
                if kept.has(config.target, instance, data):
                    result.kept.append(path)
                    continue
                if given_up:
                    result.failures.append((str(path), f"was not tried: {given_up}"))
                    continue
                with_retries(config.retries, lambda: archive.store(instance, path, data))  # noqa: B023
            except ExchangeError as error:
                result.failures.append((str(path), str(error)))
                result.transient &= isinstance(error, TransientError)
                given_up = str(error) if patience.is_over(error) else ""
                continue
            patience.succeeded()
            kept.add(config.target, instance, data)
            result.sent.append(path)
        progress(len(files), len(files))
    return result
