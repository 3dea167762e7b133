from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index import QueryError
from index.exclusion import UNKNOWN_WOMAN, exclude_row, exclude_woman, join_exclusions
from index.gallery import Gallery
from index.retrieval import Answer, Question, ask, query_image, query_row

BOX = (1, 2, 30, 40)


def everybody(**options: Any) -> Question:
    """Ask for all rows, any number of one woman."""
    return Question(k=99, per_group=0, **options)


def ids(answer: Answer) -> list[str]:
    return [neighbour.row_id for neighbour in answer.neighbours]


class TestWhoIsLeftOut:
    @pytest.fixture
    def gallery(self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> Gallery:
        """Two data sets that use the same ids, with SOP instance UIDs in the second."""
        first, second = make_findings(18), make_findings(18, first=18)
        second.records = second.records.assign(
            dataset="digital", patient_id=first.records["patient_id"], sop_uid=[f"1.2.{i // 2}" for i in range(18)]
        )
        return Gallery.open(make_gallery(first, second))

    def left_out(self, gallery: Gallery, answer: Answer) -> set[str]:
        assert len(answer.neighbours) == answer.allowed_rows
        return set(gallery.row_ids) - set(ids(answer))

    def rows(self, *numbers: int) -> set[str]:
        return {f"row-{number:04d}" for number in numbers}

    def test_an_id_without_a_data_set_counts_in_all(self, gallery: Gallery, make_model: Any) -> None:
        for model, options in (
            (make_model(gallery.matrix[0], "W001"), {}),
            (make_model(gallery.matrix[0]), {"patient": " W001 "}),
        ):
            answer = query_image(gallery, model, Path("new.png"), BOX, everybody(**options))
            assert self.left_out(gallery, answer) == self.rows(3, 4, 5, 21, 22, 23)
            assert (answer.excluded_patient, answer.excluded_dataset, answer.excluded_rows) == ("W001", None, 6)

    def test_a_data_set_narrows_it(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[0], "W001")
        answer = query_image(gallery, model, Path("new.png"), BOX, everybody(dataset="digital"))
        assert self.left_out(gallery, answer) == self.rows(21, 22, 23)
        assert (answer.excluded_patient, answer.excluded_dataset) == ("W001", "digital")

    def test_two_names_leave_both_out(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[0], "W001")
        answer = query_image(gallery, model, Path("new.png"), BOX, everybody(patient="W002", dataset="films"))
        assert self.left_out(gallery, answer) == self.rows(3, 4, 5, 6, 7, 8)
        assert answer.excluded_patient == "W002"
        assert "W002 and W001" in answer.notes[0]

    @pytest.mark.parametrize("path", ["/images/0010.png", "/images/../images/0010.png"])
    def test_the_gallery_knows_whose_image_it_holds(self, gallery: Gallery, make_model: Any, path: str) -> None:
        answer = query_image(gallery, make_model(gallery.matrix[0]), Path(path), BOX, everybody())
        # The image shows rows 20 and 21, of two women of the second data set.
        assert self.left_out(gallery, answer) == self.rows(18, 19, 20, 21, 22, 23)
        assert answer.excluded_patient is not None
        assert UNKNOWN_WOMAN not in answer.notes

    def test_a_copy_is_known_by_its_sop_instance(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[0], sop_uid="1.2.0")
        answer = query_image(gallery, model, Path("copy.dcm"), BOX, everybody())
        assert self.left_out(gallery, answer) == self.rows(18, 19, 20)
        assert (answer.excluded_patient, answer.excluded_dataset) == ("W000", "digital")

    def test_a_wrong_name_does_not_let_the_image_answer(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[0], sop_uid="1.2.0")
        answer = query_image(gallery, model, Path("copy.dcm"), BOX, everybody(patient="somebody"))
        assert self.left_out(gallery, answer) == self.rows(18, 19, 20)
        assert "W000" in answer.notes[0]

    def test_an_unknown_woman_is_said_to_be_unknown(self, gallery: Gallery, make_model: Any) -> None:
        answer = query_image(gallery, make_model(gallery.matrix[0]), Path("new.png"), BOX, everybody())
        assert self.left_out(gallery, answer) == set()
        found = answer.to_dict()
        assert found["excluded_patient"] is None
        assert UNKNOWN_WOMAN in found["notes"]
        assert UNKNOWN_WOMAN in ask(gallery, gallery.matrix[0]).notes

    def test_all_may_answer_if_asked_for(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[20], "W001")
        answer = query_image(gallery, model, Path("/images/0010.png"), BOX, everybody(include_same_patient=True))
        assert self.left_out(gallery, answer) == set()
        assert ids(answer)[0] == "row-0020"
        assert answer.excluded_patient is None
        assert "included, as asked" in answer.notes[0]

    def test_one_row_can_be_left_out_as_well(self, gallery: Gallery) -> None:
        answer = ask(gallery, gallery.matrix[0], everybody(), patient_key="films/W001", exclude_row="row-0030")
        assert self.left_out(gallery, answer) == self.rows(3, 4, 5, 30)
        answer = query_row(gallery, "row-0030", everybody(include_same_patient=True))
        assert self.left_out(gallery, answer) == self.rows(30)

    @pytest.mark.parametrize("option", ["patient", "dataset"])
    @pytest.mark.parametrize("name", ["", "  "])
    def test_a_blank_name_is_refused_before_any_work(
        self, gallery: Gallery, make_model: Any, option: str, name: str
    ) -> None:
        model = make_model(gallery.matrix[0])
        with pytest.raises(QueryError, match="is no name"):
            query_image(gallery, model, Path("new.png"), BOX, everybody(**{option: name}))
        assert model.asked == []

    def test_an_unknown_data_set_is_refused_before_any_work(self, gallery: Gallery, make_model: Any) -> None:
        model = make_model(gallery.matrix[0], "W001")
        with pytest.raises(QueryError, match=r"no row of the gallery is of 'digitall'.*digital, films"):
            query_image(gallery, model, Path("new.png"), BOX, everybody(dataset="digitall"))
        assert model.asked == []

    @pytest.mark.parametrize(("patient", "dataset"), [("w001", "digital"), ("W001", " Digital"), (" w001 ", "DIGITAL")])
    def test_letter_case_and_white_space_do_not_hide_her(
        self, gallery: Gallery, make_model: Any, patient: str, dataset: str
    ) -> None:
        answer = query_image(
            gallery, make_model(gallery.matrix[0]), Path("new.png"), BOX, everybody(patient=patient, dataset=dataset)
        )
        assert self.left_out(gallery, answer) == self.rows(21, 22, 23)
        assert (answer.excluded_patient, answer.excluded_rows) == (patient.strip(), 3)
        assert any("only letter case or white space" in note for note in answer.notes)
        answer = ask(gallery, gallery.matrix[0], everybody(), patient_key=f"{dataset}/{patient}")
        assert self.left_out(gallery, answer) == self.rows(21, 22, 23)
        assert "only letter case or white space" in answer.notes[0]

    def test_both_spellings_are_left_out(
        self, make_gallery: Callable[..., Path], make_findings: Any, make_model: Any
    ) -> None:
        batch = make_findings(9)
        batch.records["patient_id"] = ["W1"] * 3 + ["w1 "] * 3 + ["W2"] * 3
        gallery = Gallery.open(make_gallery(batch))
        answer = query_image(gallery, make_model(gallery.matrix[0]), Path("new.png"), BOX, everybody(patient="W1"))
        assert self.left_out(gallery, answer) == self.rows(0, 1, 2, 3, 4, 5)
        assert "'W1' was taken for 'w1 ' too" in answer.notes[0]

    def test_a_woman_whom_the_gallery_does_not_hold_is_not_said_to_be_left_out(
        self, gallery: Gallery, make_model: Any
    ) -> None:
        model = make_model(gallery.matrix[0])
        for options, place in (({}, ""), ({"dataset": "films"}, " in the data set films")):
            answer = query_image(gallery, model, Path("new.png"), BOX, everybody(patient="W01", **options))
            assert self.left_out(gallery, answer) == set()
            assert (answer.excluded_patient, answer.excluded_rows) == ("W01", 0)
            assert f"the gallery has no row of W01{place}, so nothing was left out for that name" in answer.notes
        answer = ask(gallery, gallery.matrix[0], everybody(), patient_key="films/W01")
        assert (answer.excluded_patient, answer.excluded_rows) == ("W01", 0)
        assert "no row of films/W01" in answer.notes[0]


class TestTheSameImageUnderAnotherName:
    """Row 0 of `films` is on an image that `digital` holds as row 18, of a woman with rows 18 to 20."""

    @pytest.fixture(params=["path", "sop_uid"])
    def gallery(self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any], request: Any) -> Gallery:
        first, second = make_findings(18), make_findings(18, first=18)
        first.records["sop_uid"] = [f"1.2.{i // 2}" if i else None for i in range(18)]
        second.records = second.records.assign(dataset="digital", sop_uid=None)
        first.records.loc[0, request.param] = second.records.loc[0, request.param] = "the-same"
        return Gallery.open(make_gallery(first, second))

    def test_no_name_of_hers_answers_a_row(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0000", everybody())
        left = {f"row-{row:04d}" for row in (0, 1, 2, 18, 19, 20)}
        assert set(gallery.row_ids) - set(ids(answer)) == left
        assert (answer.excluded_patient, answer.excluded_dataset, answer.excluded_rows) == ("W000", "films", 6)
        assert "digital/W006" in answer.notes[0]
        assert set(gallery.row_ids[exclude_row(gallery, "row-0000").positions]) == left

    def test_only_the_row_itself_is_left_out_where_she_may_answer(self, gallery: Gallery) -> None:
        answer = query_row(gallery, "row-0000", everybody(include_same_patient=True))
        assert set(gallery.row_ids) - set(ids(answer)) == {"row-0000"}

    def test_a_row_that_is_not_there(self, gallery: Gallery) -> None:
        with pytest.raises(QueryError, match="no row"):
            exclude_row(gallery, "row-9999")


def test_an_image_does_not_count_as_the_same_where_none_is_named(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    batch = make_findings(9)
    batch.records = batch.records.assign(path=["", None, "/a.png"] * 3, sop_uid=["", None, "1.2"] * 3)
    gallery = Gallery.open(make_gallery(batch))
    for row in ("row-0000", "row-0001"):
        assert query_row(gallery, row, everybody()).excluded_rows == 3
    assert query_row(gallery, "row-0002", everybody()).excluded_rows == 9


def test_several_pictures_leave_out_whoever_is_left_out_for_one(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    gallery = Gallery.open(make_gallery(make_findings(9)))
    nobody, first, second = (exclude_woman(gallery, key) for key in (None, "films/W000", "films/W002"))
    joined = join_exclusions([nobody, first, second, first])
    assert joined.positions.tolist() == [0, 1, 2, 6, 7, 8]
    assert (joined.patient, joined.dataset) == ("W000", "films")
    assert joined.notes == ()
    assert join_exclusions([nobody, nobody]).notes == (UNKNOWN_WOMAN,)
