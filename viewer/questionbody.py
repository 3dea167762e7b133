"""A question as the API has it: checked, put into one normal form, and turned into what the gallery is asked."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from index.facets import Facet
from index.grouping import PerClass
from index.questions import Question
from index.refinement import Refinement
from index.typicalrows import Typical
from viewer import ViewerError

MOST_NEIGHBOURS = 1_000
MOST_THUMBS = 500
MOST_VIEWS = 8
TYPICAL_LABEL = "pathology"
TWO_ROWS = PerClass("pathology", ("malignant", "benign"))

ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Corner = Annotated[int, Field(ge=0, le=1_000_000)]
Box = tuple[Corner, Corner, Corner, Corner]
RowId = Annotated[str, Field(min_length=1, max_length=1_000)]
_Value = Annotated[str, Field(max_length=200)]
_Values = Annotated[list[_Value], Field(max_length=50)]
_Age = Annotated[float, Field(ge=0, le=150, allow_inf_nan=False)]


def check_box(box: Box, rows: int, columns: int) -> Box:
    """Return a box that lies inside an image and is not empty.

    Raises:
        ViewerError: It does not.
    """
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
        raise ViewerError(
            f"box {x0},{y0},{x1},{y1}",
            f"is empty or does not lie inside the image of {columns} × {rows} pixels",
            "give x0, y0, x1, y1 in pixels of the stored image, x0 < x1 and y0 < y1",
        )
    return box


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlaceBody(_Body):
    """A place on an image; no box means the whole breast."""

    image: ImageId
    box: Box | None = None


class FilterBody(_Body):
    """Which rows may answer: of each list any value, of the age both ends included; an empty list asks for nothing."""

    density: _Values = []
    view: _Values = []
    lesion_type: _Values = []
    dataset: _Values = []
    age: tuple[_Age, _Age] | None = None

    def where(self) -> str | None:
        """Return the same in the filter language, every value as a literal; None where all rows may answer."""
        parts = []
        for name in ("density", "view", "lesion_type", "dataset"):
            values = sorted(set(getattr(self, name)))
            if len(values) == 1:
                parts.append(f"{name} == {values[0]!r}")
            elif values:
                parts.append(f"{name} in ({', '.join(map(repr, values))})")
        if self.age is not None:
            low, high = sorted(self.age)
            parts.append(f"age >= {low!r} and age <= {high!r}")
        return " and ".join(parts) or None

    def plain(self) -> dict[str, Any]:
        """Return it in its normal form."""
        lists = {name: sorted(set(getattr(self, name))) for name in ("density", "view", "lesion_type", "dataset")}
        return {**lists, "age": None if self.age is None else sorted(self.age)}


class FacetBody(_Body):
    """What is preferred: see `index.facets.Facet`. A weight of 0 is as good as nothing."""

    column: Annotated[str, Field(min_length=1, max_length=100)]
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    value: _Value | Annotated[float, Field(allow_inf_nan=False)] | None = None


class SourceBody(_Body):
    """What is asked about: a place on an image, with further views of the same finding, or a row of the gallery."""

    image: ImageId | None = None
    box: Box | None = None
    row: RowId | None = None
    further: Annotated[list[PlaceBody], Field(max_length=MOST_VIEWS - 1)] = []

    @model_validator(mode="after")
    def _one_source(self) -> "SourceBody":
        if (self.image is None) == (self.row is None):
            raise ValueError("name either an image or a row")
        if self.row is not None and (self.box is not None or self.further):
            raise ValueError("a row has its own box, and no further views of images")
        return self

    @property
    def places(self) -> list[PlaceBody]:
        """The places on images, the first one first; none of a row."""
        if self.image is None:
            return []
        return [PlaceBody(image=self.image, box=self.box), *self.further]

    def source(self) -> dict[str, Any]:
        """Return what is asked about in its normal form."""
        return {
            "image": self.image,
            "box": None if self.box is None else list(self.box),
            "row": self.row,
            "further": [
                {"image": one.image, "box": None if one.box is None else list(one.box)} for one in self.further
            ],
        }


class QuestionBody(SourceBody):
    """Body of `POST /query`, and the same of `POST /opinion`."""

    k: Annotated[int, Field(ge=1, le=MOST_NEIGHBOURS)] = 10
    filters: FilterBody = FilterBody()
    typical: bool = False
    facets: Annotated[list[FacetBody], Field(max_length=8)] = []
    positive: Annotated[list[RowId], Field(max_length=MOST_THUMBS)] = []
    negative: Annotated[list[RowId], Field(max_length=MOST_THUMBS)] = []
    two_rows: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the question in its normal form: what is the same question has the same form."""
        facets = sorted(
            ({"column": one.column, "weight": one.weight, "value": one.value} for one in self.facets if one.weight > 0),
            key=lambda one: json.dumps(one, sort_keys=True),
        )
        return {
            **self.source(),
            "k": self.k,
            "filters": self.filters.plain(),
            "typical": self.typical,
            "facets": facets,
            "positive": sorted(set(self.positive)),
            "negative": sorted(set(self.negative)),
            "two_rows": self.two_rows,
        }

    def terms(self) -> Question:
        """Return what the gallery is asked, but for the query itself."""
        plain = self.plain()
        moved = bool(plain["positive"] or plain["negative"])
        return Question(
            k=self.k,
            where=self.filters.where(),
            per_class=TWO_ROWS if self.two_rows else None,
            facets=tuple(Facet(one["column"], float(one["weight"]), one["value"]) for one in plain["facets"]),
            refinement=Refinement(tuple(plain["positive"]), tuple(plain["negative"])) if moved else None,
            typical=Typical(TYPICAL_LABEL) if self.typical else None,
        )


def question_id(plain: dict[str, Any]) -> str:
    """Return the name of a question: 16 hex of its normal form."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
