"""Every variant is built. One variant is trained on a few images and plotted."""

import numpy as np
import pytest

from benchmarks import paper_comparisons
from benchmarks.rows import append_row
from keras_tokenlearner import costs
from keras_tokenlearner.data import ArrayImages, named

pytestmark = pytest.mark.once("torch")


def test_paper_comparisons_variants_with_learned_tokens_cost_less_than_the_plain_vit():
    names = ("plain", "token_learner_at3", "token_fuser")
    found = [costs(paper_comparisons.VariantRecipe(variant=name).build(10)) for name in names]
    plain, learner, fuser = (cost.macs for cost in found)
    assert learner < 0.7 * plain and learner < fuser < plain
    compared = {name for group in paper_comparisons.COMPARISONS.values() for name in group}
    assert compared == set(paper_comparisons.VARIANTS)


def test_paper_comparisons_plot_has_only_rows_of_the_images_and_epochs_in_the_options(
    monkeypatch, tmp_path
):
    drawn, path = [], tmp_path / "rows.csv"
    monkeypatch.setattr(paper_comparisons, "_draw", lambda rows, _: drawn.extend(rows))
    monkeypatch.setattr(paper_comparisons, "train", None)  # all rows are there
    for images, tests, epochs in ((100, 20, 4), (100, 20, 5), (200, 20, 4), (100, 30, 4)):
        row = {"variant": "plain", "seed": 0, "train_images": images, "test_images": tests}
        append_row(path, paper_comparisons.COLUMNS, row | {"epochs": epochs})
    options = ["folder", "--output", str(path), "--variants", "plain", "--seeds", "0"]
    options += ["--train-images", "100", "--test-images", "20", "--epochs", "4"]
    paper_comparisons.main(options)
    (row,) = drawn
    assert (row["train_images"], row["test_images"], row["epochs"]) == ("100", "20", "4")


@pytest.mark.slow
def test_paper_comparisons_write_a_plot_and_a_second_run_adds_no_row(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the extra `plot`")
    random = np.random.default_rng(0)
    images = ArrayImages(
        random.integers(0, 256, (150, 32, 32, 3)).astype("uint8"), np.arange(150) % 10
    )
    monkeypatch.setitem(named.OPENERS, "cifar10", lambda origin: (images, images))
    options = ["folder", "--output", str(tmp_path / "rows.csv"), "--variants", "token_learner_at0"]
    options += ["--seeds", "3", "--epochs", "2", "--train-images", "128", "--test-images", "20"]
    paper_comparisons.main(options)
    written = (tmp_path / "rows.csv").read_text()
    row = written.splitlines()[-1].split(",")
    assert row[:5] == ["token_learner_at0", "3", "128", "20", "2"]
    assert 0 <= float(row[5]) <= 1 and float(row[6]) < 0.03
    assert (tmp_path / "rows.png").stat().st_size > 1000
    monkeypatch.setattr(paper_comparisons, "train", None)  # nothing is trained again
    paper_comparisons.main(options)
    assert (tmp_path / "rows.csv").read_text() == written
