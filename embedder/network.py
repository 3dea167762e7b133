"""The network: a timm backbone, pooling, an embedding of unit length, and one head per label column."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedder.weights import WeightsError, create_backbone

# The height of a finding's crop is told to the network as log2(mm / 50): 50 mm is a usual crop, and a
# doubling is one step.
_REFERENCE_MM = 50.0

TestTime = Literal["none", "flip", "symmetries"]


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
        test_time: Views that a trained model averages for one vector: `none`, `flip` (as it is and upside down) or
            `symmetries` (the eight of the square). Each costs a forward pass.
        fusion: Where hand-crafted descriptors come in, if the preparation asks for some: `vector` puts their
            principal components beside the learned embedding, `embedding` hands them to the embedding layer.
        fusion_weight: Share of a similarity that the descriptors have in `vector`.
        fusion_components: Principal components of the standardised descriptors in `vector`, at most.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    grey_stem: bool = False
    pooling: Literal["average", "gem"] = "average"
    embedding_dimension: int | None = 128
    dropout: float = 0.2
    batch_norm: bool = True
    physical_scale: bool = True
    test_time: TestTime = "none"
    fusion: Literal["vector", "embedding"] = "vector"
    fusion_weight: float = 0.3
    fusion_components: int = 24

    def __post_init__(self) -> None:
        if self.embedding_dimension is not None and not 2 <= self.embedding_dimension <= 8192:
            raise WeightsError("network", f"embedding_dimension {self.embedding_dimension} is not 2 to 8192")
        if not 0 <= self.dropout < 1:
            raise WeightsError("network", f"dropout {self.dropout} is not in [0, 1)")
        if self.pooling not in ("average", "gem"):
            raise WeightsError("network", f"pooling {self.pooling!r} is neither average nor gem")
        if self.test_time not in get_args(TestTime):
            raise WeightsError("network", f"test_time {self.test_time!r} is none of {', '.join(get_args(TestTime))}")
        if self.fusion not in ("vector", "embedding"):
            raise WeightsError("network", f"fusion {self.fusion!r} is neither vector nor embedding")
        if not 0 < self.fusion_weight < 1 or not 1 <= self.fusion_components <= 1024:
            raise WeightsError("network", "fusion_weight is above 0 and below 1, fusion_components is 1 to 1024")

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


class Descriptors(nn.Module):
    """Hand-crafted descriptors made comparable: standardised, and turned to their principal components.

    Args:
        features: How many descriptors there are.
        components: How many components are kept, as unit vectors; 0 keeps the standardised descriptors.
    """

    _BOUND = 4.0  # standard deviations: one wild descriptor must not be all there is to a finding

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.features, self.components = features, min(components, features)
        self.centre = nn.Buffer(torch.zeros(features))
        self.spread = nn.Buffer(torch.ones(features))
        self.axes = nn.Buffer(torch.zeros(features, self.components)) if self.components else None

    @torch.no_grad()
    def fit(self, descriptors: Tensor) -> None:
        """Take centre, spread and axes from (rows, features) of the women that may be known."""
        values = descriptors.double()
        self.centre.copy_(values.mean(dim=0))
        spread = values.std(dim=0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-9, spread, torch.ones_like(spread)))
        if self.axes is not None:
            standard = self._standardised(values)
            _, _, axes = torch.linalg.svd(standard - standard.mean(dim=0), full_matrices=False)
            kept = min(self.components, len(axes))
            self.axes.zero_()
            # A sign is arbitrary: the same rows must give the same vectors.
            signs = torch.sign(axes[:kept].gather(1, axes[:kept].abs().argmax(dim=1, keepdim=True)))
            self.axes[:, :kept] = (axes[:kept] * signs).T

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return (batch, components) of unit length, or (batch, features) standardised."""
        standard = self._standardised(descriptors)
        return standard if self.axes is None else functional.normalize(standard @ self.axes, dim=1)

    def _standardised(self, values: Tensor) -> Tensor:
        return ((values - self.centre) / self.spread).clamp(-self._BOUND, self._BOUND)


class EmbedderNetwork(nn.Module):
    """Grey crops in, embeddings of unit length and one set of logits per head out.

    Args:
        config: What the network is made of.
        heads: The classes of each head, in the order of its logits; empty for an embedder without heads.
        pretrained: Fetch the backbone's first weights; False when a checkpoint's own weights follow.
        descriptors: How many hand-crafted descriptors come with a crop.
    """

    def __init__(
        self,
        config: NetworkConfig,
        heads: Mapping[str, tuple[str, ...]],
        *,
        pretrained: bool = True,
        descriptors: int = 0,
    ) -> None:
        super().__init__()
        self.beside: Descriptors | None = None
        if descriptors:
            components = config.fusion_components if config.fusion == "vector" else 0
            if not components and config.embedding_dimension is None:
                raise WeightsError("network", "there is no embedding layer to fuse descriptors in", "use fusion=vector")
            self.beside = Descriptors(descriptors, components)
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
                nn.Linear(self._embedded_features(features), dimension, bias=not config.batch_norm),
            ]
            if config.batch_norm:
                layers.append(nn.BatchNorm1d(dimension))
            self.embed = nn.Sequential(*layers)
        if self.beside is not None:
            dimension += self.beside.components
        self.dimension = dimension
        # The heads see the vector that the gallery stores: what they separate, the neighbours separate too.
        self.heads = nn.ModuleDict({name: nn.Linear(dimension, len(c)) for name, c in self.classes.items()})
        # Unit vectors give logits within ± the head's weight norm; a learned scale lets them grow confident.
        self.logit_scale = nn.Parameter(torch.tensor(10.0)) if self.classes else None

    def _embedded_features(self, pooled: int) -> int:
        given = 0 if self.beside is None or self.beside.components else self.beside.features
        return pooled + 2 * self.config.physical_scale + given

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

    def learned(self, features: Tensor, extent_mm: Tensor | None, described: Tensor | None = None) -> Tensor:
        """Return (batch, learned dimension) of unit length: the embedding without descriptors that stand beside it.

        Args:
            features: (batch, features) as `pooled` gives them, float32.
            extent_mm: (batch,) height of each crop in mm, NaN where unknown; None where all are unknown.
            described: (batch, descriptors) that the embedding layer is given, for a network that fuses them there.
        """
        if self.config.embedding_dimension is not None and self.config.physical_scale:
            features = torch.cat([features, scale_features(extent_mm, features)], dim=1)
        if described is not None:
            features = torch.cat([features, described], dim=1)
        return functional.normalize(self.embed(features), dim=1)

    def forward(self, images: Tensor, extent_mm: Tensor | None = None, descriptors: Tensor | None = None) -> Output:
        """Embed crops and score every head.

        Args:
            images: (batch, 1, height, width) in [0, 1].
            extent_mm: (batch,) height of each crop in mm, NaN where unknown; None where all are unknown.
            descriptors: (batch, descriptors), for a network that fuses some.
        """
        features = self.pooled(images).float()
        # Mixed precision ends here: distances between unit vectors need more than the eight bits of bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            described = None
            if self.beside is not None:
                assert descriptors is not None, "this network fuses descriptors"
                described = self.beside(descriptors.float())
            fused = self.beside is not None and self.beside.components
            embedding = self.learned(features, extent_mm, None if fused else described)
            if described is not None and fused:
                weight = self.config.fusion_weight
                embedding = torch.cat([(1 - weight) ** 0.5 * embedding, weight**0.5 * described], dim=1)
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


def symmetric_views(crops: Tensor, kind: TestTime) -> list[Tensor]:
    """Return the views of crops that are averaged at test time, the crops as they are first.

    Args:
        crops: (batch, 1, height, width).
        kind: Which views; quarter turns change places of height and width.
    """
    if kind == "none":
        return [crops]
    if kind == "flip":
        return [crops, crops.flip(2)]
    turned = [torch.rot90(crops, turns, (2, 3)) for turns in range(4)]
    return [*turned, *(view.flip(3) for view in turned)]
