"""Writes LiteRT files (formerly TensorFlow Lite)."""

import json
import tempfile
import zipfile
from pathlib import Path

import keras

from keras_tokenlearner._extras import require
from keras_tokenlearner.serving.metadata import NAME, Options, metadata_of
from keras_tokenlearner.serving.pixels_model import pixels_model


def write_litert(model: keras.Model, path: Path, options: Options) -> None:
    """Write a `.tflite` file, on the TensorFlow backend.

    A zip archive at the end of the file contains the metadata, as in TensorFlow Lite. The file
    `labels.txt` in this archive has the class names.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the file.
        options: Checked arguments of `export`.
    """
    tf = require("tensorflow", "tensorflow")
    shape = (None, *model.input_shape[1:])
    specification = keras.InputSpec(shape=shape, dtype="uint8", name="images")
    archive = keras.export.ExportArchive()
    archive.track_and_add_endpoint("serve", pixels_model(model, options), [specification])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        if options["precision"] == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as added:
        added.writestr(f"{NAME}.json", json.dumps(metadata_of(model, options)))
        if options["class_names"]:
            added.writestr("labels.txt", "\n".join(options["class_names"]) + "\n")
