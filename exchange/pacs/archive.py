"""What can be done with an archive, whichever way it is spoken to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from exchange.pacs.config import PacsConfig
from exchange.pacs.instances import Instance
from exchange.pacs.query import Query


class Archive(Protocol):
    """An archive of instances; its methods raise `ExchangeError`, and `TransientError` where a wait may help.

    Attributes:
        odd: What searches found and can't be asked for: its name, and why.
    """

    odd: list[tuple[str, str]]

    def echo(self) -> str:
        """Return what answers."""

    def find(self, query: Query) -> list[Instance]:
        """Return the instances that a query finds; transient failures are retried inside."""

    def retrieve(self, wanted: Instance) -> bytes:
        """Return an instance's DICOM file."""

    def store(self, instance: Instance, path: Path, data: bytes) -> None:
        """Store one instance."""

    def close(self) -> None:
        """End all connections."""


@contextmanager
def open_archive(config: PacsConfig) -> Iterator[Archive]:
    """Yield the archive that a configuration names; nothing is sent before it is asked.

    Raises:
        ExchangeError: A library is not installed, or a secret or certificate can't be read.
    """
    archive: Archive
    if config.chosen == "dicomweb":
        from exchange.pacs.dicomweb import DicomwebArchive

        archive = DicomwebArchive(config)
    else:
        from exchange.pacs.dimse import DimseArchive

        archive = DimseArchive(config)
    try:
        yield archive
    finally:
        archive.close()
