"""What a setting is: a default with its meaning, its range and its effect. It knows no setting by name, and reads nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EX_FAILURE = 1
EX_USAGE = 64
EX_OSERR = 71

T = TypeVar("T")


class ConfigError(Exception):
    """A setting that can't be: the text says what to change, `status` is the exit code that memcached gives for it."""

    def __init__(self, text: str, status: int = EX_USAGE) -> None:
        super().__init__(text)
        self.status = status


class Effect(Enum):
    """How much of a setting is done. The text stands in `--help` and in the README."""

    REAL = ""
    APPROXIMATED = "approximated"
    ACCEPTED = "only accepted"


class Rule(NamedTuple):
    """What is known of one setting. `error` and `status` answer a value that `valid` refuses.

    `engine`: the argument of the engine that it is, if it is one. `live`: whether a reload changes it in a running server.
    """

    meaning: str
    effect: Effect
    valid: Callable[[Any], bool] | None
    error: str
    status: int
    engine: str = ""
    live: bool = False


def setting(
    default: T,
    meaning: str,
    valid: Callable[[T], bool] | None = None,
    error: str = "",
    *,
    effect: Effect = Effect.REAL,
    status: int = EX_FAILURE,
    engine: str = "",
    live: bool = False,
) -> T:
    """A field of Config with its rule; type checkers see the default."""
    return field(default=default, metadata={"rule": Rule(meaning, effect, valid, error, status, engine, live)})


class Settings:
    """What a class of settings would else get as generated code, which takes its time at every start."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        """Those that aren't as by default, but for secrets."""
        shown = (each for each in fields(cast("DataclassInstance", self)) if each.repr)
        changed = (
            f"{each.name}={getattr(self, each.name)!r}" for each in shown if getattr(self, each.name) != each.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def is_port(text: str, least: int = 0) -> bool:
    """Decimal digits, a port from `least` on; int() alone would take blanks, underscores and other scripts' digits, and raise."""
    return text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= 65535


def rules(of: type) -> dict[str, tuple[Any, Rule]]:
    """Default and rule of every setting of a class, by name."""
    return {each.name: (each.default, each.metadata["rule"]) for each in fields(of) if "rule" in each.metadata}


def check_rules(settings: DataclassInstance) -> None:
    """Raises ConfigError for the first value that its rule refuses; defaults such as 0 for "off" may lie outside."""
    for name, (default, rule) in rules(type(settings)).items():
        value = getattr(settings, name)
        if value != default:
            check_value(rule, value)


def check_value(rule: Rule, value: object) -> None:
    """Raises ConfigError if the rule refuses a value that somebody asked for."""
    if rule.valid is not None and not rule.valid(value):
        raise ConfigError(rule.error.format(value), rule.status)
