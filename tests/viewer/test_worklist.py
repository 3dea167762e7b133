"""The worklist: searched, sorted, cut into pages."""

from viewer.studies import Place, Study, StudyImage
from viewer.worklist import State, WorklistQuery, page_of, study_line

STUDIES = [
    Study("1" * 16, "Berta", "Doe^Jane", "2024-01-02", 50.0, (), 0, None),
    Study("2" * 16, "anna", None, "2024-03-01", None, (), 2, 0.9),
    Study("3" * 16, "Clara", None, None, 61.0, (StudyImage("a" * 16, "CC", "R", Place(0, 0), ()),), 1, 0.2),
]
STATES: dict[str, State] = {"1" * 16: "decided", "2" * 16: "new", "3" * 16: "seen"}


def names(query: WorklistQuery) -> list[str]:
    return [study.woman for study, _ in page_of(STUDIES, query, STATES.__getitem__)[0]]


def test_orders() -> None:
    assert names(WorklistQuery(sort="woman")) == ["anna", "Berta", "Clara"]
    assert names(WorklistQuery(sort="date")) == ["anna", "Berta", "Clara"]
    assert names(WorklistQuery(sort="urgency")) == ["anna", "Clara", "Berta"]
    assert names(WorklistQuery(sort="state")) == ["anna", "Clara", "Berta"]


def test_search_states_and_pages() -> None:
    assert names(WorklistQuery(search="JANE 2024")) == ["Berta"]
    assert names(WorklistQuery(search="nobody")) == []
    assert names(WorklistQuery(state="seen")) == ["Clara"]
    found, total = page_of(STUDIES, WorklistQuery(sort="woman", offset=1, limit=1), STATES.__getitem__)
    assert ([study.woman for study, _ in found], total) == (["Berta"], 3)


def test_names_are_shown_where_they_may_be() -> None:
    assert study_line(STUDIES[0], "new", 0, names_shown=False)["name"] is None
    assert study_line(STUDIES[0], "new", 0, names_shown=True)["name"] == "Doe^Jane"
    assert study_line(STUDIES[2], "new", 0, names_shown=False)["images"][0]["place"] == {"row": 0, "column": 0}
