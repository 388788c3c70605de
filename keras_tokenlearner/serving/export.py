import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_int,
    check_path,
    check_positive,
)
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._files import move, write_text
from keras_tokenlearner._json import JSON
from keras_tokenlearner.analysis import with_token_maps
from keras_tokenlearner.models.features import with_plain_output
from keras_tokenlearner.models.preprocessing import check_takes_pixels
from keras_tokenlearner.serving.classifier import (
    ACTIVATIONS,
    classifier_activation_of,
    probabilities,
)
from keras_tokenlearner.serving.formats import FORMATS
from keras_tokenlearner.serving.metadata import (
    Options,
    class_names_of,
    compute_dtype,
    image_preprocessing,
)
from keras_tokenlearner.serving.runtimes import load_exported
from keras_tokenlearner.serving.triton import new_triton_files
from keras_tokenlearner.serving.versions import is_a_version, move_to_next_version
from keras_tokenlearner.serving.writing import check_classes, write


@dataclass(frozen=True)
class Exported(os.PathLike[str]):
    """An exported model. Other functions accept it instead of its path.

    Attributes:
        path: `pathlib.Path` of the file. For a SavedModel or `layout="triton"`, the path of the
            folder of the new version.
        max_difference: Float, the largest difference between the outputs of the file and of the
            Keras model, in probabilities or features. `None` without a check.

    Example:

    >>> os.fspath(Exported(Path("served/pets/1"), 1e-6))
    'served/pets/1'
    """

    path: Path
    max_difference: float | None

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__


@own_errors
def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    top_k: int = 5,
    return_maps: bool = False,
    frame_step: float | None = None,
    provenance: Mapping[str, JSON] | None = None,
    classifier_activation: str | None = None,
    format: str = "saved_model",
    precision: str | None = None,
    check: bool = True,
    layout: str | None = None,
) -> Exported:
    """Export an image or video model to a format that runs without Keras and this package.

    The model must take pixels in [0, 255], as with `include_preprocessing=True`. It may be a custom
    model on a backbone of this package, for example with a new dense layer. Every format takes
    batches of any size. With `check=True`, the outputs of the file are compared with the Keras
    model before the file appears at `path`. The largest difference is printed.

    * `"saved_model"`: a folder, written on TensorFlow and JAX; extra `tensorflow`.
    * `"onnx"`: a file `.onnx`, written on PyTorch; extra `onnx`.
    * `"openvino"`: a file `.xml`, with weights in `.bin`, written on PyTorch; extra `openvino`.
    * `"litert"`: a file `.tflite`, written on TensorFlow; extra `litert`.
    * `"pt2"`: a file `.pt2`, written on PyTorch; extra `torch`.

    On another backend, or for a PyTorch model on an accelerator, a second process exports the
    model. The second process loads the model from a `.keras` file. The second process knows the
    Python classes of Keras and of this package, but not your own.

    A SavedModel decodes, resizes and crops images itself. Its signatures for images:

    * `serving_default` and `encoded`: bytes of JPEG, PNG, GIF, BMP or WebP files, (B,).
    * `images`: uint8 pixels of any height and width, (B, height, width, channels).
    * `pixels`: float pixels of the model's input size, (B, height, width, channels).
    * `serve`: the same inputs as `pixels`. Returns the plain outputs of the model. With
      `return_maps`, returns a dictionary of `outputs` and `token_maps`.

    Signatures for videos:

    * `serving_default` and `encoded`: bytes of the frames as image files, (B, frames). The frames
      for the model are evenly spaced.
    * `clips`: uint8 pixels of any size, (B, frames, height, width, channels). The frames for the
      model are evenly spaced too.
    * `clips_at_rate`, if `frame_step` is passed: the inputs of `clips` and a `frame_rate`, (B,).
      The frames are from the middle of the clip, with the time steps of training.
    * `pixels`: float pixels of the model's input size, (B, frames, height, width, channels).
    * `serve`: the same inputs as `pixels`. Returns the plain outputs of the model. With
      `return_maps`, returns a dictionary of `outputs` and `token_maps`.

    The other formats have one input, `images`: uint8 pixels of the model's input size.

    A classifier is a model that ends in a softmax, a sigmoid or a dense layer. All its signatures
    except `serve` return `probabilities`, `top_classes` and `top_probabilities`. A SavedModel with
    class names also returns `top_class_names`. A model without top returns `features`. With
    `classifier_activation="linear"`, a model that ends in logits returns `features` too.

    Every format contains class names, input shape, preprocessing, provenance, versions and a hash
    of the weights:

    * SavedModel: the file `assets.extra/keras_tokenlearner.json`.
    * ONNX: `metadata_props`, under `keras_tokenlearner`.
    * OpenVINO: `rt_info`, under `keras_tokenlearner` and `metadata`.
    * LiteRT: `keras_tokenlearner.json` in a zip archive at the end of the `.tflite` file.
    * `.pt2`: the extra file `keras_tokenlearner.json`.

    Args:
        model: A functional `keras.Model` with one image or video as input.
        path: For a SavedModel: the folder of the versions of this model, which servers watch. The
            SavedModel becomes the next version, at first `path/1`. For other formats: the file,
            with the format's suffix. An older file is replaced.
        class_names: Names of the classes, in their order. Defaults to the model's `class_names`.
        top_k: Integer, number of the most probable classes to return.
        return_maps: Boolean, whether to return `token_maps` of the first TokenLearner too. Their
            shape is (B, H, W, S), or (B, T, H, W, S) for videos.
        frame_step: For video models: seconds between two frames of a training clip. It is the
            stride of `VideoBatches` divided by the frame rate.
        provenance: Dictionary of JSON values, the origin of the weights.
        classifier_activation: For a model that ends in logits: `"softmax"` for one class per image,
            `"sigmoid"` for several, `"linear"` for features.
        format: `"saved_model"`, `"onnx"`, `"openvino"`, `"litert"` or `"pt2"`. ONNX and LiteRT need
            models that compute in float32.
        precision: `"int8"` for 8-bit weights in ONNX and LiteRT. Activations are then rounded to 8
            bits while the model runs. `None` for the precision of the model.
        check: Boolean, whether to run the file on random pixels and compare its outputs with the
            Keras model.
        layout: `"triton"` for a folder in the model repository of NVIDIA's Triton, with format
            `"onnx"`. `path` is then that folder, and its name is the name of the model. The file
            becomes the next version, at first `path/1/model.onnx`. `config.pbtxt` turns on dynamic
            batching and warm-up. An existing `config.pbtxt` or `labels.txt` stays as it is. `None`
            for the usual layout of the format.

    Returns:
        An `Exported` with the `path` of the file or of the new version's folder, and
        `max_difference`.

    Raises:
        ValueError: If the model does not take one image or video of known size, in [0, 255]. Also
            if the model ends in logits and no activation is passed, or lacks the requested maps.
            Also if the number of class names differs from the number of classes. Also if the path
            or the precision does not suit the format. Also if `path` is a version of a model. Also
            if a second process would need your own Python classes. Also if an existing
            `config.pbtxt` has other inputs or outputs. Also if an existing `labels.txt` has other
            class names.
        RuntimeError: If outputs of the model or of the written file are not finite. Also if the
            second process fails.
        ImportError: If a library of the format is missing. The message names the extra.

    Example::

        model = keras_tokenlearner.create_model("tokenlearner_b16_8at6", classes=2)
        names = ["cat", "dog"]
        keras_tokenlearner.export(model, "served/pets", class_names=names, return_maps=True)
        keras_tokenlearner.export(model, "pets.onnx", format="onnx")
        keras_tokenlearner.export(model, "repository/pets", format="onnx", layout="triton")

    Source: the layout of TensorFlow Serving; the exporters of each framework.
    """
    check_bool("export", "check", check)
    return_maps = check_bool("export", "return_maps", return_maps)
    path, top_k, frame_step = check_arguments(
        path, top_k, frame_step, classifier_activation, format, precision, layout
    )
    model = _checked_model(model, format)
    options = _options(
        model,
        class_names,
        top_k,
        return_maps,
        frame_step,
        provenance,
        classifier_activation,
        precision,
    )
    suffix = FORMATS[format].suffix
    has_versions = not suffix or layout == "triton"
    triton_files = new_triton_files(model, path, options) if layout == "triton" else {}
    around = path if has_versions else path.parent
    around.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=around, prefix=".writing-") as folder:
        version = Path(folder) / "version"
        written = version
        if suffix:
            version.mkdir()
            written = version / (f"model{suffix}" if has_versions else path.name)
        write(model, written, format, options)
        difference = _difference(model, written, format, options) if check else None
        for name, text in triton_files.items():  # a version without them would not be complete
            write_text(path / name, text)
        if has_versions:
            return Exported(move_to_next_version(version, path), difference)
        files = sorted(version.iterdir(), key=lambda file: file == written)
        if len(files) > 1:
            path.unlink(missing_ok=True)  # an old `.xml` file must not read a new `.bin` file
        for file in files:  # the weights first, the file itself last
            move(file, path.with_name(file.name))
    return Exported(path, difference)


def _difference(model: keras.Model, written: Path, format: str, options: Options) -> float:
    """Print and return the largest difference between the outputs of a file and of a model."""
    shape = (3, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    outputs = model.predict_on_batch(images.astype("float32"))
    right = np.asarray(keras.ops.convert_to_numpy(outputs), "float32")
    if options["is_applied"]:
        right = probabilities(right, options["activation"])
    run = load_exported(written, format)
    name = "features" if options["activation"] == "linear" else "probabilities"
    answers = [run(images[:size])[name] for size in (1, 3)]
    shapes = [answer.shape for answer in answers]
    if shapes != [(size, *right.shape[1:]) for size in (1, 3)]:
        raise RuntimeError(
            f"export: in format={format!r}, the outputs of the exported file must have the shape "
            f"of the model's outputs, {(None, *right.shape[1:])}. No file was written to `path`. "
            "Choose another `format`. "
            f"Received: outputs of shapes {shapes} for 1 and 3 images"
        )
    differences = [np.abs(answer - right[: len(answer)]).max() for answer in answers]
    difference = float(np.max(differences))  # `max` of Python can miss NaN
    if not np.isfinite(difference):
        raise RuntimeError(
            "export: outputs of `model` and of the exported file must be finite. No file was "
            "written to `path`. Check the weights of `model`, or choose another `format`. "
            f"Received: format={format!r}, a largest difference of {difference}"
        )
    said = f"Largest difference of the {name} from the Keras model: {difference:.1e}"
    print(said, file=sys.stderr)  # the command prints only the path to standard output
    return difference


def check_arguments(
    path: str | os.PathLike[str],
    top_k: int = 5,
    frame_step: float | None = None,
    classifier_activation: str | None = None,
    format: str = "saved_model",
    precision: str | None = None,
    layout: str | None = None,
) -> tuple[Path, int, float | None]:
    """Check the arguments of `export` that need no model, and return `path, top_k, frame_step`."""
    chosen = FORMATS[check_choice("export", "format", format, FORMATS)]
    chosen.check_installed()
    path = check_path("export", "path", path)
    top_k = check_int("export", "top_k", top_k)
    if frame_step is not None:
        frame_step = check_positive("export", "frame_step", frame_step)
    if classifier_activation is not None:
        check_choice("export", "classifier_activation", classifier_activation, ACTIVATIONS)
    check_choice("export", "precision", precision, (None, "int8"))
    check_choice("export", "layout", layout, (None, "triton"))
    if layout == "triton" and format != "onnx":
        raise ValueError(
            "export: layout='triton' needs format='onnx', because the layout is for onnxruntime. "
            f"Received: layout='triton', format={format!r}"
        )
    if precision == "int8" and not chosen.has_int8:
        able = [name for name, found in FORMATS.items() if found.has_int8]
        raise ValueError(
            f"export: precision='int8' needs a `format` of {able}; pass precision=None for others. "
            f"Received: precision='int8', format={format!r}"
        )
    if layout is None and chosen.suffix:
        if path.suffix != chosen.suffix or path.is_dir():
            raise ValueError(
                f"export: `path` must be a file whose name ends in {chosen.suffix!r} for "
                f"format={format!r}. Received: path={str(path)!r}"
            )
        return path, top_k, frame_step
    others = {found.suffix: name for name, found in FORMATS.items() if found.suffix}
    if path.is_file() or (layout is None and path.suffix in others):
        meant = others.get(path.suffix) if layout is None else None
        raise ValueError(
            f"export: `path` must be a folder for format={format!r}"
            + (f" and layout={layout!r}" if layout else "")
            + (f"; for a file that ends in {path.suffix!r}, pass format={meant!r}" if meant else "")
            + f". Received: path={str(path)!r}"
        )
    if is_a_version(path, f"model{chosen.suffix}" if chosen.suffix else "saved_model.pb"):
        raise ValueError(
            "export: `path` must be the folder that holds the versions of a model. Pass the parent "
            "folder of `path`, which is the folder of one version. Servers ignore a version inside "
            "of another version. "
            f"Received: path={str(path)!r}"
        )
    return path, top_k, frame_step


def _checked_model(model: keras.Model, format: str) -> keras.Model:
    """Return `with_plain_output(model)`, or raise `ValueError` for an unsupported model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"export: `model` must be a keras.Model. Received: model={model!r}")
    shape = getattr(model, "input_shape", None)
    has_rank = isinstance(shape, tuple) and len(shape) in (4, 5)
    if shape is None or not has_rank or None in shape[1:] or shape[-1] not in (1, 3):
        raise ValueError(
            "export: `model` must take images, (B, height, width, 1 or 3), or videos, (B, frames, "
            "height, width, 1 or 3), of known size. For other models, call "
            f"model.export(...). Received: model {model.name!r} with inputs of shape {shape}"
        )
    if not isinstance(model.output_shape, tuple):
        raise ValueError(
            "export: `model` must have one output; pass keras.Model(model.input, output) with one "
            f"of its outputs. Received: model {model.name!r} with outputs of shape "
            f"{model.output_shape}"
        )
    check_takes_pixels("export", model)
    dtype = compute_dtype(model)
    if dtype != "float32" and not FORMATS[format].computes_in_half:
        raise ValueError(
            f"export: format={format!r} needs a model that computes in float32; build `model` with "
            f"dtype='float32' and load its weights. Received: a model that computes in {dtype}"
        )
    check_classes(model, format)
    return with_plain_output(model)


def _options(
    model: keras.Model,
    class_names: Sequence[str] | None,
    top_k: int,
    return_maps: bool,
    frame_step: float | None,
    provenance: Mapping[str, JSON] | None,
    classifier_activation: str | None,
    precision: str | None,
) -> Options:
    """Check the arguments of `export` against the model, and return the options of the writers."""
    activation, is_applied = _activation(model, classifier_activation)
    class_names = class_names_of(model, class_names, activation)
    if frame_step is not None and len(model.input_shape) != 5:
        raise ValueError(
            "export: leave out `frame_step`, which has no effect on a model of images. "
            f"Received: frame_step={frame_step!r}, inputs of shape {model.input_shape}"
        )
    if return_maps:
        with_token_maps(model)  # raises `ValueError` for a model without maps
    try:
        json.dumps(provenance)
    except TypeError as error:
        raise ValueError(
            f"export: `provenance` must contain JSON values only ({error}). "
            f"Received: provenance={provenance!r}"
        ) from error
    return {
        "class_names": class_names,
        "top_k": top_k,
        "return_maps": return_maps,
        "frame_step": frame_step,
        "provenance": provenance,
        # A second process reads the model from a `.keras` file. The file lacks this attribute if
        # `create_model` was called with a computed `input_tensor`.
        "preprocessing": image_preprocessing(model),
        "activation": activation,
        "is_applied": is_applied,
        "precision": precision,
    }


def _activation(model: keras.Model, classifier_activation: str | None) -> tuple[str, bool]:
    """Return the activation of the outputs, and whether the export must apply it."""
    if len(model.output_shape) != 2:
        if classifier_activation not in (None, "linear"):
            raise ValueError(
                "export: leave out `classifier_activation` unless the outputs have shape (B, "
                f"classes). Received: classifier_activation={classifier_activation!r}, outputs of "
                f"shape {model.output_shape}"
            )
        return "linear", False
    return classifier_activation_of("export", model, classifier_activation)
