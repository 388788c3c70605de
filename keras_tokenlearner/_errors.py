"""Error messages that start with the name of the function that the user called."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

# The function's name at the start of a message, possibly with its argument in parentheses:
# `create_model('vit_b16'): `.
_OWNER = re.compile(r"([A-Za-z_][\w.]*)(?:\(.*?\))?: ")


@contextlib.contextmanager
def errors_of(owner: str, **renamed: str) -> Iterator[None]:
    """Start the error messages of this package with `owner`, the function that the user called.

    Use this context around a call that passes the user's arguments on to another public function.
    Errors then name the outermost function. Errors of Keras and of the user's own code stay
    unchanged. `renamed` maps argument names of the inner function to argument names of `owner`.

    Example:

    >>> from keras_tokenlearner._checks import check_int
    >>> with errors_of("retrofit"):
    ...     check_int("VisionTransformerConfig", "at", -1, minimum=0)
    Traceback (most recent call last):
    ...
    ValueError: retrofit: `at` must be an integer of at least 0. Received: at=-1
    """
    try:
        yield
    except Exception as error:
        text = str(error.args[0]) if len(error.args) == 1 else ""
        found = _OWNER.match(text)
        if found and found[1] != owner.partition("(")[0] and _is_ours(found[1]):
            text = text[found.end() :]
            for inner, outer in renamed.items():
                text = text.replace(f"`{inner}`", f"`{outer}`", 1)
                text = text.replace(f"Received: {inner}=", f"Received: {outer}=", 1)
            error.args = (f"{owner}: {text}",)
        raise


def own_errors(function: Function) -> Function:
    """Decorate a function so that this package's errors start with the function's name.

    Example:

    >>> from keras_tokenlearner._checks import check_int
    >>> @own_errors
    ... def double(value):
    ...     return 2 * check_int("TokenLearner", "value", value)
    >>> double(-1)
    Traceback (most recent call last):
    ...
    ValueError: double: `value` must be an integer of at least 1. Received: value=-1
    """
    return errors_of(function.__name__)(function)


def has_owner(error: Exception) -> bool:
    """Return whether an error message starts with a name that this package defines.

    Example:

    >>> has_owner(RuntimeError("own_errors: failed")), has_owner(RuntimeError("failed"))
    (True, False)
    """
    found = _OWNER.match(str(error))
    return found is not None and _is_ours(found[1])


def _is_ours(name: str) -> bool:
    """Return whether this package defines a function, a class or a method named `name`."""
    first, _, method = name.partition(".")
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "keras_tokenlearner":
            value = vars(module).get(first)
            ours = str(getattr(value, "__module__", "")).startswith("keras_tokenlearner")
            if ours and (not method or hasattr(value, method)):
                return True
    return False


def first_line(error: Exception) -> str:
    """Return the first line of an error message, or the class name if there is no message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def listed(names: Iterable[str | int | tuple[int, ...]], most: int = 6) -> str:
    """Join up to `most` names, each cut to 120 characters, and state the number of other names."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name)[:120] for name in names[:most]) + more
