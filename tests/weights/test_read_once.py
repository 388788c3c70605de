"""A checkpoint is read once and converted once, by whichever function loads it."""

import collections
from dataclasses import replace

import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.presets import save_to_preset
from keras_tokenlearner.weights import SOURCES, load, load_weights, plan_of, save_weights, to_timm
from keras_tokenlearner.weights.formats import read
from keras_tokenlearner.weights.formats.entries import Entry

pytestmark = pytest.mark.once("torch")

SAID = {"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6, "normalization": "half"}


class Counts:
    """Numbers of opened files, of reads of each entry, and of conversions by source.

    A conversion without a read compares shapes with the model. It is not counted.
    """

    def __init__(self):
        self.files, self.entries = 0, collections.Counter()
        self.conversions = collections.Counter()

    @property
    def most_reads(self):
        return max(self.entries.values(), default=0)


@pytest.fixture
def saved(tmp_path):
    """A model, and a folder with its weights in the formats of timm, of Keras and of presets."""
    model = create_model("vit_pico8", classes=3)
    np.savez(tmp_path / "timm.npz", **to_timm(model))
    save_weights(model, tmp_path / "ours.weights.h5")
    save_to_preset(model, tmp_path / "preset")
    return model, tmp_path


@pytest.fixture
def counts(saved, monkeypatch):
    """Counts of the files, reads and conversions after this fixture."""
    counts = Counts()

    def counted(name, convert):
        def converted(entries):
            before = counts.entries.total()
            found = convert(entries)
            counts.conversions[name] += counts.entries.total() > before
            return found

        return converted

    for name, source in SOURCES.items():
        monkeypatch.setitem(SOURCES, name, replace(source, convert=counted(name, source.convert)))
    reader, of_entry = read._reader, Entry.read

    def opened(owner, path):
        counts.files += 1
        return reader(owner, path)

    def read_entry(entry):
        counts.entries[entry] += 1  # the key keeps the entry alive, so its `id` stays unique
        return of_entry(entry)

    monkeypatch.setattr(read, "_reader", opened)
    monkeypatch.setattr(Entry, "read", read_entry)
    return counts


@pytest.mark.parametrize(
    "call",
    [
        lambda model, file: create_model("vit_pico8", weights=file, **SAID),
        lambda model, file: create_model("vit_pico8", weights=file, classes=7, **SAID),
        lambda model, file: create_model("tokenlearner_pico8_4at1", weights=file, **SAID),
        lambda model, file: from_preset(file, num_heads=2, **SAID),
        lambda model, file: from_preset(file, num_heads=2, at=1, num_tokens=4, **SAID),
        lambda model, file: load(model, "timm", file.removeprefix("timm:"), normalization="half"),
        lambda model, file: plan_of(file.removeprefix("timm:"), "timm", normalization="half"),
    ],
    ids=["create_model", "new_head", "learner", "from_preset", "retrofitted", "load", "plan_of"],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_timm_checkpoint_is_read_and_converted_once(call, saved, counts):
    model, folder = saved
    call(model, f"timm:{folder / 'timm.npz'}")
    assert (counts.files, counts.conversions) == (1, {"timm": 1})
    assert counts.most_reads == 1


@pytest.mark.parametrize("at", [None, 1])
def test_preset_of_this_package_is_read_and_converted_once(at, saved, counts):
    model, folder = saved
    from_preset(folder / "preset", at=at)
    # The header is compared with config.json before the model is built.
    assert (counts.files, counts.conversions) == (2, {"keras_tokenlearner": 1})
    assert counts.most_reads == 1


def test_preset_passed_to_create_model_is_read_and_converted_once(saved, counts):
    model, folder = saved
    create_model("vit_pico8", weights=folder / "preset")
    assert (counts.files, counts.conversions) == (2, {"keras_tokenlearner": 1})
    assert counts.most_reads == 1


def test_weights_file_of_load_weights_is_opened_once_and_never_converted(saved, counts):
    model, folder = saved
    load_weights(model, folder / "ours.weights.h5")
    assert (counts.files, counts.conversions, counts.most_reads) == (1, {}, 0)


def test_weights_file_of_create_model_is_never_converted(saved, counts):
    create_model("vit_pico8", weights=saved[1] / "ours.weights.h5")
    # One opening reads the classes from the header. The other checks the copy that Keras reads.
    assert (counts.files, counts.conversions, counts.most_reads) == (2, {}, 0)


def test_conversion_counter_finds_a_second_conversion(saved, counts):
    model, folder = saved
    for _ in range(2):
        load(model, "timm", folder / "timm.npz", normalization="half")
    assert (counts.files, counts.conversions) == (2, {"timm": 2})
