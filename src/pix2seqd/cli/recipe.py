"""Read a training recipe from the command line: bundled names, YAML files and `--section.field value`."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from pix2seqd.config import ModelConfig, Recipe, is_section, merged, nested
from pix2seqd.files import MAX_YAML, InputError, read_yaml, require_size
from pix2seqd.training.recipes import RECIPES, smoke


def read_recipe(arguments: Sequence[str], small: bool = False) -> Recipe:
    """Build a recipe. Later arguments have priority over earlier ones.

    The arguments are names of bundled recipes, YAML files (all settings or some), and settings such as `--train.steps
    500`, `--train.steps=500` or `--data.size "[64, 64]"`. Settings that are not given have the default of their config
    class. If `small`, the recipe before the first setting is made so small that it runs in seconds.

    Raises:
        InputError: no such recipe or file, invalid YAML, an unknown setting (the message names the most similar one),
            or a value of the wrong type or out of range.
    """
    if not arguments or arguments[0].startswith("--"):
        own = "for your own images: pix2seqd train own --train-data DIR"
        raise InputError(f"name a recipe ({', '.join(RECIPES)}) or a YAML file first; {own}")
    values: dict[str, Any] = {"model": ModelConfig().to_dict()}
    for layer in _layers(takewhile(_no_option, arguments)):
        values = merged(values, layer)
    if small:
        values = smoke(_recipe(values, trust_size=True)).to_dict()  # the whole is checked below
    for layer in _layers(dropwhile(_no_option, arguments)):
        values = merged(values, layer)
    return _recipe(values, values.get("trust_size") is True)


def read_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings in YAML files and arguments as of `read_recipe`, nested as a recipe is, without defaults.

    A bundled recipe among them is an `InputError`, because `own` chooses the settings by the data.
    """
    if named := [argument for argument in arguments if argument in RECIPES]:
        raise InputError(f"own chooses the settings by the data; leave {named[0]} out, or name it alone")
    values: dict[str, Any] = {}
    for layer in _layers(arguments):
        values = merged(values, layer)
    with _named_settings():
        return Recipe.checked(_plain(Recipe, values), trust_size=True)  # the recipe that they become is checked


def to_yaml(recipe: Recipe) -> str:
    """The text that `read_recipe` reads back as the same recipe."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)


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
            yield nested(name, read_yaml(text, argument) if text else "")


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


def _plain(kind: Any, value: Any) -> Any:
    """A value as YAML reads it → as `Config.from_dict` takes it: 1e-3 is text in YAML, a whole number no float."""
    if is_section(kind) and isinstance(value, Mapping):
        kinds = get_type_hints(kind)
        return {key: _plain(kinds.get(key), item) for key, item in value.items()}
    if get_origin(kind) is tuple and isinstance(value, list):
        return [_plain(get_args(kind)[0], item) for item in value]  # all items of a tuple are of one kind
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)
    if get_origin(kind) is Literal and value is False:
        return "no"  # which YAML reads as False
    return value


def _recipe(values: Mapping[str, Any], trust_size: bool) -> Recipe:
    with _named_settings():
        return Recipe.from_dict(_plain(Recipe, values), trust_size)


@contextmanager
def _named_settings() -> Iterator[None]:
    """Errors of `Config` become an `InputError`, which names a setting by its path, as the command line does."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error).removeprefix("Recipe.")) from error
