"""Comparison of the file with the model before any weight is assigned."""

from keras_tokenlearner.weights.formats import listed
from keras_tokenlearner.weights.source import BOTH, ZEROS


def check_head(owner, arrays, layout, entries, recipe):
    """Raise `ValueError` with the fix if the file's head does not fit the model."""
    kernel = layout.variables.get("head/kernel")
    if kernel is None or "head/kernel" not in arrays:
        return
    between = [name for name in entries.unused() if name.startswith(recipe.head_only)]
    if between:
        raise ValueError(
            f"{owner}: the file's head follows layers that this model lacks, "
            f"{listed(between)}; pass head='drop' or head='reset'"
        )
    array, origin = arrays["head/kernel"]
    if array.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"{owner}: {kernel.path} of the model has shape {tuple(kernel.shape)}, {origin} of the "
            f"file gives {array.shape}; build the model with classes={array.shape[-1]}, or pass "
            "head='drop' or head='reset'"
        )


def match(owner, arrays, layout, entries, recipe, head, partial):
    """Remove arrays without a variable in the model, and find missing ones.

    Returns:
        The names of the unused entries, the paths of the variables that are left as they are, and
        the names of the added layers of which the file has nothing.

    Raises:
        ValueError: If a shape differs, or the architectures do and `partial` does not allow it.
    """
    variables = layout.variables
    homeless = {
        path: arrays[path].origin
        for path in arrays
        if path not in variables or (head != "keep" and path.startswith("head/"))
    }
    for path in homeless:
        del arrays[path]
    _check_shapes(owner, arrays, variables)
    left = [path for path in variables if path not in arrays]
    filled = {path.split("/")[0] for path in arrays}
    unfilled = [layer.name for layer in layout.added if layer.name not in filled]
    may_be_left = {*unfilled} if "head" in filled else {"head", *unfilled}
    missing = [path for path in left if path.split("/")[0] not in may_be_left]
    unknown = [
        entries.full_name(name)
        for name in entries.unused()
        if entries.full_name(name) not in entries.outside
        and not name.startswith((*recipe.ignored, *recipe.head_only))
    ]
    # A head that is not wanted, and the class token of a model that averages, may go.
    unknown += [
        origin
        for path, origin in homeless.items()
        if not path.startswith(("head/", "class_token/"))
    ]
    if (missing or unknown) and not partial:
        raise ValueError(
            f"{owner}: model and file are of different architectures, so the model is unchanged. "
            f"Not in the file: {listed(missing) or 'nothing'}. Without a place in the model: "
            f"{listed(unknown) or 'nothing'}. Build the model otherwise (source_config helps), or "
            "pass partial=True to load the variables that fit"
        )
    unused = [entries.full_name(name) for name in entries.unused()]
    origins = [name for origin in homeless.values() for name in origin.split(BOTH)]
    unused += [name for name in dict.fromkeys(origins) if name != ZEROS]
    return unused, left, unfilled


def _check_shapes(owner, arrays, variables):
    wrong = [
        f"{path} of the model has shape {tuple(variables[path].shape)}, {origin} of the file gives "
        f"{array.shape}"
        for path, (array, origin) in arrays.items()
        if array.shape != tuple(variables[path].shape)
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{owner}: shapes differ, so the model is unchanged: {'; '.join(wrong[:3])}{more}"
        )
