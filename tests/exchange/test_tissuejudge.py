import numpy as np
import pytest

from classifiers.heads import LinearHead
from classifiers.neighbours import NeighbourVote
from exchange import ExchangeError
from exchange.tissuejudge import LESION, NORMAL, TissueJudge


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def known():
    generator = np.random.default_rng(0)
    labels = np.array([LESION, NORMAL, NORMAL] * 14, dtype=object)
    vectors = generator.normal(size=(42, 8)) + 1.5 * (labels == LESION)[:, None] * np.eye(8)[0]
    women = np.array([f"d/{i // 3}" for i in range(42)], dtype=object)
    return unit(vectors), labels, women


def test_the_odds_are_the_mean_of_the_heads_and_the_votes(known):
    queries = unit(np.random.default_rng(1).normal(size=(20, 8)))
    wanted = np.zeros(20)
    for part in (LinearHead().fit(*known), NeighbourVote().fit(*known)):
        chances = part.predict_proba(queries)[:, part.classes_.index(LESION)]
        wanted += np.log(chances / (1 - chances)) / 2
    assert np.allclose(TissueJudge(*known).log_odds(queries), wanted, atol=1e-4)


def test_lesions_have_higher_odds_than_normal_tissue(known):
    odds = TissueJudge(*known).log_odds(known[0])
    assert odds[known[1] == LESION].mean() > odds[known[1] == NORMAL].mean() + 0.5


def test_alignment_takes_away_what_all_places_of_a_film_share(known):
    judge = TissueJudge(*known)
    normal = known[0][known[1] == NORMAL]
    shifted = unit(normal + np.array([0, 0, 0.8, 0, 0, -0.5, 0, 0]))
    moved = judge.aligned(shifted)
    assert np.allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    assert np.median((moved * normal).sum(axis=1)) > np.median((shifted * normal).sum(axis=1)) + 0.05
    few = shifted[:3]
    assert (judge.aligned(few) == few).all()


def test_no_places_have_no_odds(known):
    judge = TissueJudge(*known)
    nothing = np.empty((0, 8), np.float32)
    assert judge.log_odds(nothing).shape == (0,)
    assert judge.aligned(nothing).shape == (0, 8)


@pytest.mark.parametrize(("kind", "says"), [(LESION, "no normal tissue"), (NORMAL, "no lesion")])
def test_one_kind_alone_is_refused_with_the_way_out(known, kind, says):
    rows = known[1] == kind
    with pytest.raises(ExchangeError, match=f"{says}.*mammoseek dataset normal"):
        TissueJudge(*(part[rows] for part in known))
