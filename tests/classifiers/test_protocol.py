"""A protocol file says all that a benchmark depends on, or why it can't be run."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import ClassificationError
from classifiers.protocol import Protocol
from embedder.checkpoint import ModelError
from embedder.recipe import Recipe
from errors import MammoseekError


def write(folder, text):
    path = folder / "protocol.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_protocol_is_read(tmp_path):
    (tmp_path / "recipe.toml").write_text("[training]\nepochs = 3\n[preparation]\nheight = 96\n")
    path = write(
        tmp_path,
        'name = "Lesions"\ndataset = "mini-mias"\ngranularity = "finding"\nlabels = ["pathology"]\nfolds = 3\n'
        'seeds = [0, 4]\ncalibration = "folds"\nmodel = "trained"\nrecipe = "recipe.toml"\nresamples = 500\n'
        'settings = ["training.epochs=5"]\n',
    )
    found = Protocol.read(path)
    recipe = Recipe().with_settings(["preparation.height=96", "training.epochs=5"])
    assert found == Protocol(
        "Lesions", "mini-mias", None, "finding", "trained", recipe, ("pathology",), {}, 3, None, "folds", (0, 4), 500
    )


def test_a_short_protocol_has_our_defaults(tmp_path):
    found = Protocol.read(write(tmp_path, 'name = "x"\nmanifest = "mine.csv"\ngranularity = "breast"\n'))
    assert found.recipe == Recipe.default("breast")
    assert (found.manifest, found.seeds, found.folds, found.resamples) == (tmp_path / "mine.csv", (0,), 5, 2000)
    assert found.to_dict()["manifest"] == "mine.csv", "no path of this machine is written down"


def test_the_recipe_may_be_a_table(tmp_path):
    text = 'name = "x"\ndataset = "rsna"\ngranularity = "breast"\n[recipe.training]\nepochs = 2\n'
    assert Protocol.read(write(tmp_path, text)).recipe.training.epochs == 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "has no name"),
        ("name = 1", "name is not a text"),
        ('name = " "\ndataset = "rsna"', "name it"),
        ('name = "x"', "either a dataset or a manifest"),
        ('name = "x"\ndataset = "rsna"\nmanifest = "m.csv"', "either a dataset or a manifest"),
        ('name = "x"\ndataset = "inbreast"', "dataset is mini-mias"),
        ('name = "x"\ndataset = "rsna"\ngranularity = "woman"', "granularity 'woman' is not finding or breast"),
        ('name = "x"\ndataset = "rsna"\nmodel = "best"', "model is trained or pretrained"),
        ('name = "x"\ndataset = "rsna"\nlabels = []', "labels are left out, or one or more"),
        ('name = "x"\ndataset = "rsna"\nlabels = "density"', "labels is not a list of texts"),
        ('name = "x"\ndataset = "rsna"\nviews = "woman"', "views is not a table of texts"),
        ('name = "x"\ndataset = "rsna"\nviews = { density = "both" }', "views are each lesion, breast, woman"),
        ('name = "x"\ndataset = "rsna"\ncalibration = "women"', "calibration is gallery or folds"),
        ('name = "x"\ndataset = "rsna"\nfolds = 1', "folds is 2 to 20"),
        ('name = "x"\ndataset = "rsna"\nfolds = true', "folds is not a whole number"),
        ('name = "x"\ndataset = "rsna"\nfolds = 5.0', "folds is not a whole number"),
        ('name = "x"\ndataset = "rsna"\nseeds = []', "seeds are 1 to 20 different numbers"),
        ('name = "x"\ndataset = "rsna"\nseeds = [1, 1]', "seeds are 1 to 20 different numbers"),
        ('name = "x"\ndataset = "rsna"\nseeds = [-1]', "seeds are 1 to 20 different numbers"),
        ('name = "x"\ndataset = "rsna"\nseeds = 0', "seeds is not a list of whole numbers"),
        ('name = "x"\ndataset = "rsna"\nresamples = 1', "resamples is 100 to 100000"),
        ('name = "x"\ndataset = "rsna"\nfold = 5', "there is no option 'fold'"),
        ('name = "x"\ndataset = "rsna"\nrecipe = 3', "recipe is not the name of a file or a table"),
        ('name = "x"\ndataset = "rsna"\nfolds = 5\nfolds = 6', "can't be read as a TOML protocol"),
        ('name = "x', "can't be read as a TOML protocol"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path, text, cause):
    path = write(tmp_path, text)
    with pytest.raises(ClassificationError, match=cause) as caught:
        Protocol.read(path)
    assert str(path) in str(caught.value)


def test_wrong_recipes_and_files_are_told(tmp_path):
    with pytest.raises(ModelError, match=r"none\.toml"):
        Protocol.read(write(tmp_path, 'name = "x"\ndataset = "rsna"\nrecipe = "none.toml"'))
    with pytest.raises(ModelError, match="there is no option 'epoch'"):
        Protocol.read(write(tmp_path, 'name = "x"\ndataset = "rsna"\nsettings = ["training.epoch=3"]'))
    with pytest.raises(ClassificationError, match="recipe's preparation has the same granularity"):
        Protocol.read(
            write(tmp_path, 'name = "x"\ndataset = "rsna"\n[recipe.preparation]\ngranularity = "breast"\nheight = 96')
        )
    for place in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ClassificationError, match="can't be read as a TOML protocol"):
            Protocol.read(place)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClassificationError, match="can't be read as a TOML protocol"):
        Protocol.read(tmp_path / "binary.toml")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_no_value_of_an_option_ends_in_another_error(value):
    for option in dataclasses.fields(Protocol):
        content = {"name": "x", "dataset": "rsna", option.name: value}
        with contextlib.suppress(MammoseekError):
            Protocol._from_options(content, Path("protocol.toml"))


def test_the_rows_come_from_where_the_protocol_says(tmp_path):
    declared = Protocol("x", dataset="rsna", granularity="breast", recipe=Recipe.default("breast"))
    with pytest.raises(ClassificationError, match="name its folder by --data"):
        declared.read_rows(None)
    mine = Protocol("x", manifest=tmp_path / "mine.csv")
    with pytest.raises(ClassificationError, match="needs no folder of a data set"):
        mine.read_rows(tmp_path)
    with pytest.raises(MammoseekError, match=r"mine\.csv"):
        mine.read_rows(None)
