from typing import Annotated

import typer


def serve(
    path: Annotated[str, typer.Argument(help="An exported model.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8080,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="gRPC port; 0 turns gRPC off.")
    ] = 8081,
    name: Annotated[str | None, typer.Option(help="Name of the model in URLs.")] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Largest number of examples in a batch.")
    ] = 32,
    page: Annotated[bool, typer.Option("--page", help="Also serve the demo page at /.")] = False,
    warm_up: Annotated[
        bool, typer.Option(help="Run batches of 1, 2, 4, ... examples before the server is ready.")
    ] = True,
) -> None:
    """Serve an exported model over HTTP (V1, V2) and gRPC (V2), by default only to this machine."""
    from keras_tokenlearner.serving import serve

    serve(path, host, port, grpc_port, name, max_batch, page, warm_up)
