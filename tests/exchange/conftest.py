"""What tests of our own search for places share: a tiny model, and a gallery of lesions and normal tissue."""

import pytest
import torch

from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.normaltissue import add_normal_tissue
from tests.exchange.searching import NETWORK, PREPARATION


@pytest.fixture(scope="session")
def detect_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect-model") / "model"
    torch.manual_seed(0)
    pretrained_model(folder, NETWORK, PREPARATION)
    return folder


@pytest.fixture(scope="session")
def detect_rows(tissue_manifest):
    return add_normal_tissue(tissue_manifest, per_image=3, workers=1).frame


@pytest.fixture(scope="session")
def detect_gallery(detect_rows, detect_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect") / "gallery"
    new_gallery(detect_rows, detect_model, folder, workers=1)
    return folder
