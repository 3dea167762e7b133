"""The training loop's inside: one network, its optimiser, an epoch of batches, validation, and its state."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from embedder.augmentation import AugmentationConfig, augment, mix
from embedder.checkpoint import ModelError
from embedder.embedding import embed_pixels
from embedder.findings import patient_key
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.objectives import LOSSES, MISSING, Objective
from embedder.preparation import PreparationConfig
from embedder.rois import CropStore
from embedder.sampling import ClassBatches
from embedder.trainingplan import TrainingConfig
from embedder.trainingstate import TrainingState
from embedder.validation import LabelledRows, map_at_r, map_at_r_figure

# Validation needs no more gallery than this; a larger training set is thinned evenly.
_VALIDATION_GALLERY = 4096
_EMBED_ROWS = 256
_LOOK_EVERY = 16
_PROXY_RATE = 10.0  # of the new layers' rate: classes' own vectors start anywhere and have far to go (Kim et al., 2020)


class TrainingRun:
    """One training in progress.

    All randomness of an epoch is seeded from the training's seed and the epoch's number, so that a training
    that goes on from a saved state draws what it would have drawn without the stop.

    Args:
        network: The network to train, see `new_network`.
        crops: The rows' crops, enlarged by the augmentation's margin; the frame has a column `role`.
        metric_labels: Columns on which the metric loss is formed; the first fills the batches.
        preparation: What the network's input looks like.
        training: How it is trained.
        augmentation: How crops are varied.
        device: Where to compute.
    """

    def __init__(
        self,
        network: EmbedderNetwork,
        crops: CropStore,
        metric_labels: tuple[str, ...],
        preparation: PreparationConfig,
        training: TrainingConfig,
        augmentation: AugmentationConfig,
        device: torch.device,
    ) -> None:
        self.crops, self.training, self.augmentation, self.device = crops, training, augmentation, device
        self.size = (preparation.height, preparation.width)
        self.network = network.to(device)
        if device.type != "mps":
            self.network = self.network.to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.network) if training.compile else self.network
        heads = network.classes
        frame = crops.frame
        self.labels = {name: _codes(frame[name], classes) for name, classes in heads.items()}
        _, patients = np.unique(patient_key(frame).to_numpy().astype(str), return_inverse=True)
        self.patients = patients.astype(np.int64)
        role = frame["role"].to_numpy()
        self.train_rows = np.flatnonzero(role == "train")
        self.validation_rows = np.flatnonzero(role == "validation")
        if self.network.beside is not None:
            self.network.beside.fit(torch.from_numpy(crops.descriptors[self.train_rows]).to(device))
        self.batches = ClassBatches(
            self.labels[metric_labels[0]][self.train_rows],
            self.patients[self.train_rows],
            classes_per_batch=training.classes_per_batch,
            findings_per_class=training.findings_per_class,
            balance=training.balance,
            seed=training.seed,
        )
        self.metric_labels = metric_labels
        torch.manual_seed(training.seed)  # classes' own vectors are drawn
        sizes = {name: len(classes) for name, classes in heads.items()}
        self.objective = Objective(
            training.objective, metric_labels, sizes, self.network.dimension, self._class_weights(heads)
        ).to(device)
        self.groups = _backbone_groups(self.network)
        backbone = {id(p) for p in self.network.backbone.parameters()}
        new = [p for p in self.network.parameters() if id(p) not in backbone]
        shares = [
            {"params": list(self.network.backbone.parameters()), "share": training.backbone_rate},
            {"params": new, "share": 1.0},
        ]
        if proxies := list(self.objective.parameters()):
            shares.append({"params": proxies, "share": _PROXY_RATE})
        self.optimiser = torch.optim.AdamW(
            shares,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
        )
        bfloat16 = training.precision == "bfloat16" or (
            training.precision == "auto"
            and device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        self.best: dict[str, Tensor] = {}

    @staticmethod
    def new_network(
        config: NetworkConfig, heads: Mapping[str, tuple[str, ...]], seed: int, descriptors: int
    ) -> EmbedderNetwork:
        """Make the network of a training, its new layers started from the seed."""
        torch.manual_seed(seed)
        return EmbedderNetwork(config, heads, descriptors=descriptors)

    def _class_weights(self, heads: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
        if self.training.balance != "weights":
            return {}
        weights = {}
        for name, classes in heads.items():
            codes = self.labels[name][self.train_rows]
            counts = np.bincount(codes[codes != MISSING], minlength=len(classes))
            share = counts.sum() / (len(classes) * np.maximum(counts, 1))
            weights[name] = torch.tensor(share, dtype=torch.float32, device=self.device)
        return weights

    def _open_layers(self, epoch: int) -> None:
        """Let this epoch's layers learn, the backbone's last ones first, and set the batch norms' mode."""
        mode = self.training.trainable
        if mode == "all":
            count = len(self.groups)
        elif mode == "head":
            count = 0
        else:
            count = min(len(self.groups), 1 + epoch // self.training.layers_every)
        opened = {id(p) for group in self.groups[len(self.groups) - count :] for p in group}
        for parameter in self.network.backbone.parameters():
            parameter.requires_grad_(id(parameter) in opened)
        self.network.train()
        for module in self.network.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                own = list(module.parameters(recurse=False))
                trains = self.training.backbone_norm == "batch" and (not own or id(own[0]) in opened)
                module.train(trains)

    def train_epoch(self, epoch: int, progress: Callable[[int, int, int], None] | None = None) -> dict[str, float]:
        """Train one epoch and return the mean of each loss.

        Args:
            epoch: Its number, from 0.
            progress: Called with epoch, batches done and batches in the epoch.
        """
        seed = self.training.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self._open_layers(epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = self.training.rate(epoch) * group["share"]
        sums = dict.fromkeys(LOSSES, torch.zeros((), device=self.device))
        # On a GPU, the fastest convolutions do not give the same sums twice.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            for number, local in enumerate(self.batches.epoch(epoch), start=1):
                losses = self._step(self.train_rows[local], generator)
                sums = {name: total + losses[name].detach() for name, total in sums.items()}
                # To look at a loss waits for the GPU: once in a while is often enough.
                if number % _LOOK_EVERY == 0 or number == len(self.batches):
                    _refuse_nan(sums, epoch, number)
                if progress is not None:
                    progress(epoch, number, len(self.batches))
        return {name: float(total) / len(self.batches) for name, total in sums.items()}

    def _step(self, rows: npt.NDArray[np.int64], generator: torch.Generator) -> dict[str, Tensor]:
        """Train on one batch and return its losses."""
        images = torch.from_numpy(self.crops.pixels[rows]).to(self.device).float().unsqueeze(1)
        extent = torch.from_numpy(self.crops.extent_mm[rows]).to(self.device)
        beside = torch.from_numpy(self.crops.descriptors[rows]).to(self.device)
        with torch.no_grad():
            images, extent = augment(images, extent, self.size, self.augmentation, generator)
            mixed = None
            if self.augmentation.mixing:
                images, mixed = mix(images, self.augmentation.mixing, generator)
        labels = {name: torch.from_numpy(codes[rows]).to(self.device) for name, codes in self.labels.items()}
        patients = torch.from_numpy(self.patients[rows]).to(self.device)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                output = self.forward(images, extent, beside)
            losses = self.objective(output, labels, patients, mixed)
            losses["total"].backward()
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                "training",
                f"torch.compile does not work on this machine ({reason[0]})",
                "install a C++ compiler, or set training.compile=false",
            ) from error
        self.optimiser.step()
        return losses

    def validate(self) -> dict[str, float]:
        """Return MAP@R of the held-out women's rows among the training women's, by label; empty without."""
        return {
            name: map_at_r(queries.labelled(), gallery.labelled())
            for name, (queries, gallery) in self._validation_rows().items()
        }

    def validation_figures(self) -> dict[str, dict[str, float | int | None]]:
        """Return the best epoch's MAP@R by label, each with its context, see `map_at_r_figure`.

        The network takes the best epoch's weights up again.
        """
        self.network.load_state_dict(self.best)
        figures = {
            name: map_at_r_figure(queries, gallery, self.training.seed)
            for name, (queries, gallery) in self._validation_rows().items()
        }
        return {name: figure for name, figure in figures.items() if figure is not None}

    def _validation_rows(self) -> dict[str, tuple[LabelledRows, LabelledRows]]:
        """Return, by label, the held-out women's rows and the gallery; empty where none of the former has a label."""
        if self.validation_rows.size == 0:
            return {}
        step = max(1, -(-len(self.train_rows) // _VALIDATION_GALLERY))
        sides = [
            (rows, torch.from_numpy(self._embed(rows))) for rows in (self.validation_rows, self.train_rows[::step])
        ]
        found = {}
        for name in self.metric_labels:
            codes = self.labels[name]
            queries, gallery = (LabelledRows(vectors, codes[rows], self.patients[rows]) for rows, vectors in sides)
            if (queries.codes != MISSING).any():
                found[name] = queries, gallery
        return found

    def _embed(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embed the middle of the enlarged crops: what the preparation alone would have cut."""
        height, width = self.size
        top, left = (self.crops.pixels.shape[1] - height) // 2, (self.crops.pixels.shape[2] - width) // 2
        self.network.eval()
        parts = [
            embed_pixels(
                self.network,
                self.crops.pixels[part, top : top + height, left : left + width],
                self.crops.extent_mm[part],
                self.device,
                descriptors=self.crops.descriptors[part],
            )
            for part in np.array_split(rows, -(-len(rows) // _EMBED_ROWS))
        ]
        return np.concatenate(parts)

    def keep(self) -> None:
        """Remember the network as it is now as the best."""
        self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """Return all that the next epoch depends on, as named tensors."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        return tensors

    def restore(self, state: TrainingState) -> list[dict[str, Any]]:
        """Take up a saved state and return its history."""
        self.network.load_state_dict(_strip(state.tensors, "network."))
        self.best = _strip(state.tensors, "best.")
        self.objective.load_state_dict(_strip(state.tensors, "objective."))
        saved = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _strip(state.tensors, "optimiser.").items():
            index, slot = name.split(".", 1)
            # Laid out in memory as it was: the same sums in another order round differently.
            like = parameters[int(index)]
            laid = torch.empty_like(like).copy_(value) if value.shape == like.shape and value.ndim else value
            slots.setdefault(int(index), {})[slot] = laid
        self.optimiser.load_state_dict({**saved, "state": slots})
        return state.history


def _refuse_nan(sums: Mapping[str, Tensor], epoch: int, batch: int) -> None:
    broken = [name for name, total in sums.items() if not math.isfinite(float(total))]
    if broken:
        raise ModelError(
            "training",
            f"the {broken[0]} loss is not a number any more in epoch {epoch + 1}, at batch {batch}",
            "the epochs before it are kept; train into another folder with a lower training.learning_rate,"
            " or with training.precision=float32",
        )


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _codes(column: "pd.Series[Any]", classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return class indices of a label column, MISSING where unknown or not among the classes."""
    places = {term: code for code, term in enumerate(classes)}
    return np.array([places.get(str(term), MISSING) for term in column], np.int64)


def _backbone_groups(network: EmbedderNetwork) -> list[list[nn.Parameter]]:
    """Return the backbone's parameters by groups of layers, from the stem to the last."""
    backbone = network.backbone
    named = dict(backbone.named_parameters())
    names = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    return [[named[name] for name in names[key] if name in named] for key in sorted(names)]
