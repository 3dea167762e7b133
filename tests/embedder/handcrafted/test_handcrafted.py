import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.datasets import read_dataset
from embedder.findings import Box
from embedder.handcrafted import HandcraftedError, describe, feature_names
from embedder.mammogram import read_mammogram
from embedder.preparation import DESCRIPTOR_GROUPS, PreparationConfig, PreparationError, Prepared, prepare

GROUPS = DESCRIPTOR_GROUPS
# What stays where the finding is when the film is turned.
TURNING = ("shape", "margin", "texture", "hgd", "intensity", "calcification")


def plain(pixels: np.ndarray, mask: np.ndarray | None = None, spacing_mm: float | None = None) -> Prepared:
    return Prepared(np.ascontiguousarray(pixels, np.float32), mask, False, spacing_mm, mask is not None)


def film(seed: int = 0, side: int = 241) -> np.ndarray:
    """Draw grained tissue with an oval mass in its middle, and specks in that."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    mass = (rows / 30) ** 2 + (columns / 20) ** 2 < 1
    image = cv2.GaussianBlur(0.3 + 0.3 * mass + generator.normal(0, 0.2, (side, side)), (0, 0), 2.0)
    for row, column in generator.integers(-15, 16, (6, 2)) + side // 2:
        image[row, column] += 0.4
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8), 0, 1).astype(np.float32)


BOX = Box(85, 85, 156, 156)


@pytest.mark.parametrize("granularity", GROUPS)
def test_names_and_lengths_agree(granularity: str) -> None:
    groups = GROUPS[granularity]
    box = BOX if granularity == "finding" else None
    whole = describe(plain(film()), box, granularity, groups)
    names = feature_names(granularity, groups)
    assert whole.dtype == np.float32
    assert whole.shape == (len(names),)
    assert len(set(names)) == len(names)
    # A group alone is the same as among others, in the order that is asked for.
    parts = [describe(plain(film()), box, granularity, (group,)) for group in groups[::-1]]
    np.testing.assert_array_equal(np.concatenate(parts), describe(plain(film()), box, granularity, groups[::-1]))
    np.testing.assert_array_equal(np.concatenate(parts[::-1]), whole)
    for group, part in zip(groups[::-1], parts, strict=True):
        assert {name.split(".")[0] for name in feature_names(granularity, (group,))} == {group}
        assert len(part) == len(feature_names(granularity, (group,)))
    assert describe(plain(film()), box, granularity, ()).shape == (0,)


@pytest.mark.parametrize("granularity", GROUPS)
def test_the_same_twice_and_the_input_left_alone(granularity: str) -> None:
    image = film()
    mask = np.ones(image.shape, np.bool_)
    mask[:, 200:] = False
    seen, box = plain(image, mask, 0.2), BOX if granularity == "finding" else None
    before = seen.pixels.copy(), mask.copy()
    one, two = (describe(seen, box, granularity, GROUPS[granularity]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(seen.pixels, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_turned_by_ninety_degrees() -> None:
    image = film()
    one = describe(plain(image, spacing_mm=0.2), BOX, "finding", TURNING)
    two = describe(plain(np.rot90(image), spacing_mm=0.2), BOX, "finding", TURNING)
    for name, before, after in zip(feature_names("finding", TURNING), one, two, strict=True):
        assert after == pytest.approx(before, rel=0.05, abs=0.06), name


def test_a_mirrored_film_is_described_as_it_was() -> None:
    image = film()
    box = Box(60, 70, 121, 150)
    seen = Prepared(np.ascontiguousarray(image[:, ::-1]), None, True, 0.2, False)
    straight = Prepared(np.ascontiguousarray(image[:, ::-1]), None, False, 0.2, False)
    np.testing.assert_array_equal(
        describe(seen, box, "finding", GROUPS["finding"]),
        describe(straight, seen.place(box), "finding", GROUPS["finding"]),
    )


def test_without_a_spacing_the_stored_size_does_not_matter() -> None:
    image = cv2.GaussianBlur(film(side=481), (0, 0), 3.0)
    small = cv2.resize(image[:480, :480], (240, 240), interpolation=cv2.INTER_AREA)
    groups = ("shape", "margin", "intensity")
    one = describe(plain(image[:480, :480]), Box(200, 190, 280, 290), "finding", groups)
    two = describe(plain(small), Box(100, 95, 140, 145), "finding", groups)
    for name, fine, coarse in zip(feature_names("finding", groups), one, two, strict=True):
        assert coarse == pytest.approx(fine, rel=0.15, abs=0.15), name


def test_lengths_follow_the_spacing() -> None:
    one, two = (describe(plain(film(), spacing_mm=spacing), BOX, "finding", ("shape",)) for spacing in (0.2, 0.4))
    names = feature_names("finding", ("shape",))
    changed = {name for name, before, after in zip(names, one, two, strict=True) if before != after}
    assert changed == {"shape.log_area", "shape.diameter_mm"}
    assert two[names.index("shape.diameter_mm")] == pytest.approx(2 * one[names.index("shape.diameter_mm")])


def test_a_film_of_one_column_is_described() -> None:
    seen = plain(np.zeros((24, 1)), None, 0.05)
    for _ in range(20):  # what was read beyond the film's end was garbage now and then
        assert np.isfinite(describe(seen, Box(0, 12, 1, 13), "finding", GROUPS["finding"])).all()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_all_is_finite(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    kind = data.draw(st.sampled_from(["black", "white", "grey", "noise", "points", "step"]))
    image = {
        "black": np.zeros((rows, columns)),
        "white": np.ones((rows, columns)),
        "grey": np.full((rows, columns), 0.37),
        "noise": np.random.default_rng(0).random((rows, columns)),
        "points": np.random.default_rng(1).random((rows, columns)) > 0.95,
        "step": np.tile(np.arange(columns) > columns / 2, (rows, 1)),
    }[kind]
    masks = {"none": None, "empty": np.zeros, "all": np.ones, "half": lambda *a: np.arange(columns) < np.ones(*a) * 5}
    make = masks[data.draw(st.sampled_from(sorted(masks)))]
    mask = None if make is None else np.ascontiguousarray(make((rows, columns)), np.bool_)
    seen = plain(image, mask, data.draw(st.sampled_from([None, 0.05, 0.2, 1.0, 50.0, 1e-4])))
    x0, y0 = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, columns)), data.draw(st.integers(y0 + 1, rows))
    for box in (Box(x0, y0, x1, y1), Box(x0, y0, x0 + 1, y0 + 1)):
        assert np.isfinite(describe(seen, box, "finding", GROUPS["finding"])).all()
    assert np.isfinite(describe(seen, None, "breast", GROUPS["breast"])).all()


@pytest.mark.parametrize(
    ("box", "granularity", "groups", "message"),
    [
        (BOX, "lesion", ("shape",), "granularity 'lesion' is unknown; use finding or breast"),
        (BOX, "finding", ("shape", "density"), "group 'density' of a finding is unknown; use shape, margin"),
        (None, "breast", ("shape",), "group 'shape' of a breast is unknown; use density, zones"),
        (BOX, "finding", ("shape", "hog", "shape"), "named twice"),
        (None, "finding", ("shape",), "a finding needs a box; name it as x0,y0,x1,y1"),
        (BOX, "breast", ("density",), "box 85,85,156,156 is given for a whole breast; leave it out"),
        (Box(200, 0, 242, 10), "finding", ("shape",), "200,0,242,10 does not lie inside the image of 241 × 241"),
        (Box(-1, 0, 10, 10), "finding", ("shape",), "does not lie inside"),
    ],
)
def test_mistakes_are_told(box: Box | None, granularity: str, groups: tuple[str, ...], message: str) -> None:
    with pytest.raises(HandcraftedError, match=re.escape(message)):
        describe(plain(film()), box, granularity, groups)


def test_names_of_unknown_groups_are_refused() -> None:
    with pytest.raises(HandcraftedError, match="unknown"):
        feature_names("finding", ("zones",))
    with pytest.raises(HandcraftedError, match="unknown"):
        feature_names("image", ())


def test_density_and_calcifications_of_mini_mias(mini_mias) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    names = feature_names("breast", ("density",))
    above = names.index("density.mean_above_fat")
    breasts, fat, dense = frame[frame["granularity"] == "breast"], [], []
    config = PreparationConfig(granularity="breast", normalise=False)
    for label, values in (("fatty", fat), ("dense", dense)):
        for _, row in breasts[breasts["density"] == label].iloc[::10].iterrows():
            seen = prepare(read_mammogram(row["path"]).pixels, config, spacing_mm=row["spacing_mm"], view="MLO")
            values.append(describe(seen, None, "breast", ("density",))[above])
    assert np.mean(dense) > np.mean(fat) + 0.02

    groups = ("shape", "calcification")
    segmented = feature_names("finding", groups).index("shape.segmented")
    spots = feature_names("finding", groups).index("calcification.log_density_fine")
    findings, found = frame[frame["granularity"] == "finding"], {"calcification": [], "mass": []}
    for lesion, rows in found.items():
        for _, row in findings[findings["lesion_type"] == lesion].iloc[::3].iterrows():
            seen = prepare(read_mammogram(row["path"]).pixels, PreparationConfig(), spacing_mm=row["spacing_mm"])
            rows.append(describe(seen, Box(row["x0"], row["y0"], row["x1"], row["y1"]), "finding", groups))
    assert np.mean([row[segmented] for rows in found.values() for row in rows]) > 0.9
    assert np.mean([row[spots] for row in found["calcification"]]) > np.mean([row[spots] for row in found["mass"]])


def test_the_groups_that_may_be_asked_for_are_those_that_there_are() -> None:
    for granularity, groups in GROUPS.items():
        assert {name.split(".")[0] for name in feature_names(granularity, groups)} == set(groups)
        assert PreparationConfig(granularity=granularity, descriptors=groups).digest != PreparationConfig().digest  # type: ignore[arg-type]
    with pytest.raises(PreparationError, match="descriptors are some of shape"):
        PreparationConfig(descriptors=("zones",))
    with pytest.raises(PreparationError, match="descriptors"):
        PreparationConfig(descriptors=("shape", "shape"))
