"""Writes `.pt2`, ONNX and OpenVINO files: one PyTorch program in three formats."""

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from keras_tokenlearner._extras import require
from keras_tokenlearner.serving.metadata import NAME, Options, metadata_of
from keras_tokenlearner.serving.pixels_model import pixels_model

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram


def write_pt2(model: keras.Model, path: Path, options: Options) -> None:
    """Write a `.pt2` file, a PyTorch program that runs without Keras. Needs the torch backend.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the file.
        options: Checked arguments of `export`.
    """
    torch = require("torch", "torch")
    program, _ = _program(model, options)
    files = {f"{NAME}.json": json.dumps(metadata_of(model, options))}
    torch.export.save(program, path, extra_files=files)


def write_onnx(model: keras.Model, path: Path, options: Options) -> None:
    """Write an ONNX file. Needs the torch backend.

    Float weights of more than 1.5 GB are in a second file. An int8 file contains all its weights.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the file.
        options: Checked arguments of `export`.
    """
    torch = require("torch", "torch")
    require("onnxscript", "onnx")
    program, names = _program(model, options)
    written = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["images"],
        output_names=names,
        dynamic_shapes={"images": {0: "batch"}},
        verbose=False,
    )
    metadata = metadata_of(model, options)
    texts = {"class_names": metadata["class_names"], "preprocessing": metadata["preprocessing"]}
    for name, value in {**texts, NAME: metadata}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        written.model.metadata_props[name] = text
    if options["precision"] != "int8":
        written.save(path)
        return
    # The default folder is often in memory, and too small for a large model.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / "float.onnx"
        written.save(whole)
        _quantize(whole, path)


def write_openvino(model: keras.Model, path: Path, options: Options) -> None:
    """Write OpenVINO's `.xml` file, and its weights in a `.bin` file. Needs the torch backend.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the `.xml` file.
        options: Checked arguments of `export`.
    """
    openvino = require("openvino", "openvino")
    program, names = _program(model, options)
    shape = [-1, *model.input_shape[1:]]
    converted = openvino.convert_model(program, input=[("images", shape)])
    for output, name in zip(converted.outputs, names, strict=True):
        output.tensor.set_names({name})
    converted.set_rt_info(json.dumps(metadata_of(model, options)), [NAME, "metadata"])
    openvino.save_model(converted, path, compress_to_fp16=False)


def _program(model: keras.Model, options: Options) -> "tuple[ExportedProgram, list[str]]":
    """Return the program of a model for batches of any size, and the names of its outputs."""
    import torch

    served = pixels_model(model, options)
    names = list(served.output)

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.served = served

        def forward(self, images: "Tensor") -> "dict[str, Tensor]":
            found = self.served(images, training=False)
            return {name: found[name] for name in names}  # Keras sorts the outputs by name

    # PyTorch would export a batch size of 1 as a constant.
    batch = torch.zeros((2, *model.input_shape[1:]), dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Served(), (batch,), dynamic_shapes=shapes, strict=False)
    return program, names


def _quantize(whole: Path, path: Path) -> None:
    """Write an ONNX file with the weights of its matrix products as 8-bit integers.

    Convolutions stay float: integer convolutions of onnxruntime are slower and less exact.

    Args:
        whole: `pathlib.Path` of the float file, in a temporary folder.
        path: `pathlib.Path` of the new file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = whole.with_name("prepared.onnx")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # hides the advice to run `quant_pre_process`, which has run
    try:
        # Protobuf cannot store more than 2 GB in one file.
        quant_pre_process(whole, prepared, save_as_external_data=True, all_tensors_to_one_file=True)
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logger.setLevel(level)
