"""Writes the configuration of a model for the model repository of NVIDIA's Triton."""

import json
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias

import keras

from keras_tokenlearner.serving.metadata import Options
from keras_tokenlearner.serving.pixels_model import pixels_model

MAX_BATCH = 32
TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}
LABELS = "labels.txt"
CONFIG = "config.pbtxt"
_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[\w.+-]+|\S""")

Fields: TypeAlias = "dict[str, list[str | Fields]]"  # the fields of a protobuf message


def new_triton_files(model: keras.Model, path: Path, options: Options) -> dict[str, str]:
    """Return the texts of the files to write next to the versions of a model.

    The files are `labels.txt`, if the model has class names, and `config.pbtxt`. An existing file
    is not replaced, because `config.pbtxt` may have settings of the user.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of the folder of the model in Triton's repository.
        options: Checked arguments of `export`.

    Returns:
        Dictionary from names of files that do not exist to texts, in the order of writing.

    Raises:
        ValueError: If an existing file has other inputs, outputs or class names than the model.
            Also if an existing `config.pbtxt` refers to class names, but the model has none.
    """
    files = {}
    if options["class_names"]:  # first, because the configuration refers to it
        files[LABELS] = "\n".join(options["class_names"]) + "\n"
    files[CONFIG] = triton_config(model, path.name, options)
    new = {}
    for name, text in files.items():
        if not (path / name).exists():
            new[name] = text
            continue
        old = (path / name).read_text(encoding="utf-8", errors="replace")
        parts = "fields `input` and `output`" if name == CONFIG else "class names"
        if _differ(old, text) if name == CONFIG else old.splitlines() != text.splitlines():
            raise ValueError(
                f"export: {name} in `path` must have the {parts} of the model; correct or delete "
                f"the file, or pass another `path`. Received: path={str(path)!r}"
            )
        if name == CONFIG and LABELS not in files and _has_labels(old):
            raise ValueError(
                f"export: {CONFIG} in `path` must have no `label_filename` for a model without "
                "class names. Pass `class_names`, correct the file, or pass another `path`. "
                f"Received: class_names=None, path={str(path)!r}"
            )
    return new


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


def _has_labels(config: str) -> bool:
    """Return whether an output in the text of `config.pbtxt` has a file of class names."""
    outputs = _fields(_words(config)).get("output", ())
    return any(isinstance(each, dict) and "label_filename" in each for each in outputs)


def _differ(old: str, new: str) -> bool:
    """Return whether two texts of `config.pbtxt` list different inputs or outputs.

    A file may leave out `input` or `output`, because Triton can read them from the ONNX file.
    """
    before, after = (_fields(_words(text)) for text in (old, new))
    return any(
        before.get(field) and _tensors(before[field]) != _tensors(after[field])
        for field in ("input", "output")
    )


def _words(text: str) -> Iterator[str]:
    return (word for word in _TOKEN.findall(text) if word[0] not in "#,;:")


def _fields(words: Iterator[str]) -> Fields:
    """Return the fields of a protobuf message from its words, up to the end of the message.

    The words contain no comments and no optional punctuation. Protobuf would need Triton's schema.
    """
    found: Fields = {}
    for name in words:
        if name in ("}", ">"):
            break
        first = next(words, "")
        values = takewhile(lambda word: word != "]", words) if first == "[" else [first]
        found.setdefault(name, []).extend(
            _fields(words) if word in ("{", "<") else word.strip("\"'") for word in values
        )
    return found


def _tensors(values: "list[str | Fields]") -> set[str]:
    """Return a text with the name, type and shape of each tensor."""
    keys = ("name", "data_type", "dims")
    return {str([tensor.get(key) for key in keys]) for tensor in values if isinstance(tensor, dict)}


def _tensor(tensor: keras.KerasTensor) -> str:
    """Return the dtype of a tensor, and its shape without the batch axis, for `config.pbtxt`."""
    dims = ", ".join("-1" if size is None else str(size) for size in tensor.shape[1:])
    return f"data_type: {TYPES[tensor.dtype]} dims: [ {dims} ]"
