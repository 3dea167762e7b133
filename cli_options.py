"""Options and arguments that several commands share, each said once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
Granularity = Annotated[str | None, typer.Option(help="finding or breast.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe, see `mammoseek model recipe`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Set one option of the recipe, such as training.epochs=10. Repeatable.", metavar="NAME=VALUE"
    ),
]
Model = Annotated[Path | None, typer.Option("--model", help="The model, where it is not the copy kept in the gallery.")]
Dataset = Annotated[str | None, typer.Option(help="The data set whose id --patient is; every data set unless named.")]
Frame = Annotated[int | None, typer.Option(min=1, help="The frame of a multi-frame image, from 1.")]
ForProcessing = Annotated[bool, typer.Option("--for-processing", help="Accept a For Processing image.")]
Spacing = Annotated[
    float | None, typer.Option("--spacing-mm", min=0.001, max=5.0, help="mm per pixel, where the file does not say.")
]
View = Annotated[str | None, typer.Option(help="The view (CC, MLO, …), where the file does not say.")]
Resamples = Annotated[int, typer.Option(min=100, max=100_000, help="Bootstrap resamples of the women.")]
RescorerFile = Annotated[
    Path | None, typer.Option("--rescorer", help="New scores by this, see `mammoseek rescore fit`.")
]
NameCases = Annotated[
    bool, typer.Option("--name-cases", help="Let reports name the similar cases and refer to their images.")
]


def chosen_recipe(path: Path | None, settings: list[str] | None, granularity: str | None) -> "Recipe":
    """Return the recipe that is asked for."""
    from embedder.recipe import Recipe

    recipe = Recipe.read(path, granularity) if path else Recipe.default(granularity or "finding")
    recipe = recipe.with_settings(settings or [])
    if granularity is not None and recipe.preparation.granularity != granularity:
        raise typer.BadParameter(
            f"the recipe is for granularity {recipe.preparation.granularity}", param_hint="--granularity"
        )
    return recipe
