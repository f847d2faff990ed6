"""What all configs have in common: reading from and writing to plain dictionaries, strictly."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints


class Config:
    """Base of the configs: reading from and writing to plain dictionaries, strictly."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values (as JSON or YAML give them); lists become tuples, dictionaries nested configs.

        Raises:
            ValueError: a key that is no field (the message names the nearest one), or a value of another kind.
        """
        hints = get_type_hints(cls)
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        converted: dict[str, Any] = {}
        for key, value in values.items():
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
                raise ValueError(f"{cls.__name__} has no setting {key!r}{hint}")
            _check_kind(f"{cls.__name__}.{key}", hints[key], value)
            if isinstance(hints[key], type) and issubclass(hints[key], Config) and isinstance(value, Mapping):
                value = hints[key].from_dict(value)
            converted[key] = tuple(value) if isinstance(value, list) else value
        return cls(**converted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[type-var]


def _check_kind(name: str, kind: Any, value: Any) -> None:
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
    allowed = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(kind)
    if allowed and type(value) not in allowed:
        raise ValueError(f"{name} must be of type {kind.__name__}, not {value!r}")


def require(*checks: tuple[bool, str]) -> None:
    """Raise ValueError with the message of the first check that does not hold."""
    for holds, message in checks:
        if not holds:
            raise ValueError(message)


def require_probabilities(config: Config, *names: str) -> None:
    """Raise ValueError unless these fields of a configuration are from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        require((0 <= value <= 1, f"{name} must be a probability, not {value}"))


def resnet_backbone(depths: tuple[int, ...], stem: int, widths: tuple[int, ...], layer_type: str) -> dict[str, Any]:
    """Fields of a `transformers` ResNet: blocks and channels per stage, channels of the stem, basic or bottleneck."""
    sizes = {"depths": list(depths), "embedding_size": stem, "hidden_sizes": list(widths)}
    stages = [f"stage{i + 1}" for i in range(len(depths))]
    return {"model_type": "resnet", **sizes, "layer_type": layer_type, "out_features": stages}
