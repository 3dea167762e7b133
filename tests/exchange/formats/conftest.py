"""Films of three women, and the catalogue that finds them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exchange.images import ImageCatalogue

ROWS, COLUMNS = 300, 200


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of w1-cc.png, w1-mlo.png, w2-cc.png, w3-cc.png (300 × 200 pixels) and nobody.png."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("w1-cc", "w1-mlo", "w2-cc", "w3-cc", "nobody"):
        Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def catalogue(films: Path) -> ImageCatalogue:
    """The films; the woman stands before the hyphen."""
    return ImageCatalogue(folders=[films], dataset="films", patient_from_name=r"^(w\d+)-")
