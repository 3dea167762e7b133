from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError
from index.gallery import Gallery
from index.manifest import GalleryIdentity
from index.writer import GalleryWriter, create_gallery


def findings_of(numbers: list[int], dimension: int = 16) -> tuple[np.ndarray, pd.DataFrame]:
    vectors = np.eye(dimension, dtype=np.float32)[np.array(numbers) % dimension]
    ids = [str(number) for number in numbers]
    return vectors, pd.DataFrame({"row_id": ids, "granularity": "finding", "patient_id": ids, "dataset": "d"})


class TestPresence:
    @pytest.fixture
    def writer(self, gallery_folder: Path) -> Iterator[GalleryWriter]:
        with GalleryWriter(gallery_folder) as writer:
            yield writer

    def test_what_is_there_is_recognised(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        # Rows 20 to 32 came in a batch of their own.
        records = pd.concat([make_findings(20).records, make_findings(20, first=20).records], ignore_index=True)
        # As a CSV file gives them back: numbers as floats.
        for table in (records, records[::-1], records.astype({"x0": float, "y1": "Int64"})):
            presence = writer.present(table)
            assert presence.stored.tolist() == (table["row_id"] <= "row-0032").tolist()
            assert presence.conflicts == {}

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("path", "/elsewhere.png"),
            ("x0", 0),
            ("y1", None),
            ("patient_id", "W999"),
            ("dataset", "digital"),
            ("view", "LM"),
            ("view", None),
            ("age", 12.5),
            ("pathology", "benign"),
        ],
    )
    def test_a_row_with_any_other_content_is_a_conflict(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], column: str, value: Any
    ) -> None:
        records = make_findings(20).records
        records["pathology"] = None
        assert writer.present(records).conflicts == {}
        records[column] = records[column].astype(object)
        records.loc[7, column] = value
        presence = writer.present(records)
        assert presence.stored.all()
        assert list(presence.conflicts) == [7]
        was = make_findings(20).records.get(column)
        for words in (f"another {column}", "remove the row first", repr(value) if value is not None else "nothing"):
            assert words in presence.conflicts[7]
        assert (str(was[7]) if was is not None else "nothing") in presence.conflicts[7]

    def test_a_column_that_is_not_in_the_manifest_counts_as_missing(
        self, writer: GalleryWriter, make_findings: Callable[..., Any]
    ) -> None:
        records = make_findings(20).records
        conflicts = writer.present(records.drop(columns="density")).conflicts
        assert sorted(conflicts) == np.flatnonzero(records["density"].notna()).tolist()


class TestKinds:
    @pytest.fixture
    def writer(self, tmp_path: Path, identity: GalleryIdentity) -> Iterator[GalleryWriter]:
        """A gallery in which x_1 holds texts that look like anything."""
        vectors, records = findings_of([0, 1, 2, 3, 4])
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            writer.append(vectors, records.assign(x_1=["a", "2", "2.5", "True", None]))
            yield writer

    @pytest.mark.parametrize(
        ("cells", "texts"),
        [
            ([2, 7], ["2", "7"]),
            ([2.0, np.nan], ["2", None]),
            ([2.5, -3.0], ["2.5", "-3"]),
            ([1e300, 0.1], ["1e+300", "0.1"]),
            ([True, False], ["True", "False"]),
        ],
    )
    def test_free_text_stays_text_when_it_looks_like_something_else(
        self, writer: GalleryWriter, cells: list[Any], texts: list[str | None]
    ) -> None:
        vectors, records = findings_of([10, 11])
        records["x_1"] = cells
        writer.append(vectors, records)
        found = Gallery.open(writer.folder)
        assert [found.record(row)["x_1"] for row in (5, 6)] == texts
        presence = writer.present(records)
        assert presence.stored.all()
        assert presence.conflicts == {}

    def test_a_text_beside_numbers_is_refused_before_any_work(self, writer: GalleryWriter) -> None:
        vectors, records = findings_of([10, 11])
        writer.append(vectors, records.assign(x_2=[1, 2]))
        with pytest.raises(GalleryError, match=r"column x_2 is of another kind.*integer.*text.*rename"):
            writer.present(findings_of([20])[1].assign(x_2="a"))

    def test_a_woman_named_by_a_number_is_not_guessed(self, writer: GalleryWriter) -> None:
        with pytest.raises(GalleryError, match="patient_id must be a text"):
            writer.present(findings_of([10])[1].assign(patient_id=7))
