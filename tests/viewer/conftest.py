"""Fixtures of the page's tests: one Chromium per file, and one server with a real embedder for all of them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from tests.viewer.browsing import open_browser, open_page
from tests.viewer.pagesteps import PATIENCE
from tests.viewer.readingroom import WOMEN, Room, fill_gallery, generous, open_room, write_studies
from tests.viewer.stubapi import Stub, stub_api
from viewer.settings import ServeConfig


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, shared by the tests of one file (Playwright's own loop must end with the file)."""
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    """A server of the page with an API that is a stub."""
    with stub_api() as running:
        yield running


@pytest.fixture
def stub(server: Stub) -> Stub:
    """The same, as if nobody had asked it yet."""
    server.reset()
    return server


@pytest.fixture
def page(browser: Any, stub: Stub) -> Iterator[Any]:
    """A page of the browser, to be opened at the stub."""
    with open_page(browser) as (opened, _):
        opened.set_default_timeout(PATIENCE)
        yield opened


@pytest.fixture(scope="session")
def room_frame(
    synthetic_manifest: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    """Findings of 30 women in two views each, with density, age and side, on films in a folder of their own."""
    women = np.repeat(np.arange(WOMEN), 2)
    density = np.array(list("ABCD"), dtype=object)[women % 4]
    frame = synthetic_manifest(WOMEN, view_count=2, density=density, age=40.0 + women, laterality="L")
    folder = tmp_path_factory.mktemp("room-films")
    return frame.assign(path=[shutil.copy(path, folder) for path in frame["path"]])


@pytest.fixture(scope="session")
def room_gallery(
    room_frame: pd.DataFrame,
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder of their gallery."""
    return fill_gallery(tmp_path_factory.mktemp("room"), room_frame, tiny_network, tiny_preparation)


@pytest.fixture(scope="session")
def room(room_frame: pd.DataFrame, room_gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A server of that gallery, with the women's own images and a DICOM study beside them, and a detection on it."""
    folder = tmp_path_factory.mktemp("served")
    studies = write_studies(folder / "studies")
    films = Path(room_frame["path"].iloc[0]).parent
    table = folder / "detections.csv"
    table.write_text(f"detection_id,image,x0,y0,x1,y1,score,lesion_type\nd1,{studies}/L.dcm,15,50,36,70,0.8,mass\n")
    config = ServeConfig(
        room_gallery, images=(studies, films), detections=(table,), device="cpu", state=folder / "state", reader="anna"
    )
    with open_room(generous(config), room_frame, folder) as running:
        yield running
