"""All that makes a model of weakly labelled images, as one frozen value or settings on a command line."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from embedder.recipe import apply_setting
from embedder.tiles import TileConfig
from embedder.weakscorers import ScorerConfig


@dataclass(frozen=True)
class WeakRecipe:
    """How a model of weakly labelled images is made.

    Args:
        tiles: How a breast is cut.
        scorer: How its tiles are scored.
    """

    tiles: TileConfig = field(default_factory=TileConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)

    def with_settings(self, settings: Iterable[str]) -> "WeakRecipe":
        """Return the recipe with some options set, each as `table.option=value` with the value in TOML.

        Raises:
            ModelError: An option is unknown, of the wrong type or out of its range.

        >>> WeakRecipe().with_settings(["scorer.method=attention", "tiles.side=512"]).scorer.method
        'attention'
        """
        recipe = self
        for setting in settings:
            recipe = apply_setting(recipe, setting)
        return recipe
