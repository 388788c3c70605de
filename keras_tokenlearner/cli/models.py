from typing import Annotated

import typer


def models(pattern: Annotated[str, typer.Argument(help="Names to list, with * and ?.")] = "*"):
    """List the named models with their default input and included weights."""
    from keras_tokenlearner.applications import CATALOG, list_models
    from keras_tokenlearner.weights import store

    names = list_models(pattern)
    if not names:
        raise ValueError(
            f"models: no name is like this one, `models` lists all. Received: {pattern!r}"
        )
    for name in names:
        shape = "x".join(str(size) for size in CATALOG[name].input_shape)
        print(f"{name:40}{shape:>14}  {' '.join(store.names(name))}".rstrip())
