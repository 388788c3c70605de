import dataclasses
from dataclasses import dataclass
from typing import cast

from keras_tokenlearner._checks import (
    check_choice,
    check_heads,
    check_int,
    check_ints,
    check_positive,
    check_rate,
)
from keras_tokenlearner.models.config_fields import Fields
from keras_tokenlearner.models.config_rules import Readers, check_unread

PARTS = (
    "conv2d",
    "conv1d",
    "spatial",
    "temporal",
    "temporal_vector",
    "joint",
    "mlpmixer",
    "tokenlearner",
    "broadcast",
    "prior_broadcast",
    "fuser",
)
_PLAIN = ("conv2d", "conv1d")  # the parts of units that are not replaced
_OVER_TOKENS = {"tokenlearner", "broadcast", "fuser"}  # parts with attention between tokens


@dataclass(frozen=True)
class X2Plus1DConfig:
    """The choices that decide the graph of an X(2+1)D network and of its bottleneck modules.

    The defaults are X(2+1)D-M, with the sizes of X3D-M. Another `unit` replaces the two
    convolutions in some units of the last stage (Figure 9 of the paper).

    Attributes:
        unit: The module of the replaced units: parts joined by `"+"`. The paper's final module is
            `"conv2d+tokenlearner"`. See `keras_tokenlearner.models.bottleneck_module`.
        replaced: Units of the last stage with this module, counted from 0; `None` for the last
            three. The paper does not state these units, but its costs fit three of seven units.
        attention: `"vector"` or `"multi_head"`, between the tokens of the parts `tokenlearner`,
            `broadcast` and `fuser`.
        num_tokens: Tokens of each frame (S) of `tokenlearner`.
        num_heads: Heads of multi-head attention; they must divide `key_dim` and the channels
            inside the units of the last stage.
        key_dim: Channels of the queries of multi-head attention, all heads together.
        stem_channels: Channels after the stem.
        stage_channels: Output channels of the units of each stage.
        inner_channels: Channels inside the units of each stage, between the 1x1x1 convolutions.
        stage_units: Units of each stage.
        head_channels: Channels of the layer between the average and the classifier.
        dropout_rate: Rate before the classifier.
        batch_norm_epsilon: Epsilon of every batch normalisation.
        batch_norm_momentum: Momentum of every batch normalisation.

    Raises:
        ValueError: If a value is out of range, or two values contradict each other. Also if a
            value has no effect, such as `num_tokens` without the part `tokenlearner`.

    Example:

    >>> X2Plus1DConfig(unit="conv2d+tokenlearner").replaced_units
    (4, 5, 6)
    """

    unit: str = "conv2d+conv1d"
    replaced: tuple[int, ...] | None = None
    attention: str = "vector"
    num_tokens: int = 8
    num_heads: int = 8
    key_dim: int = 128
    stem_channels: int = 24
    stage_channels: tuple[int, ...] = (24, 48, 96, 192)
    inner_channels: tuple[int, ...] = (54, 108, 216, 432)
    stage_units: tuple[int, ...] = (3, 5, 11, 7)
    head_channels: int = 2048
    dropout_rate: float = 0.5
    batch_norm_epsilon: float = 1e-5
    batch_norm_momentum: float = 0.9

    def __post_init__(self) -> None:
        owner = "X2Plus1DConfig"
        for name in ("num_tokens", "num_heads", "key_dim", "stem_channels", "head_channels"):
            object.__setattr__(self, name, check_int(owner, name, getattr(self, name)))
        for name in ("stage_channels", "inner_channels", "stage_units"):
            self._check_sizes(owner, name)
        check_choice(owner, "attention", self.attention, ("vector", "multi_head"))
        for name in ("dropout_rate", "batch_norm_momentum"):
            object.__setattr__(self, name, check_rate(owner, name, getattr(self, name)))
        epsilon = check_positive(owner, "batch_norm_epsilon", self.batch_norm_epsilon)
        object.__setattr__(self, "batch_norm_epsilon", epsilon)
        self._check_unit(owner)
        self._check_replaced(owner)
        if self._has_heads:
            check_heads(owner, self.num_heads, self.key_dim, "key_dim")
            inner = self.inner_channels[-1]
            check_heads(owner, self.num_heads, inner, "inner_channels[-1]")
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in defaults}
        check_unread(owner, values, cast(Fields, defaults), self._readers())

    def _check_sizes(self, owner: str, name: str) -> None:
        """Check that each stage has a size, and convert a list from JSON to a tuple."""
        value = check_ints(owner, name, getattr(self, name))
        stages = len(self.stage_channels)
        if not value:
            raise ValueError(
                f"{owner}: `{name}` must have one size for each stage, for at least one stage. "
                f"Received: {name}={value}"
            )
        if len(value) != stages:
            raise ValueError(
                f"{owner}: `{name}` must have one size for each stage of `stage_channels`. "
                f"Received: {name}={value} for {stages} stages"
            )
        object.__setattr__(self, name, value)

    def _check_unit(self, owner: str) -> None:
        if not isinstance(self.unit, str):
            raise ValueError(
                f"{owner}: `unit` must be parts joined by '+', such as 'conv2d+tokenlearner'. "
                f"Received: unit={self.unit!r}"
            )
        for part in self.parts:
            check_choice(owner, "unit", part, PARTS, whole=self.unit)

    def _check_replaced(self, owner: str) -> None:
        if self.replaced is None:
            return
        units = range(self.stage_units[-1])
        value = check_ints(owner, "replaced", self.replaced, minimum=0)
        object.__setattr__(self, "replaced", value)
        # A range finds a number without a list of all units: a config may have millions.
        if len({unit for unit in value if unit in units}) != len(value):
            raise ValueError(
                f"{owner}: `replaced` must be a tuple of different units of the last stage, "
                f"0 to {units[-1]}. Received: replaced={self.replaced!r}"
            )

    def _readers(self) -> Readers:
        by_unit = f"unit={self.unit!r}"
        heads = (self._has_heads, f"{by_unit} and attention={self.attention!r}")
        return {
            "unit": (self.replaced != (), f"replaced={self.replaced!r}"),
            "replaced": (self.parts != _PLAIN, by_unit),
            "attention": (bool(_OVER_TOKENS & {*self.parts}), by_unit),
            "num_tokens": ("tokenlearner" in self.parts, by_unit),
            "num_heads": heads,
            "key_dim": heads,
        }

    @property
    def _has_heads(self) -> bool:
        over_tokens = _OVER_TOKENS & {*self.parts}
        by_name = {"spatial", "temporal", "joint"} & {*self.parts}
        return bool(by_name or (over_tokens and self.attention == "multi_head"))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of `unit`, in order."""
        return tuple(self.unit.split("+"))

    @property
    def replaced_units(self) -> tuple[int, ...]:
        """The units of the last stage that have the module `unit`, counted from 0."""
        units = self.stage_units[-1]
        return tuple(range(units)[-3:]) if self.replaced is None else self.replaced
