"""A model on disk: safetensors weights, a JSON card, and the digest that names it everywhere."""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from embedder.cards import card_bytes, card_checksum
from embedder.ensemble import MOST_MEMBERS, Ensemble
from embedder.handcrafted import feature_count
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig
from errors import MammoseekError

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
FORMAT = 1


class ModelError(MammoseekError):
    """A model that is missing, damaged, of another version, or used where it does not belong."""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model beside its weights.

    Attributes:
        network: What the network is made of.
        preparation: What its input looks like.
        heads: The classes of each head, in the order of its logits.
        weights_origin: Where the backbone's first weights came from.
        training: The training's options, label columns and outcome; empty for a model that was not trained.
        data: Data sets, women and findings trained on, the manifest's digest, the split.
        women: Digests of the women used, by role (`train`, `validation`), see `woman_digest`.
        images: Digests of the image files used, by role, see `image_digests`.
        figures: Measured figures, each with its context.
        code_version: The version of mammoseek that wrote the model.
        members: How many networks answer together, see `embedder.ensemble.Ensemble`; their weights' names tell them
            apart in the digest.
    """

    network: NetworkConfig
    preparation: PreparationConfig
    heads: Mapping[str, tuple[str, ...]]
    weights_origin: str
    training: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    women: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    members: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain values for JSON."""
        return {
            "format": FORMAT,
            "network": self.network.to_dict(),
            "preparation": self.preparation.to_dict(),
            "heads": {name: list(classes) for name, classes in self.heads.items()},
            "weights_origin": self.weights_origin,
            "training": dict(self.training),
            "data": dict(self.data),
            "women": {role: list(digests) for role, digests in self.women.items()},
            "images": {role: list(digests) for role, digests in self.images.items()},
            "figures": dict(self.figures),
            "code_version": self.code_version,
            "members": self.members,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelCard":
        """Rebuild a card from its JSON.

        Raises:
            MammoseekError: An option of the network or the preparation is not known to this version, or wrong.
            KeyError: A part is missing.
            TypeError: A part is of another type.
        """
        return cls(
            network=NetworkConfig.from_dict(_table(values, "network")),
            preparation=PreparationConfig.from_dict(_table(values, "preparation")),
            heads=_text_lists(values, "heads"),
            weights_origin=_text(values, "weights_origin"),
            training=_table(values, "training"),
            data=_table(values, "data"),
            women=_text_lists(values, "women"),
            images=_text_lists(values, "images"),
            figures=_table(values, "figures"),
            code_version=_text(values, "code_version"),
            members=_members(values),
        )

    def role(self, patient_key: str) -> str:
        """Return what a woman ("dataset/patient") was to this model: `train`, `validation` or `unseen`."""
        digest = woman_digest(patient_key)
        return next((role for role, digests in self.women.items() if digest in digests), "unseen")


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(values[name], dict):
        raise TypeError(f"{name} is no table")
    return dict(values[name])


def _text(values: Mapping[str, Any], name: str) -> str:
    if not isinstance(values[name], str):
        raise TypeError(f"{name} is no text")
    return str(values[name])


def _members(values: Mapping[str, Any]) -> int:
    members = values.get("members", 1)  # cards were written without it before there were ensembles
    if type(members) is not int or not 1 <= members <= MOST_MEMBERS:
        raise TypeError("members is no number of networks")
    return members


def _text_lists(values: Mapping[str, Any], name: str) -> dict[str, tuple[str, ...]]:
    lists = _table(values, name)
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists.values()):
        raise TypeError(f"{name} is no table of lists of texts")
    return {key: tuple(texts) for key, texts in lists.items()}


def woman_digest(patient_key: str) -> str:
    """Return what stands for a woman in a card: it allows to check for leaks, and names nobody by itself.

    >>> woman_digest("mini-mias/mias-001")
    'b93908cc4fcd28f3'
    """
    return hashlib.sha256(f"mammoseek woman {patient_key}".encode()).hexdigest()[:16]


def image_digests(paths: Iterable[str], workers: int | None = None) -> dict[str, str]:
    """Return what stands for each image file in a card: 16 hexadecimal digits of its content's SHA-256.

    It finds an image again under whatever name and in whatever data set, unless it was written anew.

    Args:
        paths: The files; each is read once.
        workers: Threads that read them.

    Returns:
        The digests by path; files that can't be read are left out.
    """

    def digest(path: str) -> str | None:
        try:
            if not Path(path).is_file():
                return None
            with Path(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except (OSError, ValueError):  # ValueError: a null byte in the name
            return None

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(workers) as pool:
        found = zip(unique, pool.map(digest, unique), strict=True)
        return {path: told for path, told in found if told is not None}


def code_version() -> str:
    """Return the installed version of mammoseek."""
    try:
        return version("mammoseek")
    except PackageNotFoundError:
        return "uninstalled"


def model_digest(weights: bytes, card: ModelCard) -> str:
    """Return the SHA-256 that names a model: over its weights and all that its vectors depend on."""
    parts = {
        "weights": hashlib.sha256(weights).hexdigest(),
        # Where the first weights came from has no say once the weights themselves are known.
        "network": {key: value for key, value in card.network.to_dict().items() if key != "weights"},
        "preparation": card.preparation.to_dict(),
        "heads": {name: list(classes) for name, classes in card.heads.items()},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Write a file so that a reader or a kill finds the old content or the new, never a part.

    Args:
        path: The file; its folder is made.
        content: All of it.
        lasting: Wait until it is on the disk, so that it outlives a loss of power; not for what can be made again.

    Raises:
        ModelError: The folder can't be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if lasting and hasattr(os, "O_DIRECTORY"):  # elsewhere a folder can't be opened, and the system does without
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ModelError(
            path, f"can't be written ({error.strerror})", "free some space or choose another folder"
        ) from error
    finally:
        # The clean-up must not hide why the writing failed, as in a folder that can't even be looked into.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_model(folder: Path, state: Mapping[str, Tensor], card: ModelCard) -> str:
    """Write a model's weights and card into a folder, the card last.

    Returns:
        The model's digest.

    Raises:
        ModelError: The folder holds another model, or can't be written.
    """
    weights = save({key: value.detach().cpu().contiguous() for key, value in state.items()})
    digest = model_digest(weights, card)
    # A gallery may be bound to the model that is there: without it, its vectors can't be queried any more.
    if (folder / CARD_FILE).exists() and read_card(folder)[1] != digest:
        raise ModelError(folder, "holds another model", "choose another folder, or delete this model first")
    write_atomically(folder / WEIGHTS_FILE, weights)
    write_atomically(folder / CARD_FILE, card_bytes({"digest": digest, **card.to_dict()}))
    return digest


def compact_model(source: Path, target: Path) -> str:
    """Write a model anew with the large weights as 16-bit floats: half the size, for passing it on.

    Weights of one dimension and statistics stay as they are: they are few, and some need the precision. The rounded
    model is another model: it has another digest, its vectors differ a little, and galleries of the two don't mix.

    Args:
        source: Folder of the model.
        target: Folder to write.

    Returns:
        The digest of the rounded model.

    Raises:
        ModelError: The source can't be read, a weight is too large for 16 bits, or the target can't be written.
    """
    network, card, _ = load_model(source)
    state = {}
    for name, value in network.state_dict().items():
        small = value.half() if value.is_floating_point() and value.dim() > 1 else value
        if not small.isfinite().all():
            raise ModelError(source, f"the weight {name} does not fit 16 bits", "keep the model as it is")
        state[name] = small
    return save_model(target, state, card)


def read_card(folder: Path) -> tuple[ModelCard, str]:
    """Read a model's card and the digest that it claims.

    Raises:
        ModelError: No model, a damaged card, or one of a newer version.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise ModelError(
            folder,
            f"is no model: it has no {CARD_FILE}",
            "make one by `mammoseek train` or `mammoseek model pretrained`",
        )
    try:
        values = json.loads(path.read_text("utf-8"))
        written = values["format"]
        if written == FORMAT:
            if values["checksum"] != card_checksum(values):
                raise ValueError("its checksum does not match: it was changed after it was written")
            return ModelCard.from_dict(values), _text(values, "digest")
    except MammoseekError as error:
        raise ModelError(path, f"can't be used by this version ({error})", "update mammoseek") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            path, f"is damaged ({type(error).__name__}: {error})", "copy the model again from its source"
        ) from error
    raise ModelError(path, f"is of format {written}, this version reads {FORMAT}", "update mammoseek")


def load_model(folder: Path) -> tuple[EmbedderNetwork | Ensemble, ModelCard, str]:
    """Read a model whole and check that its digest matches.

    Returns:
        The network (or several that answer as one) in evaluation mode, its card, and its digest.

    Raises:
        ModelError: No model, damaged, or changed since it was written.
    """
    card, claimed = read_card(folder)
    path = folder / WEIGHTS_FILE
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ModelError(path, f"can't be read ({error.strerror})", "copy the model again, both files") from error
    digest = model_digest(weights, card)
    if digest != claimed:
        raise ModelError(
            folder,
            f"weights and card do not belong together (digest {digest[:12]}, the card says {claimed[:12]})",
            "copy the model again, both files",
        )
    try:
        state = load(weights)
        described = feature_count(card.preparation)
        members = [
            EmbedderNetwork(card.network, card.heads, pretrained=False, descriptors=described)
            for _ in range(card.members)
        ]
        network = members[0] if card.members == 1 else Ensemble(members)
        network.load_state_dict(state)
    except (MammoseekError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # The last two: an option of a type that neither timm nor torch expects.
        raise ModelError(
            path,
            f"does not hold this network's weights ({error})",
            "copy the model again, or update mammoseek and timm",
        ) from error
    return network.eval(), card, digest
