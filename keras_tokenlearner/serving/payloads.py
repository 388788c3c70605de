"""Requests and answers of the two protocols, V1 (TensorFlow Serving's REST) and V2."""

import base64
import binascii
import json
import struct

import numpy as np

DATATYPES = {"string": "BYTES", "uint8": "UINT8", "float32": "FP32", "int32": "INT32"}


def v1_request(body, model):
    """Return the name of the signature and the rows of a V1 request.

    Args:
        body: Dictionary, or bytes of JSON: `instances`, and `signature_name`. An instance is the
            value of the only input, or a dictionary from inputs to values; encoded images are
            `{"b64": "..."}`.
        model: A `ServedModel`.

    Raises:
        ValueError: If the request cannot be taken; the message says why.
    """
    body = _json(body) if isinstance(body, bytes) else body
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list):
        raise ValueError('the request must be {"instances": [...]}')
    signature = body.get("signature_name", "serving_default")
    inputs = model.check_signature(signature)
    model.check_count(len(instances))
    return signature, [model.check_row(signature, _v1_row(row, inputs)) for row in instances]


def v1_answer(answers):
    """Return the V1 answer to rows: a dictionary each, or the value where there is only one."""
    rows = [{name: _plain(value) for name, value in answer.items()} for answer in answers]
    if rows and len(rows[0]) == 1:
        rows = [next(iter(row.values())) for row in rows]
    return {"predictions": rows}


def v2_request(request, model):
    """Return the name of the signature and the rows of a V2 request.

    The signature is the parameter `signature_name`, or the one that takes the request's inputs.

    Args:
        request: A `kserve.InferRequest`.
        model: A `ServedModel`.

    Raises:
        ValueError: If the request cannot be taken; the message says why.
    """
    if not request.inputs:
        raise ValueError("the request must have inputs")
    names = [found.name for found in request.inputs]
    signature = _parameter(request.parameters, "signature_name") or model.signature_of(names)
    inputs = model.check_signature(signature)
    columns = {found.name: _v2_column(found, inputs.get(found.name)) for found in request.inputs}
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("the inputs must have equally many rows")
    count = len(next(iter(columns.values())))
    model.check_count(count)
    rows = [{name: column[place] for name, column in columns.items()} for place in range(count)]
    return signature, [model.check_row(signature, row) for row in rows]


def v2_answer(answers):
    """Return the names, datatypes and arrays of the V2 answer to rows."""
    columns = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    return [
        (name, "BYTES" if column.dtype == object else DATATYPES[column.dtype.name], column)
        for name, column in columns.items()
    ]


def v2_tensors(specifications):
    """Return `tf.TensorSpec`s, a dictionary from names, as V2's metadata has them."""
    return [
        {
            "name": name,
            "datatype": DATATYPES[found.dtype.name],
            "shape": [-1 if size is None else size for size in found.shape],
        }
        for name, found in specifications.items()
    ]


def _json(body):
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request must be JSON: {error}") from error


def _v1_row(instance, inputs):
    if not isinstance(instance, dict) or "b64" in instance:
        if len(inputs) != 1:
            raise ValueError(f"an instance must be a dictionary with {list(inputs)}")
        instance = {next(iter(inputs)): instance}
    return {
        name: _from_base64(value) if name in inputs and inputs[name].dtype == "string" else value
        for name, value in instance.items()
    }


def _v2_column(found, spec):
    """Return the array of an input."""
    if spec is not None and found.datatype != DATATYPES[spec.dtype.name]:
        raise ValueError(
            f"{found.name!r} must have datatype {DATATYPES[spec.dtype.name]}; got {found.datatype}"
        )
    try:
        if found.datatype == "BYTES" and found.data and isinstance(found.data[0], str):
            array = np.array([_from_base64({"b64": text}) for text in found.data], object)
        elif found.datatype != "BYTES" and found.data:
            array = np.asarray(found.data)  # `as_numpy` would cut 1.7 to 1
        else:
            array = found.as_numpy()
        array = array.reshape(found.shape)
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"{found.name!r} does not fit its shape and type: {error}") from error
    if not array.ndim:
        raise ValueError(f"{found.name!r} must have rows; got a single value")
    return array


def _from_base64(value):
    """Return `{"b64": text}`, or nested lists of it, as bytes."""
    if isinstance(value, list):
        return [_from_base64(item) for item in value]
    if not isinstance(value, dict) or set(value) != {"b64"}:
        raise ValueError('bytes must be written in JSON as {"b64": "..."}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"b64 must be base64: {error}") from error


def _parameter(parameters, name):
    value = parameters.get(name) if parameters and name in parameters else None
    return getattr(value, "string_param", value)


def _plain(value):
    """Return an array of numbers or bytes as lists of JSON values."""
    if value.dtype == object:
        value = np.vectorize(bytes.decode, otypes=[object])(value)
    return value.tolist()
