"""The command line: what it prints and how it refuses."""

import csv
import io
import re

import pytest
from typer.testing import CliRunner

from keras_tokenlearner import cli, list_models


def run(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def test_models():
    printed = run("models", "vit_b*").stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["vit_b32", "vit_b16"]
    assert len(run("models").stdout.splitlines()) == len(list_models())


def test_costs_of_a_model():
    printed = run("costs", "tokenlearner_b16_8at6").stdout
    assert "token_learner" in printed
    assert re.search(r"as the paper counts: 28\.36 GFLOPs", printed)


def test_costs_of_the_paper_as_csv():
    rows = list(csv.reader(io.StringIO(run("costs", "--paper", "--format", "csv").stdout)))
    header = ["table", "row", "paper_gflops", "gflops", "paper_mparams", "mparams", "note"]
    assert rows[0] == header
    assert ["1", "ViT B/16", "55.6", "55.63", "", "86.9", ""] in rows
    assert len(rows) == 34


def test_nothing_to_count():
    assert run("costs").exit_code == 2


@pytest.mark.parametrize("arguments", [["costs", "vit_b61"]])
def test_errors_are_one_line(arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", ["keras-tokenlearner", *arguments])
    with pytest.raises(SystemExit, match="Did you mean .*'vit_b16'"):
        cli.main()
