import inspect
from typing import Annotated

import typer

_NONE: list[str] = []


def train(
    recipe: Annotated[str | None, typer.Argument(help="Name, such as fashion_mnist.")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="field=value of the recipe.")
    ] = _NONE,
    output: Annotated[str, typer.Option(help="Folder for weights and results.")] = "trained",
    explain: Annotated[
        bool, typer.Option("--list", help="List the recipes, or say all of one.")
    ] = False,
    distribute: Annotated[
        str, typer.Option(help="one_device, data_parallel, model_parallel:N, or auto.")
    ] = "one_device",
):
    """Train a model by a recipe; started again, it goes on where it was broken off.

    `train --list` names the recipes; `train RECIPE --list` says what one needs, what to expect of
    it, and its fields with the values that they have.
    """
    from keras_tokenlearner.layers.checks import check_choice
    from keras_tokenlearner.training import RECIPES, describe, distribution, train, with_settings

    if recipe is None and not explain:
        raise typer.BadParameter("name a recipe (keras-tokenlearner train --list)")
    if recipe is None:
        for name, kind in RECIPES.items():
            print(f"{name:20}  {str(inspect.getdoc(kind)).splitlines()[0]}")
        return
    check_choice("train", "recipe", recipe, list(RECIPES))
    chosen = with_settings(RECIPES[recipe](), settings)
    if explain:
        kind = RECIPES[recipe]
        print(str(inspect.getdoc(kind)).partition("Attributes:\n")[0].rstrip(), end="\n\n")
        for field, text in describe(kind).items():
            print(f"--set {field + '=' + str(getattr(chosen, field)):34}  {text}")
        return
    with distribution.scope(distribute) as devices:
        score = train(chosen, output, devices)
    print(f"test score {score:.2%}; weights and results are in {output}")
