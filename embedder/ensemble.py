"""Several networks that answer as one.

Deep ensembles: Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty estimation using deep
ensembles, NeurIPS 2017. Of the mammography literature, many classifiers are ensembles of the networks of their folds
(Abdelhafiz et al., BMC Bioinformatics 2019).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedder.network import Descriptors, EmbedderNetwork, NetworkConfig, Output

MOST_MEMBERS = 20


class Ensemble(nn.Module):
    """Networks of one configuration side by side: a similarity is the mean of theirs, a head's answer too.

    Args:
        members: The networks, which have the same configuration and heads.
    """

    def __init__(self, members: Sequence[EmbedderNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._first = (members[0],)  # in a tuple, so that its weights are not listed twice

    @property
    def config(self) -> NetworkConfig:
        """What each member is made of."""
        return self._first[0].config

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each head."""
        return self._first[0].classes

    @property
    def dimension(self) -> int:
        """Length of the vectors: that of all members'."""
        return len(self.members) * self._first[0].dimension

    @property
    def beside(self) -> Descriptors | None:
        """What the first member makes of hand-crafted descriptors; None where they take none."""
        return self._first[0].beside

    def forward(self, images: Tensor, extent_mm: Tensor | None = None, descriptors: Tensor | None = None) -> Output:
        """Embed crops and score every head, see `EmbedderNetwork.forward`.

        Returns:
            The members' embeddings side by side, of unit length together, and the logarithm of their mean
            probabilities.
        """
        outputs = [member(images, extent_mm, descriptors) for member in self.members]
        count = len(outputs)
        embedding = torch.cat([output.embedding for output in outputs], dim=1) / count**0.5
        logits = {
            name: torch.stack([functional.softmax(output.logits[name], dim=1) for output in outputs]).mean(dim=0).log()
            for name in self.classes
        }
        return Output(embedding, logits)
