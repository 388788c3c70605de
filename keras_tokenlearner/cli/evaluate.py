import json
from typing import Annotated

import typer

_NONE: list[str] = []


def evaluate(
    model: Annotated[str, typer.Argument(help="A .keras file, a preset, or the name of a model.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="fashion_mnist, cifar10, FOLDER or tfds:NAME; repeat the option for more."
        ),
    ] = _NONE,
    metrics: Annotated[
        list[str],
        typer.Option(
            help="top1, top5, mean_class, real, few_shot, speed; repeat the option for more. "
            "Images only; top1 and top5 by default."
        ),
    ] = _NONE,
    weights: Annotated[
        str | None, typer.Option(help="Weights of a named model: name, path, or random.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Height and width of the images, for a named model.")
    ] = None,
    real_labels: Annotated[
        str | None, typer.Option(help="Path of real.json, the ReaL labels of ImageNet.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per batch; 32 by default.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1, help="Distance of two frames of a clip, in frames, as in training. Videos."
        ),
    ] = None,
    frame_rate: Annotated[
        float | None,
        typer.Option(help="Frames per second that --stride counts, as in training. Videos."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the accuracy of a model on test images, and the few-shot accuracy of its features.

    The default of --data is the nine data sets of the paper's few-shot experiments. Metrics of
    several data sets are also averaged. The metric `few_shot` fits a linear classifier to the
    features of a few training images. A video model averages four clips and three crops of each
    test video.
    """
    from keras_tokenlearner._checks import check_positive
    from keras_tokenlearner._errors import errors_of
    from keras_tokenlearner.applications import CATALOG
    from keras_tokenlearner.applications.arguments import LoadArguments
    from keras_tokenlearner.applications.load import check_classifier, load_model
    from keras_tokenlearner.data import video
    from keras_tokenlearner.data.video.lists import Views
    from keras_tokenlearner.evaluation import evaluate, evaluate_videos
    from keras_tokenlearner.models.preprocessing import check_takes_pixels

    if frame_rate is not None:
        check_positive("evaluate", "frame_rate", frame_rate)
    arguments: LoadArguments = {}
    if size:
        channels = CATALOG[model].input_shape[-1] if model in CATALOG else 3
        arguments["input_shape"] = (size, size, channels)
    built = load_model(model, weights=weights, owner="evaluate", **arguments)
    built = check_classifier(built, model, "evaluate", videos=True)
    check_takes_pixels("evaluate", built)
    of_videos = {"--stride": stride, "--frame-rate": frame_rate}
    views: Views = {"verbose": 0 if as_json else 1}
    if stride is not None:
        views["stride"] = stride
    if frame_rate is not None:
        views["frame_rate"] = frame_rate
    if len(built.input_shape) == 5:
        if not data:
            raise typer.BadParameter("a video model needs videos: pass --data FOLDER")
        of_images = {"--metrics": metrics, "--real-labels": real_labels, "--batch-size": batch_size}
        if unused := [name for name, value in of_images.items() if value]:
            raise typer.BadParameter(f"{', '.join(unused)} has no effect on a video model")
        with errors_of("evaluate", path="data"):
            tests = {name: video.open_videos(name)[1] for name in data}
        rows: list[dict[str, str | float | None]] = [
            {"data": name, **evaluate_videos(built, test, **views)} for name, test in tests.items()
        ]
    else:
        if unused := [name for name, value in of_videos.items() if value is not None]:
            raise typer.BadParameter(f"{', '.join(unused)} has no effect on an image model")
        metrics = list(metrics) or ["top1", "top5"]
        rows = evaluate(built, list(data), metrics, real_labels, batch_size=batch_size or 32)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[0])
    print(f"{'data':32}" + "".join(f"{name:>18}" for name in columns[1:]))
    for row in rows:
        values = (_cell(name, row[name]) for name in columns[1:])
        print(f"{row['data']:32}" + "".join(f"{value:>18}" for value in values))


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return "-"
    if name == "images_per_second":
        return f"{value:.1f}"
    return f"{value:.2%}" if isinstance(value, float) else str(value)
