"""The command line: one verb a file, each a few lines over the package."""

try:
    import typer
except ModuleNotFoundError as error:
    from keras_tokenlearner._extras import missing

    raise SystemExit(f"keras-tokenlearner: {missing('typer', 'cli')}") from error

from keras_tokenlearner.cli.costs import costs
from keras_tokenlearner.cli.distill import distill
from keras_tokenlearner.cli.evaluate import evaluate
from keras_tokenlearner.cli.export import export
from keras_tokenlearner.cli.models import models
from keras_tokenlearner.cli.predict import predict
from keras_tokenlearner.cli.quickstart import quickstart
from keras_tokenlearner.cli.serve import serve
from keras_tokenlearner.cli.train import train

app = typer.Typer(
    name="keras-tokenlearner",
    help="TokenLearner for Keras 3: vision transformers with learned tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (models, costs, train, distill, evaluate, export, predict, serve, quickstart):
    app.command()(verb)


def main():
    """Run the command line; a bad argument ends it with one line, not a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError, FloatingPointError) as error:
        raise SystemExit(f"keras-tokenlearner: {error}") from error
