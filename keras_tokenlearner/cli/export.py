from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="A .keras file, a preset, or the name of a model.")],
    path: Annotated[
        str, typer.Argument(help="File to write; for a SavedModel, the folder of its versions.")
    ],
    weights: Annotated[
        str | None, typer.Option(help="Weights of a named model: name, path, or random.")
    ] = None,
    class_names: Annotated[
        str | None, typer.Option(help="File with one class name per line.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Number of the top classes to return.")] = 5,
    return_maps: Annotated[
        bool, typer.Option("--return-maps", help="Also return the token maps.")
    ] = False,
    frame_step: Annotated[
        float | None, typer.Option(help="Seconds between two frames of a training clip.")
    ] = None,
    classifier_activation: Annotated[
        str | None,
        typer.Option(help="Activation of logits: softmax, sigmoid, or linear."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="saved_model, onnx, openvino, litert, or pt2.")
    ] = "saved_model",
    precision: Annotated[
        str | None, typer.Option(help="int8 stores 8-bit weights, for onnx and litert.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="triton writes a model folder for NVIDIA's Triton, for onnx.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare the outputs of the file and the Keras model.")
    ] = True,
) -> None:
    """Export an image or video model to a format that runs without Keras."""
    import dataclasses

    from keras_tokenlearner import export
    from keras_tokenlearner._json import JSON
    from keras_tokenlearner.applications import load_model
    from keras_tokenlearner.applications.load import is_preset, resolve_weights
    from keras_tokenlearner.serving.export import check_arguments
    from keras_tokenlearner.weights import store

    # Wrong arguments raise an error before a large model is loaded.
    check_arguments(path, top_k, frame_step, classifier_activation, format, precision, layout)
    names = _lines(class_names) if class_names else None
    built = load_model(model, weights=weights, owner="export")
    provenance: dict[str, JSON] = {"model": model, "weights": weights}
    if not is_preset(model) and not model.endswith(".keras"):
        found = resolve_weights(model, weights, "export")
        if found in store.names(model):
            provenance = dataclasses.asdict(store.find(model, found))
    exported = export(
        built,
        path,
        names,
        top_k,
        return_maps,
        frame_step,
        provenance,
        classifier_activation,
        format=format,
        precision=precision,
        check=check,
        layout=layout,
    )
    print(exported.path)


def _lines(file: str) -> list[str]:
    """Return the names in a file, one per line."""
    from keras_tokenlearner._checks import check_path

    path = check_path("export", "class_names", file)
    if not path.is_file():
        raise ValueError(
            f"export: `--class-names` must be an existing file. Received: class_names={file!r}"
        )
    # Editors of Windows add a byte order mark. A name may have other line separators of Unicode.
    return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
