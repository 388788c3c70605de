"""The study of rotated learned tokens: a run with other settings adds rows."""

import numpy as np
import pytest

from benchmarks import rotary_tokens
from benchmarks.rows import read_rows

pytestmark = pytest.mark.once("torch")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs the study without training, and returns rows and settings."""
    data, used = (np.zeros((8, 2, 2, 3), "uint8"), np.zeros(8, int)), []
    monkeypatch.setattr(rotary_tokens, "load_named", lambda *_: (data, data))
    monkeypatch.setattr(rotary_tokens, "trained_teacher", lambda *_: None)
    monkeypatch.setattr(rotary_tokens, "student_of", lambda *_: None)
    monkeypatch.setattr(rotary_tokens, "accuracy", lambda *_: 0.5)

    def distill(student, teacher, images, labels, epochs, **_):
        used.append((epochs, len(images)))

    monkeypatch.setattr(rotary_tokens, "distill", distill)
    path = tmp_path / "rows.csv"

    def run(*options, data="cifar10:FOLDER"):
        used.clear()
        places = ["--places", "3", "4", "--seeds", "1", "--output", str(path)]
        rotary_tokens.main([data, *places, *options])
        return read_rows(path), used

    return run


@pytest.mark.parametrize(
    ("option", "column"),
    [
        (["--epochs", "3"], "epochs"),
        (["--teacher-epochs", "2"], "teacher_epochs"),
        (["--train-images", "4"], "train_images"),
    ],
)
def test_rotary_tokens_run_with_another_setting_trains_and_adds_its_rows(run, option, column):
    assert len(run()[0]) == 2
    assert run(data="cifar10:OTHER")[1] == []  # the same data in another folder
    rows, used = run(*option)
    assert [row[column] for row in rows[2:]] == [option[1]] * 2
    assert used == [(int(rows[2]["epochs"]), int(rows[2]["train_images"]))] * 2
    assert rows[0][column] != option[1]
    assert run(*option)[1] == []


def test_rotary_tokens_with_another_data_set_adds_rows(run):
    run()
    rows, used = run(data="tfds:other")
    assert [row["data"] for row in rows] == ["cifar10"] * 2 + ["tfds-other"] * 2
    assert len(used) == 2


def test_rotary_tokens_with_a_file_of_an_earlier_version_raises_before_any_work(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(rotary_tokens, "load_named", None)
    path = tmp_path / "rows.csv"
    path.write_text("rotary_tokens,at,num_tokens,seed,untrained,accuracy,teacher,epochs\n")
    with pytest.raises(ValueError, match="another --output.*train_images"):
        rotary_tokens.main(["cifar10", "--output", str(path)])
