from typing import Annotated

import typer


def models(
    pattern: Annotated[str, typer.Argument(help="Pattern of names, with * and ?.")] = "*",
    weights: Annotated[
        bool, typer.Option("--weights", help="List published checkpoints instead.")
    ] = False,
) -> None:
    """List the named models with their default input shape and included weights."""
    if weights:
        list_weights(pattern)
        return
    from keras_tokenlearner.applications import CATALOG, list_models
    from keras_tokenlearner.weights import store

    names = list_models(pattern)
    if not names:
        raise ValueError(
            "models: `pattern` must match a name of the catalogue; `models` lists all names. "
            f"Received: pattern={pattern!r}"
        )
    for name in names:
        shape = "x".join(str(size) for size in CATALOG[name].input_shape)
        print(f"{name:40}{shape:>14}  {' '.join(store.names(name))}".rstrip())


def list_weights(pattern: str) -> None:
    """Print the published checkpoints whose names match a pattern."""
    from keras_tokenlearner.presets import list_checkpoints

    rows = list_checkpoints(pattern)
    if not rows:
        raise ValueError(
            "models: `pattern` must match a published checkpoint; `models --weights` lists the "
            "checkpoints. "
            f"Received: pattern={pattern!r}"
        )
    for row in rows:
        size = "x".join(str(length) for length in row.input_size)
        checked = "" if row.is_checked else "  untested: never downloaded"
        print(f"{row.name:48}{size:>12}{row.top1:>18}  {row.licence}{checked}")
