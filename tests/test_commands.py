"""The commands in the README, the docs and the notebooks exist and accept their options."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from keras_tokenlearner.training import with_settings
from tests.test_extras import EXTRAS

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.py")]


def _commands():
    """Yield `(page, words)` of every command, without leading environment variables."""
    for page in PAGES:
        text = page.read_text()
        if page.suffix == ".py":  # a notebook's text is in comments
            text = re.sub("^# ?", "", text, flags=re.MULTILINE)
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                if "keras_tokenlearner.cli" in words:
                    words = [
                        "keras-tokenlearner",
                        *words[words.index("keras_tokenlearner.cli") + 1 :],
                    ]
                if words:
                    yield page.name, words


COMMANDS = list(_commands())


def _of(*start):
    found = [
        (page, words[len(start) :]) for page, words in COMMANDS if words[: len(start)] == [*start]
    ]
    assert found
    return found


def test_commands_in_the_docs_parse_with_their_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Another test of this process may have imported a module of the same name.
    monkeypatch.delitem(sys.modules, "my_recipes", raising=False)
    (module,) = re.findall(
        r"`my_recipes.py`:\n\n```python\n(.*?)```",
        (ROOT / "docs/training.md").read_text(),
        re.DOTALL,
    )
    (tmp_path / "my_recipes.py").write_text(module)
    typer = pytest.importorskip("typer", reason="the extra `cli`")
    from keras_tokenlearner import cli
    from keras_tokenlearner.cli.train import find_recipe

    verbs = typer.main.get_command(cli.app).commands
    for _, (verb, *arguments) in _of("keras-tokenlearner"):
        values = verbs[verb].make_context(verb, arguments).params  # raises the error that users get
        if verb == "train" and values["recipe"]:
            with_settings(find_recipe(values["recipe"])(), values["settings"])


def test_make_targets_in_the_docs_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = (
        re.search(r"^\.PHONY: (.*?[^\\])$", makefile, re.MULTILINE | re.DOTALL).group(1).split()
    )
    assert {words[0] for _, words in _of("make")} <= set(targets)


def test_benchmark_modules_in_the_docs_exist():
    for page, words in _of("python", "-m"):
        assert (ROOT / (words[0].replace(".", "/") + ".py")).is_file(), page


def test_extras_in_the_docs_exist_in_pyproject():
    for page in PAGES:
        for extras in re.findall(r"\.\[([\w,]+)\]", page.read_text()):
            assert set(extras.split(",")) <= set(EXTRAS), page
