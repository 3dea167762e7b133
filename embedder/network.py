"""The network: a timm backbone, pooling, an embedding of unit length, and one head per label column."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedder.weights import WeightsError, create_backbone

# The height of a finding's crop is told to the network as log2(mm / 50): 50 mm is a usual crop, and a
# doubling is one step.
_REFERENCE_MM = 50.0


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is made of.

    Args:
        backbone: A timm model name.
        weights: Where its first weights come from, see `embedder.weights.create_backbone`.
        grey_stem: Give the backbone one input channel instead of the grey image three times.
        pooling: `average`, or `gem` (generalised mean with a learned exponent; Radenović et al., TPAMI 2019).
        embedding_dimension: Length of the embedding; None leaves the pooled features as they are (frozen
            baseline).
        dropout: Share of pooled features dropped before the embedding layer while training. The literature's usual 0.5
            slows the training of a hundred findings so much that it has not finished in the epochs of our recipe.
        batch_norm: Normalise the embedding layer's output over the batch.
        physical_scale: Tell the embedding layer the crop's extent in mm.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    grey_stem: bool = False
    pooling: Literal["average", "gem"] = "average"
    embedding_dimension: int | None = 128
    dropout: float = 0.2
    batch_norm: bool = True
    physical_scale: bool = True

    def __post_init__(self) -> None:
        if self.embedding_dimension is not None and not 2 <= self.embedding_dimension <= 8192:
            raise WeightsError("network", f"embedding_dimension {self.embedding_dimension} is not 2 to 8192")
        if not 0 <= self.dropout < 1:
            raise WeightsError("network", f"dropout {self.dropout} is not in [0, 1)")
        if self.pooling not in ("average", "gem"):
            raise WeightsError("network", f"pooling {self.pooling!r} is neither average nor gem")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values, for a model card."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "NetworkConfig":
        """Rebuild a configuration from a model card.

        Raises:
            WeightsError: An option is not known to this version, or out of its range.
        """
        unknown = sorted(set(options) - {field.name for field in fields(cls)})
        if unknown:
            raise WeightsError("network", f"unknown options: {', '.join(unknown)}")
        return cls(**options)


class Output(NamedTuple):
    """What a forward pass gives.

    Attributes:
        embedding: (batch, dimension), unit length.
        logits: One (batch, classes) tensor per head.
    """

    embedding: Tensor
    logits: dict[str, Tensor]


class GeM(nn.Module):
    """Generalised-mean pooling over places: the p-th root of the mean of p-th powers, p learned from 3."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(3.0))

    def forward(self, features: Tensor) -> Tensor:
        """Pool (batch, channels, rows, columns) to (batch, channels)."""
        exponent = self.exponent.clamp(1.0, 10.0)
        return features.clamp(min=1e-6).pow(exponent).mean(dim=(2, 3)).pow(1.0 / exponent)


class EmbedderNetwork(nn.Module):
    """Grey crops in, embeddings of unit length and one set of logits per head out.

    Args:
        config: What the network is made of.
        heads: The classes of each head, in the order of its logits; empty for an embedder without heads.
        pretrained: Fetch the backbone's first weights; False when a checkpoint's own weights follow.
    """

    def __init__(self, config: NetworkConfig, heads: Mapping[str, tuple[str, ...]], *, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.classes = {name: tuple(classes) for name, classes in heads.items()}
        channels = 1 if config.grey_stem else 3
        self.backbone, self.weights_origin = create_backbone(
            config.backbone, config.weights if pretrained else "none", in_channels=channels
        )
        normalisation: Mapping[str, Any] = self.backbone.pretrained_cfg  # type: ignore[assignment]
        mean, std = normalisation["mean"], normalisation["std"]
        # One grey image stands for the three colours: each channel keeps its own normalisation.
        if config.grey_stem:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        # Saved with the weights: a later timm that reports other figures must not change a trained model's
        # vectors.
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32).view(1, channels, 1, 1))
        self.std = nn.Buffer(torch.tensor(std, dtype=torch.float32).view(1, channels, 1, 1))
        self.pool: nn.Module | None = GeM() if config.pooling == "gem" else None
        features = self._feature_count()
        if config.embedding_dimension is None:
            self.embed: nn.Module = nn.Identity()
            dimension = features
        else:
            dimension = config.embedding_dimension
            layers: list[nn.Module] = [
                nn.Dropout(config.dropout),
                nn.Linear(features + 2 * config.physical_scale, dimension, bias=not config.batch_norm),
            ]
            if config.batch_norm:
                layers.append(nn.BatchNorm1d(dimension))
            self.embed = nn.Sequential(*layers)
        self.dimension = dimension
        # The heads see the vector that the gallery stores: what they separate, the neighbours separate too.
        self.heads = nn.ModuleDict({name: nn.Linear(dimension, len(c)) for name, c in self.classes.items()})
        # Unit vectors give logits within ± the head's weight norm; a learned scale lets them grow confident.
        self.logit_scale = nn.Parameter(torch.tensor(10.0)) if self.classes else None

    def _feature_count(self) -> int:
        backbone: Any = self.backbone
        return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)

    @torch.no_grad()
    def check_input(self, height: int, width: int) -> None:
        """Try one blank crop of this size, so that what can't work is told before any image is read.

        Raises:
            WeightsError: The backbone takes crops of another size only, or can't be pooled as asked.
        """
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            features = self.pooled(torch.zeros(1, 1, height, width, device=self.mean.device))
            if features.shape != (1, self._feature_count()):
                raise ValueError(f"it gives features of shape {tuple(features.shape)}")
        # Backbones refuse a size in many ways: assertions, shape mismatches deep inside.
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            pooling = " or pooling=average" if self.pool is not None else ""
            raise WeightsError(
                self.config.backbone,
                f"does not work on crops of {height} × {width} pixels with {self.config.pooling} pooling ({reason[0]})",
                f"set the crop's height and width to what it was trained on{pooling}, or choose another one",
            ) from error
        finally:
            for module in training:
                module.training = True

    def pooled(self, images: Tensor) -> Tensor:
        """Return pooled features (batch, features) of crops (batch, 1, height, width) in [0, 1]."""
        # The grey channel broadcasts against the three means: no copy is made before the normalised one.
        normalised = (images - self.mean) / self.std
        if images.device.type != "mps":
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        if self.pool is None:
            return self.backbone(normalised)
        features = self.backbone.forward_features(normalised)  # type: ignore[operator]
        return self.backbone.forward_head(self.pool(features)[..., None, None])  # type: ignore[operator]

    def forward(self, images: Tensor, extent_mm: Tensor | None = None) -> Output:
        """Embed crops and score every head.

        Args:
            images: (batch, 1, height, width) in [0, 1].
            extent_mm: (batch,) height of each crop in mm, NaN where unknown; None where all are unknown.
        """
        features = self.pooled(images).float()
        # Mixed precision ends here: distances between unit vectors need more than the eight bits of bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            if self.config.embedding_dimension is not None and self.config.physical_scale:
                features = torch.cat([features, scale_features(extent_mm, features)], dim=1)
            embedding = functional.normalize(self.embed(features), dim=1)
            scaled = embedding if self.logit_scale is None else embedding * self.logit_scale
            logits = {name: head(scaled) for name, head in self.heads.items()}
        return Output(embedding, logits)


def scale_features(extent_mm: Tensor | None, like: Tensor) -> Tensor:
    """Return (batch, 2): log2 of the extent over 50 mm (0 where unknown), and 1 where it is known."""
    if extent_mm is None:
        return like.new_zeros((like.shape[0], 2))
    known = torch.isfinite(extent_mm) & (extent_mm > 0)
    log_extent = torch.log2(torch.where(known, extent_mm, _REFERENCE_MM) / _REFERENCE_MM)
    return torch.stack([log_extent, known.to(log_extent.dtype)], dim=1).to(like)
