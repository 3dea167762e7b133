"""Options that several commands share, and how a command takes a group of them."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from cli_options import RecipeOptions, option_groups
from embedder.recipe import Recipe


@dataclass(frozen=True)
class Colours:
    ink: Annotated[str, typer.Option(help="Of the text.")] = "black"
    paper: Annotated[str | None, typer.Option(help="Below it.")] = None


@pytest.fixture
def invoke():
    """Run a command that takes a group between its own options; returns what it got."""
    got = []

    @option_groups
    def write(text: str, *, colours: Colours, bold: Annotated[bool, typer.Option("--bold")] = False) -> None:
        """Write a text."""
        got.append((text, colours, bold))

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(write)

    def run(*arguments: str):
        app(list(arguments), standalone_mode=False)
        return got.pop()

    run.command = write
    return run


def test_a_group_is_given_as_one_and_asked_for_as_options(invoke):
    assert invoke("a") == ("a", Colours(), False)
    assert invoke("a", "--paper", "white", "--bold") == ("a", Colours(paper="white"), True)
    assert invoke("a", "--ink", "red") == ("a", Colours("red"), False)


def test_options_stand_where_their_group_stands(invoke):
    assert list(inspect.signature(invoke.command).parameters) == ["text", "ink", "paper", "bold"]
    assert inspect.getdoc(invoke.command) == "Write a text."


def test_a_recipe_is_read_with_what_was_asked_for(tmp_path):
    assert not RecipeOptions().given
    assert RecipeOptions(settings=["training.epochs=3"]).given
    assert RecipeOptions().read() == Recipe.default("finding")
    assert RecipeOptions("breast").read() == Recipe.default("breast")
    # What the command adds comes last, and so it holds.
    assert RecipeOptions(settings=["training.epochs=3"]).read("training.epochs=4").training.epochs == 4
    file = tmp_path / "recipe.toml"
    file.write_text(Recipe.default("breast").to_toml())
    assert RecipeOptions(recipe=file).read().preparation == Recipe.default("breast").preparation


def test_a_recipe_for_something_else_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="is for granularity breast"):
        RecipeOptions("finding", settings=["preparation.granularity=breast"]).read()
