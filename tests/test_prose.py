"""The word list rejects phrases that must be read twice, in every kind of text."""

import subprocess
import sys

import pytest

from tests import prose

pytestmark = pytest.mark.once("torch")

REJECTED_AND_ACCEPTED = [
    ("What is where", "Project layout"),
    ("What a user does", "Quickstart"),
    ("Weights that you have", "Load other checkpoints"),
    (
        "Both know 95% and more of their training images by heart.",
        "Both overfit: training accuracy is above 95%.",
    ),
    ("right of the 10,000 test images", "top-1 accuracy (10,000 test images)"),
    (
        "Who can train the whole model should do so first.",
        "If you can fine-tune the whole model, do that first.",
    ),
    (
        "Vision transformers that look at a picture through a handful of learned tokens",
        "Vision transformers with learned tokens: half the compute, same accuracy",
    ),
    (
        "Refused, since nothing says what to do with it",
        "Unsupported: the checkpoint does not state its activation",
    ),
    ("takes the tour in about two minutes", "runs the demo in about two minutes"),
    ("what stands beside the class token", "tokens next to the class token"),
    ("Such weights are refused.", "Unnamed weights are refused."),
    ("A model of ours takes 4 passes over the images.", "Our model trains for 4 epochs."),
    ("It is right on {:.1%} of the images.", "Top-1 accuracy: {:.1%}."),
    ("The shape is that of the input.", "The shape equals the input's."),
    ("3.1 images a second", "3.1 images per second"),
    ("It is none of the names.", "It is not one of the names."),
    ("The names are like ours.", "The names are like the package's."),
    ("Pixels are floats, as Keras has it.", "Pixels are floats, as in Keras."),
]
REJECTED = [rejected for rejected, _ in REJECTED_AND_ACCEPTED]


def _python_source(kind, phrase):
    return {
        "docstring": f'def f():\n    """Do it.\n\n    {phrase}\n    """\n',
        "argument": f'def f(x):\n    """Do it.\n\n    Args:\n        x: {phrase}\n    """\n',
        "comment": f"x = 1\n# {phrase}\ny = 2\n",
        "error": f'raise ValueError(\n    f"{{x}}: bad value. "\n    "{phrase}"\n)\n',
        "help": f'import typer\nx = typer.Option(help="{phrase}")\n',
        "notebook": f"# %% [markdown]\n# {phrase}\n\n# %%\nx = 1\n",
        "notebook's code": f"# %% [markdown]\n# # Title\n# %%\nx = 1  # {phrase}\n",
    }[kind]


@pytest.mark.parametrize(("rejected", "accepted"), REJECTED_AND_ACCEPTED)
def test_word_list_rejects_phrase_and_accepts_its_replacement(rejected, accepted):
    assert list(prose.check_text(rejected))
    assert not list(prose.check_text(accepted))


@pytest.mark.parametrize(
    "kind",
    ["docstring", "argument", "comment", "error", "help", "notebook", "notebook's code"],
)
@pytest.mark.parametrize("phrase", REJECTED)
def test_rejected_phrase_is_found_in_each_kind_of_python_text(kind, phrase):
    units = list(prose.python_units(_python_source(kind, phrase)))
    assert any(list(prose.check_text(unit.text)) for unit in units)


def test_word_list_ignores_rejected_words_in_python_code():
    source = (
        'def beside(what):\n    """Return it.\n\n    >>> anew = 1\n    """\n    return "beside"\n'
    )
    assert [x for unit in prose.python_units(source) for x in prose.check_text(unit.text)] == []


@pytest.mark.parametrize("phrase", REJECTED)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "## {}",
        "* {}",
        "| {} | 3 |",
        "# Good\n{}",
        "[{}](x.md)",
        "```python\nx = 1  # {}\n```",
    ],
)
def test_rejected_phrase_is_found_in_each_form_of_markdown(form, phrase):
    units = list(prose.markdown_units(form.format(phrase)))
    assert any(list(prose.check_text(unit.text)) for unit in units)


@pytest.mark.parametrize("line", ["# {}", "x: 1  # {}", '\t@echo "{}"'])
@pytest.mark.parametrize("phrase", REJECTED)
def test_rejected_phrase_is_found_in_each_form_of_comment(line, phrase):
    units = list(prose.comment_units(f"y: 2\n{line.format(phrase)}\n"))
    assert units[0].line == 2
    assert any(list(prose.check_text(unit.text)) for unit in units)


def test_markdown_units_skip_code_and_join_lines():
    source = "It is on\nthe left.\n\n```python\nbeside = 1\n```\n\n`beside` is code."
    units = list(prose.markdown_units(source))
    assert units[0] == prose.Unit(1, "It is on the left.")
    assert [list(prose.check_text(unit.text)) for unit in units] == [[], []]


def test_phrase_over_two_lines_is_found_on_its_first_line(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nThis stands\nbeside it.\n")
    assert [line.split(": ")[0] for line in prose.findings(page)][0] == "page.md:3"


@pytest.mark.parametrize(("words", "faults"), [(20, 0), (21, 1)])
def test_sentence_length_limit_is_twenty_words(words, faults):
    sentence = " ".join(["word"] * words) + ". Short one."
    assert len(list(prose.too_long(sentence))) == faults


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("test_the_file_is_read", 1),
        ("test_refuses_a_text_file", 1),
        ("test_file_read", 1),
        ("test_file_with_bom_is_read", 0),
    ],
)
def test_test_names_without_subject_or_result_are_reported(name, faults):
    assert len(list(prose.test_names(f"def {name}():\n    pass\n"))) == faults


QUOTED, NAMED = "a row must be a number", r"top_k: .*top_k=0 of 'a'"


@pytest.mark.parametrize(
    "form",
    [
        'with raises(ValueError, match="{}"):\n        f()',
        'refused(f, r"{}")',
        'assert "{}" in str(caught.value)',
        'with raises(ValueError, match=f"{{x}} {}"):\n        f()',
    ],
)
def test_expected_messages_that_quote_a_sentence_are_reported(form):
    quoted, named = (f"def test():\n    {form.format(text)}\n" for text in (QUOTED, NAMED))
    assert list(prose.sentence_patterns(quoted)) == [(2, "a row must be")]
    assert not list(prose.sentence_patterns(named))


@pytest.mark.parametrize("use", ["match=message", "match=f'{message}'"])
def test_tables_of_expected_messages_that_quote_a_sentence_are_reported(use):
    test = f"def test(message):\n    with raises(ValueError, {use}):\n        f()\n"
    quoted, named = (
        f'@mark.parametrize("message", ["{text}"])\n{test}' for text in (QUOTED, NAMED)
    )
    assert list(prose.sentence_patterns(quoted)) == [(1, "a row must be")]
    assert not list(prose.sentence_patterns(named))


def test_repository_prose_has_no_fault():
    done = subprocess.run(
        [sys.executable, "-m", "tests.prose"], cwd=prose.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
