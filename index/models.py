"""What a gallery expects of a model that embeds a query for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from index.gallery import Gallery
from index.manifest import GalleryIdentity, check_identity

PlaceBox = TypeVar("PlaceBox", bound=Iterable[int], contravariant=True)
"""A model's own kind of box, which yields x0, y0, x1, y1."""


class EmbeddedPlace(Protocol):
    """What an embedder returns for one place on one image."""

    @property
    def vector(self) -> npt.NDArray[np.float32]:
        """float32 (d,), unit length."""

    @property
    def patient_id(self) -> str | None:
        """The woman as the file names her."""

    @property
    def path(self) -> Path:
        """The image."""


class EmbeddingModel(Protocol[PlaceBox]):
    """Whatever turns a place on an image into a vector."""

    @property
    def digest(self) -> str:
        """Names the model."""

    @property
    def preparation_digest(self) -> str:
        """Names what is done to pixels before the model."""

    @property
    def granularity(self) -> str:
        """`finding` or `breast`."""

    @property
    def dimension(self) -> int:
        """Length of its vectors."""

    def embed(
        self, path: Path, box: PlaceBox | None = None, *, spacing_mm: float | None = None, view: str | None = None
    ) -> EmbeddedPlace:
        """Embed one place, or the whole breast."""


def check_model(gallery: Gallery, embedder: EmbeddingModel[Any]) -> None:
    """Refuse a gallery whose vectors another model made: similarities across models mean nothing.

    Raises:
        GalleryError: It is another's; the message names both.
    """
    made_with = GalleryIdentity(embedder.digest, embedder.preparation_digest, embedder.granularity, embedder.dimension)
    check_identity(gallery.folder, gallery.identity, made_with)
