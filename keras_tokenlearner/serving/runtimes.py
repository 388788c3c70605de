"""Runs exported files in their own runtimes, without Keras."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from keras_tokenlearner._extras import require

Run: TypeAlias = Callable[[np.ndarray], dict[str, np.ndarray]]


def load_exported(path: Path, format: str) -> Run:
    """Load an exported file. Return a function from uint8 pixels to named outputs.

    Args:
        path: `pathlib.Path` of the file, or of the folder of a SavedModel.
        format: A key of `FORMATS`.
    """
    return LOADERS[format](path)


def _saved_model(path: Path) -> Run:
    tf = require("tensorflow", "tensorflow")
    loaded = tf.saved_model.load(str(path))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = loaded.signatures["pixels"](pixels=tf.constant(images, tf.float32))
        return {name: value.numpy() for name, value in found.items()}

    return run


def _onnx(path: Path) -> Run:
    onnxruntime = require("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [found.name for found in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def load_openvino(path: Path, precision: str = "f32") -> Run:
    """Return a function as `load_exported` does, for a file that OpenVINO runs.

    Args:
        path: `pathlib.Path` of the `.xml` file.
        precision: `"f32"` or `"bf16"`, OpenVINO's names of the precision of its computations.
            OpenVINO itself chooses `"bf16"` on CPUs with bfloat16. Outputs in `"bf16"` differ from
            outputs in `"f32"` by 1e-2.
    """
    openvino = require("openvino", "openvino")
    options = {"INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({"images": images})
        # An output also has the names of operations that were merged into it.
        return {name: np.array(found[x]) for x in compiled.outputs for name in x.names}

    return run


def _litert(path: Path) -> Run:
    litert = require("ai_edge_litert.interpreter", "litert")
    # The default is one thread. Other runtimes use all cores.
    interpreter = litert.Interpreter(str(path), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner("serve")
    return lambda images: runner(images=images)


def _pt2(path: Path) -> Run:
    torch = require("torch", "torch")
    module = torch.export.load(path).module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(images))
        return {name: value.numpy() for name, value in found.items()}

    return run


LOADERS: dict[str, Callable[[Path], Run]] = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "openvino": load_openvino,
    "litert": _litert,
    "pt2": _pt2,
}
