"""Label PNGs in three codings: class and instance of every pixel.

| coding | a PNG | a pixel |
|---|---|---|
| `class` | grey or palette | its class; each connected component (4 neighbours) of a thing class is an instance |
| `class*1000+id` | 16-bit grey, or colours with value = R + 256 G + 65536 B | class * 1000 + number of the instance; \
below 1000: class without instance, stuff or a crowd |
| `two-channel` | colours, or grey with alpha | channel 0: class; channel 1: number of the instance, 255 = crowd |
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

from pix2seqd.data.archive import read_png
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

CODINGS = ("class", "two-channel", "class*1000+id")
DECLARATIONS = ("classes.yaml", "classes.json")
MODES = ("1", "L", "P", "I", "I;16", "I;16B", "LA", "RGB", "RGBA")
KEYS = ("coding", "labels", "things", "stuff", "void")
MAX_CLASSES = 1000
"""Maximum number of distinct values; more are taken as a sign that the PNGs are not labels."""
NO_NUMBER = -1
"""Instance number of pixels without an instance."""


@dataclass(frozen=True)
class Labels:
    """The meaning of the values in the label PNGs of a data set."""

    coding: str
    """One of `CODINGS`."""
    names: Mapping[int, str]
    """Class value → name, ascending, without void."""
    things: frozenset[int]
    """Values of the thing classes."""
    void: frozenset[int]
    """Values of void pixels."""
    assumed: tuple[str, ...] = field(default=(), compare=False)
    """Descriptions of the detected, undeclared settings."""

    @classmethod
    def open(cls, home: Path, pngs: Sequence[Path]) -> "Labels":
        """Read `home`/classes.yaml (or classes.json); undeclared settings are detected in the PNGs.

        Args:
            home: folder of the declaration, which is optional.
            pngs: all label PNGs of the data set. All are read, unless labels and things are declared.

        Raises:
            InputError: the declaration is not understood or contradicts itself; a PNG cannot be read or does not
                contain class labels.
        """
        path, declared = _declaration(home)
        assumed = []
        if (coding := declared.get("coding")) is None:
            coding = _detect(pngs)
            assumed.append(f"coding: the PNGs look like {coding!r}")
        elif coding not in CODINGS:
            raise InputError(f"{path}: coding {coding!r} is not known; choose {', '.join(CODINGS)}")
        names = {value: str(name) for value, name in _mapping(path, declared).items()}
        things = _values(path, "things", declared.get("things", []), names)
        stuff = _values(path, "stuff", declared.get("stuff", []), names)
        neither = set(names) - things - stuff if declared.keys() >= {"things", "stuff"} else set()
        if both := things & stuff:
            raise InputError(f"{path}: class {min(both)} is in both things and stuff; choose one")
        numbered = coding != "class" and "things" not in declared
        found, with_numbers = _survey(pngs, coding) if not names or numbered else (set(), set())
        if "void" in declared:
            void = _values(path, "void", declared["void"], names) | neither
        else:
            default = {255} if coding == "class" and found != {0, 255} else {0} if coding != "class" else set()
            void = (default - set(names)) | neither
            assumed.append(f"void: {sorted(void)} (pixels without a class)")
        if not names:
            names = {value: str(value) for value in sorted(found - void)}
            assumed.append(f"labels: the values found in {len(pngs)} PNGs, named by number")
        if "things" not in declared:
            things = with_numbers - void
            assumed.append(
                "things: " + ("none, all is stuff" if coding == "class" else "classes with instance numbers")
            )
        names = {value: names[value] for value in sorted(names) if value not in void}
        if not names or things - set(names):
            stray = f"things {sorted(things - set(names))} are void or have no name" if names else "no class is left"
            raise InputError(f"{path}: {stray}; correct labels, things and void")
        return cls(coding, names, frozenset(things), frozenset(void), tuple(assumed))

    @property
    def taxonomy(self) -> Taxonomy:
        """Category ids are the class values, or the class values plus 1 if 0 is a class."""
        shift = int(0 in self.names)
        categories = (
            Category(value + shift, name, value in self.things, distinct_color(index))
            for index, (value, name) in enumerate(self.names.items())
        )
        try:
            return Taxonomy(tuple(categories))
        except ValueError as error:
            raise InputError(f"classes.yaml: {error}; correct its labels") from error

    def __str__(self) -> str:
        """The complete declaration as YAML, below comments that list the assumptions."""
        content = {
            "coding": self.coding,
            "labels": dict(self.names),
            "things": [self.names[value] for value in sorted(self.things)],
            "void": sorted(self.void),
        }
        comments = "".join(f"# assumed {line}\n" for line in self.assumed)
        return comments + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def read(self, path: Path, image: Image.Image, taxonomy: Taxonomy) -> Panoptic:
        """Read the segmentation of an image; segment ids count from 1 in the order of classes.

        Args:
            path: the label PNG.
            image: the image.
            taxonomy: `self.taxonomy`, computed once by the caller.

        Raises:
            InputError: the PNG is missing, damaged, or differs in size from the image; a value is not a class; a stuff
                class has numbered instances.
        """
        classes, numbers = _decode(_pixels(path, image), self.coding)
        void, thing = np.isin(classes, list(self.void)), np.isin(classes, list(self.things))
        if unknown := sorted(set(np.unique(classes[~void]).tolist()) - set(self.names)):
            raise InputError(f"{path}: value {unknown[0]} is not a class; add it to labels or void in classes.yaml")
        if self.coding == "class":
            numbers = _components(np.where(thing, classes, NO_NUMBER))
        elif len(invalid := classes[(numbers > 0) & ~thing & ~void]):
            name = self.names[int(invalid[0])]
            raise InputError(f"{path}: class {name!r} has numbered instances; add it to things in classes.yaml")
        # One key per segment: the class, and the number of the instance from 1; 0 for stuff and crowds.
        keys = np.where(void, -1, classes * 2**32 + np.where(thing, numbers + 1, 0))
        found, dense = np.unique(keys, return_inverse=True)
        first = int(found[0] >= 0)
        order = {value: index for index, value in enumerate(self.names, start=1)}
        segments = {i + first: divmod(int(key), 2**32) for i, key in enumerate(found) if key >= 0}
        return Panoptic.from_segmentation(
            dense.reshape(keys.shape) + first,
            {i: order[value] for i, (value, _) in segments.items()},
            taxonomy,
            [i for i, (value, number) in segments.items() if value in self.things and not number],
        )


def _pixels(path: Path, image: Image.Image | None = None) -> np.ndarray:
    return np.asarray(read_png(path, MODES, image)).astype(np.int64)


def _decode(pixels: np.ndarray, coding: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels `[h, w]` or `[h, w, channels]` of a PNG → class and instance number, both `[h, w]`."""
    if coding == "two-channel":
        if pixels.ndim == 2:
            return pixels, np.full_like(pixels, NO_NUMBER)
        return pixels[..., 0], np.where(pixels[..., 1] == 255, NO_NUMBER, pixels[..., 1])
    if coding == "class":
        values = pixels if pixels.ndim == 2 else pixels[..., 0]
        return values, np.full_like(values, NO_NUMBER)
    values = pixels if pixels.ndim == 2 else pixels[..., :3] @ np.array([1, 256, 65536])
    plain = values < 1000
    return np.where(plain, values, values // 1000), np.where(plain, NO_NUMBER, values % 1000)


def _components(classes: np.ndarray) -> np.ndarray:
    """Number the connected components of each class, from 0; pixels with class `NO_NUMBER` keep it."""
    numbers, count = np.full_like(classes, NO_NUMBER), 0
    for value in np.unique(classes[classes != NO_NUMBER]):
        parts, found = ndimage.label(classes == value)  # pyright: ignore[reportGeneralTypeIssues]
        numbers = np.where(parts > 0, parts + count - 1, numbers)
        count += found
    return numbers


def _detect(pngs: Sequence[Path], sampled: int = 20) -> str:
    """Detect the coding from evenly sampled PNGs of the data set."""
    guesses = [_guess(_pixels(path)) for path in pngs[:: max(1, len(pngs) // sampled)]]
    # Low values fit several codings, so one PNG with high values decides.
    for coding in ("class*1000+id", "two-channel"):
        if coding in guesses:
            return coding
    return "class"


def _guess(pixels: np.ndarray) -> str:
    if pixels.ndim == 2:
        return "class*1000+id" if pixels.max(initial=0) >= 1000 else "class"
    if pixels.shape[2] == 2:
        return "two-channel"
    red, green, blue = np.moveaxis(pixels[..., :3], 2, 0)
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return "class"
    low = (green < 4) & (red + 256 * green < 1000) & (red > 0)
    return "two-channel" if not blue.any() and low.any() else "class*1000+id"


def _survey(pngs: Sequence[Path], coding: str) -> tuple[set[int], set[int]]:
    """The class values in all PNGs, and those among them with an instance number above 0."""
    found: set[int] = set()
    numbered: set[int] = set()
    for path in pngs:
        classes, numbers = _decode(_pixels(path), coding)
        found.update(np.unique(classes).tolist())
        numbered.update(np.unique(classes[numbers > 0]).tolist())
        if len(found) > MAX_CLASSES:
            raise InputError(f"{path} has too many values to be labels in the coding {coding!r}; see docs/datasets.md")
    return found, numbered


def _declaration(home: Path) -> tuple[Path, dict[str, Any]]:
    """The path of the declaration, which need not exist, and its content."""
    path = next((home / name for name in DECLARATIONS if (home / name).is_file()), home / DECLARATIONS[0])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as YAML ({reason}); correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} should have lines such as 'things: [car]'; see docs/datasets.md")
    for key in content:
        if key not in KEYS and (near := difflib.get_close_matches(str(key), KEYS, n=1)):
            raise InputError(f"{path} has {key!r}; did you mean {near[0]!r}?")
    return path, content


def _mapping(path: Path, declared: dict[str, Any]) -> dict[int, Any]:
    labels = declared.get("labels", {})
    try:
        return {int(value): name for value, name in labels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: labels should be lines such as '1: car', not {labels!r}") from error


def _values(path: Path, key: str, given: Any, names: Mapping[int, str]) -> set[int]:
    """Class values from a list of values and names."""
    by_name = {name: value for value, name in names.items()}
    return set(_each_value(path, key, given if isinstance(given, list) else [given], by_name))


def _each_value(path: Path, key: str, given: list[Any], by_name: Mapping[str, int]) -> Iterator[int]:
    for entry in given:
        if isinstance(entry, int) and not isinstance(entry, bool):
            yield entry
        elif isinstance(entry, str) and entry in by_name:
            yield by_name[entry]
        else:
            raise InputError(f"{path}: {key} names {entry!r}, which labels lacks; add it there")
