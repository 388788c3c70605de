import base64
import json
import os
import tempfile
import threading
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, cast

import keras
import numpy as np

from keras_tokenlearner._checks import check_bool, check_choice, check_int, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner.analysis import draw_token_maps, token_maps
from keras_tokenlearner.analysis.maps import learner_of
from keras_tokenlearner.applications.load import check_classifier, load_model
from keras_tokenlearner.data import decode_image
from keras_tokenlearner.data.decoding import MAX_PIXELS
from keras_tokenlearner.data.preprocessing import fit_pixels, preprocessing_of
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.models.preprocessing import check_takes_pixels
from keras_tokenlearner.serving.classifier import (
    Scored,
    best_classes,
    classifier_activation_of,
    probabilities,
)
from keras_tokenlearner.serving.export import export
from keras_tokenlearner.serving.local import local_server
from keras_tokenlearner.serving.metadata import METADATA, own_class_names, preprocessing_of_export
from keras_tokenlearner.serving.served_model import ServedModel
from keras_tokenlearner.serving.versions import exported_version

# With this lock, Keras loads and runs models in one thread at a time. On JAX, models of Keras are
# not thread-safe.
_LOCK = threading.Lock()
BATCH_SIZE = 32

Files: TypeAlias = Sequence[Path]
Answer: TypeAlias = dict[str, np.ndarray]
# The input shape of a model, its preprocessing, its class names, and its outputs.
Asked: TypeAlias = tuple[tuple[int, int, int], Preprocessing | None, Sequence[str] | None, Answer]


class Prediction(TypedDict):
    """The prediction for an image file: its path, and the most probable classes."""

    file: str
    classes: list[Scored]


@own_errors
def predict(
    model: str | os.PathLike[str],
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str] | None = None,
    top_k: int = 5,
    maps_path: str | os.PathLike[str] | None = None,
    served: bool = False,
    classifier_activation: str | None = None,
) -> list[Prediction]:
    """Classify image files with a named, saved or exported model.

    Several threads may call this function: a lock makes Keras run one call after another.
    `keras.Model.predict` has no lock. On JAX, calls from several threads would break the model.

    Args:
        model: A name in the catalogue, the path of a `.keras` file, or the folder of an exported
            model. An address or a folder for `from_preset` is valid too. The newest version of an
            exported model is used, unless the folder is a version. For a folder whose name is in
            the catalogue, pass `"./NAME"`.
        files: Paths of JPEG, PNG, GIF, BMP or WebP files, or one path.
        weights: For a named model: the `weights` of `create_model`, or `"random"` for random
            weights. Defaults to the first included weights.
        top_k: Integer, number of the most probable classes to return.
        maps_path: Path of a figure of the attention maps, in a format of matplotlib, for example
            `"tokens.png"`. `None` for no figure.
        served: Boolean, whether to send the files to a server over HTTP. The server runs on this
            machine during the call. A model that is not exported is exported first.
        classifier_activation: For a model that ends in logits: `"softmax"` if an image has one
            class, `"sigmoid"` if it has several.

    Returns:
        A list with a dictionary for each file. `file` is its path. `classes` is a list of the most
        probable classes, each with `class`, `probability` and, if known, `class_name`.

    Raises:
        ValueError: If the model does not exist or is not a classifier of images. Also if the model
            ends in logits and no activation is passed, or lacks the requested maps. Also if a file
            is missing or is not an image.
        RuntimeError: If `served=True` and the server does not start.
        ImportError: If a library is missing. The message names the extra.
    """
    check_path("predict", "model", model)
    top_k = check_int("predict", "top_k", top_k)
    check_bool("predict", "served", served)
    given = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not given:
        raise ValueError(
            f"predict: `files` must name at least one image file. Received: files={files!r}"
        )
    paths = [check_path("predict", "files", file) for file in given]
    for file in paths:
        if not file.is_file():
            raise ValueError(
                f"predict: `files` must be existing files. Received: file={str(file)!r}"
            )
    if classifier_activation is not None:
        check_choice(
            "predict", "classifier_activation", classifier_activation, ("softmax", "sigmoid")
        )
    if maps_path is not None:
        maps_path = check_path("predict", "maps_path", maps_path)
        canvas = require("matplotlib.backend_bases", "plot").FigureCanvasBase
        is_figure = maps_path.suffix[1:].lower() in ("", *canvas.get_supported_filetypes())
        if maps_path.is_dir() or not maps_path.parent.is_dir() or not is_figure:
            raise ValueError(
                "predict: `maps_path` must be a file such as tokens.png, in an existing folder. "
                f"Received: maps_path={str(maps_path)!r}"
            )
    input_shape, preprocessing, class_names, answer = _ask(
        model, paths, weights, maps_path is not None, served, classifier_activation
    )
    if "probabilities" not in answer:
        raise _no_classifier(model)
    if maps_path is not None:
        images = np.stack([read_image(file, input_shape, preprocessing) for file in paths])
        titles = [file.name for file in paths]
        draw_token_maps(images, answer["token_maps"], titles, path=maps_path)
    return [
        {"file": str(file), "classes": best_classes(row, class_names, top_k)}
        for file, row in zip(given, answer["probabilities"], strict=True)
    ]


def read_image(
    file: str | os.PathLike[str],
    input_shape: tuple[int, int, int],
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Decode an image file to float pixels, (height, width, channels), of a model's input size."""
    pixels = decode_image(file, input_shape[-1])
    return fit_pixels(pixels, input_shape, preprocessing).astype("float32")


def _ask(
    model: str | os.PathLike[str],
    files: Files,
    weights: str | os.PathLike[str] | None,
    return_maps: bool,
    served: bool,
    activation: str | None,
) -> Asked:
    """Run a model on files. Return its input shape, preprocessing, class names and outputs."""
    exported = exported_version(model)
    if exported is None and not served:
        with _LOCK:
            return _ask_loaded(model, files, weights, return_maps, activation)
    with tempfile.TemporaryDirectory() as folder:
        if exported is None:
            with _LOCK:
                built, activation, _ = _loaded(model, weights, return_maps, activation)
                # A fixed name is valid in a URL, unlike some names of temporary folders.
                exported = export(
                    built,
                    Path(folder) / "model",
                    return_maps=return_maps,
                    classifier_activation=activation,
                    check=False,
                ).path
            activation = None
        elif weights is not None:
            raise ValueError(
                "predict: leave out `weights`, which has no effect on an exported model. "
                f"Received: weights={str(weights)!r}, model={str(model)!r}"
            )
        metadata = _metadata(exported)
        recorded = metadata.get("classifier_activation")
        if activation not in (None, recorded):
            raise ValueError(
                "predict: `classifier_activation` must be None or the activation of the exported "
                f"model, {recorded!r}; for other activations, export the model again. Received: "
                f"classifier_activation={activation!r}"
            )
        answer: Answer = {}
        ask = _ask_server if served else _ask_exported
        if len(metadata["input_shape"]) == 3:
            answer = ask(exported, files, return_maps)
    resize = preprocessing_of_export(metadata)
    return metadata["input_shape"], resize, metadata["class_names"], answer


def _metadata(exported: Path) -> dict[str, Any]:
    """Return the metadata that `export` wrote for a model."""
    try:
        return json.loads((exported / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            "predict: `model` must be a model that this package exported, with the file "
            f"{METADATA}. Received: model={str(exported)!r} ({error})"
        ) from error


def _ask_loaded(
    model: str | os.PathLike[str],
    files: Files,
    weights: str | os.PathLike[str] | None,
    return_maps: bool,
    activation: str | None,
) -> Asked:
    """Return the result of `_ask` for a model that Keras loads."""
    built, activation, is_applied = _loaded(model, weights, return_maps, activation)
    preprocessing = preprocessing_of(built)
    found: list[Answer] = []
    kept: list[np.ndarray] = []
    for some in _batches(files):
        images = np.stack([read_image(file, built.input_shape[1:], preprocessing) for file in some])
        outputs = keras.ops.convert_to_numpy(built.predict_on_batch(images))
        found.append(
            {"probabilities": probabilities(outputs, activation) if is_applied else outputs}
        )
        kept += [images] if return_maps else []
    answer = _joined(found)
    if return_maps:
        answer["token_maps"] = token_maps(built, np.concatenate(kept))
    return built.input_shape[1:], preprocessing, own_class_names(built), answer


def _loaded(
    model: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    return_maps: bool,
    activation: str | None,
) -> tuple[keras.Model, str, bool]:
    """Return a loaded and checked model, its activation, and whether to apply the activation."""
    built = load_model(model, weights=weights, owner="predict")
    built = check_classifier(built, model, "predict")
    check_takes_pixels("predict", built)
    activation, is_applied = classifier_activation_of("predict", built, activation)
    if activation == "linear":
        raise _no_classifier(model)
    if return_maps:
        learner_of("predict", built)  # raises `ValueError` for a model without maps
    return built, activation, is_applied


def _no_classifier(model: str | os.PathLike[str]) -> ValueError:
    return ValueError(
        f"predict: `model` must be a classifier of images. Received: model={str(model)!r}"
    )


def _ask_exported(folder: Path, files: Files, return_maps: bool) -> Answer:
    """Run an exported model on files. Return a dictionary from output names to arrays."""
    model = ServedModel(folder, max_pixels=MAX_PIXELS)
    _check_maps(folder, return_maps, model.outputs)
    found: list[Answer] = []
    for some in _batches(files):
        signature, rows = "encoded", []
        for file in some:
            try:
                row = model.check_row("encoded", {"encoded": file.read_bytes()})
                signature, decoded = model.decode("encoded", [row])
            except ValueError as error:
                raise ValueError(
                    "predict: `files` must be readable images. "
                    f"Received: file={str(file)!r} ({error})"
                ) from error
            rows += decoded
        answers = model.answer(model.batch_key(signature, rows[0]), rows)
        found += [{name: value[None] for name, value in answer.items()} for answer in answers]
    return _joined(found)


def _ask_server(folder: Path, files: Files, return_maps: bool) -> Answer:
    """Run an exported model on files in a local server. Return arrays as `_ask_exported` does."""
    found: list[Answer] = []
    with local_server(folder, "--no-warm-up") as server:
        for file in files:  # one request per file, because requests have limits
            data = [base64.b64encode(file.read_bytes()).decode()]
            field: JSON = {"name": "encoded", "datatype": "BYTES", "shape": [1], "data": data}
            status, answer = server.ask(f"/v2/models/{server.name}/infer", {"inputs": [field]})
            if status != 200:
                raise ValueError(
                    f"predict: the server answered with the HTTP status {status}: "
                    f"{answer['error']}. Received: file={str(file)!r}"
                )
            outputs = cast("list[dict[str, Any]]", answer["outputs"])
            found.append({x["name"]: np.reshape(x["data"], x["shape"]) for x in outputs})
            _check_maps(folder, return_maps, found[0])
    return _joined(found)


def _check_maps(folder: Path, return_maps: bool, outputs: Container[str]) -> None:
    """Raise `ValueError` if an exported model lacks the requested attention maps."""
    if return_maps and "token_maps" not in outputs:
        raise ValueError(
            "predict: `maps_path` needs a model that was exported with token maps; export it with "
            "`--return-maps`, in Python with `return_maps=True`. Received: "
            f"model={str(folder)!r}"
        )


def _batches(files: Files) -> Iterator[Files]:
    """Yield the files in batches, which bound the memory of thousands of files."""
    for start in range(0, len(files), BATCH_SIZE):
        yield files[start : start + BATCH_SIZE]


def _joined(answers: Sequence[Answer]) -> Answer:
    """Join the outputs for consecutive files: each output becomes one array of all files."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
