"""Writes SavedModels, on TensorFlow and JAX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from keras_tokenlearner.analysis import with_token_maps
from keras_tokenlearner.serving.metadata import (
    METADATA,
    Options,
    metadata_of,
    preprocessing_of_options,
)
from keras_tokenlearner.serving.signatures import (
    answer_with_maps,
    classifier_answer,
    feature_answer,
    image_signatures,
)
from keras_tokenlearner.serving.video_signatures import video_signatures
from keras_tokenlearner.serving.warm_up_records import write_warm_up_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensorflow import Tensor


def write_saved_model(model: keras.Model, folder: Path, options: Options) -> None:
    """Write a SavedModel that takes files or pixels of any size, on TensorFlow or JAX.

    Args:
        model: A `keras.Model` of images or videos.
        folder: `pathlib.Path` of a new folder.
        options: Checked arguments of `export`.
    """
    archive = keras.export.ExportArchive()
    arguments = {}
    if keras.backend.backend() == "jax":
        # Otherwise the model would run only on the kind of device that exported it.
        arguments["jax2tf_kwargs"] = {"native_serialization_platforms": ("cpu", "cuda", "tpu")}
    input_shape = model.input_shape[1:]
    specification = keras.InputSpec(shape=(None, *input_shape), dtype="float32")
    served = with_token_maps(model) if options["return_maps"] else model
    function = archive.track_and_add_endpoint("serve", served, [specification], **arguments)
    answer: Callable[..., dict[str, Tensor]] = feature_answer
    if options["activation"] != "linear":
        count = min(options["top_k"], model.output_shape[-1])
        applied = options["activation"] if options["is_applied"] else None
        answer = classifier_answer(applied, options["class_names"], count)
    if options["return_maps"]:
        answer = answer_with_maps(answer)
    if len(input_shape) == 3:
        preprocessing = preprocessing_of_options(options)
        found = image_signatures(function, input_shape, answer, preprocessing)
    else:
        found = video_signatures(function, input_shape, answer, options["frame_step"])
    for name, signature in found.items():
        archive.add_endpoint(name, signature)
    archive.write_out(folder, verbose=False)
    (folder / METADATA).parent.mkdir()
    write_warm_up_records(folder, found, input_shape)
    text = json.dumps(metadata_of(model, options), indent=2) + "\n"
    (folder / METADATA).write_text(text)
