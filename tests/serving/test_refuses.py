"""Bad requests to the real server get a reason, and do not affect other requests."""

import concurrent.futures
import contextlib
import io
import json
import re
import socket
import time

import numpy as np
import pytest

from keras_tokenlearner.data import decode_image
from keras_tokenlearner.serving.guard import PICTURE_PATH
from keras_tokenlearner.serving.served_model import ServedModel, array_of
from tests.serving.answers import (
    BOMB,
    JPEG,
    PIXELS,
    RANDOM,
    b64,
    binary,
    check,
    encode,
    expected,
    pillow,
)

pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")

pytestmark = pytest.mark.once("tensorflow")

ENCODED = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
FLOATS = np.zeros((32, 32, 3)).tolist()
NAN = json.dumps({"signature_name": "serve", "instances": [[[[float("nan")] * 3] * 32] * 32]})
BAD_V1 = {
    "no rows": ({"instances": []}, " 256 .* 0"),
    "no instances": ({}, "instances"),
    "no JSON": (b"{", "JSON"),
    "deep JSON": (b"[" * 100_000, "JSON"),
    "deep rows": (b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", "501"),
    "hidden depth": (b'{"]": ' * 900 + b"1" + b"}" * 900, "instances|JSON"),
    "hidden rows": (
        b'{"instances": [' + b'{"]": ' * 900 + b"1" + b"}" * 900 + b"]}",
        "inputs|levels|JSON",
    ),
    "both forms": ({"instances": [b64(JPEG)], "inputs": [b64(JPEG)]}, "instances.*inputs"),
    "no list of rows": ({"inputs": {"encoded": b64(JPEG)}}, "rows"),
    "other column": ({"inputs": {"image": [b64(JPEG)]}}, "\\['encoded'\\]"),
    "b64 of a number": ({"instances": [{"b64": 5}]}, "int"),
    "b64 of one letter": ({"instances": [{"b64": "A"}]}, "base64"),
    "no image": ({"instances": [b64(b"a text")]}, "JPEG, PNG.* 6 "),
    "no bytes": ({"instances": [b64(b"")]}, " 0 bytes"),
    "truncated": (
        {"instances": [b64(JPEG[: len(JPEG) // 2])]},
        "truncated",
    ),
    "bomb": ({"instances": [b64(BOMB)]}, " 32000000 .* 100000000"),
    "no base64": ({"instances": [{"b64": "%"}]}, "base64"),
    "text instead of b64": ({"instances": ["flower.jpg"]}, "b64"),
    "257 rows": ({"instances": [b64(JPEG)] * 257}, " 256 .* 257"),
    "32 MiB and a byte": (b" " * (32 * 2**20 + 1), " 33554432 "),
    "other signature": (
        {"instances": [b64(JPEG)], "signature_name": "x"},
        "signature_name.*'images'.*'x'",
    ),
    "other input": ({"instances": [{"image": b64(JPEG)}]}, "\\['encoded'\\].*\\['image'\\]"),
    "pixels with fractions": (
        {"signature_name": "images", "instances": [[[[0.5] * 3]]]},
        "'images'.* 0 to 255.* 0.5",
    ),
    "pixel of 256": (
        {"signature_name": "images", "instances": [[[[256] * 3]]]},
        "'images'.* 0 to 255.* 256",
    ),
    "wrong rank": ({"signature_name": "images", "instances": [[[1, 2, 3]]]}, "'images'.*shape"),
    "ragged": ({"signature_name": "images", "instances": [[[[1] * 3], []]]}, "'images'.*equal"),
    "no pixels": ({"signature_name": "images", "instances": [[]]}, "'images'.*shape"),
    "wrong size": (
        {"signature_name": "serve", "instances": [FLOATS[:9]]},
        "\\(32, 32, 3\\).*\\(9, 32, 3\\)",
    ),
    "text as pixels": ({"signature_name": "serve", "instances": [[[["a"] * 3] * 32] * 32]}, " str"),
    "long word": ({"signature_name": "serve", "instances": [["a" * 10**7, *"b" * 10**4]]}, " str"),
    "booleans": ({"signature_name": "images", "instances": [[[[True, 1, 1]]]]}, " bool"),
    "infinite": ({"signature_name": "serve", "instances": [[[[1e99] * 3] * 32] * 32]}, "finite"),
    "NaN": (NAN.encode(), "finite|JSON"),
}


def test_array_of_one_long_and_many_short_files_stores_pointers():
    """With a fixed size per item, these bytes would take 100 GB."""
    array = array_of("encoded", [b"x" * 10**7, *[b""] * 10**4])
    assert array.dtype == object and array.shape == (10_001,)


@pytest.mark.parametrize("case", BAD_V1)
def test_v1_bad_requests_get_a_reason_and_status_4xx(served, case):
    model, server = served
    body, reason = BAD_V1[case]
    status, answer = server.v1(body)
    assert 400 <= status < 500
    assert re.search(reason, answer["error"]), answer
    check(model, server.v1({"instances": [b64(JPEG)]})[1]["predictions"][0])


def field(**changes):
    pixels = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}
    return {"inputs": [pixels | changes]}


TEXTS = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
BAD_V2 = {
    "no inputs": ({"inputs": []}, "inputs"),
    "unknown input": (field(name="x"), "\\['x'\\]"),
    "wrong datatype": (field(datatype="FP32"), "UINT8.*FP32"),
    "shape unlike the data": (field(shape=[1, 2, 1, 3]), "shape"),
    "pixels with fractions": (field(data=[1, 2, 3.5]), "'images'.* 0 to 255.* 3.5"),
    "negative pixel": (field(data=[1, 2, -1]), "'images'.* 0 to 255.* -1"),
    "no rows": (field(shape=[0, 1, 1, 3], data=[]), "rows|shape"),
    "no shape": ({"inputs": [{"name": "images"}]}, "shape"),
    "shape of -1": (field(shape=[-1]), "-1"),
    "shape of text": (field(shape=["1", 1, 1, 3]), "'1'"),
    "shape of booleans": (field(shape=[True, 1, 1, 3]), "True"),
    "number as parameters": (field() | {"parameters": 5}, "parameters"),
    "number as id": (field() | {"id": 5}, "id"),
    "one input twice": ({"inputs": field()["inputs"] * 2}, "different"),
    "deep data": (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", "501"),
    "other signature": (field() | {"parameters": {"signature_name": "x"}}, "signature_name.*'x'"),
    "no image": (field(name="encoded", shape=[1], datatype="BYTES", data=["YQ=="]), "JPEG, PNG"),
    "nested text that is no image": (field(**TEXTS | {"data": [["YQ=="]]}), "JPEG, PNG.* 1 "),
    "nested number as bytes": (field(**TEXTS | {"data": [[5]]}), "bytes.* int"),
    "null as bytes": (field(**TEXTS | {"data": [None]}), "bytes.* NoneType"),
    "number and text as bytes": (
        field(**TEXTS | {"shape": [2], "data": [5, "YQ=="]}),
        "bytes.* int",
    ),
    "ragged bytes": (field(**TEXTS | {"data": [["YQ=="], []]}), "equal"),
    "nested text that is no base64": (field(**TEXTS | {"data": [["%"]]}), "base64"),
    "no lengths": (binary("encoded", [1], "BYTES", b"abcdefg"), "shape"),
    "huge binary size": (binary("images", [1, 1, 1, 3], "UINT8", b"abc", 10**18), str(10**18)),
    "trailing bytes": (binary("images", [1, 1, 1, 3], "UINT8", b"abcd", 3), " 1 more bytes"),
    "no header": (
        (b"{}", {"Content-Type": "application/octet-stream"}),
        "Inference-Header-Content-Length",
    ),
}


@pytest.mark.parametrize("case", BAD_V2)
def test_v2_bad_requests_get_a_reason_and_status_400(served, case):
    _, server = served
    body, reason = BAD_V2[case]
    body = (body, {}) if isinstance(body, bytes) else body
    status, answer = server.v2(body[0], **body[1]) if isinstance(body, tuple) else server.v2(body)
    assert status == 400
    assert re.search(reason, answer["error"]), answer


def test_server_answers_valid_requests_among_invalid_requests(served):
    """Many clients at once: answers are correct, and the bombs are never decoded."""
    model, server = served
    images = [RANDOM.integers(0, 256, (32, 32, 3)).astype("uint8") for _ in range(8)]
    good = [encode(image, "PNG") for image in images]
    right = [expected(model, content) for content in good]
    peak = server.memory_reset()
    contents = [*good, BOMB, JPEG[:400], b"text"] * 6
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda one: server.v1({"instances": [b64(one)]}), contents))
    for place, (status, answer) in enumerate(answers):
        if place % 11 < 8:
            found = answer["predictions"][0]["probabilities"]
            np.testing.assert_allclose(found, right[place % 11], atol=1e-5)
        else:
            assert (status, list(answer)) == (400, ["error"])
    # A decoded bomb would be 1.2 GB of floats.
    assert server.memory("VmHWM") - peak < 300


def test_server_memory_after_many_requests_does_not_grow(served):
    """The bodies of all requests together have 170 MB."""
    _, server = served
    noise = RANDOM.integers(0, 256, (400, 500, 3)).astype("uint8")
    png, jpeg = encode(noise, "PNG"), encode(noise, quality=100)
    requests = [
        (200, {"instances": [b64(png)]}),
        (200, {"instances": [b64(jpeg)]}),
        (400, {"instances": [b64(jpeg[: len(jpeg) // 2])]}),
        (400, {"instances": [b64(png[100:])]}),
        (400, {"instances": [b64(png)], "signature_name": "x"}),
        (400, {"instances": [{"b64": "%" * len(png)}]}),
        (400, {"instances": [b64(BOMB)]}),
        (400, {"instances": [(noise[:50] / 2).tolist()], "signature_name": "images"}),
    ]
    with concurrent.futures.ThreadPoolExecutor(4) as clients:

        def ask(rounds):
            asked = requests * rounds
            answers = clients.map(lambda one: server.v1(one[1])[0], asked)
            assert list(answers) == [status for status, _ in asked]
            return server.memory()

        before = ask(5)
        assert ask(40) - before < 60


def test_server_request_body_of_millions_of_lists_does_not_block_other_requests(served):
    """Parsing this body would delay other requests by 44 s."""
    _, server = served
    body = b'{"instances": [' + b"[]," * 10_000_000 + b"[]]}"
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        attacks = [clients.submit(server.v1, body) for _ in range(2)]
        waits = []
        while not all(attack.done() for attack in attacks):
            start = time.monotonic()
            assert server.ask("/v2/health/live")[0] == 200
            waits.append(time.monotonic() - start)
    assert [attack.result()[0] for attack in attacks] == [400, 400]
    assert max(waits) < 10


def test_server_with_idle_sockets_answers_other_clients(served):
    model, server = served
    address = ("127.0.0.1", server.port)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(address))
        check(model, server.v1({"instances": [b64(JPEG)]})[1]["predictions"][0])


def test_grpc_bad_images_get_invalid_argument_and_are_counted(served, ask_grpc):
    import grpc

    name = 'keras_tokenlearner_refusals_total{status="INVALID_ARGUMENT"}'
    before = served[1].metric(name)
    field = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
    for content, reason in ((b"text", "JPEG, PNG"), (BOMB, "100000000")):
        with pytest.raises(grpc.RpcError, match=reason) as caught:
            ask_grpc([field | {"contents": {"bytes_contents": [content]}}])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for _ in range(100):  # gRPC sends the error before it ends the call
        if served[1].metric(name) == before + 2:
            return
        time.sleep(0.1)
    pytest.fail(f"{served[1].metric(name) - before} refusals are counted, not 2")


BAD_GRPC = {
    "no inputs": ({}, (), "inputs"),
    "huge shape": ({"shape": [10**18]}, [b"abc"], "shape"),
    "overflowing shape": ({"shape": [2**62, 2**62, 3]}, [b"abc"], "shape"),
    "no values in a huge shape": ({"shape": [10**18, 0]}, [b""], " 256 .* 1000000000000000000"),
    "negative size": ({"shape": [-1, 1, 1, 3]}, [b"abc"], "-1"),
    "no shape": ({"shape": []}, [b"a"], "batch axis"),
    "few bytes": ({}, [b"ab"], "shape"),
    "trailing bytes": ({}, [b"abcd"], "shape"),
    "wrong datatype": ({"datatype": "FP32"}, [b"abc"], "UINT8.*FP32"),
    "unknown datatype": ({"datatype": "PIXELS"}, [b"abc"], "PIXELS|content type"),
    "one input twice": ({"count": 2}, [b"abc"] * 2, "'images', 'images'"),
    "one raw for two": ({"count": 2}, [b"abc"], "raw_input_contents"),
    "two raw for one": ({}, [b"abc"] * 2, "raw_input_contents"),
    "pixel of 256": ({"contents": {"uint_contents": [1, 2, 256]}}, (), " 0 to 255.* 256"),
    "length beyond the end": (
        {"name": "encoded", "shape": [1], "datatype": "BYTES"},
        [b"\xff\xff\xff\xffabc"],
        "shape",
    ),
    "text": ({"name": "encoded", "shape": [1], "datatype": "BYTES"}, [b"\x01\0\0\0a"], "JPEG, PNG"),
}


@pytest.mark.parametrize("case", BAD_GRPC)
def test_bad_grpc_requests_get_a_reason_and_the_status_invalid_argument(ask_grpc, case):
    import grpc

    changes, raw, reason = BAD_GRPC[case]
    field = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"} | changes
    count = field.pop("count", int(case != "no inputs"))
    with pytest.raises(grpc.RpcError, match=reason) as caught:
        ask_grpc([field] * count, raw)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    good = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"}
    assert ask_grpc([good], [b"abc"])["probabilities"].shape == (1, 10)


def test_grpc_request_for_another_version_gets_not_found(ask_grpc):
    import grpc

    field = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"}
    with pytest.raises(grpc.RpcError, match="version 999") as caught:
        ask_grpc([field], [b"abc"], version="999")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert ask_grpc([field], [b"abc"], version="1")["probabilities"].shape == (1, 10)


def test_grpc_large_messages_and_idle_channels_do_not_block_other_clients(served, ask_grpc):
    """Parsing the millions of empty inputs would take gigabytes."""
    import grpc

    server = served[1]
    address = f"127.0.0.1:{server.grpc_port}"
    good = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"}
    before = server.memory_reset()
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.grpc_port)))
            channel = stack.enter_context(
                grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            grpc.channel_ready_future(channel).result(60)
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for content, status in (
            (bytes(40 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (b"\x2a\x00" * (15 << 20), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                infer(content, timeout=60)
            assert caught.value.code() is status
        start = time.monotonic()
        assert ask_grpc([good], [b"abc"])["probabilities"].shape == (1, 10)
        assert time.monotonic() - start < 10
    assert server.memory("VmHWM") - before < 300


def test_grpc_requests_to_load_or_unload_models_get_not_found(served):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol

    server = served[1]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = protocol.GRPCInferenceServiceStub(channel)
        for call, kind in (
            (stub.RepositoryModelLoad, messages.RepositoryModelLoadRequest),
            (stub.RepositoryModelUnload, messages.RepositoryModelUnloadRequest),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(kind(model_name=server.name), timeout=60)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert stub.ModelReady(messages.ModelReadyRequest(name=server.name), timeout=60).ready


def gif(size, blocks=1, later=None):
    """Return a GIF of one frame and its repetitions, or of a first and a larger second frame."""
    first = encode(np.zeros(size, "uint8"), "GIF")
    start = 13 + 3 * 2 ** (first[10] % 8 + 1)
    frames = first[start:-1] * blocks
    if later is not None:
        other = encode(np.zeros(later, "uint8"), "GIF")
        frames += other[13 + 3 * 2 ** (other[10] % 8 + 1) : -1]
    return first[:start] + frames + b";"


@pytest.mark.parametrize("attack", ["second frame", "many frames", "scans"])
def test_server_image_bombs_take_little_memory_and_do_not_block_other_clients(served, attack):
    """Decoded completely, the GIF files take 400 MB and more, and the JPEG takes 40 s."""
    model, server = served
    if attack == "second frame":
        content = gif((10, 10), later=(6_000, 6_000))
    elif attack == "many frames":
        content = gif((300, 300), blocks=2_000)
    else:
        content = encode(np.zeros((2_000, 2_000, 3), "uint8"), progressive=True)
        start = content.rindex(b"\xff\xda")
        content = content[:start] + content[start:-2] * 800 + b"\xff\xd9"
    before = server.memory_reset()
    good = {"instances": [b64(JPEG)]}
    with concurrent.futures.ThreadPoolExecutor(6) as clients:
        attacks = [clients.submit(server.v1, {"instances": [b64(content)]}) for _ in range(4)]
        others = [clients.submit(server.v1, good) for _ in range(2)]
        for other in others:
            check(model, other.result()[1]["predictions"][0])
    for status, answer in (attack.result() for attack in attacks):
        if attack == "scans":
            assert status == 400 and "at most 64 scans" in answer["error"]
        else:
            assert status == 200
            check(model, answer["predictions"][0], gif((10, 10)))
    assert server.memory("VmHWM") - before < 100


def test_server_answers_a_small_image_before_the_last_of_many_large_images(served):
    """The small image arrives last. Other threads decode the large images."""
    model, server = served
    large = {"instances": [b64(encode(np.zeros((4_000, 3_000), "uint8"), "PNG"))]}
    with concurrent.futures.ThreadPoolExecutor(13) as clients:
        begun = [clients.submit(server.v1, large) for _ in range(12)]
        concurrent.futures.wait(begun, return_when=concurrent.futures.FIRST_COMPLETED)
        check(model, server.v1({"instances": [b64(JPEG)]})[1]["predictions"][0])
        assert not all(each.done() for each in begun)
    assert {each.result()[0] for each in begun} == {200}


OTHER_FORMATS = ("EPS", "TIFF", "AVIF", "ICO", "JPEG2000", "PCX", "PPM", "SGI", "TGA", "DDS")


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_server_refuses_images_of_unsupported_formats_on_every_route(served, ask_grpc, kind):
    import grpc

    _, server = served
    try:
        content = encode(PIXELS, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    bodies = {
        f"/v1/models/{server.name}:predict": {"instances": [b64(content)]},
        f"/v2/models/{server.name}/infer": {"inputs": [ENCODED | {"data": [b64(content)["b64"]]}]},
        PICTURE_PATH: content,
    }
    for path, body in bodies.items():
        kinds = {"Content-Type": "image/png"} if path == PICTURE_PATH else {}
        status, answer = server.ask(path, body, **kinds)
        assert status == 400 and "JPEG, PNG, GIF, BMP, WEBP" in answer["error"], (path, answer)
    with pytest.raises(grpc.RpcError, match="JPEG, PNG, GIF, BMP, WEBP") as caught:
        ask_grpc([ENCODED | {"contents": {"bytes_contents": [content]}}])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_decode_image_of_many_frames_decodes_only_the_first_frame(exported_pico):
    """A WebP file of three frames. The limit allows the pixels of one frame."""
    frames = [pillow.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    content = stream.getvalue()
    assert (decode_image(content, max_pixels=64 * 64) == (255, 0, 0)).all()
    model = ServedModel(exported_pico[1], max_pixels=64 * 64 - 1)
    with pytest.raises(ValueError, match=" 4095 .* 4096"):
        model.check_row("encoded", {"encoded": content})
