"""The report of a load: loaded, resized, adapted, left and reset variables."""

from __future__ import annotations

from dataclasses import dataclass

from keras_tokenlearner._errors import listed

_UNTRAINED = (
    "these layers are untrained, and later blocks were not trained on learned tokens. Fine-tune or "
    "distill the model: the paper's authors found that weights of a plain ViT alone do not help."
)


@dataclass(frozen=True)
class LoadReport:
    """The printable result of `load`: the loaded, changed and omitted variables.

    Attributes:
        model: Name of the model.
        source: Key of `SOURCES` for the library that named the entries, such as `"timm"`.
        origin: Where the weights came from: a path, or a phrase such as "a mapping".
        loaded: Dictionary from paths of variables to the names of their entries in the file.
        resized: Dictionary from paths of variables to the changes of their shape.
        adapted: Dictionary from paths of variables to the changes of their values.
        left: Paths of the variables that kept their values.
        reset: Paths of the variables that were initialised again.
        unused: Names of the entries without a variable in the model.
        added: Names of the layers that are not in a plain ViT and not in the file.
        differences: Settings that differ between model and checkpoint, with `check_settings=False`.
    """

    model: str
    source: str
    origin: str
    loaded: dict[str, str]
    resized: dict[str, str]
    adapted: dict[str, str]
    left: tuple[str, ...]
    reset: tuple[str, ...]
    unused: tuple[str, ...]
    added: tuple[str, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.left) + len(self.reset)
        lines = [
            f"{self.source} weights from {self.origin} in the model {self.model!r}: "
            f"{len(self.loaded)} of {total} variables loaded"
        ]
        for title, rows in (("resized", self.resized), ("adapted", self.adapted)):
            for what in dict.fromkeys(rows.values()):
                paths = [path for path in rows if rows[path] == what]
                lines.append(f"  {title:8} {listed(paths)}: {what}")
        for title in ("left", "reset", "unused"):
            found = getattr(self, title)
            if found:
                lines.append(f"  {title:8} {len(found)}: {listed(found)}")
        lines += [f"  differs  {what}" for what in self.differences]
        if self.added:
            lines.append(f"  note     {listed(self.added)}: {_UNTRAINED}")
        return "\n".join(lines)
