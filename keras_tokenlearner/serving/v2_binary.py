"""Parses the bodies of V2 requests, with or without binary tensors, as `kserve.InferRequest`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_tokenlearner.serving.guard import check_json

if TYPE_CHECKING:
    from kserve import InferInput, InferRequest


def read_v2(
    body: bytes, headers: Mapping[str, str], model_name: str, version: str | None = None
) -> "InferRequest":
    """Parse the body of a V2 request, and check that every field has the type of the protocol.

    Args:
        body: JSON, followed by binary tensors, if any.
        headers: Headers of the request, in lower case.
        model_name: Name of the model.
        version: Version of the model in the URL, if any.

    Returns:
        A `kserve.InferRequest`.

    Raises:
        ValueError: If the body is not a V2 request. The message states the reason.

    Source: the Open Inference Protocol, with its extension for binary tensors.
    """
    from kserve import InferRequest
    from kserve.protocol.infer_type import RequestedOutput

    length = headers.get("inference-header-content-length")
    if length is None and headers.get("content-type", "").startswith("application/octet-stream"):
        raise ValueError(
            "a request with binary tensors must have the header Inference-Header-Content-Length, "
            "the number of bytes of its JSON"
        )
    start = len(body) if length is None else _length(length, len(body))
    fields = _typed("the request", _parsed(body[:start]), dict)
    inputs, contents = [], []
    for field in _typed("inputs", fields.get("inputs"), list):
        found, size = _input(_typed("an input", field, dict), len(body) - start)
        inputs.append(found)
        if size is not None:
            contents.append(body[start : start + size])
            start += size
    if start != len(body):
        raise ValueError(
            "the `binary_data_size` of all inputs must sum to the number of bytes after the JSON; "
            f"got {len(body) - start} more bytes"
        )
    if contents and len(contents) != len(inputs):
        raise ValueError(
            "all inputs must have a `binary_data_size` if one input has it; "
            f"got it for {len(contents)} of {len(inputs)} inputs"
        )
    outputs = [
        RequestedOutput(
            _typed("an output's name", _typed("an output", output, dict).get("name"), str),
            _parameters(output),
        )
        for output in _typed("outputs", fields.get("outputs", []), list)
    ]
    return InferRequest(
        model_name,
        inputs,
        _typed("id", fields.get("id", ""), str),
        contents or None,
        parameters=_parameters(fields),
        request_outputs=outputs or None,
        model_version=version,
    )


def check_shape(name: str, shape: list[int]) -> None:
    """Raise `ValueError` unless a shape is a list of integers of at least 0.

    Args:
        name: Name of the input.
        shape: Shape in the request.
    """
    if not all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape
    ):
        raise ValueError(
            f"the shape of the input {name!r} must have integers of at least 0; got {shape}"
        )


def _input(field: dict[str, Any], left: int) -> tuple["InferInput", int | None]:
    """Return an input without its binary content, and the size of this content in bytes."""
    from kserve import InferInput

    name = _typed("an input's name", field.get("name"), str)
    shape = _typed(f"{name!r}: shape", field.get("shape"), list)
    check_shape(name, shape)
    datatype = _typed(f"{name!r}: datatype", field.get("datatype"), str)
    parameters = _parameters(field) or {}
    size = parameters.get("binary_data_size")
    if "binary_data_size" not in parameters:
        data = _typed(f"{name!r}: data", field.get("data"), list)
        return InferInput(name, shape, datatype, data, parameters), None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
        raise ValueError(
            f"the `binary_data_size` of the input {name!r} must be from 0 to the remaining "
            f"{left} bytes; got {size!r}"
        )
    if "data" in field:
        raise ValueError(
            f"the input {name!r} must have either `data` or `binary_data_size`, not both"
        )
    return InferInput(name, shape, datatype), size


def _length(value: str, size: int) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 18 or int(value) > size:
        raise ValueError(
            "Inference-Header-Content-Length must be the length of the JSON in bytes. The body has "
            f"{size} bytes; got {value[:20]!r}"
        )
    return int(value)


def _parsed(content: bytes) -> Any:
    check_json(content)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request must be JSON: {error}") from error


def _parameters(field: dict[str, Any]) -> dict[str, str | int | float | bool] | None:
    parameters = field.get("parameters")
    if parameters is None:
        return None
    found = _typed("parameters", parameters, dict)
    for name, value in found.items():
        if not isinstance(value, (str, int, float, bool)):
            kind = type(value).__name__
            raise ValueError(
                f"the parameter {name!r} must be text, a number or a boolean; got {kind}"
            )
        if name in ("binary_data", "binary_data_output") and not isinstance(value, bool):
            raise ValueError(f"the parameter {name!r} must be true or false; got {value!r:.100}")
    return found


def _typed(name: str, value: Any, kind: type) -> Any:
    """Return a value of the type `kind`; raise `ValueError` for other types or invalid Unicode."""
    wanted = {"dict": "a JSON object", "list": "a list", "str": "text"}[kind.__name__]
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {wanted}; got {type(value).__name__}")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} must be valid Unicode, without surrogates; got {value!r:.100}")
    return value
