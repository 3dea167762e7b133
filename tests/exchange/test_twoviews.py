import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.twoviews import PairingConfig, find_nipples, foremost_point, pair_views

NIPPLES = {"/cc.png": (500.0, 400.0), "/mlo.png": (480.0, 700.0)}


def detection(name, seen, distance_mm, angle=0.0, **more):
    """A box around the place at a distance and an angle from the nipple of its view; 0.1 mm a pixel."""
    path = f"/{seen.lower()}.png"
    x, y = NIPPLES.get(path, (500.0, 400.0))
    pixels = distance_mm / 0.1
    middle = round(x - pixels * np.cos(angle)), round(y + pixels * np.sin(angle))
    box = {"x0": middle[0] - 10, "y0": middle[1] - 10, "x1": middle[0] + 10, "y1": middle[1] + 10}
    known = {"spacing_mm": 0.1, "laterality": "L", "view": seen, "study_id": "s", "patient_id": "w", **more}
    return Detection(detection_id=name, path=path, dataset="d", **{**box, **known})


def lesion_ids(*rows, **options):
    paired = pair_views(detections_frame(rows), NIPPLES, PairingConfig(**options))
    return dict(zip(paired["row_id"], paired["lesion_id"], strict=True))


def test_two_detections_equally_far_from_the_nipple_are_one_lesion():
    found = lesion_ids(detection("a", "CC", 30, 0.4), detection("b", "MLO", 31, -0.7), detection("c", "MLO", 12))
    assert found == {"a": "a+b", "b": "a+b", "c": None}


def test_the_most_alike_are_paired_first_and_nobody_twice():
    found = lesion_ids(
        detection("a", "CC", 30), detection("b", "CC", 34), detection("x", "MLO", 33), detection("y", "MLO", 42)
    )
    assert found == {"b": "b+x", "x": "b+x", "a": "a+y", "y": "a+y"}


@pytest.mark.parametrize(
    "change",
    [
        {"laterality": "R"},
        {"patient_id": "other"},
        {"study_id": "earlier"},
        {"view": "ML"},
        {"view": "CC"},
        {"view": None},
        {"laterality": None},
        {"spacing_mm": None},
        {"x0": None, "y0": None, "x1": None, "y1": None},
        {"lesion_type": "calcification"},
        {"lesion_id": "already"},
    ],
)
def test_what_is_not_the_other_view_of_the_same_breast_or_lacks_its_place_is_in_no_pair(change):
    found = lesion_ids(detection("a", "CC", 30, lesion_type="mass"), detection("b", "MLO", 30, **change))
    assert found["a"] is None
    assert found["b"] == change.get("lesion_id")


def test_an_image_without_a_nipple_has_no_pairs_and_types_part_only_where_asked():
    rows = [
        detection("a", "CC", 30, lesion_type="mass"),
        detection("b", "MLO", 30, lesion_type="calcification"),
    ]
    assert lesion_ids(*rows, same_type=False)["a"] == "a+b"
    assert pair_views(detections_frame(rows), {"/cc.png": (1.0, 2.0)})["lesion_id"].isna().all()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 40), max_size=5), st.lists(st.integers(0, 40), max_size=5), st.randoms())
def test_pairs_are_of_one_cc_and_one_mlo_within_reach_whatever_the_order_of_rows(first, second, random):
    rows = [
        *(detection(f"c{n}", "CC", mm) for n, mm in enumerate(first)),
        *(detection(f"m{n}", "MLO", mm) for n, mm in enumerate(second)),
    ]
    found = lesion_ids(*rows, most_mm=10.0)
    pairs = {}
    for name, lesion in found.items():
        if lesion is not None:
            pairs.setdefault(lesion, []).append(name)
    millimetres = {row.detection_id: mm for row, mm in zip(rows, [*first, *second], strict=True)}
    for lesion, names in pairs.items():
        assert lesion == "+".join(sorted(names))
        assert [name[0] for name in sorted(names)] == ["c", "m"]
        assert abs(millimetres[names[0]] - millimetres[names[1]]) <= 10.05  # places are whole pixels
    unpaired = [name for name, lesion in found.items() if lesion is None]
    for one in unpaired:
        for other in unpaired:
            if one[0] != other[0]:
                assert abs(millimetres[one] - millimetres[other]) > 9.95
    shuffled = random.sample(rows, len(rows))
    assert lesion_ids(*shuffled, most_mm=10.0) == found


def breast(columns=600, rows=900, nipple=(360, 500)):
    """A half ellipse of tissue at the left edge whose tip is the nipple."""
    y, x = np.mgrid[:rows, :columns]
    inside = (x / nipple[0]) ** 2 + ((y - nipple[1]) / 350) ** 2 < 1
    fade = 1 - 0.6 * (x / nipple[0]) ** 2
    return np.where(inside, 0.6 * fade, 0.01).astype(np.float32)


def test_the_foremost_point_is_the_tip_of_the_breast_on_either_side():
    pixels = breast()
    x, y = foremost_point(pixels)
    assert (x, y) == (pytest.approx(360, abs=12), pytest.approx(500, abs=20))
    x, y = foremost_point(np.ascontiguousarray(pixels[:, ::-1]))
    assert (x, y) == (pytest.approx(600 - 360, abs=12), pytest.approx(500, abs=20))


def test_tissue_without_background_has_no_foremost_point():
    assert foremost_point(np.random.default_rng(0).uniform(0.6, 0.9, (200, 100)).astype(np.float32)) is None


def test_images_that_cannot_be_read_are_named_and_the_others_found(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), (breast() * 255).astype(np.uint8))
    bad.write_bytes(b"")
    found, failures = find_nipples([str(good), str(bad), str(tmp_path / "none.png")], workers=2)
    assert list(found) == [str(good)]
    assert [path for path, _ in failures] == [str(bad), str(tmp_path / "none.png")]


def test_the_foremost_point_of_real_breasts_lies_at_the_side_of_the_nipple(mini_mias):
    paths = [str(path) for path in sorted(mini_mias.rglob("mdb00[1-6].*"))]
    found, failures = find_nipples(paths, workers=2)
    assert not failures
    # Breasts of odd numbers show their nipple at the left, those of even numbers at the right, of 1024 columns.
    assert [found[path][0] < 512 for path in paths] == [True, False] * 3
    assert all(350 < found[path][1] < 800 for path in paths)


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(most):
    with pytest.raises(ExchangeError):
        PairingConfig(most_mm=most)
