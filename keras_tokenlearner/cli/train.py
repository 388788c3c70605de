import importlib
import inspect
import sys
from typing import Annotated

import typer

_NONE: list[str] = []


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name, such as fashion_mnist, or MODULE:CLASS.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", help="Change a field of the recipe: FIELD=VALUE; repeat the option for more."
        ),
    ] = _NONE,
    output: Annotated[str, typer.Option(help="Folder for weights and results.")] = "trained",
    explain: Annotated[
        bool, typer.Option("--list", help="List the recipes, or explain one.")
    ] = False,
    distribute: Annotated[
        str, typer.Option(help="one_device, data_parallel, model_parallel:N, or auto.")
    ] = "one_device",
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Ignore the backup of an interrupted run, and replace other results."
        ),
    ] = False,
) -> None:
    """Train a model by a recipe; an interrupted run continues when you repeat the command.

    `train --list` lists the recipes. `train RECIPE --list` prints the requirements, expected result
    and fields of that recipe. Your own recipe is a frozen dataclass, for example a subclass of an
    included recipe. `train my_recipes:Larger` runs the class Larger in my_recipes.py.
    """
    from keras_tokenlearner.training import RECIPES, describe, distribution, train, with_settings

    if recipe is None and not explain:
        raise typer.BadParameter(
            "pass a recipe (`keras-tokenlearner train --list` lists the recipes)"
        )
    if recipe is None:
        for name, kind in RECIPES.items():
            print(f"{name:20}  {str(inspect.getdoc(kind)).splitlines()[0]}")
        return
    kind = find_recipe(recipe)
    chosen = with_settings(kind(), settings)
    if explain:
        print(str(inspect.getdoc(kind)).partition("Attributes:\n")[0].rstrip(), end="\n\n")
        for field, text in describe(kind).items():
            print(f"--set {field + '=' + str(getattr(chosen, field)):34}  {text}")
        return
    with distribution.scope(distribute) as devices:
        score = train(chosen, output, devices, restart)
    print(f"test score {score:.2%}; weights and results are in {output}")


def find_recipe(recipe: str) -> type:
    """Return the class of a recipe by its name, or by `MODULE:CLASS` in the current folder."""
    from keras_tokenlearner._checks import check_choice
    from keras_tokenlearner.training import RECIPES

    module, colon, kind = recipe.partition(":")
    if not colon:
        check_choice("train", "recipe", recipe, list(RECIPES))
        return RECIPES[recipe]
    # The current folder is last in the path, for this import only. No file in it hides a library.
    sys.path.append("")
    try:
        return getattr(importlib.import_module(module), kind)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            "train: `recipe` must be MODULE:CLASS; my_recipes:Larger is the class Larger in "
            f"my_recipes.py of the current folder. Received: recipe={recipe!r} ({error})"
        ) from error
    finally:
        sys.path.reverse()
        sys.path.remove("")  # only the entry added above
        sys.path.reverse()
