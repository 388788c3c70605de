"""Parses requests and builds answers of the protocols V1 (REST of TensorFlow Serving) and V2."""

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_tokenlearner.serving.served_model import Row, ServedModel, array_of
from keras_tokenlearner.serving.v2_binary import check_shape

if TYPE_CHECKING:
    import kserve
    from tensorflow import TensorSpec

DATATYPES = {
    "string": "BYTES",
    "uint8": "UINT8",
    "float16": "FP16",
    "bfloat16": "FP32",  # the dtype of the answer
    "float32": "FP32",
    "int32": "INT32",
}


class V1Request(NamedTuple):
    """The body of a V1 request, and the version that it asks for; `None` for the newest."""

    body: bytes
    version: str | None = None


def v1_body(body: bytes) -> dict[str, Any]:
    """Return the JSON of a V1 request, a dictionary with either `instances` or `inputs`.

    Raises:
        ValueError: If the body is not a V1 request.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request must be JSON: {error}") from error
    if not isinstance(found, dict) or ("instances" in found) == ("inputs" in found):
        received = list(found) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            'the request must be {"instances": [...]} or {"inputs": ...}, with one of these keys; '
            f"got {received}"
        )
    return found


def v1_request(
    body: dict[str, Any] | bytes, model: ServedModel
) -> tuple[str, list[dict[str, np.ndarray]]]:
    """Return the name of the signature and the rows of a V1 request.

    Args:
        body: Bytes of a request, or the result of `v1_body`. A request has `instances` or `inputs`,
            and optionally `signature_name`. An instance is the value of the only input, or a
            dictionary from inputs to values. Encoded images are `{"b64": "..."}`. `inputs` is the
            columnar form: a list of the values of all rows, or a dictionary from inputs to lists.
        model: A `ServedModel`.

    Raises:
        ValueError: If the model cannot take the request. The message states the reason.

    Source: the REST API of TensorFlow Serving.
    """
    found = v1_body(body) if isinstance(body, bytes) else body
    signature = found.get("signature_name", "serving_default")
    inputs = model.check_signature(signature)
    columnar = "inputs" in found
    try:
        rows = _columns(found["inputs"], inputs) if columnar else _instances(found, inputs, model)
    except RecursionError as error:
        raise ValueError(
            "the values of a request are nested too deeply; send fewer levels"
        ) from error
    model.check_count(len(rows))
    return signature, model.check_rows(signature, rows)


def v1_answer(answers: list[dict[str, np.ndarray]], columnar: bool = False) -> dict[str, Any]:
    """Return the V1 answer for the outputs of some rows.

    Args:
        answers: List with a dictionary of arrays for each row.
        columnar: Boolean, whether the request was columnar. If so, `outputs` has a dictionary from
            names to the values of all rows. Otherwise `predictions` has a dictionary for each row.
            A single output has no name: its value replaces the dictionary.
    """
    rows = [{name: _plain(value) for name, value in answer.items()} for answer in answers]
    if columnar:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    if rows and len(rows[0]) == 1:
        return {"predictions": [next(iter(row.values())) for row in rows]}
    return {"predictions": rows}


def v2_request(
    request: "kserve.InferRequest", model: ServedModel
) -> tuple[str, list[dict[str, np.ndarray]]]:
    """Return the name of the signature and the rows of a V2 request.

    The parameter `signature_name` selects the signature. Without this parameter, the names of the
    inputs select it.

    Args:
        request: A `kserve.InferRequest`.
        model: A `ServedModel`.

    Raises:
        ValueError: If the model cannot take the request. The message states the reason.
    """
    if not request.inputs:
        raise ValueError("a request must have at least one input in `inputs`")
    names = [found.name for found in request.inputs]
    if len(set(names)) != len(names):
        raise ValueError(f"the inputs of a request must have different names; got {names}")
    signature = _parameter(request.parameters, "signature_name") or model.signature_of(names)
    inputs = model.check_signature(signature)
    columns = {found.name: _v2_column(found, inputs.get(found.name)) for found in request.inputs}
    if len({len(column) for column in columns.values()}) != 1:
        counts = {name: len(column) for name, column in columns.items()}
        raise ValueError(f"all inputs of a request must have the same number of rows; got {counts}")
    count = len(next(iter(columns.values())))
    model.check_count(count)
    rows = [{name: column[place] for name, column in columns.items()} for place in range(count)]
    return signature, model.check_rows(signature, rows)


def v2_answer(answers: list[dict[str, np.ndarray]]) -> list[tuple[str, str, np.ndarray]]:
    """Return the names, datatypes and arrays of the V2 answer for the outputs of some rows."""
    columns = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    return [
        (name, "BYTES" if column.dtype == object else DATATYPES[column.dtype.name], column)
        for name, column in columns.items()
    ]


def v2_tensors(
    specifications: "Mapping[str, TensorSpec]",
) -> list[dict[str, str | list[int]]]:
    """Return the specifications of tensors as a list, in the format of V2's metadata."""
    return [
        {
            "name": name,
            "datatype": DATATYPES[found.dtype.name],
            "shape": [-1 if size is None else size for size in found.shape],
        }
        for name, found in specifications.items()
    ]


def _instances(found: dict[str, Any], inputs: dict[str, Any], model: ServedModel) -> list[Row]:
    """Return the rows of a V1 request with `instances`."""
    if not isinstance(found["instances"], list):
        kind = type(found["instances"]).__name__
        raise ValueError(f"`instances` must be a list of rows; got {kind}")
    model.check_count(len(found["instances"]))
    return [_v1_row(row, inputs) for row in found["instances"]]


def _columns(values: Any, inputs: dict[str, Any]) -> list[Row]:
    """Return the rows of a V1 request with `inputs`, the columnar form."""
    if not isinstance(values, dict) or "b64" in values:
        if len(inputs) != 1:
            raise ValueError(
                f"`inputs` must be a dictionary with the keys {list(inputs)}; got unnamed values"
            )
        values = {next(iter(inputs)): values}
    if set(values) != set(inputs):
        raise ValueError(
            f"`inputs` must be a dictionary with the keys {list(inputs)}; got {list(values)}"
        )
    others = [name for name, column in values.items() if not isinstance(column, list)]
    if others:
        raise ValueError(f"all values of `inputs` must be lists of rows; got no list for {others}")
    rows = {name: len(column) for name, column in values.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"all lists in `inputs` must have the same number of rows; got {rows}")
    return [
        _v1_row(dict(zip(values, row, strict=True)), inputs)
        for row in zip(*values.values(), strict=True)
    ]


def _v1_row(instance: Any, inputs: dict[str, Any]) -> Row:
    if not isinstance(instance, dict) or "b64" in instance:
        if len(inputs) != 1:
            raise ValueError(
                f"an instance must be a dictionary with the keys {list(inputs)}; "
                "got a value without a key"
            )
        instance = {next(iter(inputs)): instance}
    return {
        name: _from_base64(value) if name in inputs and inputs[name].dtype == "string" else value
        for name, value in instance.items()
    }


def _v2_column(found: "kserve.InferInput", spec: "TensorSpec | None") -> np.ndarray:
    """Return the array of an input in a V2 request."""
    if spec is not None and found.datatype != DATATYPES[spec.dtype.name]:
        raise ValueError(
            f"the input {found.name!r} must have the datatype {DATATYPES[spec.dtype.name]}; "
            f"got {found.datatype}"
        )
    check_shape(found.name, list(found.shape))
    try:
        if found.data:
            is_bytes = found.datatype == "BYTES"
            data = _from_text(found.data) if is_bytes else found.data
            array = array_of(found.name, data)  # `as_numpy` would truncate 1.7 to 1
        else:
            array = found.as_numpy()
        array = array.reshape(found.shape)
    except (ValueError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise ValueError(
            f"the data of the input {found.name!r} must fit its shape and datatype: {error}"
        ) from error
    if not array.ndim:
        raise ValueError(f"the input {found.name!r} must have a batch axis; got a single value")
    return array


def _from_text(value: Any) -> Any:
    """Return nested lists with bytes instead of base64 text. Bytes of gRPC stay unchanged."""
    if isinstance(value, list):
        return [_from_text(item) for item in value]
    return _from_base64({"b64": value}) if isinstance(value, str) else value


def _from_base64(value: Any) -> bytes | list[Any]:
    """Return the bytes of `{"b64": text}`, or nested lists of bytes for nested lists."""
    if isinstance(value, list):
        return [_from_base64(item) for item in value]
    if not isinstance(value, dict) or set(value) != {"b64"}:
        is_dict = isinstance(value, dict)
        received = f"the keys {list(value)}" if is_dict else type(value).__name__
        raise ValueError(f'bytes must be written in JSON as {{"b64": "..."}}; got {received}')
    if not isinstance(value["b64"], str):
        raise ValueError(f"the value of `b64` must be text; got {type(value['b64']).__name__}")
    # Accepts line breaks, as in MIME, and the URL-safe alphabet without padding.
    text = "".join(value["b64"].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the value of `b64` must be base64 text: {error}") from error


def _parameter(parameters: Mapping[str, Any] | None, name: str) -> Any:
    value = parameters.get(name) if parameters and name in parameters else None
    return getattr(value, "string_param", value)


def _plain(value: np.ndarray) -> Any:
    """Return an array of numbers or bytes as lists of JSON values."""
    if value.dtype == object:
        value = np.vectorize(bytes.decode, otypes=[object])(value)
    return value.tolist()
