"""Parses addresses of weights on hubs, web servers and disks, with an optional source name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from keras_tokenlearner.presets.checkpoints import table
from keras_tokenlearner.weights import SOURCES

FORMS = (
    "'hf://ORG/NAME[@REVISION]', 'kaggle://OWNER/MODEL/FRAMEWORK/VARIATION', 'https://...', a "
    "local folder or file, or a file with its source, such as 'timm:FILE'"
)
_HF = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_KAGGLE = re.compile(r"kaggle://([\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(?:/\d+)?)")


@dataclass(frozen=True)
class Address:
    """The parts of an address of weights.

    Attributes:
        kind: `"hf"`, `"kaggle"`, `"https"` or `"path"`.
        place: Hugging Face repository, Kaggle handle, https address or path.
        revision: Branch, tag or commit of a Hugging Face repository, or `None`.
        source: Name of the source before the address, as in `"timm:FILE"`, or `None`.
    """

    kind: str
    place: str
    revision: str | None = None
    source: str | None = None


def parse_address(owner: str, text: str | os.PathLike[str]) -> Address:
    """Return the parts of an address.

    Args:
        owner: Name of the function that the user called, for error messages.
        text: An address, a path, or either of them after a source and a colon.

    Raises:
        ValueError: If the text is empty, or is an invalid address.

    Example:

    >>> parse_address("doctest", "hf://timm/vit_tiny_patch16_224.augreg_in21k@main").revision
    'main'
    """
    if not isinstance(text, (str, os.PathLike)) or not str(text):
        raise ValueError(
            f"{owner}: the address of weights must be {FORMS}. Received: address={text!r}"
        )
    text = str(text)
    source, _, rest = text.partition(":")
    if source in SOURCES and rest:
        inner = parse_address(owner, rest)
        return Address(inner.kind, inner.place, inner.revision, source)
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "hf":
        found = _HF.fullmatch(text)
        if found:
            return Address("hf", found[1], found[2])
    elif scheme == "kaggle":
        found = _KAGGLE.fullmatch(text)
        if found:
            return Address("kaggle", found[1])
    elif scheme in ("https", "http"):
        return Address("https", text)
    elif not scheme:
        return Address("path", os.path.expanduser(text))
    raise ValueError(f"{owner}: the address of weights must be {FORMS}. Received: address={text!r}")


def is_address(text: str | os.PathLike[str] | None) -> bool:
    """Return whether a text is a checkpoint name, an address of weights or an existing path.

    `FORMS` describes the addresses.

    The result is `True` for every `os.PathLike`, even if the path does not exist.
    """
    if isinstance(text, os.PathLike):
        return True
    if not isinstance(text, str):
        return False
    source, _, rest = text.partition(":")
    return (
        text in table()
        or "://" in text
        or (source in SOURCES and bool(rest))
        or os.path.exists(os.path.expanduser(text))
    )
