"""Recognises the source of a checkpoint by the names of its entries, from the table of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner._errors import listed
from keras_tokenlearner.weights.formats.entries import Checkpoint
from keras_tokenlearner.weights.sources.flax import AUGREG, SCENIC
from keras_tokenlearner.weights.sources.huggingface import (
    HUGGINGFACE_DEIT,
    HUGGINGFACE_DINOV2,
    HUGGINGFACE_DINOV3,
    HUGGINGFACE_VIT,
)
from keras_tokenlearner.weights.sources.huggingface_clip import (
    HUGGINGFACE_AIMV2,
    HUGGINGFACE_CLIP,
    HUGGINGFACE_SIGLIP,
    HUGGINGFACE_SIGLIP2,
)
from keras_tokenlearner.weights.sources.huggingface_videos import (
    HUGGINGFACE_VIDEOMAE,
    HUGGINGFACE_VIVIT,
    HUGGINGFACE_VJEPA2,
)
from keras_tokenlearner.weights.sources.keras_hub import KERAS_HUB
from keras_tokenlearner.weights.sources.keras_hub_towers import (
    KERAS_HUB_DINOV3,
    KERAS_HUB_SIGLIP,
)
from keras_tokenlearner.weights.sources.own import OWN
from keras_tokenlearner.weights.sources.source import Source, ends_with
from keras_tokenlearner.weights.sources.timm import (
    DINOV2,
    META_DINOV3,
    TIMM,
    TIMM_DEIT,
    TORCHVISION,
)

SOURCES: dict[str, Source] = {
    "augreg": AUGREG,
    "scenic": SCENIC,
    "timm": TIMM,
    "timm_deit": TIMM_DEIT,
    "dinov2": DINOV2,
    "torchvision": TORCHVISION,
    "huggingface_vit": HUGGINGFACE_VIT,
    "huggingface_deit": HUGGINGFACE_DEIT,
    "huggingface_dinov2": HUGGINGFACE_DINOV2,
    "huggingface_dinov3": HUGGINGFACE_DINOV3,
    "huggingface_clip": HUGGINGFACE_CLIP,
    "huggingface_siglip": HUGGINGFACE_SIGLIP,
    "huggingface_siglip2": HUGGINGFACE_SIGLIP2,
    "huggingface_aimv2": HUGGINGFACE_AIMV2,
    "huggingface_vivit": HUGGINGFACE_VIVIT,
    "huggingface_videomae": HUGGINGFACE_VIDEOMAE,
    "huggingface_vjepa2": HUGGINGFACE_VJEPA2,
    "keras_hub": KERAS_HUB,
    "keras_hub_siglip": KERAS_HUB_SIGLIP,
    "keras_hub_dinov3": KERAS_HUB_DINOV3,
    "keras_tokenlearner": OWN,
}


def recognise(owner: str, checkpoint: Checkpoint, source: str | None) -> str:
    """Return `source`, or for `None` the source that the entries of a checkpoint identify.

    Raises:
        ValueError: If `source` is unknown or contradicts the entries. Also if it is `None` and the
            entries do not identify one source.
    """
    found = fitting_sources(checkpoint)
    if not found and _has(checkpoint, META_DINOV3, all):
        raise ValueError(
            f"{owner}: {checkpoint.origin} is a file of Meta's DINOv3; pass a file of timm or "
            "transformers. Examples are 'hf://timm/vit_small_patch16_dinov3.lvd1689m' and "
            "'hf://facebook/dinov3-vits16-pretrain-lvd1689m'. "
            f"Received: entries {listed(sorted(checkpoint))}, and source={source!r}"
        )
    numbered = any(name.startswith("layers/") for name in checkpoint)
    if not found and numbered and source in (None, "keras_tokenlearner"):
        raise ValueError(
            f"{owner}: {checkpoint.origin} is from an unknown source. If Keras saved these weights "
            "of our model, call create_model(NAME, weights=FILE) or load_weights(model, FILE). "
            f"Received: entries {listed(sorted(checkpoint))}, and source={source!r}"
        )
    if source is not None:
        check_choice(owner, "source", source, list(SOURCES))
        if found and source not in found:
            raise ValueError(
                f"{owner}: {checkpoint.origin} is from another source; pass "
                f"{' or '.join(map(repr, found))}. Received: source={source!r}"
            )
        parts = SOURCES[source].alien
        strange = [name for name in checkpoint if any(part in name for part in parts)]
        if strange:
            raise ValueError(
                f"{owner}: {checkpoint.origin} is from another source, since it has the entries "
                f"{listed(sorted(strange))}; pass another `source`. Received: source={source!r}"
            )
        return source
    # Of several sources that fit, choose the source whose `proof` the names contain. Otherwise
    # choose the only source that has no `proof`.
    proved = [name for name in found if _proves(SOURCES[name], checkpoint)]
    plain = [name for name in found if not SOURCES[name].proof]
    for names_left in (proved, plain, found):
        if len(names_left) == 1:
            return names_left[0]
    what = (
        f"may be from several sources; pass one of {found} as `source`, or before an address, as "
        f"in '{found[0]}:FILE'"
        if found
        else f"is from an unknown source; known sources are {list(SOURCES)}"
    )
    raise ValueError(
        f"{owner}: {checkpoint.origin} {what}. Received: entries "
        f"{listed(sorted(checkpoint)) or '(none)'}, and source=None"
    )


def fitting_sources(checkpoint: Checkpoint) -> list[str]:
    """Return the sources that fit the names and ranks of a checkpoint's entries."""
    return [name for name, recipe in SOURCES.items() if _fits(recipe, checkpoint)]


def _fits(source: Source, checkpoint: Checkpoint) -> bool:
    """Return whether a source fits the names and ranks of a checkpoint's entries."""
    anchors = [name for name in checkpoint if ends_with(name, source.anchors)]
    if not anchors or (source.alien and _has(checkpoint, source.alien, any)):
        return False
    ranks = {len(checkpoint.entries[name].shape or ()) for name in anchors}
    if source.ranks and not ranks <= {*source.ranks}:
        return False
    return _has(checkpoint, source.marks, all)


def _proves(source: Source, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint has names of entries that only this source uses."""
    return bool(source.proof) and _has(checkpoint, source.proof, all)


def _has(
    checkpoint: Checkpoint, parts: tuple[str, ...], how: Callable[[Iterable[bool]], bool]
) -> bool:
    return how(any(part in name for name in checkpoint) for part in parts)
