import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from torch import tensor
from torchvision.ops import box_iou

from exchange import ExchangeError
from exchange.matching import DUPLICATE, FALSE, MatchingRule, hit_quality, inside_outline, iou, match

CENTRE = MatchingRule()


def some_boxes(rng, count):
    corners = rng.integers(0, 12, (count, 2))
    return np.concatenate([corners, corners + rng.integers(1, 9, (count, 2))], axis=1)


def slow_iou(a, b):
    """Count the pixels of two boxes."""
    first, second = ({(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b))
    return len(first & second) / len(first | second)


def slow_match(boxes, lesions, rule):
    """Go through the detections, best first, and through all lesions for each."""
    taken, found = set(), []
    for box in boxes:
        best, best_quality, any_hit = None, None, False
        for number, lesion in enumerate(lesions):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if rule.criterion == "iou":
                quality = slow_iou(box, lesion)
                hit = quality >= rule.iou
            else:
                quality = -np.hypot(x - (lesion[0] + lesion[2]) / 2, y - (lesion[1] + lesion[3]) / 2)
                hit = lesion[0] <= x < lesion[2] and lesion[1] <= y < lesion[3]
            if not hit:
                continue
            any_hit = True
            if number not in taken and (best is None or quality > best_quality):
                best, best_quality = number, quality
        if best is not None:
            taken.add(best)
        found.append(best if best is not None else DUPLICATE if any_hit else FALSE)
    return found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6))
def test_iou_equals_counting_pixels_and_torchvision(seed, rows, columns):
    rng = np.random.default_rng(seed)
    a, b = some_boxes(rng, rows), some_boxes(rng, columns)
    found = iou(a, b)
    assert found.shape == (rows, columns)
    assert found == pytest.approx(np.array([[slow_iou(x, y) for y in b] for x in a]).reshape(rows, columns))
    assert found == pytest.approx(box_iou(tensor(a).double(), tensor(b).double()).numpy())
    assert iou(b, a) == pytest.approx(found.T)


def test_iou_of_boxes_that_touch_or_have_no_area_is_zero():
    assert iou([[0, 0, 2, 2]], [[2, 0, 4, 2], [1, 1, 1, 1], [5, 5, 3, 3]]).tolist() == [[0, 0, 0]]
    assert iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0]]


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 8), st.integers(0, 5), st.sampled_from([0.05, 0.2, 0.5]), st.booleans()
)
def test_matching_equals_the_slow_version(seed, detections, lesions, overlap, centre):
    rng = np.random.default_rng(seed)
    boxes, places = some_boxes(rng, detections), some_boxes(rng, lesions)
    rule = CENTRE if centre else MatchingRule("iou", iou=overlap)
    found = match(hit_quality(boxes, places, [None] * lesions, rule))
    assert found.tolist() == slow_match(boxes, places, rule)
    taken = found[found >= 0]
    assert len(set(taken)) == len(taken)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_what_comes_later_changes_nothing_of_what_came_before(seed, detections):
    rng = np.random.default_rng(seed)
    quality = hit_quality(some_boxes(rng, detections), some_boxes(rng, 3), [None] * 3, CENTRE)
    whole = match(quality).tolist()
    for first in range(detections):
        assert match(quality[:first]).tolist() == whole[:first]


def test_a_lesion_is_found_once_and_a_second_hit_is_a_duplicate():
    lesion = [[10, 10, 30, 30]]
    boxes = [[12, 12, 20, 20], [15, 15, 25, 25], [40, 40, 50, 50]]
    assert match(hit_quality(boxes, lesion, [None], CENTRE)).tolist() == [0, DUPLICATE, FALSE]


def test_a_second_hit_finds_the_other_lesion_where_it_hits_that_too():
    lesions = [[0, 0, 20, 20], [4, 4, 24, 24]]
    boxes = [[8, 8, 12, 12], [8, 8, 12, 12], [8, 8, 12, 12]]
    assert match(hit_quality(boxes, lesions, [None, None], CENTRE)).tolist() == [0, 1, DUPLICATE]


def test_the_centre_rule_is_half_open_and_forgives_large_boxes():
    lesion = [[10, 10, 20, 20]]
    at_start, at_end, large = [9, 9, 11, 11], [19, 19, 21, 21], [0, 0, 30, 30]
    assert (hit_quality([at_start, at_end, large], lesion, [None], CENTRE) > -np.inf).ravel().tolist() == [
        True,
        False,
        True,
    ]
    assert hit_quality([large], lesion, [None], MatchingRule("iou", iou=0.2)).tolist() == [[-np.inf]]


def test_an_iou_that_is_just_reached_is_a_hit():
    assert hit_quality([[0, 0, 10, 2]], [[0, 0, 10, 10]], [None], MatchingRule("iou", iou=0.2))[0, 0] == 0.2


def test_an_outline_stands_above_the_box_by_the_centre_rule():
    triangle = [(0, 0), (20, 0), (0, 20)]
    inside, outside = [3, 3, 5, 5], [14, 14, 18, 18]
    quality = hit_quality([inside, outside], [[0, 0, 20, 20]], [triangle], CENTRE)
    assert (quality > -np.inf).ravel().tolist() == [True, False]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(3, 7))
def test_points_inside_an_outline_are_those_that_matplotlib_finds_off_the_line(seed, corners):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    # A polygon around a middle does not cross itself, where matplotlib and the even-odd rule differ.
    assume(np.diff(np.append(angles, angles[0] + 2 * np.pi)).max() < np.pi)
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(1, 5, (corners, 1))
    points = rng.uniform(-5, 5, (50, 2))
    assert inside_outline(points, outline).tolist() == Outline(outline).contains_points(points).tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_outline_of_a_box_holds_what_the_half_open_box_holds(seed):
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = some_boxes(rng, 1)[0]
    points = rng.integers(0, 21, (60, 2))
    box = (points[:, 0] >= x0) & (points[:, 0] < x1) & (points[:, 1] >= y0) & (points[:, 1] < y1)
    for corners in ([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], [(x0, y1), (x1, y1), (x1, y0), (x0, y0)]):
        assert inside_outline(points, corners).tolist() == box.tolist()


@pytest.mark.parametrize(
    "options", [{"criterion": "nearest"}, {"iou": 0.0}, {"iou": float("nan")}, {"iou": 1.1}, {"duplicates": "true"}]
)
def test_rules_that_are_none_are_refused(options):
    with pytest.raises(ExchangeError):
        MatchingRule(**options)
