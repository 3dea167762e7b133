"""The command line in tests: how it is run, what it says, and a gallery of synthetic films to ask."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import cli
import console
from embedder.manifest import write_manifest

REPOSITORY = Path(cli.__file__).parent
TINY = (
    *("--set", "network.backbone=test_efficientnet", "--set", "network.weights=none"),
    *("--set", "network.embedding_dimension=16", "--set", "preparation.height=32", "--set", "preparation.width=32"),
    *("--set", "preparation.floor_mm=12.0"),
)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def status_of(*arguments: object) -> int:
    """Run the command line in this process, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mammoseek", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            console.run(cli.app)
    return int(caught.value.code or 0)


@pytest.fixture
def run(capsys) -> Callable[..., Outcome]:
    """Run the command line in this process, and catch what it says."""

    def invoke(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = status_of(*arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


def command_line(*arguments: object) -> list[str]:
    """Return what runs the command line in a process of its own, which takes signals."""
    return [sys.executable, "-c", "import cli; cli.main()", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return what such a process finds in its environment: this checkout, and one thread."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Line:
    """A manifest of synthetic films, a tiny model and its gallery."""

    manifest: Path
    model: Path
    gallery: Path
    frame: pd.DataFrame


@pytest.fixture(scope="module")
def line(tmp_path_factory, synthetic_manifest) -> Line:
    folder = tmp_path_factory.mktemp("line")
    frame = synthetic_manifest(12, view_count=2)
    write_manifest(frame, folder / "manifest.csv")
    manifest, model, gallery = folder / "manifest.csv", folder / "model", folder / "gallery"
    assert not status_of("model", "pretrained", "-o", model, *TINY)
    assert not status_of("index", "build", manifest, "--model", model, "-o", gallery)
    return Line(manifest, model, gallery, frame)


@pytest.fixture
def gallery(line, tmp_path) -> Path:
    """A copy of the gallery that a test may spoil."""
    return Path(shutil.copytree(line.gallery, tmp_path / "gallery"))


def assert_clear(outcome: Outcome, *says: str) -> None:
    """One message, no traceback, a status that says so."""
    assert outcome.code not in (0, None)
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith(("Error: ", "Usage: ")), outcome.err
    for text in says:
        assert text in outcome.err
