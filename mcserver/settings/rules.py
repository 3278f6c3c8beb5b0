"""What a setting is: a default with its meaning, its range and its effect. It knows no setting by name, and reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from os import EX_USAGE
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast, dataclass_transform

EX_FAILURE = 1
"""memcached's for most of what it refuses; the others are those of sysexits.h, as `os` has them."""

T = TypeVar("T")


class ConfigError(Exception):
    """A setting that can't be: the text says what to change, `status` is the exit code that memcached gives for it."""

    def __init__(self, text: str, status: int = EX_USAGE) -> None:
        super().__init__(text)
        self.status = status


class Effect(Enum):
    """Whether a setting does anything. The text stands in `--help` and on the page of compatibility."""

    REAL = ""
    ACCEPTED = "only accepted"


class Rule(NamedTuple):
    """What is known of one setting. `error` and `status` answer a value that `valid` refuses.

    `engine`: the argument of the engine that it is, if it is one. `live`: whether a reload changes it in a running server.
    `choices`: all words that are valid, where there are but a few.
    """

    meaning: str
    effect: Effect
    valid: Callable[[Any], bool] | None
    error: str
    status: int
    engine: str = ""
    live: bool = False
    choices: tuple[str, ...] = ()


class Declared(NamedTuple):
    """What `setting` and `secret` leave in the body of a class of settings."""

    default: Any
    rule: Rule | None


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
    choices: tuple[str, ...] = (),
) -> T:
    """A field of Config with its rule; type checkers see the default. With `choices`, they alone are valid."""
    if choices:
        valid = choices.__contains__
    return cast("T", Declared(default, Rule(meaning, effect, valid, error, status, engine, live, choices)))


def secret(default: T) -> T:
    """A field without a rule that is never shown."""
    return cast("T", Declared(default, None))


@dataclass_transform(frozen_default=True)
class Settings:
    """A frozen dataclass in all but how it is made: to load `dataclasses`, and to generate code, takes its time at every start.

    A subclass lists its settings, each with its type and a default; `__post_init__` checks what was given.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    rules: ClassVar[Mapping[str, Rule]] = {}
    secrets: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        declared = {name: cls.__dict__[name] for name in cls.__annotations__}
        known = {name: each for name, each in declared.items() if isinstance(each, Declared)}
        for name, each in known.items():
            setattr(cls, name, each.default)
        cls.defaults = declared | {name: each.default for name, each in known.items()}
        cls.rules = {name: each.rule for name, each in known.items() if each.rule is not None}
        cls.secrets = frozenset(name for name, each in known.items() if each.rule is None)

    def __init__(self, *first: Any, **given: Any) -> None:
        given |= zip(self.defaults, first, strict=False)
        if unknown := given.keys() - self.defaults:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update({**self.defaults, **given})
        self.__post_init__()

    def __post_init__(self) -> None:
        """Raises ConfigError for values that can't be."""

    def but(self, **given: Any) -> Self:
        """The same with other values for some. Raises ConfigError."""
        return type(self)(**{**vars(self), **given})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be deleted")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        """Those that aren't as by default, but for secrets."""
        shown = ((name, value) for name, value in vars(self).items() if name not in self.secrets)
        changed = (f"{name}={value!r}" for name, value in shown if value != self.defaults[name])
        return f"{type(self).__name__}({', '.join(changed)})"


def is_port(text: str, least: int = 0) -> bool:
    """Decimal digits, a port from `least` on; int() alone would take blanks, underscores and other scripts' digits, and raise."""
    return text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= 65535


def rules(of: type[Settings]) -> dict[str, tuple[Any, Rule]]:
    """Default and rule of every setting of a class that has one, by name."""
    return {name: (of.defaults[name], rule) for name, rule in of.rules.items()}


def check_rules(settings: Settings) -> None:
    """Raises ConfigError for the first value that its rule refuses; defaults such as 0 for "off" may lie outside."""
    for name, rule in settings.rules.items():
        value = getattr(settings, name)
        if value != settings.defaults[name]:
            if isinstance(value, str) and "\0" in value:  # a file can have one; what is asked of the system can't
                raise ConfigError(f"{name.replace('_', '-')} can't have a NUL byte in it")
            check_value(rule, value)


def check_value(rule: Rule, value: object) -> None:
    """Raises ConfigError if the rule refuses a value that somebody asked for."""
    if rule.valid is not None and not rule.valid(value):
        raise ConfigError(rule.error.format(value), rule.status)
