import json
import os
from typing import Annotated

import typer


def distill(
    model: Annotated[
        str, typer.Argument(help="A ViT: a .keras file, a preset, or a model's name.")
    ],
    output: Annotated[str, typer.Argument(help="The .keras file of the faster model.")],
    at: Annotated[int, typer.Option(help="Number of blocks before the TokenLearner.")],
    num_tokens: Annotated[int, typer.Option(help="Number of learned tokens.")] = 8,
    data: Annotated[
        str, typer.Option(help="fashion_mnist, cifar10, FOLDER or tfds:NAME.")
    ] = "cifar10",
    weights: Annotated[
        str | None, typer.Option(help="Weights of a named model: name, path, or random.")
    ] = None,
    fuser: Annotated[
        str | None,
        typer.Option(help="Restore all tokens after each block: token_fuser, unpool or reproject."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs over the training images.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a ViT faster: add learned tokens, distill the new model, and compare both models.

    An interrupted run continues from a backup next to OUTPUT when you repeat the command.
    """
    from keras_tokenlearner._checks import check_int, check_path, check_positive
    from keras_tokenlearner._class_order import check_order
    from keras_tokenlearner._files import replacing
    from keras_tokenlearner.applications.load import check_classifier, load_model
    from keras_tokenlearner.data.named import arrays_of, open_named
    from keras_tokenlearner.data.preprocessing import preprocessing_of
    from keras_tokenlearner.evaluation import compare
    from keras_tokenlearner.models import retrofit
    from keras_tokenlearner.models.preprocessing import check_takes_pixels
    from keras_tokenlearner.training import distill

    check_int("distill", "epochs", epochs)
    check_positive("distill", "learning_rate", learning_rate)
    if not output.endswith(".keras"):
        raise ValueError(f"distill: `output` must end in .keras. Received: output={output!r}")
    file = check_path("distill", "output", output)
    if os.path.realpath(file) == os.path.realpath(os.path.expanduser(model)):
        raise ValueError(
            "distill: `output` must not be the file of `model`, which the run would replace. "
            f"Received: model={model!r}, output={output!r}"
        )
    teacher = load_model(model, weights=weights, owner="distill")
    teacher = check_classifier(teacher, model, "distill")
    check_takes_pixels("distill", teacher)
    splits = open_named(data)
    found, wanted = len(splits[0].class_names), teacher.output_shape[-1]
    if found != wanted:
        raise ValueError(
            f"distill: `data` must have the {wanted} classes of `model`; first fine-tune the model "
            f"on the data. Received: data={data!r} with {found} classes"
        )
    own = getattr(teacher, "class_names", None)
    fix = "pass data with this order, or correct `model.class_names`"
    check_order("distill", "model", own, splits[0].class_names, "`data`", fix)
    student = retrofit(teacher, at, num_tokens, fuser)
    shape, rule = teacher.input_shape[1:], preprocessing_of(teacher)
    (images, labels), (test_images, test_labels) = (
        arrays_of(split, shape, rule) for split in splits
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    backup = file.with_suffix(".backup.npz")
    distill(
        student,
        teacher,
        images,
        labels,
        epochs=epochs,
        learning_rate=learning_rate,
        backup=backup,
        verbose=0 if as_json else 1,
    )
    with replacing(file) as new:
        student.save(new)
    backup.unlink()
    rows = compare([teacher, student], test_images, test_labels)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'model':32}{'top-1':>8}{'G macs':>9}{'M params':>10}{'images/s':>10}")
    for row in rows:
        print(
            f"{row['model']:32}{row['accuracy']:8.2%}{row['gmacs']:9.3f}{row['mparams']:10.2f}"
            f"{row['images_per_second']:10.1f}"
        )
