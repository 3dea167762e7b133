"""The starter models are whole, name no folder of anybody's machine, hold no pixels, and answer."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from classifiers import ClassificationError, starter
from classifiers.cases import Source, ask_source
from classifiers.starter import NAMES, get_starter, list_starters, starter_folder
from index.answers import Question
from index.gallery import Gallery


def test_each_is_listed_with_its_women_licence_and_figures():
    found = list_starters()
    assert tuple(each.name for each in found) == NAMES
    for each in found:
        assert each.granularity == each.name
        assert each.rows >= each.women > 100
        assert "research only" in each.licence
        assert 1 < each.megabytes < 12
        assert each.figures
        for label, score, figure in each.figures:
            assert label
            assert score
            value, low, high = (float(text.strip("[],")) for text in figure.split())
            assert low <= value <= high


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_answers_and_holds_vectors_and_labels_alone(name, tmp_path):
    told = get_starter(name, tmp_path / "mine")
    gallery = Gallery.open(tmp_path / "mine")
    assert len(gallery) == told.rows
    records = [gallery.record(row) for row in range(len(gallery))]
    assert all("/" not in str(record["path"]) and str(record["path"]).startswith("mdb") for record in records)
    assert gallery.thumbnail(str(records[0]["row_id"])) is None
    lengths = np.linalg.norm(gallery.vectors.take(np.arange(len(gallery))), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    row = str(records[0]["row_id"])
    answer = ask_source(tmp_path / "mine", Source(row_id=row), Question(k=5))
    assert len(answer.neighbours) == 5
    assert all(each.record["patient_id"] != records[0]["patient_id"] for each in answer.neighbours)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_place_on_a_machine(name):
    for path in starter_folder(name).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for place in (Path.home(), Path(tempfile.gettempdir()), Path(__file__).parents[3]):
                assert f"{place}/".encode() not in content, path
            # Nor of any other: no name of an image has a folder before it, and no text of the cards begins with one.
            assert not re.search(rb"/[ -~]{0,200}mdb\d{3}", content), path
            assert path.suffix != ".json" or not re.search(rb'"/[A-Za-z]', content), path


def test_what_can_not_be_had_is_told(tmp_path, monkeypatch):
    with pytest.raises(ClassificationError, match="is no starter model; there are finding, breast"):
        get_starter("best", tmp_path / "mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(ClassificationError, match="is there already"):
        get_starter("finding", tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "x"
    package = tmp_path / "package"
    shutil.copytree(starter_folder("finding"), package / "finding")
    monkeypatch.setattr(starter, "files", lambda _name: package)
    weights = package / "finding" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ClassificationError, match="not as it was made"):
        get_starter("finding", tmp_path / "damaged")
    card = package / "finding" / "starter.json"
    card.write_text(json.dumps({"granularity": "finding"}))
    with pytest.raises(ClassificationError, match="is damaged"):
        list_starters()
    card.unlink()
    with pytest.raises(ClassificationError, match="not in this installation"):
        list_starters()
