import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import keras
import numpy as np

from keras_tokenlearner._checks import check_bool, check_int, check_path, check_positive
from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner._version import __version__
from keras_tokenlearner.analysis import with_token_maps
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.serving.classifier import check_takes_pixels, classifier_activation_of
from keras_tokenlearner.serving.signatures import (
    answer_with_maps,
    classifier_answer,
    feature_answer,
    image_signatures,
)
from keras_tokenlearner.serving.video_signatures import video_signatures

METADATA = Path("assets.extra") / "keras_tokenlearner.json"
# Preprocessing of pixels before the model, by the rank of an example.
PREPROCESSING = {
    3: "the largest central part of the aspect, resized bilinearly with antialiasing; [0, 255]",
    4: "resized bilinearly with antialiasing until it covers, its middle cut out; [0, 255]",
}


class _Options(TypedDict):
    """Checked arguments of `export`, as `_write` takes them."""

    class_names: list[str] | None
    top_k: int
    maps: bool
    frame_step: float | None
    provenance: Mapping[str, JSON] | None
    activation: str
    is_applied: bool


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    top_k: int = 5,
    maps: bool = False,
    frame_step: float | None = None,
    provenance: Mapping[str, JSON] | None = None,
    classifier_activation: str | None = None,
) -> Path:
    """Export an image or video model as a SavedModel that takes files or pixels of any size.

    The model must take pixels in [0, 255], as with `include_preprocessing=True`. A custom model on
    a backbone of this package works too, for example with a new dense layer. Decoding, resizing
    and cropping become part of the SavedModel. It needs neither Keras nor this package to run.

    Signatures for images:

    * `serving_default` and `encoded`: bytes of JPEG, PNG, GIF, BMP or WebP files, (B,).
    * `images`: uint8 pixels of any height and width, (B, height, width, channels).
    * `pixels`: float pixels of the model's input size, (B, height, width, channels).
    * `serve`: the same inputs as `pixels`. It returns the plain outputs of the model.

    Signatures for videos:

    * `serving_default` and `encoded`: bytes of the frames as image files, (B, frames). The
      number of frames that the model takes is chosen evenly.
    * `clips`: uint8 pixels of any size, (B, frames, height, width, channels). Frames are chosen
      evenly too.
    * `clips_at_rate`, with a `frame_step`: the inputs of `clips` and a `frame_rate`, (B,). Frames
      are chosen from the middle, with the time steps of training.
    * `pixels`: float pixels of the model's input size, (B, frames, height, width, channels).
    * `serve`: the same inputs as `pixels`. It returns the plain outputs of the model.

    For a classifier, all except `serve` return `probabilities`, `top_classes` and
    `top_probabilities`, and `top_class_names` if the classes have names. A model without top
    returns `features`. A classifier is a model that ends in a softmax, a sigmoid or a dense layer.

    Keras writes SavedModels on TensorFlow and JAX. On torch, a second process on TensorFlow loads
    the model from a `.keras` file and exports it. Its outputs are equal to 1e-5.

    Args:
        model: A functional `keras.Model` with one image or video as input.
        path: Folder of the versions of this model, which servers watch. The SavedModel becomes the
            next version, at first `path/1`. It appears there when it is complete.
        class_names: Names of the classes, in their order. Defaults to the model's `class_names`.
        top_k: Integer, number of the most probable classes to return.
        maps: Boolean, whether to return `token_maps` of the first TokenLearner too. Their shape is
            (B, H, W, S), or (B, T, H, W, S) for videos.
        frame_step: For video models: seconds between two frames of a training clip. It is the
            stride of `VideoBatches` divided by the frame rate.
        provenance: Dictionary of JSON values, the origin of the weights.
        classifier_activation: For a model that ends in logits: `"softmax"` if an image has one
            class, `"sigmoid"` if it has several, `"linear"` for features.

    Returns:
        The `pathlib.Path` of the new version. Its file `assets.extra/keras_tokenlearner.json` holds
        class names, input shape, preprocessing, provenance, versions and a hash of the weights.

    Raises:
        ValueError: If the model does not take one image or video of known size, in [0, 255]. If it
            ends in logits and no activation is passed. If the number of names differs from the
            number of classes. If maps are requested for a model without TokenLearner.
        ImportError: If TensorFlow, the extra `tensorflow`, is not installed.

    Example::

        model = keras_tokenlearner.create_model("tokenlearner_b16_8at6", classes=2)
        keras_tokenlearner.export(model, "served/pets", class_names=["cat", "dog"], maps=True)

    Source: the layout of TensorFlow Serving.
    """
    require("tensorflow", "tensorflow")
    options = _checked(
        model, class_names, top_k, maps, frame_step, provenance, classifier_activation
    )
    path = check_path("export", "path", path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".writing-") as folder:
        written = Path(folder) / "model"
        if keras.backend.backend() in ("tensorflow", "jax"):
            _write(model, written, **options)
        else:
            _write_in_another_process(model, written, options)
        return _next_version(written, path)


def is_version(name: str) -> bool:
    """Return whether servers treat a folder of this name as a version of a model.

    Example:

    >>> is_version("12"), is_version("²"), is_version(".writing-3")
    (True, False, False)
    """
    return name.isascii() and name.isdecimal()


def newest_version(path: Path) -> Path | None:
    """Return the folder of the newest complete version of an exported model, or `None`.

    Args:
        path: `pathlib.Path` of the folder of the versions, or of one version.
    """
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        return None
    versions = [
        found
        for found in path.iterdir()
        if is_version(found.name) and (found / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda found: int(found.name), default=None)


def _next_version(written: Path, path: Path) -> Path:
    """Move a written folder to the next free version, since another export may take one first."""
    while True:
        versions = [int(found.name) for found in path.iterdir() if is_version(found.name)]
        version = path / str(max(versions, default=0) + 1)
        try:
            return written.rename(version)  # fails where a version is, and is atomic
        except OSError:
            if not version.exists():
                raise


def _checked(
    model: keras.Model,
    class_names: Sequence[str] | None,
    top_k: int,
    maps: bool,
    frame_step: float | None,
    provenance: Mapping[str, JSON] | None,
    classifier_activation: str | None,
) -> _Options:
    """Return the options of `_write` as JSON values."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"export: `model` must be a keras.Model. Received: model={model!r}")
    shape = getattr(model, "input_shape", None)
    has_rank = isinstance(shape, tuple) and len(shape) in (4, 5)
    if shape is None or not has_rank or None in shape[1:] or shape[-1] not in (1, 3):
        raise ValueError(
            "export: the model must take one image, (B, height, width, 1 or 3), or one video, "
            "(B, frames, height, width, 1 or 3), of known size; for another model use its own "
            f"`export` method. Received: model {model.name!r} with inputs of shape {shape}"
        )
    if not isinstance(model.output_shape, tuple):
        raise ValueError(
            f"export: `model` must have one output. Received: model {model.name!r} with outputs of "
            f"shape {model.output_shape}"
        )
    check_int("export", "top_k", top_k)
    check_bool("export", "maps", maps)
    check_takes_pixels("export", model)
    activation, is_applied = _activation(model, classifier_activation)
    class_names = _checked_names(model, class_names, activation)
    if frame_step is not None:
        check_positive("export", "frame_step", frame_step)
        if len(shape) != 5:
            raise ValueError(
                "export: `frame_step` is for models of videos; leave it out. "
                f"Received: frame_step={frame_step!r}, inputs of shape {shape}"
            )
    if maps:
        with_token_maps(model)  # raises `ValueError` where there are none
    try:
        json.dumps(provenance)
    except TypeError as error:
        raise ValueError(
            f"export: `provenance` must contain JSON values only: {error}. Received: {provenance!r}"
        ) from error
    return {
        "class_names": class_names,
        "top_k": top_k,
        "maps": bool(maps),
        "frame_step": frame_step,
        "provenance": provenance,
        "activation": activation,
        "is_applied": is_applied,
    }


def _activation(model: keras.Model, classifier_activation: str | None) -> tuple[str, bool]:
    """Return the activation of the answers, and whether the export must apply it."""
    if not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
        if classifier_activation not in (None, "linear"):
            raise ValueError(
                "export: `classifier_activation` is for models of outputs (B, classes); leave it "
                f"out. Received: classifier_activation={classifier_activation!r}, outputs of shape "
                f"{model.output_shape}"
            )
        return "linear", False
    return classifier_activation_of("export", model, classifier_activation)


def _checked_names(
    model: keras.Model, class_names: Sequence[str] | None, activation: str
) -> list[str] | None:
    """Return the names of the classes as a list, or `None`."""
    if class_names is None:
        own = getattr(model, "class_names", None)
        return list(own) if own and activation != "linear" else None
    if activation == "linear":
        raise ValueError(
            "export: `class_names` need a classifier, whose outputs (B, classes) end in a softmax, "
            "a sigmoid or logits with `classifier_activation`. Received: class_names="
            f"{str(class_names)[:60]}, model {model.name!r} with outputs of shape "
            f"{model.output_shape}"
        )
    names = list(class_names) if isinstance(class_names, (list, tuple)) else []
    if len(names) != model.output_shape[-1] or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"export: `class_names` must name each of the {model.output_shape[-1]} classes. "
            f"Received: {len(names)} names, class_names={str(class_names)[:60]}"
        )
    return names


def _write(
    model: keras.Model,
    folder: Path,
    class_names: list[str] | None,
    top_k: int,
    maps: bool,
    frame_step: float | None,
    provenance: Mapping[str, JSON] | None,
    activation: str,
    is_applied: bool,
) -> None:
    """Write the SavedModel of a model on TensorFlow or JAX."""
    archive = keras.export.ExportArchive()
    arguments = {}
    if keras.backend.backend() == "jax":
        # Without this the model would serve only on the kind of device that exported it.
        arguments["jax2tf_kwargs"] = {"native_serialization_platforms": ("cpu", "cuda", "tpu")}
    input_shape = model.input_shape[1:]
    specification = keras.InputSpec(shape=(None, *input_shape), dtype="float32")
    served = with_token_maps(model) if maps else model
    function = archive.track_and_add_endpoint("serve", served, [specification], **arguments)
    answer: Callable = feature_answer
    if activation != "linear":
        count = min(top_k, model.output_shape[-1])
        answer = classifier_answer(activation if is_applied else None, class_names, count)
    if maps:
        answer = answer_with_maps(answer)
    preprocessing = preprocessing_of(model) if len(input_shape) == 3 else None
    if len(input_shape) == 3:
        found = image_signatures(function, input_shape, answer, preprocessing)
    else:
        found = video_signatures(function, input_shape, answer, frame_step)
    for name, signature in found.items():
        archive.add_endpoint(name, signature)
    archive.write_out(folder, verbose=False)
    (folder / METADATA).parent.mkdir()
    metadata = {
        "model": model.name,
        "input_shape": list(input_shape),
        "class_names": class_names,
        "classifier_activation": activation,
        "preprocessing": _described(preprocessing) or PREPROCESSING[len(input_shape)],
        "resize": None if preprocessing is None else preprocessing.fields(),
        "frame_step": frame_step,
        "provenance": provenance,
        "weights_sha256": _digest(model),
        "keras_tokenlearner": __version__,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")


def preprocessing_of_export(metadata: dict) -> Preprocessing | None:
    """Return how the images of an exported model are resized; `None` means as in training."""
    fields = metadata.get("resize")
    try:
        return None if fields is None else Preprocessing(**fields)
    except TypeError as error:
        raise ValueError(
            f"{METADATA}: `resize` must hold the fields of a Preprocessing. Received: {fields!r}"
        ) from error


def _described(preprocessing: Preprocessing | None) -> str | None:
    """Return a sentence for readers of the metadata, or `None`."""
    if preprocessing is None:
        return None
    edges = {"shortest": "the shortest edge", "squash": "both edges", "longest": "the longest edge"}
    return (
        f"{edges[preprocessing.resize_mode]} resized by {preprocessing.interpolation} "
        f"interpolation with antialiasing to the input's size over {preprocessing.crop_fraction:g},"
        " the centre cut out; [0, 255]"
    )


def _digest(model: keras.Model) -> str:
    """Return the sha256 of the weights of a model, whatever file they came from."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write_in_another_process(model: keras.Model, folder: Path, options: _Options) -> None:
    """Write the SavedModel of a model on torch, in a process on TensorFlow."""
    saved = folder.with_name("model.keras")
    model.save(saved)
    done = subprocess.run(
        # -P: no code in the current folder replaces a library.
        [sys.executable, "-P", "-m", __spec__.name, str(saved), str(folder), json.dumps(options)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"export: the process on TensorFlow failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    _model = keras.saving.load_model(sys.argv[1], compile=False)
    _write(_model, Path(sys.argv[2]), **json.loads(sys.argv[3]))
