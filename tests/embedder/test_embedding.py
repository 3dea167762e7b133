"""Embedding: the same vector alone and in company, streams, failures, and models that were never trained."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from embedder import embedding
from embedder.checkpoint import ModelError, load_model
from embedder.crops import RoiCrop
from embedder.embedding import EmbeddedBatch, Embedder, embed_pixels, encode_png, pretrained_model
from embedder.findings import Box
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.weights import WeightsError
from errors import MammoseekError

Make = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def embedder(
    tiny_network: NetworkConfig, tiny_preparation: PreparationConfig, tmp_path_factory: pytest.TempPathFactory
) -> Embedder:
    folder = tmp_path_factory.mktemp("model")
    pretrained_model(folder, tiny_network, tiny_preparation)
    return Embedder.load(folder, device="cpu", batch_size=8)


def gather(batches: Iterator[EmbeddedBatch]) -> tuple[pd.DataFrame, np.ndarray, list[tuple[str, str]]]:
    found = list(batches)
    return (
        pd.concat([batch.records for batch in found], ignore_index=True),
        np.concatenate([batch.vectors for batch in found]),
        [failure for batch in found for failure in batch.failures],
    )


def test_a_manifest_and_its_rows_one_by_one_give_the_same_vectors(embedder: Embedder, synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(20)
    records, vectors, failures = gather(embedder.embed_manifest(frame, workers=2))
    assert failures == []
    assert records.equals(frame)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for row, vector in zip(frame.itertuples(), vectors, strict=True):
        alone = embedder.embed(Path(row.path), Box(row.x0, row.y0, row.x1, row.y1), spacing_mm=row.spacing_mm)
        assert np.abs(alone.vector - vector).max() < 1e-6
        assert alone.path == Path(row.path)


def test_the_same_query_gives_the_same_bits(embedder: Embedder, synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(1)
    path, box = Path(frame["path"].iloc[0]), Box(13, 48, 37, 72)
    first = embedder.embed(path, box, spacing_mm=0.4).vector
    assert all(np.array_equal(embedder.embed(path, box, spacing_mm=0.4).vector, first) for _ in range(5))
    frame_vectors = gather(embedder.embed_manifest(synthetic_manifest(10), workers=3))[1]
    again = gather(embedder.embed_manifest(synthetic_manifest(10), workers=1))[1]
    assert np.array_equal(frame_vectors, again)


def test_a_query_does_not_depend_on_the_number_of_threads(synthetic_manifest: Make, tmp_path: Path) -> None:
    # Small networks have sums too short to be shared among threads.
    network = NetworkConfig("tf_efficientnet_lite0", "none")
    pretrained_model(tmp_path, network, PreparationConfig())
    embedder = Embedder.load(tmp_path, device="cpu")
    path, box = Path(synthetic_manifest(1)["path"].iloc[0]), Box(13, 48, 37, 72)
    before = torch.get_num_threads()
    try:
        vectors = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            vectors.append(embedder.embed(path, box, spacing_mm=0.4).vector)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_a_manifest_does_not_depend_on_the_number_of_threads(synthetic_manifest: Make, tmp_path: Path) -> None:
    network = NetworkConfig("tf_efficientnet_lite0", "none")
    pretrained_model(tmp_path, network, PreparationConfig(height=64, width=64))
    embedder = Embedder.load(tmp_path, device="cpu", batch_size=16)
    frame = synthetic_manifest(40)
    before = torch.get_num_threads()
    try:
        found = []
        for threads, workers in ((1, 1), (2, 3), (4, 2)):
            torch.set_num_threads(threads)
            found.append(gather(embedder.embed_manifest(frame, workers=workers))[1].tobytes())
            assert torch.get_num_threads() == threads
            # A thread that starts now has what this one has.
            seen: list[int] = []
            thread = threading.Thread(target=lambda seen=seen: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert seen == [threads]
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_batches_are_whole_studies_in_the_manifests_order(embedder: Embedder, synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(7, view_count=3)
    frame["study_id"] = frame["patient_id"]
    mixed = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    batches = list(embedder.embed_manifest(mixed, workers=2))
    assert [len(batch.records) for batch in batches] == [6, 6, 6, 3]
    women = [woman for batch in batches for woman in batch.records["patient_id"]]
    assert women[::3] == list(dict.fromkeys(mixed["patient_id"]))
    _, vectors, _ = gather(embedder.embed_manifest(frame))
    places = {row_id: place for place, row_id in enumerate(frame["row_id"])}
    for batch in batches:
        expected = vectors[[places[row_id] for row_id in batch.records["row_id"]]]
        assert np.abs(batch.vectors - expected).max() < 1e-6


def test_a_bad_image_costs_its_rows_only(embedder: Embedder, synthetic_manifest: Make, tmp_path: Path) -> None:
    frame = synthetic_manifest(20)
    _, expected, _ = gather(embedder.embed_manifest(frame))
    broken = frame.copy()
    (tmp_path / "empty.png").touch()
    broken.loc[3, "path"] = str(tmp_path / "empty.png")
    broken.loc[11, "path"] = str(tmp_path / "missing.png")
    broken.loc[12, ["x0", "x1"]] = [110, 500]
    records, vectors, failures = gather(embedder.embed_manifest(broken))
    assert [row for row, _ in failures] == [frame["row_id"][i] for i in (3, 11, 12)]
    assert "empty.png" in failures[0][1]
    assert "missing.png" in failures[1][1]
    kept = [i for i in range(20) if i not in (3, 11, 12)]
    assert records["row_id"].tolist() == frame["row_id"].iloc[kept].tolist()
    assert np.abs(vectors - expected[kept]).max() < 1e-6


def test_a_manifest_of_bad_images_gives_failures_only(
    embedder: Embedder, synthetic_manifest: Make, tmp_path: Path
) -> None:
    frame = synthetic_manifest(3).assign(path=str(tmp_path / "none.png"))
    [batch] = embedder.embed_manifest(frame)
    assert batch.vectors.shape == (0, embedder.dimension)
    assert len(batch.failures) == 3
    assert batch.records.empty


def test_it_streams_and_reads_ahead_only_a_little(
    embedder: Embedder, synthetic_manifest: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = synthetic_manifest(20)
    many = pd.concat([frame] * 20, ignore_index=True)
    # Each row is an image of its own, as far as the reader knows.
    many["path"] = [f"{Path(path).parent}/./{'./' * (i // 20)}{Path(path).name}" for i, path in enumerate(many["path"])]
    many["row_id"] = [str(i) for i in range(len(many))]
    read: list[str] = []
    from embedder import rois

    whole = rois.read_mammogram
    monkeypatch.setattr(rois, "read_mammogram", lambda path, **options: (read.append(path), whole(path, **options))[1])
    stream = embedder.embed_manifest(many, workers=2)
    first = next(stream)
    assert len(first.records) == 8
    # As many batches as threads may be computed while the next images are read.
    ahead = 8 * (torch.get_num_threads() + 1) + 4 * 2
    assert len(read) <= ahead + 2
    stream.close()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("mammoseek-read")]
    for thread in threads:
        thread.join(5)
    assert len(read) <= ahead + 4


def test_rows_of_another_granularity_are_refused(embedder: Embedder, synthetic_manifest: Make) -> None:
    with pytest.raises(ModelError, match="embeds rows of granularity finding only"):
        list(embedder.embed_manifest(synthetic_manifest(2).assign(granularity="breast")))


def test_a_place_is_needed_for_findings_and_refused_for_breasts(
    embedder: Embedder, synthetic_manifest: Make, tmp_path: Path, tiny_network: NetworkConfig
) -> None:
    path = Path(synthetic_manifest(1)["path"].iloc[0])
    with pytest.raises(ModelError, match="it needs a place; add --box"):
        embedder.embed(path)
    with pytest.raises(MammoseekError, match=str(path)):
        embedder.embed(path, Box(100, 100, 5000, 5000))
    with pytest.raises(MammoseekError, match="no-such"):
        embedder.embed(tmp_path / "no-such.png", Box(0, 0, 9, 9))
    preparation = PreparationConfig(granularity="breast", height=32, width=32, context=1.0)
    pretrained_model(tmp_path / "breast", tiny_network, preparation)
    breast = Embedder.load(tmp_path / "breast", device="cpu")
    with pytest.raises(ModelError, match="leave --box out"):
        breast.embed(path, Box(0, 0, 9, 9))
    assert breast.embed(path).vector.shape == (breast.dimension,)


def test_a_frame_and_a_for_processing_image_can_be_asked_for(
    embedder: Embedder, write_dicom: Callable[..., Path]
) -> None:
    rows, columns = np.mgrid[:120, :120]
    noise = np.random.default_rng(0).integers(60, 220, (2, 120, 120))
    stored = np.where((rows - 60) ** 2 + columns**2 < 55**2, noise, 3).astype(np.uint8)
    path = write_dicom(stored, bits=8, PresentationIntentType="FOR PROCESSING")
    box = Box(13, 48, 37, 72)
    with pytest.raises(MammoseekError, match=r"(?i)for processing"):
        embedder.embed(path, box, frame=1)
    first, second = (embedder.embed(path, box, frame=n, allow_for_processing=True).vector for n in (1, 2))
    assert not np.array_equal(first, second)


def test_thumbnails_are_what_the_network_saw(embedder: Embedder, synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(3)
    [batch] = embedder.embed_manifest(frame, thumbnails=True)
    assert batch.thumbnails is not None
    picture = cv2.imdecode(np.frombuffer(batch.thumbnails[0], np.uint8), cv2.IMREAD_UNCHANGED)
    crop = embedder.embed(Path(frame["path"][0]), Box(13, 48, 37, 72), spacing_mm=0.4).crop
    assert np.abs(picture / 255 - crop.pixels).max() <= 0.5 / 255 + 1e-6
    assert next(iter(embedder.embed_manifest(frame))).thumbnails is None


def test_a_picture_survives_its_png() -> None:
    pixels = np.linspace(-0.1, 1.1, 64, dtype=np.float32).reshape(8, 8)
    again = cv2.imdecode(np.frombuffer(encode_png(pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(again / 255 - np.clip(pixels, 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_no_crops_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed_crops([]).shape == (0, embedder.dimension)


def test_the_crops_extent_is_passed_on(
    tiny_network: NetworkConfig, tiny_preparation: PreparationConfig, tmp_path: Path, embedder: Embedder
) -> None:
    from embedder.checkpoint import ModelCard
    from embedder.network import EmbedderNetwork

    network = EmbedderNetwork(tiny_network, {}).eval()
    card = ModelCard(tiny_network, tiny_preparation, {}, "random start")
    trained = Embedder(network, card, "0" * 64, device="cpu")
    pixels = np.random.default_rng(0).random((32, 32), np.float32)
    small, unknown = (RoiCrop(pixels, mm, None, None) for mm in (10.0, None))
    vectors = trained.embed_crops([small, unknown])
    expected = network(torch.from_numpy(pixels)[None, None], torch.tensor([10.0])).embedding
    assert np.abs(vectors[0] - expected.detach().numpy()).max() < 1e-6
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_pretrained_model_has_the_backbones_features(
    embedder: Embedder, tiny_network: NetworkConfig, tmp_path: Path, tiny_preparation: PreparationConfig
) -> None:
    assert embedder.dimension == 256
    assert embedder.card.heads == {}
    assert embedder.card.network.embedding_dimension is None
    assert embedder.preparation_digest == tiny_preparation.digest
    digest = pretrained_model(tmp_path, dataclasses.replace(tiny_network), tiny_preparation)
    assert load_model(tmp_path)[2] == digest


def test_a_pretrained_model_that_cannot_see_its_crops_is_not_written(
    tmp_path: Path, tiny_preparation: PreparationConfig
) -> None:
    with pytest.raises(WeightsError, match="does not work on crops"):
        pretrained_model(tmp_path / "m", NetworkConfig("test_vit", "none", pooling="gem"), tiny_preparation)
    assert not (tmp_path / "m").exists()


def test_embedding_leaves_no_gradients_behind(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    forward = embedder.network.forward
    monkeypatch.setattr(embedder.network, "forward", lambda *a: (seen.append(torch.is_grad_enabled()), forward(*a))[1])
    crop: Any = RoiCrop(np.zeros((32, 32), np.float32), None, None, None)
    embedder.embed_crops([crop] * 9)
    assert seen == [False, False]
    assert embedding.torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("kind", "alike", "different"),
    [("flip", [(0, True)], [(1, False)]), ("symmetries", [(1, False), (2, True), (3, True)], [])],
)
def test_averaged_views_do_not_tell_how_the_crop_lies(
    tiny_network: NetworkConfig, kind: str, alike: list[tuple[int, bool]], different: list[tuple[int, bool]]
) -> None:
    network = EmbedderNetwork(dataclasses.replace(tiny_network, embedding_dimension=None, test_time=kind), {}).eval()
    crop = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32)

    def vector(turns: int, upside_down: bool) -> np.ndarray:
        turned = np.rot90(crop[:, ::-1] if upside_down else crop, turns, (1, 2))
        return embed_pixels(network, turned, np.array([40.0], np.float32), torch.device("cpu"))[0]

    as_it_is = vector(0, False)
    assert np.linalg.norm(as_it_is) == pytest.approx(1, abs=1e-6)
    for turns, upside_down in alike:
        assert np.abs(vector(turns, upside_down) - as_it_is).max() < 1e-5
    for turns, upside_down in different:
        assert np.abs(vector(turns, upside_down) - as_it_is).max() > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0", "resnet18"])
def test_vectors_of_a_gpu_are_those_of_the_processor(
    backbone: str, synthetic_manifest: Make, tmp_path: Path, cuda: str
) -> None:
    # A random start puts all crops close together: an order that holds here holds anywhere.
    pretrained_model(tmp_path, NetworkConfig(backbone, "none"), PreparationConfig(height=96, width=96, floor_mm=12.0))
    frame = synthetic_manifest(20, view_count=2)
    here = gather(Embedder.load(tmp_path, device="cpu").embed_manifest(frame))[1]
    embedder = Embedder.load(tmp_path, device=cuda)
    there, again = (gather(embedder.embed_manifest(frame, workers=workers))[1] for workers in (1, 4))
    assert np.array_equal(there, again)
    assert np.abs(here - there).max() < 1e-5
    row = frame.iloc[0]
    alone = embedder.embed(Path(row["path"]), Box(13, 48, 37, 72), spacing_mm=row["spacing_mm"]).vector
    assert np.abs(alone - here[0]).max() < 1e-5
    similar = here.astype(np.float64) @ here.T
    order, other = np.argsort(-similar, axis=1), np.argsort(-(there.astype(np.float64) @ there.T), axis=1)
    # Where the orders differ, the processor itself can hardly tell the two rows apart.
    gaps = np.abs(np.take_along_axis(similar, order, axis=1) - np.take_along_axis(similar, other, axis=1))
    assert gaps.max() < 1e-6
