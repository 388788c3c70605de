"""Compares the class names of a model with other class names."""

from collections import Counter
from collections.abc import Sequence


def check_order(
    owner: str,
    name: str,
    names: Sequence[str] | None,
    others: Sequence[str] | None,
    place: str,
    fix: str,
) -> None:
    """Raise `ValueError` if two lists of class names have the same name at different indices.

    Names of only one list may be other words for the same classes. Upper and lower case are equal.
    Names that occur twice in a list are not compared.

    Args:
        owner: Name of the function that the user called, for error messages.
        name: Name of the argument with `names`.
        names: Names of the classes, or `None` if they are unknown.
        others: The names to compare with, or `None` if they are unknown. The strings of their
            indices are no names, but the default of data without names.
        place: Description of the place of `others`.
        fix: The fix that the message states.
    """
    if names is None or others is None:
        return
    ours, theirs = _indices(names), _indices(others)
    if all(one == str(index) for one, index in theirs.items()):
        return
    for one, index in ours.items():
        if theirs.get(one, index) != index:
            raise ValueError(
                f"{owner}: the classes of `{name}` must be in the order of {place}; {fix}. "
                f"Received: {names[index]!r} as class {index} of `{name}`, and as class "
                f"{theirs[one]} of {place}"
            )


def _indices(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each name that occurs once. The keys are in lower case."""
    folded = [str(name).casefold() for name in names]
    counts = Counter(folded)
    return {name: index for index, name in enumerate(folded) if counts[name] == 1}
