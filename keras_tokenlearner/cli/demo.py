from typing import Annotated

import typer


def demo(
    model: Annotated[str, typer.Argument(help="A .keras file, a preset, or the name of a model.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights of a named model: name, path, or random.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8080,
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Number of tokens that the page offers; repeat the option for more."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of the top classes to show.")] = 5,
    classifier_activation: Annotated[
        str | None, typer.Option(help="Activation of logits: softmax or sigmoid.")
    ] = None,
) -> None:
    """Serve a web page: drop a picture to see its classes and the attention map of each token."""
    from keras_tokenlearner.serving import demo

    demo(model, weights, host, port, tokens, top_k, classifier_activation)
