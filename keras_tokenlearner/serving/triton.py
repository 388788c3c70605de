"""Writes the configuration of a model for the model repository of NVIDIA's Triton."""

import json
from pathlib import Path

import keras

from keras_tokenlearner._files import write_text
from keras_tokenlearner.serving.metadata import Options
from keras_tokenlearner.serving.pixels_model import pixels_model

MAX_BATCH = 32
TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}
LABELS = "labels.txt"


def write_triton_files(model: keras.Model, path: Path, options: Options) -> None:
    """Write `config.pbtxt`, and the class names, if any, next to the versions of a model.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the folder of the model in Triton's repository.
        options: Checked arguments of `export`.
    """
    files = {"config.pbtxt": triton_config(model, path.name, options)}
    if options["class_names"]:
        files[LABELS] = "\n".join(options["class_names"]) + "\n"
    for name, text in sorted(files.items(), reverse=True):
        write_text(path / name, text)


def triton_config(model: keras.Model, name: str, options: Options) -> str:
    """Return the text of `config.pbtxt`, with dynamic batching and warm-up on onnxruntime.

    Args:
        model: A `keras.Model` of images or videos.
        name: Name of the model and of its folder.
        options: Checked arguments of `export`.

    Source: `ModelConfig` in the model_config.proto of Triton.
    """
    served = pixels_model(model, options)
    image = _tensor(served.inputs[0])
    outputs = []
    for output, tensor in served.output.items():
        labels = f' label_filename: "{LABELS}"' if options["class_names"] else ""
        labels = labels if output == "probabilities" else ""
        outputs.append(f"  {{ name: {json.dumps(output)} {_tensor(tensor)}{labels} }}")
    warmup = [
        f'  {{ name: "batch of {size}" batch_size: {size} '
        f'inputs {{ key: "images" value {{ {image} zero_data: true }} }} }}'
        for size in (1, MAX_BATCH)
    ]
    lines = [
        "# Valid in the schema of Triton's model_config.proto; no Triton server has run it.",
        f"name: {json.dumps(name, ensure_ascii=False)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH}",
        f'input [ {{ name: "images" {image} }} ]',
        "output [",
        ",\n".join(outputs),
        "]",
        "dynamic_batching { }",
        "model_warmup [",
        ",\n".join(warmup),
        "]",
    ]
    return "\n".join(lines) + "\n"


def _tensor(tensor: keras.KerasTensor) -> str:
    """Return the dtype of a tensor, and its shape without the batch axis, for `config.pbtxt`."""
    dims = ", ".join("-1" if size is None else str(size) for size in tensor.shape[1:])
    return f"data_type: {TYPES[tensor.dtype]} dims: [ {dims} ]"
