import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from keras_tokenlearner._checks import check_bool, check_int, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner.serving import payloads
from keras_tokenlearner.serving.current_model import CurrentModel, Loaded
from keras_tokenlearner.serving.guard import in_time
from keras_tokenlearner.serving.kserve_server import check_address, check_no_event_loop, run
from keras_tokenlearner.serving.metrics import metrics
from keras_tokenlearner.serving.page.exported import ExportedPage, check_page
from keras_tokenlearner.serving.served_model import ServedModel, exported_folder
from keras_tokenlearner.serving.threads import DecodingThreads
from keras_tokenlearner.serving.versions import is_version

if TYPE_CHECKING:
    import kserve


Request = TypeVar("Request")
Arrays: TypeAlias = dict[str, np.ndarray]
Rows: TypeAlias = list[Arrays]
Reader: TypeAlias = Callable[[Request, ServedModel], tuple[str, Rows]]


@own_errors
def serve(
    path: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int | None = 8081,
    name: str | None = None,
    max_batch: int = 32,
    page: bool = False,
    warm_up: bool = True,
) -> None:
    """Serve an exported model with KServe, until the process receives a signal.

    HTTP has two protocols: V1, the REST schema of TensorFlow Serving, and V2, the Open Inference
    Protocol. gRPC has V2. Rows (examples) of simultaneous requests share a batch. If the model
    cannot take a request, the server answers with a status 4xx (over gRPC `INVALID_ARGUMENT`) and
    the reason.

    Args:
        path: Folder of an exported model. The newest version answers. Newer versions replace it
            while the server runs, unless the folder itself is a version.
        host: Address to listen on. Defaults to this machine only.
        port: Integer, HTTP port.
        grpc_port: Integer, gRPC port; `None` or 0 for no gRPC.
        name: Name of the model in URLs. Defaults to the name of the folder of the versions.
        max_batch: Integer, largest number of rows in a batch.
        page: Boolean, whether `GET /` returns the demo page of `demo`. The page shows attention
            maps if the model was exported with `return_maps=True`.
        warm_up: Boolean, whether the server runs batches of 1, 2, 4, ... rows before it is ready,
            and before a newer version answers.

    Raises:
        ValueError: If the folder contains no exported model. Also if the model lacks the signature
            `serving_default`. Also if a page is requested for a model that is not a classifier of
            images. Also if the host or the name is empty or not a text, or the name contains `/`.
        OSError: If the host has no such address, a port is taken, or both ports are equal.
        RuntimeError: If an event loop runs in this thread, as in a notebook.
        ImportError: If a library is missing. The message names the extra.

    Example::

        keras_tokenlearner.export(model, "served/flowers")
        keras_tokenlearner.serving.serve("served/flowers")
        # POST http://127.0.0.1:8080/v1/models/flowers:predict
        # {"instances": [{"b64": "..."}]}

    Source: the two inference protocols of KServe.
    """
    check_bool("serve", "warm_up", warm_up)
    check_bool("serve", "page", page)
    port = check_int("serve", "port", port, maximum=65535)
    if grpc_port is not None:
        grpc_port = check_int("serve", "grpc_port", grpc_port, minimum=0, maximum=65535)
    max_batch = check_int("serve", "max_batch", max_batch)
    path = check_path("serve", "path", path)
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise ValueError(
            "serve: `name` must be a text without `/`, a part of URLs. The default is the name of "
            f"the folder. Received: name={name!r}"
        )
    check_no_event_loop("serve")
    require("kserve", "serve")
    exported_folder(path)
    check_address("serve", host, port, grpc_port)
    check = check_page if page else None
    current = CurrentModel(path, max_batch, metrics().batch, warm_up, check)
    name = name or default_name(current.now.model.folder)
    shown = ExportedPage(current, name) if page else None
    asyncio.run(run(_endpoint(name, current), current, host, port, grpc_port, shown))


def default_name(version: str | os.PathLike[str]) -> str:
    """Return the name of an exported model, which is the name of the folder of its versions.

    Example:

    >>> default_name("served/flowers/1")
    'flowers'
    """
    version = Path(version).resolve()
    return (version.parent if is_version(version.name) else version).name


def _endpoint(name: str, current: CurrentModel) -> "kserve.Model":
    """Return a `kserve.Model` that answers with the newest version of a model."""
    import kserve
    from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady

    threads = DecodingThreads()

    class Late(ModelNotReady):
        """The error for a request that took too long: status 503, or `UNAVAILABLE` over gRPC."""

        def __init__(self, error: TimeoutError) -> None:
            super().__init__(name)
            self.error_msg = self.reason = str(error)  # gRPC reads `reason`

    def read_rows(
        model: ServedModel, read: Reader[Request], request: Request
    ) -> tuple[str, list[tuple[Arrays, int]]]:
        signature, rows = read(request, model)
        return signature, [(row, model.weight(row)) for row in rows]

    async def answer(loaded: Loaded, signature: str, row: Arrays, pixels: int) -> Arrays:
        model, batcher = loaded.model, loaded.batcher
        signature, decoded = await threads.run(pixels, model.decode, signature, [row])
        row = decoded[0]
        return await batcher.answer(model.batch_key(signature, row), row, model.weight(row))

    async def answers(read: Reader[Request], request: Request, version: str | None) -> Rows:
        loaded = current.now  # one version for the whole request
        if not loaded.answers_for(version):
            raise ModelNotFound(f"{name}, version {version}")
        try:
            async with in_time():
                signature, rows = await asyncio.to_thread(read_rows, loaded.model, read, request)
                tasks = [asyncio.ensure_future(answer(loaded, signature, *row)) for row in rows]
                try:
                    return await asyncio.gather(*tasks)
                finally:  # an error of one row cancels the others
                    for task in tasks:
                        task.cancel()
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        except TimeoutError as error:
            raise Late(error) from error

    class Endpoint(kserve.Model):
        def load(self) -> bool:  # KServe calls `load` for a model that is not ready
            return self.ready

        async def predict(
            self,
            payload: payloads.V1Request | kserve.InferRequest,
            headers: dict[str, str] | None = None,
            response_headers: dict[str, str] | None = None,
        ) -> dict[str, Any] | kserve.InferResponse:
            if isinstance(payload, payloads.V1Request):
                try:
                    body = await asyncio.to_thread(payloads.v1_body, payload.body)
                except ValueError as error:
                    raise InvalidInput(str(error)) from error
                found = await answers(payloads.v1_request, body, payload.version)
                return payloads.v1_answer(found, columnar="inputs" in body)
            found = await answers(payloads.v2_request, payload, payload.model_version)
            columns = payloads.v2_answer(found)
            outputs = [kserve.InferOutput(key, list(x.shape), kind, x) for key, kind, x in columns]
            if payload.from_grpc:
                for output in outputs:
                    output.set_data_from_numpy(output.data, binary_data=True)
            return kserve.InferResponse(
                payload.id or "",
                name,
                outputs,
                use_binary_outputs=payload.use_binary_outputs,
                requested_outputs=payload.request_outputs,
            )

        def get_input_types(self) -> list[dict[str, str | list[int]]]:
            return payloads.v2_tensors(
                {
                    key: spec
                    for inputs in current.now.model.inputs.values()
                    for key, spec in inputs.items()
                }
            )

        def get_output_types(self) -> list[dict[str, str | list[int]]]:
            return payloads.v2_tensors(current.now.model.outputs)

    return Endpoint(name)
