from typing import Annotated

import typer


def quickstart(
    output: Annotated[str, typer.Option(help="Folder for the results of the demo.")] = "quickstart",
) -> None:
    """Run the demo: a trained model, its tokens, fine-tuning, a SavedModel; about 2 minutes."""
    from keras_tokenlearner.quickstart import quickstart

    quickstart(output)
