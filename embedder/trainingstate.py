"""What a stopped training goes on from: a safetensors file, replaced after every epoch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from embedder.checkpoint import ModelError, write_atomically

STATE_FILE = "training.safetensors"


class TrainingState:
    """A training's tensors and history after its last whole epoch.

    Attributes:
        tensors: The tensors that `TrainingRun.state` gave.
        history: One entry per finished epoch.
    """

    def __init__(self, tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> None:
        self.tensors = tensors
        self.history = history


def claim_folder(folder: Path) -> None:
    """Make the folder and try to write into it, before an epoch is spent on a state that can't be kept.

    Raises:
        ModelError: The folder can't be written.
    """
    probe = folder / f".{STATE_FILE}.probe"
    write_atomically(probe, b"")
    probe.unlink()


def save_state(
    folder: Path, plan: Mapping[str, Any], tensors: Mapping[str, Tensor], history: list[dict[str, Any]]
) -> None:
    """Write the state of a training in one atomic step.

    Raises:
        ModelError: The folder can't be written.
    """
    metadata = {"plan": json.dumps(plan, sort_keys=True), "history": json.dumps(history)}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    write_atomically(folder / STATE_FILE, content)


def load_state(folder: Path, plan: Mapping[str, Any]) -> TrainingState | None:
    """Read the state of a stopped training of this plan; None where there is none.

    Raises:
        ModelError: The state is damaged, or of another manifest or other options.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            written, history = dict(json.loads(metadata["plan"])), list(json.loads(metadata["history"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            path, f"the stopped training can't be read ({error})", "delete this file to begin anew"
        ) from error
    changed = changed_parts(written, plan)
    if changed:
        raise ModelError(
            folder,
            f"holds a stopped training with another {', '.join(changed)}",
            f"repeat it with the same options, choose another folder, or delete {STATE_FILE} to begin anew",
        )
    return TrainingState(tensors, history)


def changed_parts(written: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Return the names of the plan's parts that differ from what was written, compared as JSON.

    >>> changed_parts({"seed": 1, "heads": ["a"]}, {"seed": 2, "heads": ("a",)})
    ['seed']
    """
    expected, found = json.loads(json.dumps(plan)), json.loads(json.dumps(written))
    return [name for name in expected if found.get(name) != expected[name]]


def remove_state(folder: Path) -> None:
    """Delete the state once the model is written, and what a kill in the middle of writing it left behind."""
    for path in (folder / STATE_FILE, *folder.glob(f".{STATE_FILE}.*")):
        path.unlink(missing_ok=True)
