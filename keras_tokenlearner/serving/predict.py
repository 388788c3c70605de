import base64
import json
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import check_int
from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis import draw_token_maps, token_maps
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.data import decode_image, fit_image
from keras_tokenlearner.serving.export import METADATA, export, newest_version
from keras_tokenlearner.serving.local import local_server
from keras_tokenlearner.weights import store


def predict(source, files, weights=None, top_k=5, maps=None, served=False):
    """Classify image files with a model of any kind, and draw what its tokens look at.

    Args:
        source: The folder of an exported model (its newest version is taken) or of one version of
            it, the path of a `.keras` file, or a name in the catalogue.
        files: Paths of JPEG, PNG, GIF, BMP or WebP files, or one path.
        weights: Of a named model: what `create_model` takes. Defaults to the first that ship.
        top_k: Integer, how many of the likeliest classes to give.
        maps: Path of a PNG file to draw the token maps to; they are not drawn if `None`.
        served: Boolean, whether to answer as a client is answered: the model is exported, unless
            it is, a server is started with it on this machine, asked over HTTP, and stopped.

    Returns:
        A dictionary for each file: `file`, and `classes`, a list of the likeliest, each with
        `class`, `class_name` (where the names are known) and `probability`.

    Raises:
        ValueError: If there is no such model, a file is missing or no image, the model is no
            classifier of images, or maps are wanted of one that does not give them.
        ImportError: If a library that is needed is not installed; the message names the extra.
    """
    check_int("predict", "top_k", top_k)
    files = [files] if isinstance(files, (str, Path)) else list(files)
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"predict: there is no such file. Received: {str(file)!r}")
    input_shape, class_names, answer = _ask(source, files, weights, maps is not None, served)
    if "probabilities" not in answer:
        raise ValueError(
            f"predict: the model must be a classifier of images. Received: {str(source)!r}"
        )
    if maps is not None:
        if "token_maps" not in answer:
            raise ValueError(
                "predict: the model was exported without its token maps; export it with `--maps`, "
                f"in Python with `maps=True`. Received: {str(source)!r}"
            )
        images = np.stack([read_image(file, input_shape) for file in files])
        draw_token_maps(images, answer["token_maps"], [Path(file).name for file in files], maps)
    return [
        {"file": str(file), "classes": _best(row, class_names, top_k)}
        for file, row in zip(files, answer["probabilities"], strict=True)
    ]


def load_classifier(source, weights=None, videos=False, **arguments):
    """Return the model of a `.keras` file or of a catalogue name, and its class names or `None`.

    Args:
        source: Path or name.
        weights: Of a named model: what `create_model` takes. Defaults to the first that ship.
        videos: Boolean, whether a classifier of videos will do.
        **arguments: Of a named model: others of `create_model`, such as `classes`.
    """
    if str(source).endswith(".keras"):
        model, class_names = keras.saving.load_model(source, compile=False), None
    elif Path(source).exists():
        raise ValueError(
            "predict: the model must be a `.keras` file, a name that `keras-tokenlearner models` "
            "lists, or, for `predict` alone, the folder of an exported model. "
            f"Received: {str(source)!r}"
        )
    else:
        if weights is None:
            weights = next(iter(store.names(source)), None)
        model = create_model(source, weights=weights, **arguments)
        named = weights in store.names(source)
        class_names = store.find(source, weights).class_names if named else None
    if len(model.output_shape) != 2 or len(model.input_shape) not in (4, 4 + videos):
        raise ValueError(
            f"predict: the model must be a classifier of images{' or videos' * videos}. Received: "
            f"{model.name!r} from {model.input_shape} to {model.output_shape}"
        )
    return model, class_names


def read_image(file: str | Path, input_shape: tuple[int, int, int]) -> np.ndarray:
    """Return an image file as float pixels (height, width, channels), fitted as in training."""
    return fit_image(decode_image(file, input_shape[-1]), input_shape).astype("float32")


def _ask(source, files, weights, maps, served):
    """Return the input shape, the class names and the answer, a dictionary of arrays."""
    exported = newest_version(Path(source))
    if exported is None and not served:
        return _ask_loaded(source, files, weights, maps)
    with tempfile.TemporaryDirectory() as folder:
        if exported is None:
            model, class_names = load_classifier(source, weights)
            exported = export(model, folder, class_names, maps=maps)
        metadata = json.loads((exported / METADATA).read_text())
        answer, ask = {}, _ask_server if served else _ask_exported
        if len(metadata["input_shape"]) == 3:
            answer = ask(exported, files)
    return metadata["input_shape"], metadata["class_names"], answer


def _ask_loaded(source, files, weights, maps):
    """Return the same of a model that Keras runs."""
    model, class_names = load_classifier(source, weights)
    images = np.stack([read_image(file, model.input_shape[1:]) for file in files])
    answer = {"probabilities": model.predict(images, verbose=0)}
    if maps:
        answer["token_maps"] = token_maps(model, images)
    return model.input_shape[1:], class_names, answer


def _ask_exported(folder, files):
    """Return the answer of an exported model, a dictionary of arrays."""
    tf = require("tensorflow", "tensorflow")
    served = tf.saved_model.load(str(folder))
    try:
        answer = served.encoded(tf.constant([Path(file).read_bytes() for file in files]))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"predict: a file is no image that can be read: {error.message}"
        ) from error
    return {name: value.numpy() for name, value in answer.items()}


def _ask_server(folder, files):
    """Return the answer of an exported model behind a server, a dictionary of arrays."""
    data = [base64.b64encode(Path(file).read_bytes()).decode() for file in files]
    field = {"name": "encoded", "datatype": "BYTES", "shape": [len(data)], "data": data}
    with local_server(folder) as server:
        status, answer = server.ask(f"/v2/models/{server.name}/infer", {"inputs": [field]})
    if status != 200:
        raise ValueError(f"predict: the server answers {status}: {answer['error']}")
    return {found["name"]: np.reshape(found["data"], found["shape"]) for found in answer["outputs"]}


def _best(probabilities, class_names, top_k):
    found = []
    for index in np.argsort(-probabilities)[:top_k]:
        row = {"class": int(index)}
        if class_names is not None:
            row["class_name"] = class_names[index]
        found.append({**row, "probability": float(probabilities[index])})
    return found
