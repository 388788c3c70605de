"""Weights of other libraries into our models: the one step that all sources share."""

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.weights import adapt
from keras_tokenlearner.weights.augreg import AUGREG
from keras_tokenlearner.weights.dinov2 import DINOV2
from keras_tokenlearner.weights.entries import Entries
from keras_tokenlearner.weights.formats import read_checkpoint
from keras_tokenlearner.weights.huggingface import (
    HUGGINGFACE_CLIP,
    HUGGINGFACE_DEIT,
    HUGGINGFACE_DINOV2,
    HUGGINGFACE_VIT,
)
from keras_tokenlearner.weights.keras_hub import KERAS_HUB
from keras_tokenlearner.weights.match import check_head, match
from keras_tokenlearner.weights.own import OWN
from keras_tokenlearner.weights.report import LoadReport
from keras_tokenlearner.weights.scenic import SCENIC
from keras_tokenlearner.weights.timm import TIMM, TIMM_DEIT

SOURCES = {
    "augreg": AUGREG,
    "scenic": SCENIC,
    "timm": TIMM,
    "timm_deit": TIMM_DEIT,
    "dinov2": DINOV2,
    "huggingface_vit": HUGGINGFACE_VIT,
    "huggingface_deit": HUGGINGFACE_DEIT,
    "huggingface_dinov2": HUGGINGFACE_DINOV2,
    "huggingface_clip": HUGGINGFACE_CLIP,
    "keras_hub": KERAS_HUB,
    "keras_tokenlearner": OWN,
}


def load(
    model,
    source,
    path_or_mapping,
    head="keep",
    grid=None,
    resize=None,
    normalization=None,
    embedding="central_frame",
    partial=False,
    check_settings=True,
):
    """Load weights of another library into one of our models, completely or not at all.

    The class token's position becomes part of the class token; a model that averages drops both.
    Models take pixels in [-1, 1] (or in [0, 255] with their preprocessing): where the source's
    take pixels of another normalisation, that is worked into the patch embedding.

    Args:
        model: A `keras.Model` that `create_model` or `VisionTransformer` built, with the
            settings that `source_config` gives.
        source: `"augreg"`, `"scenic"`, `"timm"`, `"timm_deit"`, `"dinov2"`, `"huggingface_vit"`,
            `"huggingface_deit"`, `"huggingface_dinov2"`, `"huggingface_clip"` (the vision tower),
            `"keras_hub"`, or `"keras_tokenlearner"` for one of our models, for example an image
            model into a video model.
        path_or_mapping: Path of a `.npz`, `.safetensors`, `.h5`, PyTorch or Flax (`.msgpack`) file,
            or of the `.index.json` of one in parts; a mapping of names to arrays, nested or flat;
            or a model of the source.
        head: `"keep"` loads the file's classifier, where it has one, `"drop"` leaves the model's
            as it is, `"reset"` initialises it again, for other classes.
        grid: `(H, W)` or `(T, H, W)` of the file's positions; by default a square.
        resize: `"bilinear"` with aligned corners, `"bicubic"`, or `"bicubic_antialias"`. Defaults
            to the source's method; Hugging Face's DINOv2 without registers uses `"bicubic"`.
        normalization: `(mean, std)` of the pixels, in [0, 1], that the file was trained on, or
            `"half"` (both 0.5), `"imagenet"` or `"clip"`. Defaults to the source's; models of timm
            differ in it: `"timm"` takes `"half"`, as AugReg's have, `"timm_deit"` `"imagenet"`.
        embedding: `"central_frame"` or `"inflate"`, how the patches of an image become tubelets.
        partial: Boolean, whether to continue although variables other than the head, or layers of a
            TokenLearner, are not in the file, or the file holds more blocks or unknown entries.
        check_settings: Boolean, whether to refuse a model with another activation or epsilon than
            the source's.

    Returns:
        A `LoadReport`; print it.

    Raises:
        ValueError: If the file is damaged or of another architecture, or a shape or a setting does
            not fit. The model is then unchanged.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> from keras_tokenlearner.weights import load, to_timm
    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(64, 64, 3))
    >>> report = load(student, "timm", to_timm(teacher), check_settings=False)
    >>> report.resized
    {'positions/table': '4x4 to 8x8, bicubic_antialias'}
    """
    owner = f"load({source!r})"
    check_choice("load", "source", source, list(SOURCES))
    check_choice(owner, "head", head, ("keep", "drop", "reset"))
    check_choice(owner, "embedding", embedding, ("central_frame", "inflate"))
    layout, recipe = Structure(owner, model), SOURCES[source]
    checkpoint = read_checkpoint(path_or_mapping, "load")
    entries = Entries(owner, checkpoint, recipe.anchors)
    arrays = recipe.convert(entries, layout.heads)
    adapt.name_added(arrays, layout)
    wanted = recipe.config | _shown(arrays, recipe)
    if head != "keep":
        wanted.pop("head_reads", None)
    differences = layout.disagreements(wanted)
    if differences and check_settings:
        raise ValueError(
            f"{owner}: the model is set otherwise than the source's: {'; '.join(differences)}. "
            f"Build it with **source_config({source!r}, path), or pass check_settings=False"
        )
    adapted = adapt.zeros(arrays)
    normalized = adapt.normalize(owner, arrays, normalization or recipe.normalization)
    folded = adapt.fold_positions(owner, arrays, layout, grid)
    for path, what in (normalized | folded).items():
        adapted[path] = f"{adapted[path]}; {what}" if path in adapted else what
    resized = adapt.inflate(arrays, layout, embedding)
    resized |= adapt.resize(arrays, layout, resize or recipe.resize)
    if head == "keep":
        check_head(owner, arrays, layout, entries, recipe)
    unused, left, added = match(owner, arrays, layout, entries, recipe, head, partial)
    # Nothing has been assigned so far, and nothing can fail from here on.
    loaded = {path: arrays[path] for path in layout.variables if path in arrays}
    for path, (array, _) in loaded.items():
        layout.variables[path].assign(array)
    reset = [path for path in left if head == "reset" and path.startswith("head/")]
    if reset:
        _reset(model.get_layer("head"))
    return LoadReport(
        model=model.name,
        source=source,
        origin=checkpoint.origin,
        loaded={path: origin for path, (_, origin) in loaded.items()},
        resized=resized,
        adapted={path: what for path, what in adapted.items() if path in loaded},
        left=tuple(path for path in left if path not in reset),
        reset=tuple(reset),
        unused=tuple(unused),
        added=tuple(added),
        differences=tuple(differences),
    )


def source_config(source, path_or_mapping=None):
    """Return the fields of `VisionTransformerConfig` that a model needs for a source's weights.

    Args:
        source: As for `load`.
        path_or_mapping: As for `load`. With it, the class token, register tokens, LayerScale,
            LayerNorm before the blocks, gates of the MLPs and the input of the head follow the
            file.

    Example:

    >>> source_config("dinov2")
    {'activation': 'gelu', 'layer_norm_epsilon': 1e-06}
    """
    check_choice("source_config", "source", source, list(SOURCES))
    recipe = SOURCES[source]
    if path_or_mapping is None:
        return dict(recipe.config)
    entries = Entries(
        f"source_config({source!r})", read_checkpoint(path_or_mapping), recipe.anchors
    )
    arrays = recipe.convert(entries, 1)
    config = recipe.config | {
        "class_token": "class_token/tokens" in arrays,
        "pre_norm": "pre_norm/gamma" in arrays,
    }
    if "register_tokens/tokens" in arrays:
        config["register_tokens"] = len(arrays["register_tokens/tokens"].array)
    if "block_0/self_attention_scale/gamma" in arrays:
        config["layer_scale"] = 1.0
    return config | _shown(arrays, recipe)


def source_classes(source, path_or_mapping):
    """Return how many classes the head of a source's file has, or `None` if it has no head."""
    recipe = SOURCES[source]
    entries = Entries(
        f"source_classes({source!r})", read_checkpoint(path_or_mapping), recipe.anchors
    )
    arrays = recipe.convert(entries, 1)
    return len(arrays["head/bias"].array) if "head/bias" in arrays else None


def parse(weights):
    """Return source and path of a `"source:path"`, or `(None, None)` if it is none."""
    source, _, path = str(weights).partition(":")
    return (source, path) if source in SOURCES and path else (None, None)


def _shown(arrays, recipe):
    """Return the config fields that MLPs, head, TokenLearners and TokenFusers of a file imply."""
    paths = {"".join(c for c in path if not c.isdigit()).strip("_") for path in arrays}
    config = {}
    if "block_/mlp/gate/kernel" in paths:
        config |= {"gated_mlp": True} | recipe.gated_mlp
    channels = arrays["norm/gamma"].array.size if "norm/gamma" in arrays else 0
    if "head/kernel" in arrays and len(arrays["head/kernel"].array) == 2 * channels:
        config |= recipe.wide_head
    if any(p.startswith("token_learner") and "/conv_/kernel" in p for p in paths):
        config |= {"token_attention": "conv"} | recipe.conv_learner
    elif any(p.startswith("token_learner") for p in paths):
        config |= {"token_attention": "mlp"}
    if any(p.startswith("token_fuser") for p in paths):
        config["fuser_beta"] = "mlp" if any("/blend/hidden" in p for p in paths) else "linear"
    return config


def _reset(layer):
    for variable, initializer in (
        (layer.kernel, layer.kernel_initializer),
        (layer.bias, layer.bias_initializer),
    ):
        variable.assign(initializer(variable.shape, dtype=variable.dtype))
