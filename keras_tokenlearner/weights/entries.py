import numpy as np

from keras_tokenlearner.weights.formats import listed


class Entries:
    """Entries of a checkpoint by the names of its source, and which of them were used.

    Checkpoints keep the same network under various prefixes ("params/", "vit.", "module."). The
    prefix is the part before the source's `anchor`, a name in each of its files. Names with the
    prefix are given without it, others in full.

    Args:
        owner: String, who asks, for error messages.
        checkpoint: A `Checkpoint`.
        anchors: Names, one of which the checkpoint must hold once.

    Raises:
        ValueError: If the checkpoint holds no anchor, or several.
    """

    def __init__(self, owner, checkpoint, anchors):
        self.owner = owner
        self.prefix = self._find_prefix(checkpoint, anchors)
        self._full = {name.removeprefix(self.prefix): name for name in checkpoint}
        self._checkpoint = checkpoint
        self._taken = set()
        # Entries without the prefix belong to other networks and are ignored.
        self.outside = {name for name in checkpoint if not name.startswith(self.prefix)}

    def _find_prefix(self, checkpoint, anchors):
        found = {
            name.removesuffix(anchor)
            for name in checkpoint
            for anchor in anchors
            if name.endswith(anchor) and (name == anchor or name[-len(anchor) - 1] in "./")
        }
        if len(found) == 1:
            return found.pop()
        if found:
            raise ValueError(
                f"{self.owner}: {checkpoint.origin} holds several networks, under "
                f"{sorted(found)}; pass a mapping with the entries of one"
            )
        raise ValueError(
            f"{self.owner}: {checkpoint.origin} is of another architecture or source: it has no "
            f"entry {' or '.join(anchors)}. It holds {listed(sorted(checkpoint)) or 'nothing'}"
        )

    def __contains__(self, name):
        return name in self._full

    def __iter__(self):
        return iter(self._full)

    def full_name(self, name):
        """Return the name that an entry has in the checkpoint."""
        return self._full[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an entry, which is known before it is read."""
        return self._checkpoint.entries[self._full[name]].shape

    def take(self, name: str) -> np.ndarray:
        """Return an entry as float32 and count it as used, or raise if it is no number."""
        full = self._full[name]
        entry = self._checkpoint.entries[full]
        if not entry.is_float:
            kind = entry.problem or f"an array of {entry.dtype}"
            raise ValueError(f"{self.owner}: {full} must be an array of floats, and is {kind}")
        if not entry.shape or 0 in entry.shape:
            raise ValueError(f"{self.owner}: {full} has shape {entry.shape} and holds no weights")
        array = entry.read().astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise ValueError(f"{self.owner}: {full} holds values that are not finite")
        self._taken.add(name)
        return array

    def unused(self) -> list[str]:
        """Return the names, without prefix, that were not taken."""
        return [name for name in self._full if name not in self._taken]
