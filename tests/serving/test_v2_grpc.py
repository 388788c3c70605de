"""Limits on gRPC messages: fields before parsing, and time until a message arrives."""

import asyncio
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("kserve", reason="the server is KServe")

from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages  # noqa: E402
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol  # noqa: E402

from keras_tokenlearner.serving import grpc_server  # noqa: E402
from keras_tokenlearner.serving.local import _free_ports  # noqa: E402
from keras_tokenlearner.serving.v2_grpc import MAX_FIELDS, read_grpc  # noqa: E402

pytestmark = pytest.mark.once("tensorflow")

MANY = 15 << 20
FIELD = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"}


def request(raw=(), contents=None, count=1):
    field = FIELD if contents is None else FIELD | {"contents": contents}
    return messages.ModelInferRequest(
        model_name="pico", inputs=[field] * count, raw_input_contents=raw
    )


def field(number, content):
    """Return a field that holds bytes or a message."""
    size, varint = len(content), b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + content


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request([b"\x01\x02\x03"]),
        request(contents={"uint_contents": [1, 200, 70_000]}),
        request(contents={"fp32_contents": [0.5] * 1000, "int_contents": [-1, 5]}),
        request(contents={"bytes_contents": [b"a" * 100_000, b""]}, count=3),
        messages.ModelInferRequest(
            id="7",
            parameters={"signature_name": {"string_param": "images"}},
            outputs=[{"name": "p", "parameters": {"binary_data": {"bool_param": True}}}],
        ),
    ],
    ids=["no data", "raw bytes", "uint", "float and int", "byte strings", "outputs"],
)
def test_read_grpc_equals_the_parser_of_protobuf(sent):
    assert read_grpc(sent.SerializeToString()) == sent


@pytest.mark.parametrize(
    "write",
    [
        lambda: field(5, b"") * MANY,
        lambda: field(6, b"") * MANY,
        lambda: field(7, b"") * MANY,
        lambda: field(4, b"") * MANY,
        lambda: field(5, field(5, field(8, b"") * MANY)),
        lambda: field(5, field(3, bytes(MANY))),
        lambda: field(5, field(5, field(2, bytes(MANY)))),
        lambda: field(5, field(5, field(6, bytes(4 * 2**21 + 4)))),
        lambda: field(5, field(5, field(7, bytes(8 * 2**21 + 8)))),
        lambda: field(5, field(5, b"\x10\x01" * MANY)),
    ],
    ids=[
        "inputs",
        "outputs",
        "raw_input_contents",
        "parameters",
        "bytes_contents",
        "shape",
        "int_contents",
        "fp32_contents",
        "fp64_contents",
        "int_contents without packing",
    ],
)
def test_read_grpc_of_too_many_fields_or_values_raises(write):
    """Protobuf and KServe would take gigabytes to parse the first message."""
    content = write()
    start = time.monotonic()
    with pytest.raises(ValueError, match=f" {MAX_FIELDS} fields"):
        read_grpc(content)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (request([b"abc"]).SerializeToString()[:-1], "damaged"),
        (b"\x0b", "wire type 3"),
        (b"\x2a" + b"\xff" * 12, "damaged"),
        (b"\x2a\x05", "damaged"),
        (b"\x0a\x01\xff", "damaged"),
        (request([b"abc", b"abc"]).SerializeToString(), "raw_input_contents .* 1 .* got 2"),
        (request([b"abc"], count=2).SerializeToString(), "raw_input_contents .* 2 .* got 1"),
        (request([b"abc"], {"uint_contents": [1]}).SerializeToString(), "'images' .* not both"),
    ],
    ids=[
        "truncated",
        "group",
        "endless length",
        "length > bytes",
        "name without UTF-8",
        "contents > inputs",
        "contents < inputs",
        "typed, raw",
    ],
)
def test_read_grpc_of_damaged_or_contradictory_messages_raises(content, reason):
    with pytest.raises(ValueError, match=reason):
        read_grpc(content)


def test_grpc_idle_channels_are_closed_and_do_not_block_calls(monkeypatch):
    """Nine channels are open, and the server allows two calls at once. One call gets an answer."""
    import grpc

    monkeypatch.setattr(grpc_server, "IDLE_SECONDS", 1)
    monkeypatch.setattr(grpc_server, "MAX_REQUESTS", 2)
    ready = grpc.ChannelConnectivity.READY

    async def live():
        return {"status": "alive"}

    async def attack():
        (port,) = _free_ports(1)
        server = await grpc_server.start_grpc(SimpleNamespace(live=live), None, "127.0.0.1", port)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(9)
        ]
        try:
            for channel in channels:
                await asyncio.wait_for(channel.channel_ready(), 60)
            stub = protocol.GRPCInferenceServiceStub(channels[0])
            answer = await stub.ServerLive(messages.ServerLiveRequest(), timeout=60)
            for channel in channels[1:]:
                if channel.get_state() is ready:
                    await asyncio.wait_for(channel.wait_for_state_change(ready), 60)
            return answer.live
        finally:
            for channel in channels:
                await channel.close()
            await server.stop(None)

    assert asyncio.run(attack())


def test_grpc_calls_without_a_message_are_closed(monkeypatch):
    """A few hundred open calls without a message would block the server."""
    import grpc

    monkeypatch.setattr(grpc_server, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(grpc_server, "MAX_REQUESTS", 4)

    async def live():
        return {"status": "alive"}

    async def attack():
        (port,) = _free_ports(1)
        plane = SimpleNamespace(live=live)
        server = await grpc_server.start_grpc(plane, None, "127.0.0.1", port)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                silent = channel.stream_unary("/inference.GRPCInferenceService/ServerLive")
                calls = [silent() for _ in range(4)]
                ends = await asyncio.wait_for(asyncio.gather(*[call.code() for call in calls]), 60)
                empty = silent()
                await empty.done_writing()
                stub = protocol.GRPCInferenceServiceStub(channel)
                answer = await stub.ServerLive(messages.ServerLiveRequest(), timeout=60)
                return ends, await empty.code(), answer.live
        finally:
            await server.stop(None)

    ends, empty, alive = asyncio.run(attack())
    assert ends == [grpc.StatusCode.DEADLINE_EXCEEDED] * 4
    assert empty is grpc.StatusCode.INVALID_ARGUMENT and alive
