"""Read a training recipe from the command line: bundled names, YAML files and `--section.field value`."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from pix2seqd.config import Config, ModelConfig, Recipe
from pix2seqd.files import MAX_YAML, InputError, read_yaml, require_size
from pix2seqd.training.recipes import RECIPES, smoke


def read_recipe(arguments: Sequence[str], small: bool = False) -> Recipe:
    """Build a recipe. Later arguments have priority over earlier ones.

    Args:
        arguments: names of bundled recipes, YAML files (all settings or some), and settings such as
            `--train.steps 500`, `--train.steps=500` or `--data.size "[64, 64]"`. Settings that are not given have
            the default of their config class.
        small: make the recipe before the first setting so small that it runs in seconds (`recipes.smoke`).

    Raises:
        InputError: no such recipe or file, invalid YAML, an unknown setting (the message names the most similar one),
            or a value of the wrong type or out of range.
    """
    if not arguments or arguments[0].startswith("--"):
        raise InputError(f"name a recipe ({', '.join(RECIPES)}) or a YAML file first")
    values: dict[str, Any] = {"model": ModelConfig().to_dict()}
    for layer in _layers(takewhile(_no_option, arguments)):
        values = _merged(values, layer)
    if small:
        values = smoke(_typed(Recipe, values, "")).to_dict()
    for layer in _layers(dropwhile(_no_option, arguments)):
        values = _merged(values, layer)
    recipe = _typed(Recipe, values, "")
    try:
        return Recipe.from_dict(recipe.to_dict(), recipe.trust_size)
    except ValueError as error:
        raise InputError(f"recipe: {error}") from error


def read_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings that are given, nested as a recipe is, without the defaults of those that are not.

    Args:
        arguments: YAML files and settings, as `read_recipe` takes them.

    Raises:
        InputError: as `read_recipe`, or a bundled recipe is named.
    """
    if named := [argument for argument in arguments if argument in RECIPES]:
        raise InputError(f"own chooses the settings by the data; leave {named[0]} out, or name it alone")
    values: dict[str, Any] = {}
    for layer in _layers(arguments):
        values = _merged(values, layer)
    return _typed_fields(Recipe, values, "")


def to_yaml(recipe: Recipe) -> str:
    """The text that `read_recipe` reads back as the same recipe."""
    return yaml.safe_dump(json.loads(json.dumps(recipe.to_dict())), sort_keys=False, allow_unicode=True)


def _no_option(argument: str) -> bool:
    return not argument.startswith("--")


def _layers(arguments: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    rest = iter(arguments)
    for argument in rest:
        if argument in RECIPES:
            yield RECIPES[argument].to_dict()
        elif not argument.startswith("--"):
            yield _read_file(Path(argument))
        else:
            name, equals, text = argument[2:].replace("-", "_").partition("=")
            _check_known(name.partition(".")[0])
            if not equals and (text := next(rest, None)) is None:
                raise InputError(f"{argument} needs a value")
            layer: Any = read_yaml(text, argument) if text else ""
            for key in reversed(name.split(".")):
                layer = {key: layer}
            yield layer


def _check_known(option: str) -> None:
    known = [field.name for field in dataclasses.fields(Recipe)]
    if option not in known:
        near = difflib.get_close_matches(option, [*known, "out", "resume", "show", "smoke"], n=1)
        hint = f"did you mean --{near[0]}?" if near else f"settings begin with --{', --'.join(known)}"
        raise InputError(f"unknown option --{option}; {hint}")


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        require_size(path, MAX_YAML)
        layer = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(str(path), RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{str(path)!r} is neither a bundled recipe nor a readable file ({reason}); {hint}") from error
    if not isinstance(layer, Mapping):
        raise InputError(f"{path} holds no settings; write it as `pix2seqd train {next(iter(RECIPES))} --show` does")
    return layer


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _fields(hint: type[Config], values: Mapping[str, Any], name: str) -> Iterator[tuple[str, tuple[Any, Any, str]]]:
    """Key, and the type, value and path of each field that is given."""
    hints = get_type_hints(hint)
    dot = f"{name}." if name else ""
    for key, value in values.items():
        yield key, (hints.get(key, Any), value, f"{dot}{key}")


def _typed_fields(hint: type[Config], values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields that are given with their types; sections stay dictionaries, for they may lack fields.

    Raises:
        InputError: a setting is unknown or of another type.
    """
    result = {}
    for key, (kind, value, path) in _fields(hint, values, name):
        if isinstance(kind, type) and issubclass(kind, Config) and isinstance(value, Mapping):
            result[key] = _typed_fields(kind, value, path)
        else:
            result[key] = _typed(kind, value, path)
            if key not in hint.names():
                _typed(hint, {key: value}, name)  # raises the error that names the nearest setting
    return result


def _typed(hint: Any, value: Any, name: str) -> Any:
    """A value as YAML has it → the type that a config field asks for."""
    if isinstance(hint, type) and issubclass(hint, Config) and isinstance(value, Mapping):
        fields = {key: _typed(*field) for key, field in _fields(hint, value, name)}
        try:
            return hint.from_dict(fields, trust_size=True)  # `read_recipe` checks the whole
        except ValueError as error:
            raise InputError(f"{name or 'recipe'}: {error}") from error
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        kinds = get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) == len(value):
            return tuple(_typed(kind, item, name) for kind, item in zip(kinds, value, strict=True))
    if get_origin(hint) is Literal:
        value = "no" if value is False else value  # as YAML reads that word
        if value in get_args(hint):
            return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError):  # YAML takes 1e-3 for text
            if math.isfinite(number := float(value)):
                return number
    if hint is Any or (hint in (int, str, bool) and type(value) is hint):
        return value
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return dict(value)
    wanted = hint.__name__ if isinstance(hint, type) else str(hint).removeprefix("typing.")
    raise InputError(f"{name} should be {wanted}, not {value!r}")
