from pathlib import Path

import pandas as pd

from benchmarks.ray_gallery import contents, films_of_their_own


def test_every_row_gets_a_film_and_a_woman_of_its_own(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    frame = pd.DataFrame({"row_id": ["1", "2"], "patient_id": ["w", "w"], "path": [str(tmp_path / n) for n in "ab"]})
    films = films_of_their_own(frame, 5, tmp_path)
    assert [Path(path).read_text() for path in films["path"]] == ["a", "b", "a", "b", "a"]
    for column in ("row_id", "patient_id", "path"):
        assert films[column].is_unique


def test_the_time_of_day_and_the_writer_make_no_difference(tmp_path: Path) -> None:
    for name, clock in (("one", 1), ("two", 2)):
        (tmp_path / name / "segments").mkdir(parents=True)
        (tmp_path / name / "segments" / "s.h5").write_text("rows")
        (tmp_path / name / "writer.lock").write_text(name)
        (tmp_path / name / "gallery.json").write_text(f'{{"created": {clock}, "generation": 3}}')
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == ({"segments/s.h5": b"rows"}, {"generation": 3})
    (tmp_path / "two" / "segments" / "s.h5").write_text("others")
    assert contents(tmp_path / "one") != contents(tmp_path / "two")
