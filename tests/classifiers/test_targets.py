import pandas as pd
import pytest

from classifiers import ClassificationError
from classifiers.targets import choose_targets


def test_targets_are_the_usual_ones_that_can_be_scored(synthetic_manifest):
    frame = synthetic_manifest(12)
    assert choose_targets(frame, None, "finding") == ("lesion_type", "pathology")
    assert choose_targets(frame, ("pathology",), "finding") == ("pathology",)
    for asked, cause in ((("density",), "'density' can't be scored"), (("colour",), "there is no column 'colour'")):
        with pytest.raises(ClassificationError, match=f"{cause}.*its label columns are lesion_type, pathology$"):
            choose_targets(frame, asked, "finding")
    for nothing in (frame.iloc[:0], pd.DataFrame()):
        for asked in (None, ("pathology",)):
            with pytest.raises(ClassificationError, match="there are no rows"):
                choose_targets(nothing, asked, "finding")
    tissue = frame.assign(tissue=["lesion", "normal"] * 6)
    assert choose_targets(tissue, None, "finding") == ("lesion_type", "pathology", "tissue")
    assert choose_targets(frame.assign(tissue="lesion"), None, "finding") == ("lesion_type", "pathology")
    bare = frame.assign(lesion_type=None, pathology=None)
    with pytest.raises(ClassificationError, match="no label column"):
        choose_targets(bare, None, "finding")
