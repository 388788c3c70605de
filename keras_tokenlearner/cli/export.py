from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="A .keras file, or the name of a model.")],
    path: Annotated[str, typer.Argument(help="Folder of the versions of the served model.")],
    weights: Annotated[str | None, typer.Option(help="Of a named model: a name or path.")] = None,
    class_names: Annotated[str | None, typer.Option(help="File with a class name a line.")] = None,
    top_k: Annotated[int, typer.Option(help="How many of the likeliest classes to answer.")] = 5,
    maps: Annotated[
        bool, typer.Option("--maps", help="Also answer the maps of the tokens.")
    ] = False,
    frame_step: Annotated[float | None, typer.Option(help="Of videos: seconds to a frame.")] = None,
):
    """Write a SavedModel that takes encoded images, or pixels of any size, or videos."""
    import dataclasses

    import keras

    from keras_tokenlearner import create_model, export
    from keras_tokenlearner.weights import store

    names: list | tuple | None = Path(class_names).read_text().splitlines() if class_names else None
    provenance: dict = {"source": model, "weights": weights}
    if model.endswith(".keras"):
        built = keras.saving.load_model(model, compile=False)
    else:
        weights = weights or next(iter(store.names(model)), None)
        built = create_model(model, weights=weights)
        if weights in store.names(model):
            provenance = dataclasses.asdict(store.find(model, weights))
            names = names or provenance["class_names"]
    print(export(built, path, names, top_k, maps, frame_step, provenance))
