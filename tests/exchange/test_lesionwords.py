"""Others' words for lesions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder.findings import TERM_SEPARATOR, TERMS
from exchange import ExchangeError
from exchange.lesionwords import check_own_words, lesion_type


@pytest.mark.parametrize(
    ("label", "term"),
    [
        ("Mass", "mass"),
        ("MALIGNANT_MASS", "mass"),
        ("Suspicious Calcification", "calcification"),
        ("microcalcifications", "calcification"),
        ("Calc-Benign", "calcification"),
        ("Focal Asymmetry", "asymmetry"),
        ("Global Asymmetry", "asymmetry"),
        ("Architectural Distortion", "architectural distortion"),
        ("Mass + Suspicious Calcification", "mass + calcification"),
        ("Suspicious Calcification + Mass", "mass + calcification"),
        ("Skin Thickening", None),
        ("Suspicious Lymph Node", None),
        ("non-mass", None),
        ("no calcification", None),
        ("massive", None),
        ("malignant", None),
        ("3", None),
        ("", None),
        (None, None),
    ],
)
def test_words_of_the_data_sets_become_terms(label: str | None, term: str | None) -> None:
    assert lesion_type(label) == term


@given(st.text(max_size=40))
def test_every_answer_is_a_term(label: str) -> None:
    term = lesion_type(label)
    assert term is None or all(part in TERMS["lesion_type"] for part in term.split(TERM_SEPARATOR))


def test_own_words_go_first_and_must_be_terms() -> None:
    assert lesion_type("BIRADS4", check_own_words({"birads4 ": "mass"})) == "mass"
    with pytest.raises(ExchangeError, match="is no lesion type"):
        check_own_words({"birads4": "tumour"})
