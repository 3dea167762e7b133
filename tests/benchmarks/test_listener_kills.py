from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pynetdicom", reason="install mammoseek[exchange] for pynetdicom")

from benchmarks.listener_kills import Found, make_studies
from exchange.gatekeeper import judge_image
from exchange.verdicts import REFUSE


def test_the_studies_are_mammograms_that_the_gatekeeper_lets_in(tmp_path: Path) -> None:
    studies = make_studies(tmp_path, 2, np.random.default_rng(0))
    verdicts = [judge_image(path) for files in studies.values() for path in files]
    assert len({verdict.sop_uid for verdict in verdicts}) == 4
    assert all(verdict.verdict != REFUSE and verdict.spacing_mm == 0.4 for verdict in verdicts)


def test_all_is_well_only_where_each_study_has_its_one_report() -> None:
    found = Found(10, 3, 1, 11, 1, 0, 0, 0, 0, 0, 9.0)
    assert found.is_well, "the same report twice is kept once"
    for trouble in ("differing", "lost", "several", "left", "sends_again"):
        assert not replace(found, **{trouble: 1}).is_well
