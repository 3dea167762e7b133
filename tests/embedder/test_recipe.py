import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.augmentation import BREAST_AUGMENTATION, AugmentationConfig
from embedder.network import NetworkConfig
from embedder.recipe import Recipe
from embedder.trainingplan import choose_augmentation
from errors import MammoseekError


@pytest.mark.parametrize("granularity", ["finding", "breast"])
def test_what_is_printed_reads_back_the_same(tmp_path, granularity):
    recipe = Recipe.default(granularity).with_settings(
        [
            "training.augmentation.degrees=3",
            'labels=["density"]',
            "training.objective.miner=hard",
            "network.grey_stem=true",
        ]
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert Recipe.read(path) == recipe


@given(
    epochs=st.integers(1, 500),
    rate=st.floats(1e-6, 1.0),
    dropout=st.floats(0, 0.99),
    miner=st.sampled_from(["all", "semihard", "hard", "batch-hard"]),
)
@settings(deadline=None, max_examples=30)
def test_settings_reach_their_option_and_no_other(epochs, rate, dropout, miner):
    recipe = Recipe().with_settings(
        [
            f"training.epochs={epochs}",
            f"training.learning_rate={rate!r}",
            f"network.dropout={dropout!r}",
            f"training.objective.miner={miner}",
        ]
    )
    assert (recipe.training.epochs, recipe.training.learning_rate) == (epochs, rate)
    assert (recipe.network.dropout, recipe.training.objective.miner) == (dropout, miner)
    back = recipe.with_settings(
        [
            f"training.epochs={Recipe().training.epochs}",
            f"training.learning_rate={Recipe().training.learning_rate}",
            f"network.dropout={Recipe().network.dropout}",
            f"training.objective.miner={Recipe().training.objective.miner}",
        ]
    )
    assert back == Recipe()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.epochs=many", "epochs can't be 'many'"),
        ("training.epochs=0", "epochs is 1 to 100000"),
        ("training.epochs=true", "epochs can't be True"),
        ("training.speed=1", "there is no option 'speed'"),
        ("network=3", "'network' is a table"),
        ("training.schedule=linear", "step, cosine"),
        ("labels=3", "labels can't be 3"),
        ("epochs", "has no value"),
        ("preparation.granularity=lesion", "granularity can't be 'lesion'"),
    ],
)
def test_a_wrong_setting_is_named(setting, says):
    with pytest.raises(MammoseekError, match="setting") as caught:
        Recipe().with_settings([setting])
    assert says in str(caught.value)


def test_a_breast_recipe_in_a_file_starts_from_the_breast_defaults(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[preparation]\ngranularity = "breast"\n')
    assert Recipe.read(path) == Recipe.default("breast")


@pytest.mark.parametrize(
    "content", [b"", b"[training\n", b"\xff\xfe\x00", b"[training]\nepochs = 'x'\n", b"x = " + b"[" * 5000]
)
def test_a_bad_file_costs_one_clear_error(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    if content == b"":
        assert Recipe.read(path) == Recipe()
        return
    with pytest.raises(MammoseekError, match=r"recipe\.toml"):
        Recipe.read(path)


def test_a_missing_file_and_an_unknown_granularity_are_refused(tmp_path):
    with pytest.raises(MammoseekError, match="can't be read"):
        Recipe.read(tmp_path / "none.toml")
    with pytest.raises(MammoseekError, match="finding or breast"):
        Recipe.default("lesion")


@pytest.mark.parametrize("granularity", ["finding", "breast"])
def test_the_augmentation_is_printed_as_it_will_be(tmp_path, granularity):
    recipe = Recipe.default(granularity)
    expected = choose_augmentation(recipe.training, recipe.preparation)
    assert tomllib.loads(recipe.to_toml())["training"]["augmentation"] == dataclasses.asdict(expected)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    back = Recipe.read(path)
    assert choose_augmentation(back.training, back.preparation) == expected
    assert dataclasses.replace(back, training=dataclasses.replace(back.training, augmentation=None)) == recipe


def test_one_option_of_the_augmentation_leaves_the_others_as_suits_the_granularity(tmp_path):
    expected = dataclasses.replace(BREAST_AUGMENTATION, degrees=3.0)
    recipe = Recipe.default("breast").with_settings(["training.augmentation.degrees=3"])
    assert recipe.training.augmentation == expected
    path = tmp_path / "recipe.toml"
    path.write_text('[training.augmentation]\ndegrees = 3\n[preparation]\ngranularity = "breast"\n')
    assert Recipe.read(path).training.augmentation == expected
    finding = Recipe().with_settings(["training.augmentation.degrees=3"]).training.augmentation
    assert finding == dataclasses.replace(AugmentationConfig(), degrees=3.0)
    assert recipe.with_settings(["training.augmentation.scale=0"]).training.augmentation.degrees == 3.0


@given(st.lists(st.text(), max_size=4), st.text())
@settings(deadline=None, max_examples=50)
def test_any_text_reads_back(labels, weights):
    recipe = Recipe(labels=tuple(labels), network=dataclasses.replace(NetworkConfig(), weights=weights))
    content = tomllib.loads(recipe.to_toml())
    assert (content["labels"], content["network"]["weights"]) == (labels, weights)


@pytest.mark.parametrize(
    "text", ["\x7f", "\n", "\r\n", "\t", "\0", "\x1b[2J", '"', "\\", '"""', "\u2028", "😀", "# no"]
)
def test_signs_that_mean_something_to_toml_read_back(tmp_path, text):
    recipe = Recipe(labels=(text,))
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8", newline="")
    assert Recipe.read(tmp_path / "recipe.toml").labels == (text,)


@pytest.mark.parametrize(
    "setting",
    [
        "training.epochs=1e23",
        f"training.epochs={10**23}",
        f"training.epochs={'9' * 5000}",
        "training.classes_per_batch=100000000",
        "training.findings_per_class=100000000",
        "training.layers_every=100000000",
        f"training.learning_rate={10**400}",
        "training.learning_rate=1e9",
        "training.weight_decay=1e9",
        "training.backbone_rate=inf",
        f"training.epochs={'[' * 5000}",
        "training.epochs=5\nother = 3",
        f"{'x' * 5000}=1",
        "x" * 5000,
        "network.weights=\udcff",
    ],
)
def test_absurd_settings_cost_one_short_error(setting):
    with pytest.raises(MammoseekError, match="setting") as caught:
        Recipe().with_settings([setting])
    assert len(str(caught.value)) < 500


def test_the_printed_recipe_is_valid_toml_with_every_set_option():
    content = tomllib.loads(Recipe().to_toml())
    assert content["training"]["objective"]["margin"] == Recipe().training.objective.margin
    assert content["preparation"]["granularity"] == "finding"
