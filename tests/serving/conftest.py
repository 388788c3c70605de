"""One server for all tests of the folder."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from tests.serving.server import serving


@pytest.fixture(scope="package")
def exported_pico(tmp_path_factory):
    """A model with random weights, and the folder that it was exported to."""
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder = tmp_path_factory.mktemp("serve")
    keras.utils.set_random_seed(0)
    model = create_model("tokenlearner_pico8_4at1", classes=10)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    names = [f"class {index}" for index in range(10)]
    export(model, folder / "pico", class_names=names, top_k=3, check=False)
    return model, folder / "pico"


@pytest.fixture(scope="package")
def served(exported_pico):
    """The model, and the server of its export."""
    pytest.importorskip("kserve", reason="the server is KServe")
    model, folder = exported_pico
    with serving(folder, "--page") as server:
        yield model, server


@pytest.fixture(scope="package")
def ask_grpc(served):
    """A function from (inputs, raw contents) of a gRPC request to arrays or an error."""
    import grpc
    from kserve import InferResponse
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol

    server = served[1]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = protocol.GRPCInferenceServiceStub(channel)

        def ask(inputs, raw=(), version=""):
            request = messages.ModelInferRequest(
                model_name=server.name,
                model_version=version,
                inputs=inputs,
                raw_input_contents=raw,
            )
            answer = InferResponse.from_grpc(stub.ModelInfer(request, timeout=60))
            return {found.name: found.as_numpy() for found in answer.outputs}

        yield ask
