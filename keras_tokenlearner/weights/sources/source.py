"""Sources of weights, and access to the entries of a checkpoint by the names of its source.

A source is a library, or a family of models, with its own names and layouts of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from keras_tokenlearner._errors import listed
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import Fields, FieldValue
from keras_tokenlearner.weights.formats.entries import Checkpoint

# Means and standard deviations of pixels in [0, 1]. `HALF` gives pixels in [-1, 1].
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NORMALIZATIONS = {"half": HALF, "imagenet": IMAGENET, "clip": CLIP}
ZEROS = "zeros"  # origin of a bias that the file's layer lacks
ONES = "ones"  # origin of a scale that the blocks of the file lack
# The origins of arrays that are not in the file, with the reason for their values.
FILLED = {
    ZEROS: "zeros, because the layer in the file has no bias",
    ONES: "ones, because the blocks in the file do not scale this layer",
}
BOTH = " and "  # joins the origins of two entries


class Named(NamedTuple):
    """An array in the layout of a variable of this package, and the name of its entry."""

    array: np.ndarray
    origin: str


Arrays = dict[str, Named]


@dataclass(frozen=True)
class Source:
    """The rule that converts checkpoints of one source to weights of this package.

    Attributes:
        convert: Function of `Entries`. It returns a dictionary from paths of variables to `Named`
            arrays. Kernels and biases of an attention may have heads and channels as one axis.
            A "positions/table" of shape (N, C) includes the file's positions of class token and
            registers. A table of shape (H, W, C) or (T, H, W, C) has no positions of these tokens.
            The j-th TokenLearner and TokenFuser are "token_learner_{j}" and "token_fuser_{j}".
        anchors: Names of entries. Every checkpoint of the source has at least one of these names.
        marks: Parts of names. A checkpoint of the source has all these parts in its names.
        alien: Parts of names. A checkpoint of the source has none of these parts in its names.
        proof: Parts of names that distinguish the source from others with the same marks.
        ranks: Ranks of the anchors, such as 4 for patches of images and 5 for patches of videos;
            empty for any.
        config: Fields of `VisionTransformerConfig` that the source fixes for every file.
        choices: Fields that the source leaves open, and their usual values. A config.json or an
            argument states them. `"normalization"` is the mean and std of pixels.
        conv_learner: Further fields of files with a TokenLearner with convolutions.
        gated_mlp: Further fields of files with gated MLPs.
        wide_head: Further fields of files whose head reads two tokens.
        classifier: Further fields of files with a head.
        pooled_norm: Further fields of files whose last norm follows the pooling.
        without_norm: Further fields of files without head and last norm.
        resize: Method by which the source resizes positions, from `weights.positions`.
        resize_without_registers: Method for files without register tokens, if it differs.
        normalization: Key of `NORMALIZATIONS` for the pixels of all models of the source. `None` if
            the models differ.
        ignored: Starts of the names of entries that are not needed.
        head_only: Starts of the names of entries between the features and the head.
    """

    convert: Callable[[Entries], Arrays]
    anchors: tuple[str, ...]
    marks: tuple[str, ...] = ()
    alien: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    config: Fields = field(default_factory=dict)
    choices: Mapping[str, tuple[FieldValue, ...]] = field(default_factory=dict)
    conv_learner: Fields = field(default_factory=dict)
    gated_mlp: Fields = field(default_factory=dict)
    wide_head: Fields = field(default_factory=dict)
    classifier: Fields = field(default_factory=dict)
    pooled_norm: Fields = field(default_factory=dict)
    without_norm: Fields = field(default_factory=dict)
    resize: str = "bicubic_antialias"
    resize_without_registers: str | None = None
    normalization: str | None = None
    ignored: tuple[str, ...] = ()
    head_only: tuple[str, ...] = ()


class Entries:
    """The entries of a checkpoint by the names of its source, and a record of the used entries.

    Checkpoints keep the same network under various prefixes ("params/", "vit.", "module."). The
    prefix is the part of a name before an anchor. The prefix is removed from names. Names without
    the prefix stay unchanged.

    Args:
        owner: String, the function that the user called, for error messages.
        checkpoint: A `Checkpoint`.
        anchors: Names of entries. The checkpoint must have at least one of these names, and only
            one prefix before these names.
        reads: Boolean, whether `take` reads arrays. Otherwise it returns zeros of the same shapes,
            which take no memory.

    Raises:
        ValueError: If the checkpoint has no anchor, or anchors under several prefixes.
    """

    def __init__(
        self, owner: str, checkpoint: Checkpoint, anchors: Iterable[str], reads: bool = True
    ) -> None:
        self.owner, self.reads = owner, reads
        self.prefix = self._find_prefix(checkpoint, tuple(anchors))
        self._full = {name.removeprefix(self.prefix): name for name in checkpoint}
        self._checkpoint = checkpoint
        self._taken: set[str] = set()
        # An unused entry without the prefix is no error, because it may be of another network.
        self.outside = {name for name in checkpoint if not name.startswith(self.prefix)}

    def _find_prefix(self, checkpoint: Checkpoint, anchors: tuple[str, ...]) -> str:
        found = {
            name.removesuffix(anchor)
            for name in checkpoint
            for anchor in anchors
            if ends_with(name, (anchor,))
        }
        if len(found) == 1:
            return found.pop()
        if found:
            raise ValueError(
                f"{self.owner}: {checkpoint.origin} contains several networks, with the prefixes "
                f"{sorted(found)}; pass a mapping with the entries of one network"
            )
        raise ValueError(
            f"{self.owner}: {checkpoint.origin} must have an entry {' or '.join(anchors)}; pass "
            "another `source`, or another checkpoint. "
            f"Received: entries {listed(sorted(checkpoint)) or '(none)'}"
        )

    def __contains__(self, name: str) -> bool:
        return name in self._full

    def __iter__(self) -> Iterator[str]:
        return iter(self._full)

    def full_name(self, name: str) -> str:
        """Return the name that an entry has in the checkpoint."""
        return self._full[name]

    def skip_empty(self, name: str) -> bool:
        """Return whether a float entry has no tokens, as with shape (1, 0, C).

        If so, mark the entry as used.
        """
        entry = self._checkpoint.entries[self._full[name]]
        if not entry.is_float or 0 not in (entry.shape or ())[:-1]:
            return False
        self._taken.add(name)
        return True

    def take(self, name: str, scalar: bool = False) -> np.ndarray:
        """Mark an entry of floats as used, and return it as a float32 array.

        Args:
            name: Name of the entry, without the prefix.
            scalar: Boolean, whether the entry may be an array without axes.
        """
        full = self._full[name]
        entry = self._checkpoint.entries[full]
        if not entry.is_float:
            kind = entry.problem or f"an array of {entry.dtype}"
            raise ValueError(
                f"{self.owner}: the entry {full} must be an array of floats. Received: {kind}"
            )
        if entry.shape is None or 0 in entry.shape or not (entry.shape or scalar):
            raise ValueError(
                f"{self.owner}: the entry {full} must have axes and values. "
                f"Received: an array of shape {entry.shape}"
            )
        self._taken.add(name)
        if not self.reads:
            return np.broadcast_to(np.float32(0), entry.shape)
        array = entry.read().astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self.owner}: the entry {full} must be finite. Received: NaN or infinite values"
            )
        return array

    def unused(self) -> list[str]:
        """Return the names of the entries that `take` and `skip_empty` did not mark as used.

        The names lack `prefix`.
        """
        return [name for name in self._full if name not in self._taken]


def fill_biases(arrays: Arrays, start: str = "") -> None:
    """Add biases of zeros to the kernels in `arrays` that have no bias, except to the head's.

    Only paths that begin with `start` get biases.
    """
    kernels = [path for path in arrays if path.startswith(start) and path.endswith("/kernel")]
    for path in [path for path in kernels if path != names.HEAD_KERNEL]:
        layer, shape = path.removesuffix("/kernel"), arrays[path].array.shape
        # The kernels of queries, keys and values have axes for heads and for channels.
        has_heads = layer.endswith(("/query", "/key", "/value"))
        zeros = np.zeros(shape[1:] if has_heads else shape[-1:], np.float32)
        arrays.setdefault(f"{layer}/bias", Named(zeros, ZEROS))


def remove_doubtful(arrays: Arrays) -> None:
    """Remove filled-in zeros or ones of a block if the file has this array for another block.

    The file is then incomplete: `match` reports the removed array as missing.
    """
    there = {_any_block(path) for path, (_, origin) in arrays.items() if origin not in FILLED}
    for path in [path for path, (_, origin) in arrays.items() if origin in FILLED]:
        if names.block_index(path) is not None and _any_block(path) in there:
            del arrays[path]


def _any_block(path: str) -> str:
    return path if names.block_index(path) is None else path.partition("/")[2]


def ends_with(name: str, anchors: tuple[str, ...]) -> bool:
    """Return whether an entry has the name of an anchor, with or without a prefix."""
    return any(
        name.endswith(anchor) and (name == anchor or name[-len(anchor) - 1] in "./")
        for anchor in anchors
    )
