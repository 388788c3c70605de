"""The command line: one file per command. A command parses its arguments and calls the package."""

import functools
from collections.abc import Callable
from typing import Annotated, TypeAlias

try:
    import typer
except ModuleNotFoundError as error:
    from keras_tokenlearner._extras import missing

    raise SystemExit(f"keras-tokenlearner: {missing('typer', 'cli')}") from error

from keras_tokenlearner import _startup
from keras_tokenlearner._version import __version__
from keras_tokenlearner.cli.costs import costs
from keras_tokenlearner.cli.demo import demo
from keras_tokenlearner.cli.distill import distill
from keras_tokenlearner.cli.evaluate import evaluate
from keras_tokenlearner.cli.export import export
from keras_tokenlearner.cli.models import models
from keras_tokenlearner.cli.predict import predict
from keras_tokenlearner.cli.quickstart import quickstart
from keras_tokenlearner.cli.serve import serve
from keras_tokenlearner.cli.train import train

__all__ = ["app", "main"]

VerbArgument: TypeAlias = str | float | bool | list[str] | list[int] | None

app = typer.Typer(
    name="keras-tokenlearner",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _with_keras(verb: Callable[..., None]) -> Callable[..., None]:
    """Delay the import of Keras until a command runs, because help and completion need no Keras."""

    @functools.wraps(verb)
    def run(*arguments: VerbArgument, **options: VerbArgument) -> None:
        _startup.start()
        from keras_tokenlearner._errors import errors_of

        with errors_of(verb.__name__):
            verb(*arguments, **options)

    return run


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-tokenlearner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """TokenLearner for Keras 3: vision transformers with learned tokens."""


for _verb in (models, costs, train, distill, evaluate, export, predict, serve, demo, quickstart):
    app.command()(_with_keras(_verb))


def main() -> None:
    """Run the command line. For a bad argument, print the error without a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError, FloatingPointError) as error:
        raise SystemExit(f"keras-tokenlearner: {error}") from error
    except RuntimeError as error:
        from keras_tokenlearner._errors import has_owner

        if not has_owner(error):  # an error of a library, whose traceback helps to find the cause
            raise
        raise SystemExit(f"keras-tokenlearner: {error}") from error
