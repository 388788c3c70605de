import json
from typing import Annotated

import typer


def predict(
    model: Annotated[
        str,
        typer.Argument(help="An exported model, a .keras file, a preset, or the name of a model."),
    ],
    images: Annotated[list[str], typer.Argument(help="Image files.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights of a named model: name, path, or random.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Number of the top classes to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    maps_path: Annotated[
        str | None, typer.Option(help="Also draw the token maps to this PNG.")
    ] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Send the images to a local server over HTTP.")
    ] = False,
    classifier_activation: Annotated[
        str | None, typer.Option(help="Activation of logits: softmax or sigmoid.")
    ] = None,
) -> None:
    """Classify image files, and print a table or JSON. --maps-path draws the attention maps."""
    from keras_tokenlearner.serving import predict

    answers = predict(model, images, weights, top_k, maps_path, served, classifier_activation)
    if as_json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            classes = (
                f"{row.get('class_name', row['class'])} {row['probability']:.1%}"
                for row in answer["classes"]
            )
            print(f"{answer['file']:40}  {', '.join(classes)}")
