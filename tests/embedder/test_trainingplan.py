"""What a training is asked for: ranges, schedules, and the labels that form triplets."""

import pytest

from embedder.augmentation import BREAST_AUGMENTATION, AugmentationConfig
from embedder.checkpoint import ModelError
from embedder.preparation import PreparationConfig
from embedder.trainingplan import TrainingConfig, choose_augmentation, choose_metric_labels

FINDINGS = {"lesion_type": ("a", "b"), "pathology": ("a", "b"), "native_lesion_type": ("a", "b"), "density": ("a", "b")}


def test_step_decay_is_a_hundredth_an_epoch_from_a_thousandth() -> None:
    config = TrainingConfig(schedule="step")
    assert [config.rate(epoch) for epoch in (0, 1, 10)] == pytest.approx([1e-3, 0.99e-3, 0.99**10 * 1e-3])


def test_cosine_falls_from_the_rate_towards_zero() -> None:
    config = TrainingConfig(schedule="cosine", epochs=10)
    rates = [config.rate(epoch) for epoch in range(10)]
    assert rates[0] == 1e-3
    assert rates == sorted(rates, reverse=True)
    assert rates[5] == pytest.approx(0.5e-3)
    assert 0 < rates[-1] < 0.05e-3


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"classes_per_batch": 1},
        {"findings_per_class": 1},
        {"balance": "equal"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"backbone_rate": -1.0},
        {"schedule": "linear"},
        {"decay": 0.0},
        {"weight_decay": -1.0},
        {"trainable": "some"},
        {"layers_every": 0},
        {"backbone_norm": "layer"},
        {"validation_share": 0.6},
        {"precision": "float16"},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="training: an option is out of range"):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    ("heads", "granularity", "datasets", "expected"),
    [
        (FINDINGS, "finding", 1, ("native_lesion_type", "pathology")),
        (FINDINGS, "finding", 2, ("lesion_type", "pathology")),
        ({**FINDINGS, "tissue": ("a", "b")}, "finding", 1, ("tissue", "native_lesion_type", "pathology")),
        ({"tissue": ("a", "b")}, "finding", 2, ("tissue",)),
        ({"lesion_type": ("a", "b")}, "finding", 1, ("lesion_type",)),
        ({"pathology": ("a", "b")}, "finding", 1, ("pathology",)),
        ({"margin": ("a", "b")}, "finding", 1, ("margin",)),
        (FINDINGS, "breast", 1, ("density", "pathology")),
    ],
)
def test_triplets_are_formed_on_the_finest_lesion_type_there_is(
    heads: dict[str, tuple[str, ...]], granularity: str, datasets: int, expected: tuple[str, ...]
) -> None:
    assert choose_metric_labels(heads, None, granularity, datasets) == expected


def test_labels_that_were_asked_for_stand() -> None:
    assert choose_metric_labels(FINDINGS, ("density",), "finding", 1) == ("density",)
    with pytest.raises(ModelError, match="no triplets can be formed on margin; use lesion_type"):
        choose_metric_labels(FINDINGS, ("margin",), "finding", 1)
    with pytest.raises(ModelError, match="no triplets can be formed on no label"):
        choose_metric_labels(FINDINGS, (), "finding", 1)


def test_augmentation_suits_the_granularity_unless_it_was_asked_for() -> None:
    breast = PreparationConfig(granularity="breast")
    assert choose_augmentation(TrainingConfig(), PreparationConfig()) == AugmentationConfig()
    assert choose_augmentation(TrainingConfig(), breast) == BREAST_AUGMENTATION
    own = AugmentationConfig(scale=0.5)
    assert choose_augmentation(TrainingConfig(augmentation=own), breast) == own
