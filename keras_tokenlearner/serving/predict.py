import base64
import json
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np

from keras_tokenlearner._checks import check_bool, check_choice, check_int, check_path
from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner.analysis import draw_token_maps, token_maps
from keras_tokenlearner.applications.load import check_classifier, load_model
from keras_tokenlearner.data import decode_image
from keras_tokenlearner.data.preprocessing import fit_pixels, preprocessing_of
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.serving.classifier import (
    Scored,
    best_classes,
    check_takes_pixels,
    classifier_activation_of,
    probabilities,
)
from keras_tokenlearner.serving.export import export
from keras_tokenlearner.serving.local import local_server
from keras_tokenlearner.serving.metadata import METADATA, preprocessing_of_export
from keras_tokenlearner.serving.versions import newest_version

# Keras loads and runs models in one thread at a time. Its models are not thread-safe on JAX.
_LOCK = threading.Lock()

Files: TypeAlias = Sequence[str | os.PathLike[str]]
Answer: TypeAlias = dict[str, np.ndarray]
# The input shape of a model, its preprocessing, its class names, and its outputs.
Asked: TypeAlias = tuple[tuple[int, int, int], Preprocessing | None, Sequence[str] | None, Answer]


class Prediction(TypedDict):
    """Prediction for a file: its path, and the most probable classes."""

    file: str
    classes: list[Scored]


def predict(
    source: str | os.PathLike[str],
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str] | None = None,
    top_k: int = 5,
    maps: str | os.PathLike[str] | None = None,
    served: bool = False,
    classifier_activation: str | None = None,
) -> list[Prediction]:
    """Classify image files with a model of any kind, and draw its attention maps.

    Several threads may call it: Keras then runs one call after another. `keras.Model.predict` has
    no such lock. On JAX, calls from several threads break the model, so hold a lock around them.

    Args:
        source: A name of the catalogue, the path of a `.keras` file, or the folder of an exported
            model. The newest version is used, unless the folder is a version.
        files: Paths of JPEG, PNG, GIF, BMP or WebP files, or one path.
        weights: For a named model: weights for `create_model`, or `"random"` for no training.
            Defaults to the first included weights.
        top_k: Integer, number of the most probable classes.
        maps: Path of a PNG file for the token maps, or `None` for no figure.
        served: Boolean, whether to ask over HTTP, as a client does. The model is exported if
            needed, and a server runs on this machine for the call.
        classifier_activation: For a model that ends in logits: `"softmax"` if an image has one
            class, `"sigmoid"` if it has several.

    Returns:
        A dictionary for each file. `file` is its path. `classes` is a list of the most probable
        classes, each with `class`, `probability` and, if known, `class_name`.

    Raises:
        ValueError: If the model does not exist, is not a classifier of images, or ends in logits
            without an activation. If a file is missing or is not an image. If maps are
            requested from a model without them.
        ImportError: If a library is missing. The message names the extra.
    """
    check_path("predict", "source", source)
    check_int("predict", "top_k", top_k)
    check_bool("predict", "served", served)
    files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not files:
        raise ValueError(f"predict: `files` must name an image file. Received: files={files!r}")
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"predict: there is no such file. Received: file={str(file)!r}")
    if classifier_activation is not None:
        check_choice(
            "predict", "classifier_activation", classifier_activation, ("softmax", "sigmoid")
        )
    input_shape, preprocessing, class_names, answer = _ask(
        source, files, weights, maps is not None, served, classifier_activation
    )
    if "probabilities" not in answer:
        raise ValueError(
            f"predict: the model must be a classifier of images. Received: source={str(source)!r}"
        )
    if maps is not None:
        if "token_maps" not in answer:
            raise ValueError(
                "predict: the model was exported without its token maps; export it with `--maps`, "
                f"in Python with `maps=True`. Received: source={str(source)!r}"
            )
        images = np.stack([read_image(file, input_shape, preprocessing) for file in files])
        draw_token_maps(images, answer["token_maps"], [Path(file).name for file in files], maps)
    return [
        {"file": str(file), "classes": best_classes(row, class_names, top_k)}
        for file, row in zip(files, answer["probabilities"], strict=True)
    ]


def read_image(
    file: str | os.PathLike[str],
    input_shape: tuple[int, int, int],
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Return an image file as float pixels (height, width, channels) of a model's input size."""
    pixels = decode_image(file, input_shape[-1])
    return fit_pixels(pixels, input_shape, preprocessing).astype("float32")


def _ask(
    source: str | os.PathLike[str],
    files: Files,
    weights: str | os.PathLike[str] | None,
    maps: bool,
    served: bool,
    activation: str | None,
) -> Asked:
    """Return input shape, preprocessing, class names, and a dictionary of output arrays."""
    exported = newest_version(Path(source))
    if exported is None and not served:
        with _LOCK:
            return _ask_loaded(source, files, weights, maps, activation)
    with tempfile.TemporaryDirectory() as folder:
        if exported is None:
            with _LOCK:
                model = load_model(source, weights=weights, owner="predict")
                check_classifier(model, source, "predict")
                # A fixed name is valid in a URL, unlike some names of temporary folders.
                exported = export(
                    model,
                    Path(folder) / "model",
                    maps=maps,
                    classifier_activation=activation,
                    check=False,
                ).path
            activation = None
        metadata = _metadata(exported)
        recorded = metadata.get("classifier_activation")
        if activation not in (None, recorded):
            raise ValueError(
                "predict: `classifier_activation` must be None or equal the value at "
                f"export, {recorded!r}; export it again. Received: "
                f"classifier_activation={activation!r}"
            )
        answer: Answer = {}
        ask = _ask_server if served else _ask_exported
        if len(metadata["input_shape"]) == 3:
            answer = ask(exported, files)
    resize = preprocessing_of_export(metadata)
    return metadata["input_shape"], resize, metadata["class_names"], answer


def _metadata(exported: Path) -> dict[str, Any]:
    """Return the metadata that `export` wrote for a model."""
    try:
        return json.loads((exported / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            "predict: the folder must hold a model exported by this package, with "
            f"{METADATA}. Received: source={str(exported)!r} ({error})"
        ) from error


def _ask_loaded(
    source: str | os.PathLike[str],
    files: Files,
    weights: str | os.PathLike[str] | None,
    maps: bool,
    activation: str | None,
) -> Asked:
    """Return the same as `_ask`, with Keras as the runtime."""
    model = load_model(source, weights=weights, owner="predict")
    check_classifier(model, source, "predict")
    check_takes_pixels("predict", model)
    activation, is_applied = classifier_activation_of("predict", model, activation)
    if activation == "linear":
        return model.input_shape[1:], None, None, {}
    preprocessing = preprocessing_of(model)
    images = np.stack([read_image(file, model.input_shape[1:], preprocessing) for file in files])
    outputs = model.predict(images, verbose=0)
    answer = {"probabilities": probabilities(outputs, activation) if is_applied else outputs}
    if maps:
        answer["token_maps"] = token_maps(model, images)
    return model.input_shape[1:], preprocessing, getattr(model, "class_names", None), answer


def _ask_exported(folder: Path, files: Files) -> Answer:
    """Return the output arrays of an exported model by name."""
    tf = require("tensorflow", "tensorflow")
    served = tf.saved_model.load(str(folder))
    try:
        answer = served.encoded(tf.constant([Path(file).read_bytes() for file in files]))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"predict: a file is not a readable image: {error.message}") from error
    return {name: value.numpy() for name, value in answer.items()}


def _ask_server(folder: Path, files: Files) -> Answer:
    """Return the output arrays of an exported model by name, from a server."""
    data = [base64.b64encode(Path(file).read_bytes()).decode() for file in files]
    shape = [len(data)]
    field: JSON = {"name": "encoded", "datatype": "BYTES", "shape": shape, "data": data}
    with local_server(folder, "--no-warm-up") as server:
        status, answer = server.ask(f"/v2/models/{server.name}/infer", {"inputs": [field]})
    if status != 200:
        raise ValueError(f"predict: the server answers {status}: {answer['error']}")
    outputs = cast("list[dict[str, Any]]", answer["outputs"])
    return {found["name"]: np.reshape(found["data"], found["shape"]) for found in outputs}
