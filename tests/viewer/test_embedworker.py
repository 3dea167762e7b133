"""The embedder's child: the vectors of the command line bit for bit, films read once, and a kill in the middle."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifiers.filling import gallery_embedder
from embedder.findings import Box
from embedder.header import MammogramError
from embedder.preparation import PreparationError
from tests.viewer.readingroom import BOX, Room
from viewer.embedworker import EmbedJob, EmbedWork, FilmKey

CORNERS = (BOX[0], BOX[1], BOX[2], BOX[3])


def test_vectors_are_those_of_the_gallerys_model(room: Room, room_gallery: Path, room_frame: pd.DataFrame) -> None:
    worker = room.state.worker
    film = FilmKey(str(room_frame["path"].iloc[0]), None, 0.4, "CC")
    places = [CORNERS, (20, 50, 40, 67)]
    futures = [worker.embed(film, box) for box in places]
    assert worker.embed(film, CORNERS) is futures[0]
    model = gallery_embedder(room_gallery, device="cpu")
    for box, future in zip(places, futures, strict=True):
        alone = model.embed(Path(film.path), Box(*box), spacing_mm=0.4, view="CC")
        assert future.result(120).vector.tobytes() == alone.vector.tobytes()
    known = worker.known(film, CORNERS)
    assert known is not None
    assert worker.embed(film, CORNERS).result(0).vector is known.vector
    with pytest.raises(PreparationError, match="does not lie inside"):
        worker.embed(film, (0, 0, 999, 999)).result(60)
    with pytest.raises(MammogramError, match="no such file"):
        worker.embed(FilmKey("/nowhere.png"), CORNERS).result(60)


def test_a_kill_in_the_middle_is_mended(room: Room, room_frame: pd.DataFrame) -> None:
    worker = room.state.worker
    films = [FilmKey(str(path), None, 0.4, "CC") for path in room_frame["path"][10:16]]
    worker.embed(films[0], CORNERS).result(120)
    killed = worker.pid
    assert killed is not None
    futures = [worker.embed(film, CORNERS) for film in films[1:]]
    os.kill(killed, 9)
    for future in futures:
        assert np.linalg.norm(future.result(120).vector) == pytest.approx(1, abs=1e-5)
    assert worker.pid != killed
    assert worker.status == "ready"
    assert len(room.ask(image=room.image(20), box=[12, 47, 38, 73])["neighbours"]) == 10


def test_a_film_that_was_prepared_ahead_gives_the_same_vector(room_gallery: Path, room_frame: pd.DataFrame) -> None:
    key = FilmKey(str(room_frame["path"].iloc[0]), None, 0.4, "CC")
    ahead, alone = EmbedWork(room_gallery, None, "cpu", 1 << 30), EmbedWork(room_gallery, None, "cpu", 1 << 30)
    nothing, first = list(ahead.run([EmbedJob(key, ahead=True), EmbedJob(key, CORNERS)]))
    [second] = list(alone.run([EmbedJob(key, CORNERS)]))
    assert nothing is None
    assert first.milliseconds > 0
    assert first.vector.tobytes() == second.vector.tobytes()


def test_an_image_that_is_opened_is_prepared_ahead(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = []
    monkeypatch.setattr(room.state.worker, "prepare", ahead.append)
    room.client.get(f"/images/{room.image(21)}")
    assert [film.path for film in ahead] == [room.state.catalogue.entry(room.image(21)).path]
    assert ahead[0].spacing_mm == 0.4
