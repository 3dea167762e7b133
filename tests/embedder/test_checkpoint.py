"""A model on disk: what names it, what it survives, and what is refused."""

import dataclasses
import hashlib
import json
import stat
from pathlib import Path

import pytest
import torch

from embedder import checkpoint as module
from embedder.cards import card_checksum
from embedder.checkpoint import (
    CARD_FILE,
    WEIGHTS_FILE,
    ModelCard,
    ModelError,
    compact_model,
    image_digests,
    load_model,
    read_card,
    save_model,
    woman_digest,
    write_atomically,
)
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig

HEADS = {"pathology": ("benign", "malignant")}


@pytest.fixture
def card(tiny_network: NetworkConfig, tiny_preparation: PreparationConfig) -> ModelCard:
    return ModelCard(tiny_network, tiny_preparation, HEADS, "random start", women={"train": (woman_digest("d/1"),)})


@pytest.fixture
def network(tiny_network: NetworkConfig) -> EmbedderNetwork:
    torch.manual_seed(0)
    return EmbedderNetwork(tiny_network, HEADS).eval()


def test_a_model_comes_back_as_it_was(tmp_path: Path, card: ModelCard, network: EmbedderNetwork) -> None:
    digest = save_model(tmp_path / "model", network.state_dict(), card)
    again, same_card, same_digest = load_model(tmp_path / "model")
    assert same_digest == digest
    assert same_card == card
    assert not again.training
    image = torch.rand(2, 1, 32, 32)
    assert torch.equal(again(image).embedding, network(image).embedding)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_the_digest_changes_with_all_that_vectors_depend_on_and_with_nothing_else(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork
) -> None:
    state = network.state_dict()
    digest = save_model(tmp_path / "a", state, card)
    same = dataclasses.replace(card, training={"epochs": 3}, code_version="9", weights_origin="elsewhere")
    assert save_model(tmp_path / "b", state, same) == digest
    other_preparation = dataclasses.replace(card.preparation, context=2.0)
    assert save_model(tmp_path / "c", state, dataclasses.replace(card, preparation=other_preparation)) != digest
    other_network = dataclasses.replace(card.network, physical_scale=False)
    assert save_model(tmp_path / "d", state, dataclasses.replace(card, network=other_network)) != digest
    changed = {name: value.clone() for name, value in state.items()}
    changed["embed.1.weight"][0, 0] += 1e-3
    assert save_model(tmp_path / "e", changed, card) != digest


def test_another_model_is_not_overwritten(tmp_path: Path, card: ModelCard, network: EmbedderNetwork) -> None:
    digest = save_model(tmp_path, network.state_dict(), card)
    assert save_model(tmp_path, network.state_dict(), card) == digest
    other = {name: value + 1 for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match="holds another model; choose another folder"):
        save_model(tmp_path, other, card)
    assert load_model(tmp_path)[2] == digest


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        (CARD_FILE, b"", "is damaged"),
        (CARD_FILE, b"[]", "is damaged"),
        (CARD_FILE, b'{"format": 1}', "is damaged"),
        (CARD_FILE, b"[" * 100_000, "is damaged"),
        (CARD_FILE, b"\xff\xfe", "is damaged"),
        (CARD_FILE, b'{"format": 99}', "is of format 99, this version reads 1; update"),
        (WEIGHTS_FILE, b"", "do not belong together"),
        (WEIGHTS_FILE, None, "can't be read"),
        (CARD_FILE, None, "is no model: it has no card.json"),
    ],
)
def test_a_damaged_model_is_refused(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork, file: str, content: bytes | None, cause: str
) -> None:
    save_model(tmp_path, network.state_dict(), card)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match=cause) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_one_changed_byte_of_the_weights_is_seen(tmp_path: Path, card: ModelCard, network: EmbedderNetwork) -> None:
    save_model(tmp_path, network.state_dict(), card)
    content = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match="do not belong together"):
        load_model(tmp_path)


@pytest.mark.parametrize("change", [{"backbone": "net_of_the_future"}, {"option_of_the_future": 1}])
def test_a_card_of_another_version_is_refused_by_name(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork, change: dict[str, object]
) -> None:
    save_model(tmp_path, network.state_dict(), card)
    rewrite_card(tmp_path, network=card.network.to_dict() | change, digest="0" * 64)
    with pytest.raises(ModelError, match=r"can't be used by this version|do not belong together") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def rewrite_card(folder: Path, **changes: object) -> None:
    """Change a card as one who knows of its checksum would."""
    values = json.loads((folder / CARD_FILE).read_text()) | changes
    (folder / CARD_FILE).write_text(json.dumps(values | {"checksum": card_checksum(values)}))


@pytest.mark.parametrize(
    "change",
    [
        {"women": {}},
        {"women": {"train": []}},
        {"images": {}},
        {"figures": {"MAP@R": 1.0}},
        {"data": {"manifest": "0" * 64}},
        {"checksum": None},
    ],
)
def test_a_card_that_was_changed_by_hand_is_refused(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork, change: dict[str, object]
) -> None:
    save_model(tmp_path, network.state_dict(), dataclasses.replace(card, images={"train": ("a" * 16,)}))
    values = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps(values | change))
    with pytest.raises(ModelError, match=r"card\.json: is damaged .*it was changed after it was written"):
        read_card(tmp_path)
    values.pop("checksum")
    (tmp_path / CARD_FILE).write_text(json.dumps(values))
    with pytest.raises(ModelError, match="is damaged"):
        read_card(tmp_path)


TABLES, LISTS, TEXTS = (
    ("training", "data", "figures"),
    ("network", "preparation", "heads", "women", "images"),
    ("weights_origin", "code_version", "digest"),
)


@pytest.mark.parametrize(
    ("part", "value"),
    [(part, value) for part in (*TABLES, *LISTS, *TEXTS) for value in (None, 5, [], [["x"]], float("inf"), True)]
    + [(part, "x") for part in (*TABLES, *LISTS)]
    + [(part, value) for part in LISTS for value in ({"train": 5}, {"train": [5]})],
)
def test_a_part_of_the_wrong_type_is_refused(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork, part: str, value: object
) -> None:
    save_model(tmp_path, network.state_dict(), card)
    rewrite_card(tmp_path, **{part: value})
    with pytest.raises(ModelError, match=r"card\.json"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "change", [{"backbone": 5}, {"backbone": None}, {"grey_stem": "x"}, {"embedding_dimension": 2.5}]
)
def test_options_of_the_wrong_type_are_refused_even_where_all_digests_match(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork, change: dict[str, object]
) -> None:
    wrong = dataclasses.replace(card, network=dataclasses.replace(card.network, **change))
    save_model(tmp_path, network.state_dict(), wrong)
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)


def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("a", "b", "c", "none", "a", "nu\0l")] + [str(tmp_path)]
    found = image_digests(paths, workers=2)
    assert set(found) == set(paths[:3])
    assert found[paths[0]] == found[paths[1]] == hashlib.sha256(b"one").hexdigest()[:16]
    assert found[paths[2]] != found[paths[0]]


def test_weights_that_do_not_fit_their_card_are_refused(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork
) -> None:
    state = dict(network.state_dict())
    state.pop("heads.pathology.weight")
    save_model(tmp_path, state, card)
    with pytest.raises(ModelError, match="does not hold this network's weights"):
        load_model(tmp_path)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(ModelError, match=r"can't be written \(No space left on device\); free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_usual_rights(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    (tmp_path / "usual").touch()
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "usual")]
    assert rights[0] == rights[1]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(ModelError, match="can't be written"):
        write_atomically(tmp_path / "model" / "card.json", b"")


def test_a_card_knows_its_women_without_naming_them(card: ModelCard) -> None:
    assert card.role("d/1") == "train"
    assert card.role("d/2") == "unseen"
    assert "d/1" not in json.dumps(card.to_dict())


def test_reading_a_card_alone(tmp_path: Path, card: ModelCard, network: EmbedderNetwork) -> None:
    digest = save_model(tmp_path, network.state_dict(), card)
    assert read_card(tmp_path) == (card, digest)


def test_a_compact_model_is_half_the_size_and_another_model(
    tmp_path: Path, card: ModelCard, network: EmbedderNetwork
) -> None:
    digest = save_model(tmp_path / "whole", network.state_dict(), card)
    small = compact_model(tmp_path / "whole", tmp_path / "small")
    assert small != digest
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.65 * sizes[0]
    loaded, told, again = load_model(tmp_path / "small")
    assert (again, told.heads, told.women) == (small, card.heads, card.women)
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (each.eval()(images).embedding for each in (network, loaded))
    assert first.dtype == second.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(first, second).min() > 0.999
    # Rounding what is rounded changes nothing.
    assert compact_model(tmp_path / "small", tmp_path / "again") == small


def test_a_weight_that_16_bits_can_not_hold_is_told(tmp_path: Path, card: ModelCard, network: EmbedderNetwork) -> None:
    state = network.state_dict()
    name = next(name for name, value in state.items() if value.dim() > 1)
    state[name] = state[name].clone().fill_(1e6)
    save_model(tmp_path / "whole", state, card)
    with pytest.raises(ModelError, match=f"the weight {name} does not fit 16 bits"):
        compact_model(tmp_path / "whole", tmp_path / "small")
    assert not (tmp_path / "small").exists()
