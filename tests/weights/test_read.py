"""Files of strangers: whole ones are read, bad ones refused, and nothing in them runs."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from keras_tokenlearner.weights import load
from keras_tokenlearner.weights.read import read
from tests.weights.foreign import augreg_entries, build, refused

ENTRIES = augreg_entries()


class Bomb:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def npz(path, **entries):
    np.savez(path, **entries)
    return path


def member(array, shape=None, dtype=None):
    """Return a `.npy` file whose header may lie."""
    stream = io.BytesIO()
    header = {
        "descr": dtype or np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": shape or array.shape,
    }
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_npz(tmp_path):
    model = build("augreg", ENTRIES)
    report = load(model, "augreg", npz(tmp_path / "vit.npz", **ENTRIES))
    assert report.origin.endswith("vit.npz") and len(report.loaded) == len(model.weights)
    np.savez_compressed(tmp_path / "small.npz", a=np.asfortranarray(np.ones((3, 2))))
    np.testing.assert_array_equal(read(tmp_path / "small.npz")["a"], np.ones((3, 2)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_npz(tmp_path, share):
    path = npz(tmp_path / "vit.npz", **ENTRIES)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused("damaged or no npz file", build("augreg", ENTRIES), "augreg", path)


def test_damaged_npz(tmp_path):
    path = npz(tmp_path / "vit.npz", **ENTRIES)
    content = bytearray(path.read_bytes())
    content[5_000:5_100] = b"\x00" * 100
    path.write_bytes(content)
    refused("damaged or no npz file: Bad CRC-32", build("augreg", ENTRIES), "augreg", path)


def test_objects_in_npz_are_not_unpickled(tmp_path):
    trap = tmp_path / "trap"
    path = npz(tmp_path / "vit.npz", **ENTRIES, extra=np.array([Bomb(trap)], dtype=object))
    refused("array of Python objects", build("augreg", ENTRIES), "augreg", path)
    assert not trap.exists()


def test_pickles_are_not_unpickled(tmp_path):
    trap, model = tmp_path / "trap", build("augreg", ENTRIES)
    for name, message in (
        ("a.npz", "damaged or no npz file"),
        ("a.pt", "damaged, or a bare pickle"),
        ("a.pkl", "must end in one of"),
    ):
        (tmp_path / name).write_bytes(pickle.dumps({"embedding/kernel": Bomb(trap)}))
        refused(message, model, "augreg", tmp_path / name)
    assert not trap.exists()


def test_zip_bombs(tmp_path):
    zeros = member(np.zeros(30 << 20, np.float32))
    path = archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, a=zeros)
    refused("zip bomb", build("augreg", ENTRIES), "augreg", path)
    path = archive(tmp_path / "b.npz", a=member(np.zeros(4), shape=(1 << 40, 1 << 40)))
    refused("which is not what it stores", build("augreg", ENTRIES), "augreg", path)
    path = archive(tmp_path / "c.npz", zipfile.ZIP_LZMA, a=member(np.zeros(4)))
    refused("in a way that numpy does not use", build("augreg", ENTRIES), "augreg", path)


def test_mappings_that_hold_themselves():
    endless = {}
    endless["again"] = endless
    refused("nested more than 32 deep", build("augreg", ENTRIES), "augreg", endless)


def test_other_members(tmp_path):
    path = archive(tmp_path / "a.npz", a=b"text")
    with pytest.raises(ValueError, match="is refused"):
        read(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("run.py", "print()")
    with pytest.raises(ValueError, match="run.py is no array"):
        read(tmp_path / "b.npz")


def test_no_such_file(tmp_path):
    refused("no such file", build("augreg", ENTRIES), "augreg", tmp_path / "none.npz")


def test_torch_files(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    weight = torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)
    torch.save({"model": {"a": weight}, "epoch": 3, "name": "x"}, tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["model/a"], [[0, 1, 2], [3, 4, 5]])
    assert found["epoch"] is None and found["name"] is None
    trap = tmp_path / "trap"
    torch.save({"a": Bomb(trap)}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="not unpickled"):
        read(tmp_path / "b.pt")
    assert not trap.exists()
    torch.save([weight], tmp_path / "c.pt")
    with pytest.raises(ValueError, match="holds a list"):
        read(tmp_path / "c.pt")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "d.pt")
    with pytest.raises(ValueError, match="more than it stores"):
        read(tmp_path / "d.pt")
    torch.save({"a": torch.zeros(3).to_sparse()}, tmp_path / "e.pt")
    with pytest.raises(ValueError, match="refused|not unpickled"):
        read(tmp_path / "e.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "f.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path / "f.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "g.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match="no compressed entries"):
        read(tmp_path / "g.pt")


def test_h5(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x/y"] = np.ones(3)
    np.testing.assert_array_equal(read(tmp_path / "a.h5")["x/y"], np.ones(3))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", shape=(1 << 40,), chunks=(1024,))
    with pytest.raises(ValueError, match="claims more than"):
        read(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        outside = [(str(tmp_path / "a.h5"), 0, 16)]
        file.create_dataset("x", shape=(2,), dtype="f8", external=outside)
    with pytest.raises(ValueError, match="no plain array"):
        read(tmp_path / "c.h5")
    (tmp_path / "d.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged or no HDF5 file"):
        read(tmp_path / "d.h5")


def flax_file(path, tree):
    """Write a tree in the layout of Flax: extension 1 is (shape, name of the type, bytes)."""
    msgpack = pytest.importorskip("msgpack", reason="reads Flax files: pip install msgpack")

    def extension(array):
        content = (array.shape, array.dtype.name, array.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    path.write_bytes(msgpack.packb(tree, default=extension, use_bin_type=True))
    return path


def test_flax_files(tmp_path):
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {
        "params": {"Dense_0": {"kernel": whole[0], "bias": whole[1, 0]}},
        "step": 7,
        "large": {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 2, "1": 3, "2": 4},
            "chunks": {"0": whole.ravel()[:10], "1": whole.ravel()[10:]},
        },
    }
    entries = read(flax_file(tmp_path / "a.msgpack", tree))
    assert set(entries) == {"params/Dense_0/kernel", "params/Dense_0/bias", "step", "large"}
    np.testing.assert_array_equal(entries["params/Dense_0/kernel"], whole[0])
    np.testing.assert_array_equal(entries["large"], whole)
    assert entries["step"] is None


def test_flax_itself(tmp_path):
    serialization = pytest.importorskip(
        "flax.serialization", reason="compares with flax: pip install flax"
    )
    import jax.numpy as jnp

    array = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    tree = {"a": {"b": array}, "c": jnp.asarray(array, "bfloat16"), "d": np.float32(2)}
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    entries = read(tmp_path / "a.msgpack")
    np.testing.assert_array_equal(entries["a/b"], array)
    np.testing.assert_array_equal(entries["c"], np.asarray(tree["c"], "float32"))
    assert entries["d"] == 2


def test_bad_flax_files(tmp_path):
    path = flax_file(tmp_path / "a.msgpack", {"a": np.zeros((4, 4))})
    content = path.read_bytes()
    lies = content.replace(b"\x92\x04\x04", b"\x92\x04\x7f")
    objects = content.replace(b"\xa7float64", b"\xa7object0")
    assert content not in (lies, objects)
    for broken in (content[:-5], b"", b"\x01", b"\xff" * 40, b"\x81" * 5000, lies, objects):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged or no Flax checkpoint"):
            read(path)
