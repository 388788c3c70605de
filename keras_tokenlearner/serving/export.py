import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

from keras_tokenlearner.extras import require
from keras_tokenlearner.layers.checks import check_int
from keras_tokenlearner.serving import signatures
from keras_tokenlearner.version import __version__

METADATA = Path("assets.extra") / "keras_tokenlearner.json"


def export(model, path, labels=None, top_k=5):
    """Export an image model as a SavedModel that takes what clients have.

    The model must take pixels in [0, 255], as those with `include_preprocessing=True` do. Decoding,
    resizing and cropping become part of the SavedModel, which needs neither Keras nor this package
    to run. Its signatures:

    * `serving_default` and `encoded`: bytes of JPEG, PNG, GIF, BMP or WebP files, (B,);
    * `images`: uint8 pixels of any height and width, (B, height, width, channels);
    * `serve`: float pixels of the model's own size, (B, height, width, channels), answered with
      the plain outputs of the model.

    The first two answer a classifier's `probabilities`, `top_classes`, `top_probabilities` and,
    with labels, `top_labels`; a model without top answers `features`.

    Keras writes SavedModels from TensorFlow and JAX. From torch the model goes through a `.keras`
    file to another process on TensorFlow, which gives the same answers to 1e-5.

    Args:
        model: A functional `keras.Model` with one image as input.
        path: Folder of the versions of this model, as servers watch it; the SavedModel becomes
            its next version, `path/1` at first. It appears there whole.
        labels: Names of the classes, in their order.
        top_k: Integer, how many of the likeliest classes to answer.

    Returns:
        The `pathlib.Path` of the version that was written. Labels, input shape and versions are
        beside the model in `assets.extra/keras_tokenlearner.json`.

    Raises:
        ValueError: If the model does not take one image of known size, or the labels are not as
            many as the classes.
        ImportError: If TensorFlow, the extra `tensorflow`, is not installed.

    Source: the layout of TensorFlow Serving.
    """
    require("tensorflow", "tensorflow")
    input_shape = _input_shape(model)
    check_int("export", "top_k", top_k)
    if labels is not None and len(labels) != model.output_shape[-1]:
        raise ValueError(
            f"export: `labels` must name each of the {model.output_shape[-1]} classes. "
            f"Received: {len(labels)} labels"
        )
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".writing-") as folder:
        written = Path(folder) / "model"
        if keras.backend.backend() in ("tensorflow", "jax"):
            _write(model, written, input_shape, labels, top_k)
        else:
            _write_in_another_process(model, written, labels, top_k)
        versions = [int(found.name) for found in path.iterdir() if found.name.isdigit()]
        version = path / str(max(versions, default=0) + 1)
        return Path(shutil.move(written, version))


def newest_version(path):
    """Return the folder of the newest version of an exported model, or `None`.

    Args:
        path: `pathlib.Path` of the folder of the versions, or of one version.
    """
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        return None
    versions = [found for found in path.iterdir() if found.name.isdigit()]
    return max(versions, key=lambda found: int(found.name), default=None)


def _input_shape(model):
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:] or shape[-1] > 3:
        raise ValueError(
            "export: the model must take one image, (B, height, width, 1 or 3), of known size; "
            "for another model use its own `export` method. "
            f"Received: model {model.name!r} with inputs of shape {shape}"
        )
    return shape[1:]


def _write(model, folder, input_shape, labels, top_k):
    """Write the SavedModel of a model on TensorFlow or JAX."""
    archive = keras.export.ExportArchive()
    arguments = {}
    if keras.backend.backend() == "jax":
        # Without this the model would serve only on the kind of device that exported it.
        arguments["jax2tf_kwargs"] = {"native_serialization_platforms": ("cpu", "cuda", "tpu")}
    specification = keras.InputSpec(shape=(None, *input_shape), dtype="float32")
    function = archive.track_and_add_endpoint("serve", model, [specification], **arguments)
    answer = signatures.feature_answer
    last = model.layers[-1]
    if last.name == "predictions":
        activation = keras.activations.serialize(last.activation)
        top_k = min(top_k, model.output_shape[-1])
        answer = signatures.classifier_answer(activation, labels, top_k)
    images = signatures.pixel_function(function, input_shape, answer)
    encoded = signatures.encoded_function(function, input_shape, answer)
    archive.add_endpoint("images", images)
    archive.add_endpoint("encoded", encoded)
    archive.add_endpoint("serving_default", encoded)
    archive.write_out(folder, verbose=False)
    (folder / METADATA).parent.mkdir()
    metadata = {
        "model": model.name,
        "input_shape": list(input_shape),
        "labels": None if labels is None else list(labels),
        "keras_tokenlearner": __version__,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")


def _write_in_another_process(model, folder, labels, top_k):
    """Write the SavedModel of a model on torch, in a process on TensorFlow."""
    saved = folder.with_name("model.keras")
    model.save(saved)
    arguments = json.dumps({"labels": labels and list(labels), "top_k": top_k})
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(saved), str(folder), arguments],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"export: the process on TensorFlow failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    _model = keras.saving.load_model(sys.argv[1], compile=False)
    _write(_model, Path(sys.argv[2]), _input_shape(_model), **json.loads(sys.argv[3]))
