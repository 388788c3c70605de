"""A new file gets its name after its content is on the disk, so a power cut leaves no half file."""

import os
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner import _files, create_model, export
from keras_tokenlearner.cli.distill import distill
from keras_tokenlearner.data import ArrayImages, Batches, named
from keras_tokenlearner.serving.formats import FORMATS
from keras_tokenlearner.serving.versions import move_to_next_version
from keras_tokenlearner.serving.writing import WRITERS
from keras_tokenlearner.training import Resume
from keras_tokenlearner.weights import save_weights

pytestmark = pytest.mark.once("torch")


class Disk:
    """Records the files and folders that `os.fsync` wrote, and the renames in a folder."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.synced, self.renames, self.early = folder, [], [], []
        self._fsync, self._moves = os.fsync, {"replace": os.replace, "rename": os.rename}
        monkeypatch.setattr(os, "fsync", self.fsync)
        for name, function in self._moves.items():
            monkeypatch.setattr(os, name, lambda one, to, f=function: self.move(f, one, to))

    def fsync(self, descriptor):
        self.synced.append(os.fstat(descriptor).st_ino)
        return self._fsync(descriptor)

    def move(self, function, one, to):
        one, to = Path(one), Path(to)
        if self.is_visible(to):
            content = [one, *one.rglob("*")]
            self.early += [part for part in content if part.stat().st_ino not in self.synced]
            self.renames.append((to, len(self.synced)))
        return function(one, to)

    def is_visible(self, path):
        """Return whether a path is in the folder, but in none of its hidden folders."""
        parts = path.absolute().relative_to(self.folder).parts if self.has(path) else (".",)
        return not any(part.startswith(".") for part in parts)

    def has(self, path):
        return path.absolute().is_relative_to(self.folder)

    def check(self, *names):
        assert [to.name for to, _ in self.renames] == [*names]
        assert self.early == []
        for to, place in self.renames:
            assert to.parent.stat().st_ino in self.synced[place:], to


@pytest.fixture
def disk(tmp_path, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("only on Linux and macOS: Windows has no descriptors of folders")
    return Disk(tmp_path, monkeypatch)


def test_save_weights_syncs_files_to_disk_before_renaming_them(disk, tmp_path):
    model, name = create_model("vit_pico8", classes=2), "pico.weights.h5"
    save_weights(model, tmp_path / name)
    disk.check(f"{name}.sha256", name)
    disk.renames.clear()
    save_weights(model, tmp_path / name)
    disk.check(f"{name}.sha256", name, f"{name}.sha256")


def test_save_to_preset_syncs_files_to_disk_before_renaming_them(disk, tmp_path):
    create_model("vit_pico8", classes=2).save_to_preset(tmp_path / "preset")
    weights = "model.weights.h5"
    disk.check(f"{weights}.sha256", weights, "config.json", "README.md")


@pytest.mark.every_backend
def test_resume_syncs_a_backup_to_disk_before_replacing_the_old_backup(disk, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    batches = Batches((np.ones((4, 4), "float32"), np.ones((4, 1), "float32")), 4)
    resume = Resume(tmp_path / "backup.npz", batches)
    model.fit(batches, callbacks=[resume], shuffle=False, verbose=0)
    disk.check("backup.npz", "backup.npz")


@pytest.mark.once("tensorflow")
def test_export_syncs_a_saved_model_to_disk_before_servers_see_its_version(disk, tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    export(create_model("vit_pico8", classes=2), tmp_path / "served", check=False)
    disk.check("1")


def test_move_to_next_version_syncs_subfolders_to_disk_before_renaming_the_folder(disk, tmp_path):
    written = tmp_path / ".writing" / "version"
    (written / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (written / name).write_text(name)
    assert move_to_next_version(written, tmp_path) == tmp_path / "1"
    disk.check("1")


@pytest.mark.parametrize(
    ("format", "names"),
    [
        ("pt2", ["pico.pt2"]),
        # The weights come first, so that no program reads a new graph with old weights.
        pytest.param("openvino", ["pico.bin", "pico.xml"], marks=pytest.mark.peers),
    ],
)
def test_export_syncs_a_file_to_disk_before_renaming_the_file(
    format, names, disk, tmp_path, monkeypatch
):
    for module in FORMATS[format].modules:
        pytest.importorskip(module, reason="of the extra `formats`")

    def quick(model, path, options):
        for name in reversed(names):
            path.with_name(name).write_text(name)

    monkeypatch.setitem(WRITERS, format, quick)
    model = create_model("vit_pico8", classes=2)
    export(model, tmp_path / names[-1], format=format, check=False)
    disk.check(*names)


def test_file_after_a_failed_replacement_is_unchanged(tmp_path):
    _files.write_text(tmp_path / "a.txt", "one")
    with pytest.raises(KeyboardInterrupt), _files.replacing(tmp_path / "a.txt") as new:
        new.write_text("two")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_package_renames_files_only_in_the_listed_modules():
    root = Path(_files.__file__).parent
    found = {
        path.name
        for path in root.rglob("*.py")
        if re.search(r"os\.(replace|rename)\(|\.rename\(|shutil\.move", path.read_text())
    }
    assert found == {"_files.py", "versions.py"}  # `versions.py` renames folders


def test_distill_command_interrupted_while_it_saves_keeps_the_old_file(tmp_path, monkeypatch):
    images = ArrayImages(np.zeros((4, 32, 32, 3), "uint8"), np.arange(4) % 3)
    monkeypatch.setitem(named.OPENERS, "cifar10", lambda: (images, images))
    create_model("vit_pico8", classes=3).save(tmp_path / "mine.keras")
    (tmp_path / "fast.keras").write_text("old")

    def save(self, path, **options):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(KeyboardInterrupt):
        distill(str(tmp_path / "mine.keras"), str(tmp_path / "fast.keras"), at=1, epochs=1)
    assert (tmp_path / "fast.keras").read_text() == "old"
    assert (tmp_path / "fast.backup.npz").is_file()
