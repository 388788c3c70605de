"""Parses gRPC messages of V2 requests, after a count of their fields and values."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner.serving.guard import MAX_ITEMS

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest

MAX_FIELDS = 2**16  # fields of a message and its parts; an image or a tensor is a field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # the wire types of protobuf


def read_grpc(content: bytes) -> "ModelInferRequest":
    """Parse a gRPC message as a `ModelInferRequest`.

    The parser creates an object for each field, and an empty field takes two bytes. The objects of
    a message of 32 MiB could take gigabytes. Fields are therefore counted first.

    Args:
        content: Bytes of a message.

    Returns:
        A `ModelInferRequest`.

    Raises:
        ValueError: If the message is damaged, or has too many fields or values. Also if an input
            has typed and raw contents. Also if the message has raw contents for only some inputs.

    Source: the wire format of Protocol Buffers, and the Open Inference Protocol.
    """
    from google.protobuf.message import DecodeError
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest

    _check_counts(content, ModelInferRequest.DESCRIPTOR)
    try:
        request = ModelInferRequest.FromString(content)
    except DecodeError as error:
        raise ValueError(f"the message is damaged: {error}; send it again") from error
    raw = len(request.raw_input_contents)
    if raw and raw != len(request.inputs):
        raise ValueError(
            f"raw_input_contents must have one item for each of the {len(request.inputs)} inputs; "
            f"got {raw}"
        )
    for found in request.inputs if raw else ():
        if found.HasField("contents"):
            raise ValueError(
                f"the input {found.name!r} must have contents or raw_input_contents, not both"
            )
    return request


def _check_counts(content: bytes, kind: "Descriptor") -> None:
    """Raise `ValueError` if a message has too many fields or values."""
    fields = values = 0
    for count in _counts(memoryview(content), kind):
        fields, values = fields + 1, values + count
        if fields > MAX_FIELDS or values > MAX_ITEMS:
            raise ValueError(
                f"a message must have at most {MAX_FIELDS} fields and {MAX_ITEMS} values; "
                "send arrays as raw_input_contents. "
                f"Received: a message of {len(content)} bytes with more fields or values"
            )


def _counts(content: memoryview, kind: "Descriptor") -> Iterator[int]:
    """Yield the number of values of each field of a message, also in nested messages."""
    for number, wire, part in _fields(content):
        field = kind.fields_by_number.get(number)
        if field is None or wire != _BYTES or field.type in (field.TYPE_STRING, field.TYPE_BYTES):
            yield 1
        elif field.message_type is not None:
            yield 1
            yield from _counts(part, field.message_type)
        elif field.type == field.TYPE_FLOAT:
            yield len(part) // 4
        elif field.type == field.TYPE_DOUBLE:
            yield len(part) // 8
        else:  # the last byte of an integer is below 128
            yield int((np.frombuffer(part, "uint8") < 128).sum())


def _fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the number, the wire type and the content of each field of a message."""
    place = 0
    while place < len(content):
        key, place = _integer(content, place)
        wire, end = key & 7, place
        if wire == _VARINT:
            end = _integer(content, place)[1]
        elif wire == _BYTES:
            size, place = _integer(content, place)
            end = place + size
        elif wire in (_FIXED64, _FIXED32):
            end = place + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"the message is damaged: wire type {wire} is unknown; send it again")
        if end > len(content):
            raise ValueError("the message is damaged: the last field is incomplete; send it again")
        yield key >> 3, wire, content[place:end]
        place = end


def _integer(content: memoryview, place: int) -> tuple[int, int]:
    """Return an integer at a position, and the position after it."""
    value = 0
    for count, byte in enumerate(content[place : place + 10]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, place + count + 1
    raise ValueError("the message is damaged: an integer is incomplete; send it again")
