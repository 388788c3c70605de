import asyncio
import os
from collections.abc import Sequence

from keras_tokenlearner._checks import check_choice, check_int, check_ints, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner.applications.load import load_model
from keras_tokenlearner.serving.kserve_server import (
    check_address,
    check_no_event_loop,
    run_page,
)
from keras_tokenlearner.serving.page.loaded import LoadedPage
from keras_tokenlearner.serving.versions import exported_version


@own_errors
def demo(
    model: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    tokens: Sequence[int] | None = None,
    top_k: int = 5,
    classifier_activation: str | None = None,
) -> None:
    """Serve a web page that demonstrates a model, until the process receives a signal.

    The page takes a picture from a file or a camera. It shows the classes, the attention map of
    each token over the picture, and the latency. The page loads nothing from other servers.

    Args:
        model: A name in the catalogue, the path of a `.keras` file, or an address or a folder for
            `from_preset`. For a folder whose name is in the catalogue, pass `"./NAME"`.
        weights: For a named model: the `weights` of `create_model`, or `"random"` for random
            weights. Defaults to the first included weights.
        host: Address to listen on. Defaults to this machine only. Browsers allow the camera for
            pages of this machine, or over HTTPS.
        port: Integer, HTTP port.
        tokens: Numbers of tokens that the page offers, for a model whose TokenLearners start from a
            grid. Each number has its own copy of the model. Defaults to `num_tokens` and all
            smaller powers of two. Other models offer only their `num_tokens`.
        top_k: Integer, number of the most probable classes to show.
        classifier_activation: For a model that ends in logits: `"softmax"` if an image has one
            class, `"sigmoid"` if it has several.

    Raises:
        ValueError: If the model does not exist or is not a classifier of images. Also if the model
            ends in logits and no activation is passed, or has fewer tokens than `tokens` asks for.
            Also if the host is empty or not a text.
        OSError: If the host has no such address, or the port is taken.
        RuntimeError: If an event loop runs in this thread, as in a notebook.
        ImportError: If a library is missing. The message names the extra.

    Example::

        keras_tokenlearner.serving.demo("tokenlearner_nano4_8at2", weights="cifar10")
        # open http://127.0.0.1:8080/
    """
    check_path("demo", "model", model)
    port = check_int("demo", "port", port, maximum=65535)
    tokens = check_ints("demo", "tokens", () if tokens is None else tokens)
    top_k = check_int("demo", "top_k", top_k)
    if classifier_activation is not None:
        check_choice("demo", "classifier_activation", classifier_activation, ("softmax", "sigmoid"))
    check_no_event_loop("demo")
    require("kserve", "serve")
    if exported_version(model) is not None:
        raise ValueError(
            "demo: `model` must be a model that Keras can load; for an exported model run "
            f"`keras-tokenlearner serve --page`. Received: model={str(model)!r}"
        )
    check_address("demo", host, port)
    built = load_model(model, weights=weights, owner="demo")
    asyncio.run(run_page(LoadedPage(built, tokens, top_k, classifier_activation), host, port))
