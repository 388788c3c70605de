"""The command line: one verb a command, each a few lines over the package."""

import csv
import inspect
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(
        "keras-tokenlearner: the command line needs the extra `cli`; "
        "run: pip install 'keras-tokenlearner[cli]'"
    ) from error

app = typer.Typer(
    name="keras-tokenlearner",
    help="TokenLearner for Keras 3: vision transformers that learn a handful of tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"


@app.command()
def models(pattern: Annotated[str, typer.Argument(help="Names to list, with * and ?.")] = "*"):
    """List the named models, with the input that each is built for and the weights that ship."""
    from keras_tokenlearner.applications import CATALOG, list_models
    from keras_tokenlearner.weights import store

    for name in list_models(pattern):
        shape = "x".join(str(size) for size in CATALOG[name].input_shape)
        print(f"{name:40}{shape:>14}  {' '.join(store.names(name))}".rstrip())


@app.command()
def costs(
    model: Annotated[str | None, typer.Argument(help="Name of a model.")] = None,
    paper: Annotated[bool, typer.Option(help="Count every row that the paper prints.")] = False,
    format: Annotated[Format, typer.Option(help="How to print the paper's rows.")] = Format.table,
):
    """Count multiply-adds, the paper's GFLOPs and parameters from the built graph of a model."""
    if paper:
        _print_paper_costs(format)
    elif model:
        from keras_tokenlearner.analysis import catalog_costs

        print(catalog_costs(model))
    else:
        raise typer.BadParameter("name a model (keras-tokenlearner models), or pass --paper")


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="Name, such as fashion_mnist.")] = None,
    settings: Annotated[list[str], typer.Option("--set", help="field=value of the recipe.")] = (),
    output: Annotated[str, typer.Option(help="Folder for weights and results.")] = "trained",
    explain: Annotated[
        bool, typer.Option("--list", help="List the recipes, or say all of one.")
    ] = False,
    distribute: Annotated[
        str, typer.Option(help="one_device, data_parallel, model_parallel:N, or auto.")
    ] = "one_device",
):
    """Train a model by a recipe; started again, it goes on where it was broken off.

    `train --list` names the recipes; `train RECIPE --list` says what one needs, what to expect of
    it, and its fields with the values that they have.
    """
    from keras_tokenlearner.layers.checks import check_choice
    from keras_tokenlearner.training import RECIPES, describe, distribution, train, with_settings

    if recipe is None and not explain:
        raise typer.BadParameter("name a recipe (keras-tokenlearner train --list)")
    if recipe is None:
        for name, kind in RECIPES.items():
            print(f"{name:20}  {inspect.getdoc(kind).splitlines()[0]}")
        return
    check_choice("train", "recipe", recipe, list(RECIPES))
    chosen = with_settings(RECIPES[recipe](), settings)
    if explain:
        kind = RECIPES[recipe]
        print(inspect.getdoc(kind).partition("Attributes:\n")[0].rstrip(), end="\n\n")
        for field, text in describe(kind).items():
            print(f"--set {field + '=' + str(getattr(chosen, field)):34}  {text}")
        return
    with distribution.scope(distribute) as devices:
        accuracy = train(chosen, output, devices)
    print(f"test accuracy {accuracy:.2%}; weights and results are in {output}")


@app.command()
def distill(
    model: Annotated[str, typer.Argument(help="A ViT: a .keras file, or the name of a model.")],
    output: Annotated[str, typer.Argument(help="The .keras file of the faster model.")],
    at: Annotated[int, typer.Option(help="Blocks before the TokenLearner.")],
    num_tokens: Annotated[int, typer.Option(help="Tokens to learn.")] = 8,
    data: Annotated[str, typer.Option(help="fashion_mnist, cifar10, or NAME:FOLDER.")] = "cifar10",
    weights: Annotated[str | None, typer.Option(help="Of a named model: a name or path.")] = None,
    fuser: Annotated[bool, typer.Option("--fuser", help="Keep all tokens, by fusers.")] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = 3e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Make a ViT faster: fit learned tokens into it, teach them its answers, compare the two."""
    from keras_tokenlearner.data import load_named
    from keras_tokenlearner.evaluation import compare
    from keras_tokenlearner.serving.predict import load_classifier
    from keras_tokenlearner.training import distill, retrofit

    if not output.endswith(".keras"):
        raise ValueError(f"distill: `output` must end in .keras. Received: output={output!r}")
    teacher, _ = load_classifier(model, weights)
    (images, labels), (test_images, test_labels) = load_named(data, teacher.input_shape[1:])
    start = images[:500] if num_tokens <= 32 else None
    student = retrofit(teacher, at, num_tokens, fuser, images=start)
    arguments = {"epochs": epochs, "learning_rate": learning_rate}
    distill(student, teacher, images, labels, verbose=0 if as_json else 1, **arguments)
    student.save(output)
    rows = compare([teacher, student], test_images, test_labels)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'model':32}{'right':>8}{'G macs':>9}{'M params':>10}{'images/s':>10}")
    for row in rows:
        print(
            f"{row['model']:32}{row['accuracy']:8.2%}{row['gmacs']:9.3f}{row['mparams']:10.2f}"
            f"{row['images_per_second']:10.1f}"
        )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A .keras file, or the name of a model.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="fashion_mnist, cifar10, folder:FOLDER, tfds:NAME, or the FOLDER of videos; again "
            "for more sets."
        ),
    ] = (),
    metrics: Annotated[
        list[str], typer.Option(help="top1, top5, mean_class, real, few_shot; again for more.")
    ] = ("top1", "top5"),
    weights: Annotated[str | None, typer.Option(help="Of a named model: a name or path.")] = None,
    classes: Annotated[int | None, typer.Option(help="Of the weights of a named model.")] = None,
    size: Annotated[int | None, typer.Option(help="Of a named model: height and width.")] = None,
    real_labels: Annotated[str | None, typer.Option(help="Path of real.json.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Score a model on test images, and its features by least squares on a few training images.

    Without --data, the nine data sets of the paper's few-shot experiments; several are averaged.
    A video model is scored on four clips and three crops of each test video.
    """
    from keras_tokenlearner.applications import CATALOG
    from keras_tokenlearner.data import video
    from keras_tokenlearner.evaluation import evaluate, evaluate_videos
    from keras_tokenlearner.serving.predict import load_classifier

    arguments = {"classes": classes} if classes else {}
    if size and model in CATALOG:
        arguments["input_shape"] = (size, size, CATALOG[model].input_shape[-1])
    built, _ = load_classifier(model, weights, videos=True, **arguments)
    if len(built.input_shape) == 5:
        tests = {name: video.open_videos(name)[1] for name in data}
        verbose = 0 if as_json else 1
        rows = [
            {"data": name, **evaluate_videos(built, test, verbose=verbose)}
            for name, test in tests.items()
        ]
    else:
        rows = evaluate(built, list(data), list(metrics), real_labels, batch_size=batch_size)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[0])
    print(f"{'data':32}" + "".join(f"{name:>12}" for name in columns[1:]))
    for row in rows:
        values = (_cell(row[name]) for name in columns[1:])
        print(f"{row['data']:32}" + "".join(f"{value:>12}" for value in values))


def _cell(value):
    if value is None:
        return "-"
    return f"{value:.2%}" if isinstance(value, float) else str(value)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A .keras file, or the name of a model.")],
    path: Annotated[str, typer.Argument(help="Folder of the versions of the served model.")],
    weights: Annotated[str | None, typer.Option(help="Of a named model: a name or path.")] = None,
    labels: Annotated[str | None, typer.Option(help="File with a class name a line.")] = None,
    top_k: Annotated[int, typer.Option(help="How many of the likeliest classes to answer.")] = 5,
    maps: Annotated[
        bool, typer.Option("--maps", help="Also answer the maps of the tokens.")
    ] = False,
    frame_step: Annotated[float | None, typer.Option(help="Of videos: seconds to a frame.")] = None,
):
    """Write a SavedModel that takes encoded images, or pixels of any size, or videos."""
    import dataclasses

    import keras

    from keras_tokenlearner import create_model, export
    from keras_tokenlearner.weights import store

    names = Path(labels).read_text().splitlines() if labels else None
    provenance = {"source": model, "weights": weights}
    if model.endswith(".keras"):
        built = keras.saving.load_model(model, compile=False)
    else:
        weights = weights or next(iter(store.names(model)), None)
        built = create_model(model, weights=weights)
        if weights in store.names(model):
            provenance = dataclasses.asdict(store.find(model, weights))
            names = names or provenance["class_names"]
    print(export(built, path, names, top_k, maps, frame_step, provenance))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="An exported model, a .keras file, or a name.")],
    images: Annotated[list[str], typer.Argument(help="Image files.")],
    weights: Annotated[str | None, typer.Option(help="Of a named model: a name or path.")] = None,
    top_k: Annotated[int, typer.Option(help="How many of the likeliest classes to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    maps: Annotated[str | None, typer.Option(help="Also draw the tokens, to this PNG.")] = None,
):
    """Classify image files: a table, or JSON, and a picture of what the tokens look at."""
    from keras_tokenlearner.serving import predict

    answers = predict(model, images, weights=weights, top_k=top_k)
    if as_json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            classes = (
                f"{row.get('label', row['class'])} {row['probability']:.1%}"
                for row in answer["classes"]
            )
            print(f"{answer['file']:40}  {', '.join(classes)}")
    if maps:
        _draw_maps(model, images, weights, maps)


def _draw_maps(model, files, weights, path):
    import numpy as np

    from keras_tokenlearner.analysis import draw_token_maps, token_maps
    from keras_tokenlearner.serving.predict import load_classifier, read_image

    built, _ = load_classifier(model, weights)
    images = np.stack([read_image(file, built.input_shape[1:]) for file in files])
    titles = [Path(file).name for file in files]
    draw_token_maps(images, token_maps(built, images), titles, path)


@app.command()
def serve(
    path: Annotated[str, typer.Argument(help="An exported model.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of HTTP.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC; 0 for none.")] = 8081,
    name: Annotated[str | None, typer.Option(help="Of the model in URLs.")] = None,
    max_batch: Annotated[int, typer.Option(help="The most rows that go together.")] = 32,
):
    """Serve an exported model over HTTP (V1, V2) and gRPC (V2), by default to this machine."""
    from keras_tokenlearner.serving import serve

    serve(path, host, port, grpc_port, name, max_batch)


@app.command()
def quickstart(
    output: Annotated[str, typer.Option(help="Folder for what the tour makes.")] = "quickstart",
):
    """Take the tour: a trained model, its tokens, fine-tuning, a SavedModel; about 2 minutes."""
    from keras_tokenlearner.quickstart import quickstart

    quickstart(output)


def _print_paper_costs(format):
    from keras_tokenlearner.analysis.paper_costs import COLUMNS, paper_costs

    if format is Format.csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
    else:
        print(f"{'table':6}{'row':40}{'printed':>9}{'ours':>9}{'differ':>8}{'M params':>10}  note")
    for row in paper_costs():
        if format is Format.csv:
            writer.writerow(row)
            sys.stdout.flush()
            continue
        printed, ours = row["paper_gflops"], row["gflops"]
        differ = f"{100 * (float(ours) / float(printed) - 1):+.1f}%" if printed else ""
        print(
            f"{row['table']:6}{row['row']:40}{printed:>9}{ours:>9}{differ:>8}"
            f"{row['mparams']:>10}  {row['note']}",
            flush=True,
        )


def main():
    """Run the command line; a bad argument ends it with one line, not a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError, FloatingPointError) as error:
        raise SystemExit(f"keras-tokenlearner: {error}") from error


if __name__ == "__main__":
    main()
