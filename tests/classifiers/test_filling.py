"""A gallery that is passed on says what the images are called, not where they lie."""

import numpy as np
import pytest

from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from index.gallery import Gallery


@pytest.fixture
def model(tiny_network, tiny_preparation, tmp_path):
    pretrained_model(tmp_path / "model", tiny_network, tiny_preparation)
    return tmp_path / "model"


def test_names_only_leaves_the_folders_out_and_the_vectors_alone(model, synthetic_manifest, tmp_path):
    frame = synthetic_manifest(6)
    new_gallery(frame, model, tmp_path / "named", names_only=True, device="cpu")
    new_gallery(frame, model, tmp_path / "whole", device="cpu")
    named, whole = Gallery.open(tmp_path / "named"), Gallery.open(tmp_path / "whole")
    np.testing.assert_array_equal(named.vectors.take(np.arange(6)), whole.vectors.take(np.arange(6)))
    for row in range(6):
        told, full = named.record(row), whole.record(row)
        assert told.pop("path") == full.pop("path").rsplit("/", 1)[1]
        assert told == full
    folder = frame["path"].iloc[0].rsplit("/", 1)[0].encode()
    for path in (tmp_path / "named").rglob("*"):
        assert not path.is_file() or folder not in path.read_bytes(), path


def test_a_build_of_names_goes_on_where_it_stopped(model, synthetic_manifest, tmp_path):
    frame = synthetic_manifest(6)
    new_gallery(frame.iloc[:3], model, tmp_path / "named", names_only=True, device="cpu")
    report = new_gallery(frame, model, tmp_path / "named", names_only=True, device="cpu")
    assert (report.added, report.already_there) == (3, 3)
    assert new_gallery(frame, model, tmp_path / "named", names_only=True, device="cpu").already_there == 6
