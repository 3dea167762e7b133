"""Options and arguments that several commands share, each said once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embedder.recipe import Recipe

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ManifestPath = Annotated[Path, typer.Argument(help="Manifest, .csv or .parquet.", metavar="MANIFEST")]
GalleryPath = Annotated[Path, typer.Argument(help="Folder of the gallery.", metavar="GALLERY")]
# A text: a path would lose one of an address's slashes.
GalleryPlace = Annotated[
    str,
    typer.Argument(help="Folder of the gallery, or milvus://host:port/collection.", metavar="GALLERY"),
]
ModelPath = Annotated[Path, typer.Argument(help="Folder of the model.", metavar="MODEL")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[int | None, typer.Option(min=1, max=256, help="Threads that read images; one a core unless set.")]
Model = Annotated[Path | None, typer.Option("--model", help="The model, where it is not the copy kept in the gallery.")]
Dataset = Annotated[str | None, typer.Option(help="The data set whose id --patient is; every data set unless named.")]
Frame = Annotated[int | None, typer.Option(min=1, help="The frame of a multi-frame image, from 1.")]
ForProcessing = Annotated[bool, typer.Option("--for-processing", help="Accept a For Processing image.")]
Resamples = Annotated[int, typer.Option(min=100, max=100_000, help="Bootstrap resamples of the women.")]
RescorerFile = Annotated[
    Path | None, typer.Option("--rescorer", help="New scores by this, see `mammoseek rescore fit`.")
]
NameCases = Annotated[
    bool, typer.Option("--name-cases", help="Let reports name the similar cases and refer to their images.")
]


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take options in groups, which several commands share.

    Args:
        command: A command's function. A parameter that is a dataclass stands for the dataclass's fields, which are
            annotated as a command's parameters are.

    Returns:
        The function for typer, which has the fields where the dataclass stands.
    """
    signature = inspect.signature(command)
    kinds = {name: one.annotation for name, one in signature.parameters.items()}
    groups: dict[str, Any] = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    options: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        group = inspect.signature(groups[name]).parameters.values() if name in groups else [parameter]
        options += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in group]

    @functools.wraps(command)
    def spread(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        command(**given)

    spread.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return spread


@dataclass(frozen=True)
class RecipeOptions:
    """Which recipe a command goes by."""

    granularity: Annotated[str | None, typer.Option(help="finding or breast.")] = None
    recipe: Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe, see `mammoseek model recipe`.")] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set one option of the recipe, such as training.epochs=10. Repeatable.", metavar="NAME=VALUE"
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.granularity or self.recipe or self.settings)

    def read(self, *further: str) -> "Recipe":
        """Return the recipe: the file's or the default one, with the settings, and further ones of the command's."""
        from embedder.recipe import Recipe

        known = self.granularity
        recipe = Recipe.read(self.recipe, known) if self.recipe else Recipe.default(known or "finding")
        recipe = recipe.with_settings([*(self.settings or []), *further])
        if known is not None and recipe.preparation.granularity != known:
            raise typer.BadParameter(
                f"the recipe is for granularity {recipe.preparation.granularity}", param_hint="--granularity"
            )
        return recipe


@dataclass(frozen=True)
class ImageOptions:
    """How an image file is read."""

    spacing_mm: Annotated[
        float | None,
        typer.Option("--spacing-mm", min=0.001, max=5.0, help="mm per pixel, where the file does not say."),
    ] = None
    view: Annotated[str | None, typer.Option(help="The view (CC, MLO, …), where the file does not say.")] = None
    frame: Frame = None
    for_processing: ForProcessing = False
