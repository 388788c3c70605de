"""Untrusted files: valid files are read, bad files are refused, and no code in them runs."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.weights import load
from keras_tokenlearner.weights.formats import hdf5
from keras_tokenlearner.weights.formats.entries import Entry
from keras_tokenlearner.weights.formats.parts import parts_of
from keras_tokenlearner.weights.formats.read import read_checkpoint
from tests.bounds import Bounds, attack
from tests.skips import peer
from tests.weights.foreign import augreg_entries, build, randomise, refused

pytestmark = pytest.mark.once("torch")

ENTRIES = augreg_entries()


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def npz(path, **entries):
    np.savez(path, **entries)
    return path


def member(array, shape=None, dtype=None):
    """Return a `.npy` file whose header may state wrong sizes."""
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


def test_npz_checkpoint_loads_into_the_model(tmp_path):
    model = build("augreg", ENTRIES)
    report = load(model, "augreg", npz(tmp_path / "vit.npz", **ENTRIES))
    assert report.origin.endswith("vit.npz") and len(report.loaded) == len(model.weights)
    np.savez_compressed(tmp_path / "small.npz", a=np.asfortranarray(np.ones((3, 2))))
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "small.npz")["a"], np.ones((3, 2)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_npz_file_raises(tmp_path, share):
    path = npz(tmp_path / "vit.npz", **ENTRIES)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(r"vit\.npz.*damaged", build("augreg", ENTRIES), "augreg", path)


def test_npz_file_with_damaged_bytes_raises(tmp_path):
    path = npz(tmp_path / "vit.npz", **ENTRIES)
    content = bytearray(path.read_bytes())
    content[5_000:5_100] = b"\x00" * 100
    path.write_bytes(content)
    refused(r"vit\.npz.*CRC", build("augreg", ENTRIES), "augreg", path)


def test_npz_file_with_objects_raises_and_unpickles_nothing(tmp_path):
    trap = tmp_path / "trap"
    path = npz(tmp_path / "vit.npz", **ENTRIES, extra=np.array([Bomb(trap)], dtype=object))
    refused(r"extra\.npy.*object", build("augreg", ENTRIES), "augreg", path)
    assert not trap.exists()


def test_pickle_files_raise_and_are_not_unpickled(tmp_path):
    trap, model = tmp_path / "trap", build("augreg", ENTRIES)
    for name, message in (
        ("a.npz", r"a\.npz.*damaged"),
        ("a.pt", r"a\.pt.*pickle"),
        ("a.pkl", r"checkpoint=.*a\.pkl"),
    ):
        (tmp_path / name).write_bytes(pickle.dumps({"embedding/kernel": Bomb(trap)}))
        refused(message, model, "augreg", tmp_path / name)
    assert not trap.exists()


def test_npz_file_with_a_zip_bomb_a_false_shape_or_lzma_raises(tmp_path):
    zeros = member(np.zeros(30 << 20, np.float32))
    path = archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, a=zeros)
    refused(r"a\.npz.*bomb", build("augreg", ENTRIES), "augreg", path)
    path = archive(tmp_path / "b.npz", a=member(np.zeros(4), shape=(1 << 40, 1 << 40)))
    refused(r"a\.npy.*\(1099511627776, 1099511627776\)", build("augreg", ENTRIES), "augreg", path)
    path = archive(tmp_path / "c.npz", zipfile.ZIP_LZMA, a=member(np.zeros(4)))
    refused(r"a\.npy.*compressed", build("augreg", ENTRIES), "augreg", path)


def test_checkpoint_mapping_that_contains_itself_raises():
    endless = {}
    endless["again"] = endless
    refused(" 32 .*again/", build("augreg", ENTRIES), "augreg", endless)


def test_npz_with_members_that_are_no_arrays_raises(tmp_path):
    path = archive(tmp_path / "a.npz", a=b"text")
    with pytest.raises(ValueError, match=r"a\.npz"):
        read_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("run.py", "print()")
    with pytest.raises(ValueError, match=r"run\.py"):
        read_checkpoint(tmp_path / "b.npz")


def test_load_of_a_missing_file_raises(tmp_path):
    refused(r"checkpoint=.*none\.npz", build("augreg", ENTRIES), "augreg", tmp_path / "none.npz")


def test_torch_file_is_read_and_unsafe_or_damaged_files_raise(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    weight = torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)
    torch.save({"model": {"a": weight}, "epoch": 3, "name": "x"}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["model/a"], [[0, 1, 2], [3, 4, 5]])
    assert found["epoch"] is None and found["name"] is None
    trap = tmp_path / "trap"
    torch.save({"a": Bomb(trap)}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt.*unpickled"):
        read_checkpoint(tmp_path / "b.pt")
    assert not trap.exists()
    torch.save([weight], tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt.* list"):
        read_checkpoint(tmp_path / "c.pt")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "d.pt")
    with pytest.raises(ValueError, match=r"d\.pt|\(1099511627776,\)"):
        read_checkpoint(tmp_path / "d.pt")["a"]
    torch.save({"a": torch.zeros(3).to_sparse()}, tmp_path / "e.pt")
    with pytest.raises(ValueError, match=r"e\.pt|sparse"):
        read_checkpoint(tmp_path / "e.pt")["a"]
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "f.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"f\.pt.*damaged"):
        read_checkpoint(tmp_path / "f.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "g.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"g\.pt.*compressed"):
        read_checkpoint(tmp_path / "g.pt")


def test_h5_file_is_read_and_false_sizes_or_damage_raise(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x/y"] = np.ones(3)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "a.h5")["x/y"], np.ones(3))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", shape=(1 << 40,), chunks=(1024,))
    with pytest.raises(ValueError, match=r"b\.h5.* x .*\(1099511627776,\)"):
        read_checkpoint(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        outside = [(str(tmp_path / "a.h5"), 0, 16)]
        file.create_dataset("x", shape=(2,), dtype="f8", external=outside)
    with pytest.raises(ValueError, match=r"c\.h5.* x "):
        read_checkpoint(tmp_path / "c.h5")
    (tmp_path / "d.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"d\.h5.*HDF5"):
        read_checkpoint(tmp_path / "d.h5")


def flax_file(path, tree):
    """Write a tree in the layout of Flax: extension 1 is (shape, name of the type, bytes)."""
    msgpack = pytest.importorskip("msgpack", reason="reads Flax files: pip install msgpack")

    def extension(array):
        content = (array.shape, array.dtype.name, array.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    path.write_bytes(msgpack.packb(tree, default=extension, use_bin_type=True))
    return path


def test_flax_file_is_read_with_whole_and_chunked_arrays(tmp_path):
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
    entries = read_checkpoint(flax_file(tmp_path / "a.msgpack", tree))
    assert set(entries) == {"params/Dense_0/kernel", "params/Dense_0/bias", "step", "large"}
    np.testing.assert_array_equal(entries["params/Dense_0/kernel"], whole[0])
    np.testing.assert_array_equal(entries["large"], whole)
    assert entries["step"] is None


@pytest.mark.peers
def test_flax_file_written_by_flax_is_read(tmp_path):
    serialization = peer("flax.serialization")
    import jax.numpy as jnp

    array = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    tree = {"a": {"b": array}, "c": jnp.asarray(array, "bfloat16"), "d": np.float32(2)}
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    entries = read_checkpoint(tmp_path / "a.msgpack")
    np.testing.assert_array_equal(entries["a/b"], array)
    np.testing.assert_array_equal(entries["c"], np.asarray(tree["c"], "float32"))
    assert entries["d"] == 2


def test_flax_file_with_damaged_bytes_raises(tmp_path):
    path = flax_file(tmp_path / "a.msgpack", {"a": np.zeros((4, 4))})
    content = path.read_bytes()
    lies = content.replace(b"\x92\x04\x04", b"\x92\x04\x7f")
    objects = content.replace(b"\xa7float64", b"\xa7object0")
    assert content not in (lies, objects)
    for broken in (content[:-5], b"", b"\x01", b"\xff" * 40, b"\x81" * 5000, lies, objects):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.msgpack"):
            read_checkpoint(path)


def test_safetensors_file_is_read_and_damage_raises(tmp_path):
    files = pytest.importorskip(
        "safetensors.numpy", reason="reads safetensors: pip install safetensors"
    )
    files.save_file({"a": np.arange(6, dtype=np.float16)}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "a.safetensors")["a"], np.arange(6))
    content = (tmp_path / "a.safetensors").read_bytes()
    for broken in (content[:-3], content[:20], b"", b"\xff" * 64):
        (tmp_path / "b.safetensors").write_bytes(broken)
        with pytest.raises(ValueError, match=r"b\.safetensors"):
            read_checkpoint(tmp_path / "b.safetensors")


def safetensors_file(path, dtype, shape, content):
    """Write a file of one tensor, `x`, with any header."""
    pytest.importorskip("safetensors", reason="reads safetensors: pip install safetensors")
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}
    header = json.dumps({"x": tensor, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    return path


def test_safetensors_bfloat16_values_are_read_exactly(tmp_path):
    """The file contains each of the 65,536 bfloat16 values."""
    halves = np.arange(1 << 16, dtype="<u2")
    path = safetensors_file(tmp_path / "a.safetensors", "BF16", [256, 256], halves.tobytes())
    found = read_checkpoint(path)["x"]
    assert found.dtype == np.float32 and found.shape == (256, 256)
    np.testing.assert_array_equal(found.ravel().view(np.uint32) >> 16, halves)
    assert found[0x3F, 0x80] == 1.0 and found[0xC0, 0x20] == -2.5 and np.isnan(found[-1, -1])


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "message"),
    [
        ("F8_E4M3", [8], 8, "F8_E4M3"),
        ("BF16", [8], 8, r"a\.safetensors"),
        ("BF16", [1 << 62, 1 << 62], 8, r"a\.safetensors"),
        ("F33", [8], 8, r"a\.safetensors"),
    ],
)
def test_safetensors_with_a_false_header_raises(tmp_path, dtype, shape, size, message):
    path = safetensors_file(tmp_path / "a.safetensors", dtype, shape, bytes(size))
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)["x"]


def test_checkpoint_index_joins_its_shards_and_bad_indexes_raise(tmp_path):
    np.savez(tmp_path / "one.npz", a=np.arange(3))
    np.savez(tmp_path / "two.npz", b=np.arange(4))
    index = tmp_path / "model.npz.index.json"
    index.write_text('{"weight_map": {"a": "one.npz", "b": "two.npz"}}')
    entries = read_checkpoint(index)
    assert set(entries) == {"a", "b"} and entries.origin == str(index)
    np.testing.assert_array_equal(entries["b"], np.arange(4))
    for text, message in (
        ('{"weight_map": {"a": "../one.npz"}}', r"'\.\./one\.npz'"),
        ('{"weight_map": {"a": "model.npz.index.json"}}', "'model.npz.index.json'"),
        ('{"weight_map": {"a": "three.npz"}}', "checkpoint=.*three.npz"),
        (json.dumps({"weight_map": {"a": str(tmp_path / "one.npz")}}), f"'{tmp_path}/one"),
        ('{"weight_map": {"a": ".."}}', r"'\.\.'"),
        ('{"weight_map": {"a": ""}}', "''"),
        ('{"weight_map": {"a": 3}}', "checkpoint=.*/3'"),
        ('{"weight_map": {"a": "one.npz", "c": "one.npz"}}', "one.npz .* c$"),
        ('{"weight_map": {"b": "one.npz"}}', "one.npz .* a, b$"),
        ('{"weight_map": 3}', "AttributeError"),
        ("[" * 100_000, "RecursionError"),
        ("{}", "KeyError"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_checkpoint(index)


def keras_parts(folder, max_shard_size=2.4e-5):
    """Save a model by Keras as shards and as one file. Return the index, the file and the model."""
    model = randomise(create_model("vit_pico8", classes=5))
    model.save_weights(folder / "a.weights.json", max_shard_size=max_shard_size)
    model.save_weights(folder / "a.weights.h5")
    return folder / "a.weights.json", folder / "a.weights.h5", model


@pytest.mark.parametrize("max_shard_size", [2.4e-5, 5e-5, 1.0])
def test_sharded_keras_weights_are_read_as_the_weights_in_one_file(tmp_path, max_shard_size):
    index, file, _ = keras_parts(tmp_path, max_shard_size)
    found, wanted = read_checkpoint(index), read_checkpoint(file)
    assert len(list(tmp_path.glob("a_*"))) == len(parts_of("test", index))
    assert (len(parts_of("test", index)) > 1) == (max_shard_size < 1)
    assert set(found) == set(wanted) and found.origin == str(index)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_sharded_keras_weights_with_a_wrong_index_raise(tmp_path):
    import h5py

    index, _, _ = keras_parts(tmp_path)
    said = json.loads(index.read_text())
    group, (first, second, *_, last) = "/layers/dense/vars", parts_of("test", index)

    def refuse(message, **changes):
        index.write_text(json.dumps({"weight_map": {**said["weight_map"], **changes}}))
        with pytest.raises(ValueError, match=message):
            read_checkpoint(index)

    refuse(rf"{second}.*{group}", **{group: [second]})
    refuse(f"ValueError.*{group}", **{group: []})
    refuse("'../other.weights.h5'", **{group: "../other.weights.h5"})
    refuse("'a.weights.json'", **{group: ["a.weights.json"]})
    refuse("checkpoint=.*gone.weights.h5", **{group: [last, "gone.weights.h5"]})
    with h5py.File(tmp_path / second, "a") as file:
        file["layers/patch_embedding/projection/vars/0"] = np.zeros(3)
    patches = "/layers/patch_embedding/projection/vars"
    refuse(f"{second}.*{patches}")
    refuse(r" twice.*projection/vars/0", **{patches: [first, second]})


def write_chunk(path, content, chunks=1024, name="x"):
    """Write an array of 1024 floats as one gzip chunk with any content."""
    import h5py

    settings = {"shape": (1024,), "dtype": "f4", "chunks": (chunks,), "compression": "gzip"}
    with h5py.File(path, "a") as file:
        file.create_dataset(name, **settings).id.write_direct_chunk((0,), content)
    return path


def unfinished(content):
    """Return a gzip stream without its end."""
    stream = zlib.compressobj()
    return stream.compress(content) + stream.flush(zlib.Z_SYNC_FLUSH)


BYTES = np.random.default_rng(0).bytes(5000)
WHOLE = zlib.compress(BYTES[:4096])


def damaged_chunks():
    return {
        "cut": WHOLE[:-200],
        "noise": b"\x00" * 50,
        "short": zlib.compress(BYTES[:4000]),
        "long": zlib.compress(BYTES),
        "long_by_one": zlib.compress(BYTES[:4097]),
        "long_zeros": zlib.compress(bytes(4097)),
        "stuffed": WHOLE + b"x",
        "twice": WHOLE + WHOLE,
        "no_checksum": WHOLE[:-4],
        "wrong_checksum": WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
        "unfinished": unfinished(BYTES[:4096]),
        "bomb": zlib.compress(bytes(400 << 20)),
    }


def test_h5_damaged_gzip_chunks_raise(tmp_path):
    """HDF5 itself reads some of these chunks.

    HDF5 1.14.6 unpacks the bomb to 400 MB. It drops the bytes behind a stream or a whole chunk, and
    fills a short chunk with bytes of its memory. It refuses the other chunks.
    """
    files = [write_chunk(tmp_path / f"{name}.h5", x) for name, x in damaged_chunks().items()]
    for file, outcome in zip(files, attack("tests.bounds:read", *files), strict=True):
        outcome.is_refused(rf"x of .*{file.name}")
    np.testing.assert_array_equal(
        read_checkpoint(write_chunk(tmp_path / "whole.h5", WHOLE))["x"].tobytes(), BYTES[:4096]
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_h5_gzip_chunks_written_by_h5py_are_read_unchanged(tmp_path, shuffle):
    import h5py

    array = np.arange(35 * 11, dtype="f4").reshape(35, 11)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=array, chunks=(8, 4), compression="gzip", shuffle=shuffle)
        file.create_dataset("y", data=array, chunks=(8, 4))
        file.create_dataset("z", data=array, chunks=(8, 4), compression="lzf")
    with pytest.raises(ValueError, match=r"z .*\[32000\]"):
        read_checkpoint(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["z"]
    found = read_checkpoint(tmp_path / "a.h5")
    np.testing.assert_array_equal(found["x"], array)
    np.testing.assert_array_equal(found["y"], array)


@pytest.mark.parametrize("chunks", [None, (1 << 20,)])
def test_h5_datasets_without_stored_data_raise(tmp_path, chunks):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(1 << 29,), dtype="f4", chunks=chunks)
        file.create_dataset("y", shape=(32, 10**7), dtype="f4", compression="gzip")
    with Bounds(), pytest.raises(ValueError, match=r"x .*\(536870912,\)"):
        read_checkpoint(tmp_path / "a.h5")


def many_chunks(path, count):
    """Write a dataset of compressed chunks of one number each."""
    import h5py

    with h5py.File(path, "w", libver="earliest") as file:
        settings = {"shape": (count,), "dtype": "f4", "chunks": (1,), "compression": "gzip"}
        made, content = file.create_dataset("x", **settings).id, zlib.compress(bytes(4))
        for index in range(count):
            made.write_direct_chunk((index,), content)
    return path


def test_h5_dataset_with_too_many_chunks_raises(tmp_path, monkeypatch):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(5_000_000,), dtype="f4", chunks=(1,), compression="gzip")
    with Bounds(), pytest.raises(ValueError, match=r" x .*\(5000000,\) .*\(1,\)"):
        read_checkpoint(tmp_path / "a.h5")
    many_chunks(tmp_path / "b.h5", 40)
    assert read_checkpoint(tmp_path / "b.h5")["x"].shape == (40,)
    monkeypatch.setattr(hdf5, "MOST_CHUNKS", 39)
    with pytest.raises(ValueError, match=" 39 .* x .*40"):
        read_checkpoint(tmp_path / "b.h5")


def test_h5_dataset_of_many_chunks_is_read_in_linear_time(tmp_path):
    """HDF5 visits n chunks to find the n-th chunk: 40,000 chunks once took a minute."""
    path = many_chunks(tmp_path / "a.h5", 40_000)
    (outcome,) = attack("tests.bounds:read", path)
    assert outcome.error == "NoneType" and outcome.seconds < 15, outcome


def test_h5_datasets_of_unsupported_types_raise_and_name_the_type(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("empty", data=h5py.Empty("f4"))
        file.create_dataset("complex", data=np.ones(3, "c8"))
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, space)
    found = read_checkpoint(tmp_path / "a.h5")
    for name in ("empty", "time"):
        with pytest.raises(ValueError, match="empty|numpy"):
            found[name]
    entries = augreg_entries() | {"head/bias": found["complex"]}
    refused("head/bias .*complex64", build("augreg", ENTRIES), "augreg", entries)


@pytest.mark.parametrize("is_empty", [False, True])
def test_torch_file_of_nested_dictionaries_whose_number_doubles_at_every_level_raises(
    tmp_path, is_empty
):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    tree = {} if is_empty else {"x": torch.zeros(1)}
    for _ in range(30):
        tree = {"a": tree, "b": tree}
    torch.save(tree, tmp_path / "a.pt")
    attack("tests.bounds:read", tmp_path / "a.pt")[0].is_refused(" 100000 ")


def test_flax_file_of_an_array_in_an_array_raises(tmp_path):
    msgpack = pytest.importorskip("msgpack", reason="reads Flax files: pip install msgpack")
    content = b""
    for _ in range(100):
        content = msgpack.packb(msgpack.ExtType(1, content))
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb({"a": msgpack.ExtType(1, content)}))
    (outcome,) = attack("tests.bounds:read", tmp_path / "a.msgpack")
    outcome.is_refused(r"a\.msgpack.*another array")


def test_torch_file_of_one_tensor_under_many_names_raises(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    tensor = torch.zeros(4 << 20, dtype=torch.float16)
    torch.save({f"x{i}": tensor for i in range(200)}, tmp_path / "a.pt")
    with Bounds(), pytest.raises(ValueError, match=r"a\.pt.*bomb"):
        read_checkpoint(tmp_path / "a.pt")
    torch.save({"one": tensor, "two": tensor}, tmp_path / "b.pt")
    assert read_checkpoint(tmp_path / "b.pt")["two"].shape == tensor.shape


def test_torch_file_with_two_zip_directories_gives_the_arrays_that_zipfile_reads(tmp_path):
    """Python and PyTorch must not read different archives out of one file."""
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    for name, value in (("one", 1.0), ("two", 2.0)):
        torch.save({"a": torch.full((4,), value)}, tmp_path / f"{name}.pt")
    one, two = (tmp_path / f"{name}.pt" for name in ("one", "two"))
    both = tmp_path / "both.pt"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with zipfile.ZipFile(both) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data/0")]
        seen = np.frombuffer(archive.read(name), np.float32)
    np.testing.assert_array_equal(read_checkpoint(both)["a"], seen)


def test_torch_files_with_flipped_bits_raise(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    torch.save({"a": torch.arange(4096.0)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(np.float32(77).tobytes() + np.float32(78).tobytes())] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt.*CRC"):
        read_checkpoint(tmp_path / "a.pt")


def test_torch_tensors_of_unsupported_kinds_raise_and_name_the_kind(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    rare = {
        "float8": torch.zeros(3).to(torch.float8_e4m3fn),
        "complex32": torch.zeros(3, dtype=torch.complex32),
        "meta": torch.zeros(3, device="meta"),
        "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "quantized": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    }
    for name, tensor in rare.items():
        torch.save({name: tensor, "a": torch.ones(2)}, tmp_path / f"{name}.pt")
        with pytest.raises(ValueError, match=f"{name}|unsupported"):
            found = read_checkpoint(tmp_path / f"{name}.pt")
            np.testing.assert_array_equal(found["a"], [1, 1])  # the other tensors can be read
            found[name]


def test_torchscript_archives_raise(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own warning about TorchScript
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt.*TorchScript"):
        read_checkpoint(tmp_path / "a.pt")


def test_flax_files_of_millions_of_empty_dictionaries_raise(tmp_path):
    pytest.importorskip("msgpack", reason="reads Flax files: pip install msgpack")
    count = 3 << 20
    for name, content in (
        ("list", b"\xdd" + struct.pack(">I", count) + b"\x80" * count),
        ("lists", b"\xdc\xff\xff" + (b"\xdc\x00\x40" + b"\x80" * 64) * 0xFFFF),
    ):
        (tmp_path / f"{name}.msgpack").write_bytes(b"\x81\xa1a" + content)
    files = [tmp_path / f"{name}.msgpack" for name in ("list", "lists")]
    for file, outcome in zip(files, attack("tests.bounds:read", *files), strict=True):
        outcome.is_refused(rf"{file.stem}\.msgpack.*100000")


def test_checkpoint_with_a_wrong_suffix_is_read_by_its_content(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3))
    (tmp_path / "a.npz").rename(tmp_path / "weights")
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "weights")["a"], np.arange(3))
    with pytest.raises(ValueError, match="predict: .*checkpoint=.*none'"):
        read_checkpoint(tmp_path / "none", "predict")
    with pytest.raises(ValueError, match="class int"):
        read_checkpoint(3)


def test_load_compares_shapes_with_the_model_before_it_reads_an_array(tmp_path, monkeypatch):
    """A file of zeros may unpack to twenty times its size."""
    model, reads = build("augreg", ENTRIES), []
    wide = "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"
    path = npz(tmp_path / "a.npz", **ENTRIES | {wide: np.zeros((32, 10_000), np.float32)})
    read = Entry.read
    monkeypatch.setattr(Entry, "read", lambda self: reads.append(self.shape) or read(self))
    refused(r"block_1/mlp/hidden/kernel .*\(32, 10000\)", model, "augreg", path)
    assert reads == []
    load(model, "augreg", npz(tmp_path / "b.npz", **ENTRIES))
    assert {*reads} == {array.shape for array in ENTRIES.values()}


def torch_file(path, entries):
    torch = pytest.importorskip("torch", reason="reads PyTorch files: pip install torch")
    torch.save({name: torch.as_tensor(array) for name, array in entries.items()}, path)


def h5_file(path, entries):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in entries.items():
            file[name] = array


def tensors_file(path, entries):
    files = pytest.importorskip(
        "safetensors.numpy", reason="reads safetensors: pip install safetensors"
    )
    files.save_file(entries, path)


WRITERS = {
    "a.npz": lambda path, entries: np.savez(path, **entries),
    "a.safetensors": tensors_file,
    "a.h5": h5_file,
    "a.pt": torch_file,
    "a.msgpack": flax_file,
}


@pytest.mark.parametrize("name", WRITERS)
def test_checkpoint_replaced_after_its_header_is_read_gives_the_old_arrays(name, tmp_path):
    """Shapes are compared with the model before arrays are read. Both must come from one file."""
    path, other = tmp_path / name, tmp_path / "other" / name
    other.parent.mkdir()
    WRITERS[name](path, {"x": np.arange(6.0), "y": np.ones(3)})
    WRITERS[name](other, {"x": np.zeros(6), "y": np.zeros((1000, 3))})
    found = read_checkpoint(path)
    os.replace(other, path)
    np.testing.assert_array_equal(found["x"], np.arange(6.0))
    np.testing.assert_array_equal(found["y"], np.ones(3))
