"""The type of values that a JSON file holds."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = str | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]
