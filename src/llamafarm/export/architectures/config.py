"""Values out of a config.json, with the defaults of transformers' configuration classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamafarm.errors import ModelError


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of a config.json, or of an object in it.

    A key that is left out takes its default; null is a value of its own. place: dotted path of the
    object, for messages. The readers raise ModelError for a missing or unusable value.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    place: str = ""

    def value(self, key: str) -> Any:
        """Whatever the key holds."""
        if key not in self.values and key not in self.defaults:
            raise _fault(self.path(key), "is missing", "a number")
        return self.values.get(key, self.defaults.get(key))

    def integer(self, key: str) -> int:
        """A whole number, one or more."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _fault(self.path(key), f"is {value!r}", "a whole number above zero")
        return value

    def number(self, key: str) -> float:
        """A number above zero."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise _fault(self.path(key), f"is {value!r}", "a number above zero")
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false; null counts as false."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise _fault(self.path(key), f"is {value!r}", "true or false")
        return bool(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
            raise _fault(self.path(key), "is no list of numbers", "a list of numbers")
        return tuple(float(v) for v in value)

    def path(self, key: str) -> str:
        """The dotted path of a key."""
        return f"{self.place}.{key}" if self.place else key


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes that every architecture has. head_dim: width of one head; heads * head_dim need not be
    hidden.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Config) -> Dimensions:
        """Read them. Raises ModelError for an unusable value."""
        hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        return cls(
            layers=config.integer("num_hidden_layers"),
            hidden=hidden,
            feed_forward=config.integer("intermediate_size"),
            heads=heads,
            kv_heads=_integer_or(config, "num_key_value_heads", heads),
            head_dim=_integer_or(config, "head_dim", hidden // heads),
        )


def _integer_or(config: Config, key: str, otherwise: int) -> int:
    return otherwise if config.value(key) is None else config.integer(key)


def _fault(path: str, found: str, allowed: str) -> ModelError:
    return ModelError(
        f"config.json: {path} {found}; it should be {allowed}", hint="download the model again"
    )
