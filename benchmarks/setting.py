"""What every benchmark needs: where the data lie, what the figures were measured on, and one line for an error."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from embedder.datasets.minimias import find_mini_mias
from errors import MammoseekError


def find_data(data: Path | None) -> Path:
    """Return the folder of mini-MIAS.

    Raises:
        MammoseekError: None is named, and it is in none of the usual places.
    """
    place = find_mini_mias(data)
    if place is None:
        raise MammoseekError("mini-MIAS", "is not here", "name its folder by --data")
    return place


def describe_machine(device: torch.device) -> dict[str, object]:
    """Return what the figures were measured on."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def machine_line() -> str:
    """Return the same in one line, for a table's foot."""
    found = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return (
        f"{found['processor']}, {found['cores']} cores, {found['threads']} threads, {found['device']},"
        f" Python {found['python']}, torch {found['torch']}"
    )


@contextmanager
def errors_told() -> Iterator[None]:
    """End the program with one line where mammoseek refuses something within."""
    try:
        yield
    except MammoseekError as error:
        sys.exit(f"Error: {error}")


def say(text: str) -> None:
    """Tell how far it is, on standard error: standard output belongs to the table."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """Give the folder that is named, or one that is deleted afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="mammoseek-benchmark-") as made:
        yield Path(made).resolve()
