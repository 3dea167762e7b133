import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from embedder.datasets import read_dataset
from embedder.findings import Box
from embedder.preparation import PreparationConfig, PreparationError, Prepared, prepare

OFF = PreparationConfig(chest_wall_left=False, breast_only=False, normalise=False)


def breast(right: bool = False) -> np.ndarray:
    """Draw half a disc of textured tissue at the left (or right) of a dark image, with a label."""
    generator = np.random.default_rng(1)
    rows, columns = np.mgrid[:300, :240]
    tissue = (rows - 150) ** 2 + columns**2 < 130**2
    texture = cv2.GaussianBlur(generator.normal(0, 1, (300, 240)), (0, 0), 3) * 0.3
    image = np.where(tissue, 0.4 + texture, 0.02)
    image[10:30, 180:230] = 0.9
    image = np.clip(image, 0, 1).astype(np.float32)
    return np.ascontiguousarray(image[:, ::-1]) if right else image


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("granularity", "lesion"),
        ("height", 31),
        ("width", 5000),
        ("height", "224"),
        ("height", 224.0),
        ("height", True),
        ("context", 0.9),
        ("context", float("nan")),
        ("context", None),
        ("floor_mm", 0.0),
        ("floor_mm", float("inf")),
        ("floor_pixels", 32),
        ("median", 4),
        ("median", -3),
        ("clahe", -1.0),
        ("unsharp", 6.0),
        ("breast_only", 1),
        ("normalise", "no"),
        ("super_resolution", "waifu"),
        ("super_resolution", True),
    ],
)
def test_wrong_options_are_refused(option: str, value: object) -> None:
    with pytest.raises(PreparationError, match=option):
        PreparationConfig(**{option: value})  # type: ignore[arg-type]


def test_round_trip_through_a_card() -> None:
    config = PreparationConfig(granularity="breast", height=288, width=192, context=1, clahe=2)
    back = PreparationConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert back == config
    assert back.digest == config.digest
    with pytest.raises(PreparationError, match="unknown options: sharpen"):
        PreparationConfig.from_dict({"sharpen": 1})


def test_digest_tells_options_apart_and_not_spellings() -> None:
    assert PreparationConfig(context=2).digest == PreparationConfig(context=2.0).digest
    digests = {
        PreparationConfig(**{option: value}).digest  # type: ignore[arg-type]
        for option, value in [("height", 256), ("context", 2.0), ("clahe", 1.0), ("breast_only", False)]
    }
    assert len(digests | {PreparationConfig().digest}) == 5


def test_an_option_that_came_later_leaves_earlier_digests_alone() -> None:
    """Models are bound to these digests since before there was super-resolution."""
    assert PreparationConfig().digest == "ad4786e238d22bab8bf99584dcaffd8092fa90f147a437096d2757644e5923ff"
    breasts = PreparationConfig(granularity="breast", height=224, width=160, context=1)
    assert breasts.digest == "c01ccef38611a95efd98bd8e40d39eb10d4f806edc80d90048c604848c6cca84"
    assert "super_resolution" not in breasts.to_dict()
    enlarging = PreparationConfig(super_resolution="srcnn-rsna")
    assert enlarging.digest != PreparationConfig().digest
    assert PreparationConfig.from_dict(enlarging.to_dict()) == enlarging


def test_nothing_asked_nothing_done() -> None:
    image = breast(right=True)
    prepared = prepare(image, OFF)
    np.testing.assert_array_equal(prepared.pixels, image)
    assert prepared.mask is None
    assert not prepared.mirrored


def test_both_sides_become_one() -> None:
    left, right = (prepare(breast(right), PreparationConfig()) for right in (False, True))
    assert (left.mirrored, right.mirrored) == (False, True)
    assert left.mask is not None
    assert right.mask is not None
    # Resampling is symmetric but for rounding.
    assert np.abs(left.pixels - right.pixels).max() < 0.02
    assert (left.mask != right.mask).mean() < 0.01


def test_the_input_is_left_alone() -> None:
    image = breast(right=True)
    before = image.copy()
    prepare(image, PreparationConfig(median=3, clahe=2.0, unsharp=1.0, remove_pectoral=True), view="MLO")
    np.testing.assert_array_equal(image, before)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.data())
def test_places_are_mirrored(columns: int, data: st.DataObject) -> None:
    x0 = data.draw(st.integers(0, columns - 1))
    x1 = data.draw(st.integers(x0 + 1, columns))
    y0 = data.draw(st.integers(0, 39))
    y1 = data.draw(st.integers(y0 + 1, 40))
    image = np.zeros((40, columns), np.float32)
    image[y0:y1, x0:x1] = 1
    box = Box(x0, y0, x1, y1)
    for mirrored in (False, True):
        seen = image[:, ::-1] if mirrored else image
        placed = Prepared(np.ascontiguousarray(seen), None, mirrored, None, False).place(box)
        # What was marked is what is found there, all of it and nothing else.
        assert seen[placed.y0 : placed.y1, placed.x0 : placed.x1].min() == 1
        assert seen.sum() == placed.width * placed.height
        back = Prepared(image, None, mirrored, None, False).place(placed)
        assert back == box


def test_normalised_inside_the_breast() -> None:
    image = breast()
    prepared = prepare(image, PreparationConfig())
    assert prepared.mask is not None
    inside = prepared.pixels[prepared.mask]
    assert 0.0 <= inside.min() <= 0.01
    assert inside.max() == 1.0
    # Brightness and contrast of the film no longer matter; the label outside never did.
    faint = np.clip(image * 0.5 + 0.1, 0, 1).astype(np.float32)
    faint[10:30, 180:230] = 0.3
    other = prepare(faint, PreparationConfig())
    assert np.abs(other.pixels[prepared.mask] - inside).mean() < 0.02


def test_an_image_of_one_grey_is_no_accident() -> None:
    for value in (0.0, 0.5):
        prepared = prepare(np.full((64, 64), value, np.float32), PreparationConfig(clahe=2.0, unsharp=1.0))
        assert np.isfinite(prepared.pixels).all()


@pytest.mark.parametrize("side", [3, 5, 9])
def test_median_against_scipy(side: int) -> None:
    image = breast()
    config = PreparationConfig(chest_wall_left=False, breast_only=False, normalise=False, median=side)
    expected = ndimage.median_filter(image, side, mode="nearest")
    assert np.abs(prepare(image, config).pixels - expected).max() <= 1 / 255


def test_equalisation_raises_local_contrast_and_a_higher_limit_more() -> None:
    image = breast()
    contrasts = []
    for limit in (0.0, 1.5, 6.0):
        config = PreparationConfig(chest_wall_left=False, normalise=False, breast_only=False, clahe=limit)
        inside = prepare(image, config).pixels[100:200, 10:80]
        assert inside.min() >= 0
        assert inside.max() <= 1
        contrasts.append(float(inside.std()))
    assert contrasts[0] * 1.05 < contrasts[1]
    assert contrasts[1] * 1.05 < contrasts[2]


def test_unsharp_mask_by_hand_and_by_millimetres() -> None:
    image = breast()
    config = PreparationConfig(chest_wall_left=False, normalise=False, breast_only=False, unsharp=0.8)
    for spacing, sigma in ((None, 2.5), (0.1, 5.0)):
        blurred = ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="mirror")
        expected = np.clip(image + 0.8 * (image - blurred), 0, 1)
        assert np.abs(prepare(image, config, spacing_mm=spacing).pixels - expected).max() < 0.01
    # A spacing that is wrong by a thousand costs no minutes.
    prepare(image, config, spacing_mm=0.0001)


@pytest.mark.parametrize(("view", "removed"), [("MLO", True), ("ML", True), ("CC", False), (None, False)])
def test_muscle_is_removed_on_views_that_show_it(view: str | None, removed: bool) -> None:
    rows, columns = np.mgrid[:300, :240]
    for right in (False, True):
        image = breast()
        muscle = (columns / 60 + rows / 150 < 1) & (image > 0.1)
        image[10:30, 180:230] = 0.02
        image[(columns / 60 + (rows - 20) / 150 < 1) & (rows > 20)] = 0.9
        image = np.ascontiguousarray(image[:, ::-1]) if right else image
        for left in (False, True):
            config = PreparationConfig(remove_pectoral=True, chest_wall_left=left)
            prepared = prepare(image, config, view=view)
            assert prepared.mask is not None
            mask = prepared.mask[:, ::-1] if right and not left else prepared.mask
            assert muscle.any()
            assert (not mask[40:80, 2:10].any()) is removed
            assert mask[150:220, 40:80].all()


def test_every_finding_of_mini_mias_lies_in_its_breast(mini_mias) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    frame = frame[frame["granularity"] == "finding"]
    assert len(frame) == 119
    outside = set()
    for _, row in frame.iterrows():
        quarter = cv2.imread(row["path"], cv2.IMREAD_REDUCED_GRAYSCALE_4).astype(np.float32) / 255
        prepared = prepare(quarter, PreparationConfig(remove_pectoral=True), view="MLO")
        assert prepared.mask is not None
        box = Box(row["x0"] // 4, row["y0"] // 4, max(row["x1"], row["x0"] + 4) // 4, -(-row["y1"] // 4))
        x, y = prepared.place(box).centre
        if not prepared.mask[int(y), int(x)]:
            outside.add(row["row_id"])
    # The official list has this one beside the breast, whichever end its y is counted from.
    assert outside <= {"mdb212-1"}
