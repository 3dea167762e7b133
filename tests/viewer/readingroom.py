"""A whole server on a small collection, with its real embedder and classifiers: what tests of the routes ask."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom.uid as uid
from fastapi.testclient import TestClient

from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from tests.conftest import draw_breast, mammography_dataset
from viewer.app import build_app
from viewer.catalogue import image_id
from viewer.settings import ServeConfig
from viewer.state import ServerState, open_state

BOX = [13, 48, 37, 72]
WOMEN = 30


@dataclass(frozen=True)
class Room:
    """A running server.

    Attributes:
        client: Asks it; every request says that it is meant.
        state: What its routes work with.
        frame: The manifest of its gallery.
        folder: Where its images lie.
    """

    client: TestClient
    state: ServerState
    frame: pd.DataFrame
    folder: Path

    def image(self, woman: int, view: int = 0) -> str:
        """Return the id of an image of the gallery."""
        path = self.frame[self.frame["row_id"] == f"w{woman}-{view}"]["path"].iloc[0]
        return image_id(str(Path(path).resolve()))

    def ask(self, **body: Any) -> dict[str, Any]:
        """Return the answer to a question; it has to be answered."""
        response = self.client.post("/query", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())


def write_studies(folder: Path) -> Path:
    """Write two DICOM images of one woman, R and L CC, whose chest walls meet, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, side in enumerate("RL"):
        pixels = draw_breast(7 + number, mass=True).astype(np.uint16) * 16
        pixels = pixels[:, ::-1] if side == "R" else pixels
        dataset = mammography_dataset(pixels, bits=12, syntax=uid.ExplicitVRLittleEndian)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 5}"
        dataset.ImageLaterality, dataset.ViewPosition = side, "CC"
        dataset.ImagerPixelSpacing = [0.4, 0.4]
        dataset.WindowCenter, dataset.WindowWidth = "2000", "3000"
        dataset.StudyDate, dataset.PatientName, dataset.PatientID = "20240102", "Doe^Jane", "V77"
        dataset.save_as(folder / f"{side}.dcm", enforce_file_format=True)
    return folder


def fill_gallery(folder: Path, frame: pd.DataFrame, network: NetworkConfig, preparation: PreparationConfig) -> Path:
    """Build a gallery with thumbnails and a model that was never trained."""
    pretrained_model(folder / "model", network, preparation)
    new_gallery(frame, folder / "model", folder / "gallery", thumbnails=True)
    return folder / "gallery"


@contextmanager
def open_room(config: ServeConfig, frame: pd.DataFrame, folder: Path, *, wait: bool = True) -> Iterator[Room]:
    """Serve a configuration until the test is done; with `wait`, from when its embedder is ready."""
    state = open_state(config)
    app = build_app(state)
    headers = {"x-mammoseek": "1"}
    with TestClient(app, base_url="http://127.0.0.1:8700", headers=headers, client=("127.0.0.1", 50_000)) as client:
        until = time.monotonic() + 120
        while wait and state.worker.status == "starting" and time.monotonic() < until:
            time.sleep(0.05)
        yield Room(client, state, frame, folder)


def generous(config: ServeConfig) -> ServeConfig:
    """Return a configuration that no test is too fast for."""
    limits = replace(
        config.limits, requests_per_s=1e6, requests_at_once=1_000_000, changes_per_s=1e6, changes_at_once=1_000_000
    )
    return replace(config, limits=limits)
