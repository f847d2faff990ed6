"""Label images in several codings (docs/datasets.md explains them): class and instance of every pixel."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

from pix2seqd.data.label_images import palette_colors, read_label_image
from pix2seqd.data.recognize import COLOR_WEIGHTS, MEANING, NUMBERED, Given, hex_color, recognize, unsure
from pix2seqd.data.tables import check_grey, color_table, nnunet, roboflow_classes
from pix2seqd.files import InputError, read_text, read_yaml
from pix2seqd.panoptic.panoptic import Panoptic, id_to_rgb, unique_inverse
from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

CODINGS = tuple(MEANING)
DECLARATIONS = ("classes.yaml", "classes.yml", "classes.json")
KEYS = ("coding", "labels", "things", "stuff", "void", "colors", "image_name", "label_name")
MEANT = {"names": "labels", "classes": "labels", "categories": "labels", "palette": "colors", "instances": "things"}
MEANT |= dict.fromkeys(("ignore", "ignore_index", "ignore_label", "unlabelled"), "void")
"""Keys of other programs → ours."""
MAX_CLASSES = 2**16
"""Maximum number of distinct values; more are taken as a sign that the images are not labels of this coding."""
MAX_COLORS = 1000
"""Maximum number of colours that no declaration names; more are those of photographs."""
MANY_UNKNOWN = 16
"""Number of colours without a class in an image above which they are mixtures of others."""
MIN_SPREAD = 20
"""Smallest step of values that are spread to be seen."""
MIN_FAR = 250
"""Smallest value that may be a void near 255 if it is far above the other ones."""
SAMPLED = 20
"""Number of label images that are looked at where not all are."""
NO_NUMBER = -1
"""Instance number of pixels without an instance."""


@dataclass(frozen=True)
class Labels:
    """The meaning of the values in the label images of a data set."""

    coding: str
    """One of `CODINGS`, or one that `NUMBERED` matches."""
    names: Mapping[int, str]
    """Class value → name, ascending, without void."""
    things: frozenset[int]
    """Values of the thing classes."""
    void: frozenset[int]
    """Values of void pixels."""
    colors: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """For `color`: class value → name and colour, the latter as R + 256 G + 65536 B; with void."""
    assumed: tuple[str, ...] = field(default=(), compare=False)
    """Descriptions of the detected, undeclared settings."""

    @classmethod
    def open(cls, home: Path, files: Sequence[Path], class_files: Sequence[Path] = ()) -> "Labels":
        """Read `home`/classes.yaml (or classes.json); undeclared settings are detected in the label images.

        Args:
            home: folder of the declaration, which is optional.
            files: all label images of the data set. All are read, unless labels and things are declared.
            class_files: for instance images with class images beside them: the class image of each.

        Raises:
            InputError: the declaration is not understood or contradicts itself; an image cannot be read, does not
                contain labels, or fits several codings.
        """
        path, declared = read_declaration(home)
        assumed = [f"no meaning of the key {key}, which is not known" for key in declared if key not in KEYS]
        names = {value: str(name) for value, name in _mapping(path, declared).items()}
        if not names and "colors" not in declared and declared.get("coding", "color") == "color":
            declared |= _tabled_colors(home, path, files, assumed)
        coding, reason = _find_coding(path, declared, names, files, class_files)
        colors = _colors(path, declared, coding, files, assumed)
        class_files = class_files if coding == "instance" else ()
        one_class = coding == "instance" and not class_files
        names = _names(path, names, colors, one_class, assumed)
        things, neither = _things(path, declared, names)
        numbered = coding not in ("class", "color") and not one_class and "things" not in declared
        seen, with_numbers = _survey(files, class_files, coding) if not names or numbered else ([], {1})
        found = frozenset[int]().union(*seen)
        if "void" in declared:
            void = _values(path, "void", declared["void"], names) | neither
        elif one_class or colors:
            void = neither | {value for value, name in names.items() if name.lower() == "void"}
        else:
            if not seen:
                seen, _ = _survey(_sample(files), _sample(class_files), coding)
            void = _usual_void(path, coding, names, seen) | neither
            assumed.append(f"void: {sorted(void)} (pixels without a class)")
        if one_class and 0 not in names and 0 not in void:
            names[0] = "background"
        if not names:
            names = {value: str(value) for value in sorted(found - void)}
            assumed.append(f"labels: the values found in {len(files)} label images, named by number")
        if "things" not in declared:
            classes_only = coding in ("class", "color")
            things = set() if classes_only else {1} if one_class else with_numbers - void
            kind = "none, all is stuff" if classes_only and not things else "classes with instance numbers"
            assumed.append(f"things: {kind}")
        if reason:
            reason += _reading(void & found, found - void) if coding == "class" and "void" not in declared else ""
            assumed.insert(0, f"coding: {coding}, because {reason}")
        void_names = void - {1} if one_class else void  # there, 1 is the class of all objects, and void are numbers
        names = {value: names[value] for value in sorted(names) if value not in void_names}
        _check_names(path, names, things)
        return cls(coding, names, frozenset(things), frozenset(void), colors, tuple(assumed))

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
        content: dict[str, Any] = {"coding": self.coding}
        if self.colors:
            content["colors"] = {name: id_to_rgb(color).tolist() for name, color in self.colors.values()}
        else:
            content["labels"] = dict(self.names)
        content["things"] = [self.names[value] for value in sorted(self.things)]
        content["void"] = [self.colors[value][0] if self.colors else value for value in sorted(self.void)]
        comments = "".join(f"# assumed {line}\n" for line in self.assumed)
        return comments + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def read(self, path: Path, image: Image.Image, taxonomy: Taxonomy, class_path: Path | None = None) -> Panoptic:
        """Read the segmentation of an image; segment ids count from 1 in the order of classes.

        Args:
            path: the label image.
            image: the image.
            taxonomy: `self.taxonomy`, computed once by the caller.
            class_path: for an instance image: the class image beside it, if there is one.

        Raises:
            InputError: a label image is missing, damaged, or differs in size from the image; a value is not a class; a
                stuff class has numbered instances; an instance has two classes.
        """
        pixels = read_label_image(path, image, rgb=self.coding == "color")
        class_path = class_path if self.coding == "instance" else None
        if class_path is not None:
            classes, numbers = _beside(pixels, read_label_image(class_path, image), class_path)
        elif self.coding == "instance":  # void are numbers here, of which 1 is also the class of all objects
            numbers = _as_number(pixels)
            classes = np.where(np.isin(numbers, list(self.void)), NO_NUMBER, np.minimum(numbers, 1))
        elif self.coding == "color":
            classes, numbers = self._look_up(path, pixels), np.full(pixels.shape[:2], NO_NUMBER)
        else:
            classes, numbers = _decode(pixels, self.coding, path)
        one_class = self.coding == "instance" and class_path is None
        void = classes == NO_NUMBER if one_class else np.isin(classes, list(self.void))
        thing = np.isin(classes, list(self.things))
        if unknown := sorted(set(np.unique(classes[~void]).tolist()) - set(self.names)):
            source = class_path or path
            raise InputError(f"{source}: value {unknown[0]} is not a class; add it to labels or void in classes.yaml")
        if self.coding in ("class", "color"):
            numbers = _components(np.where(thing, classes, NO_NUMBER))
        elif len(invalid := classes[(numbers > 0) & ~thing & ~void]):
            name = self.names[int(invalid[0])]
            raise InputError(f"{path}: class {name!r} has numbered instances; add it to things in classes.yaml")
        # One key per segment: the class, and the number of the instance from 1; 0 for stuff and crowds.
        keys = np.where(void, -1, classes * 2**33 + np.where(thing, numbers + 1, 0))
        found, dense = np.unique(keys, return_inverse=True)
        first = int(found[0] >= 0)
        order = {value: index for index, value in enumerate(self.names, start=1)}
        segments = {i + first: divmod(int(key), 2**33) for i, key in enumerate(found) if key >= 0}
        if class_path is not None:
            _check_one_class(class_path, [number - 1 for _, number in segments.values() if number])
        return Panoptic.from_segmentation(
            dense.reshape(keys.shape) + first,
            {i: order[value] for i, (value, _) in segments.items()},
            taxonomy,
            [i for i, (value, number) in segments.items() if value in self.things and not number],
        )

    def _look_up(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        """Class values `[h, w]` of the colours of a label image."""
        values = {color: value for value, (_, color) in self.colors.items()}
        found, dense = unique_inverse(as_rgb_number(pixels))
        if unknown := [int(color) for color in found if int(color) not in values]:
            count, color = len(unknown), id_to_rgb(unknown[0]).tolist()
            more = f" and {count - 1} more" if count > 1 else ""
            smeared = "JPEG or resizing has smeared them; export the labels again as PNG or TIFF, without interpolation"
            cure = smeared if count > MANY_UNKNOWN else "add it to colors in classes.yaml, or to the table of colours"
            raise InputError(f"{path}: colour {color}{more} is not in colors; {cure}")
        return np.array([values[int(color)] for color in found])[dense]


def _as_number(pixels: np.ndarray) -> np.ndarray:
    """Grey values, or colours as R + 256 G + 65536 B: `[h, w]` from `[h, w]` or `[h, w, channels]`."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3] @ COLOR_WEIGHTS


def as_rgb_number(pixels: np.ndarray) -> np.ndarray:
    """Grey or coloured pixels as R + 256 G + 65536 B, `[h, w]`."""
    grey = pixels.ndim == 2 or pixels.shape[2] < 3
    return _as_number(pixels) * COLOR_WEIGHTS.sum() if grey else _as_number(pixels)


def _decode(pixels: np.ndarray, coding: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels `[h, w]` or `[h, w, channels]` of a label image → class and instance number, both `[h, w]`.

    Raises:
        InputError: they are colours, but `coding` is `class`.
    """
    if coding == "two-channel":
        if pixels.ndim == 2:
            return pixels, np.full_like(pixels, NO_NUMBER)
        numbers = pixels[..., 1]
        crowd = 255 if numbers.max(initial=0) <= 255 else NO_NUMBER  # of 16 bits, 255 is a number as any other
        return pixels[..., 0], np.where(numbers == crowd, NO_NUMBER, numbers)
    if coding == "class":
        values = pixels if pixels.ndim == 2 else pixels[..., 0]
        if pixels.ndim == 3 and pixels.shape[2] > 2 and (pixels[..., :3] != pixels[..., :1]).any():
            raise InputError(
                f"{path} has colours instead of grey values; save the number of each class, or declare coding: color"
            )
        return values, np.full_like(values, NO_NUMBER)
    values = _as_number(pixels)
    if (found := NUMBERED.fullmatch(coding)) and coding != "class*256+id":
        base = int(found[2])
        high, low = np.divmod(values, base)
        classes, numbers = (high, low) if found[1] == "class" else (low, high)
        return np.where(values < base, values, classes), np.where(values < base, NO_NUMBER, numbers)
    classes, numbers = np.divmod(values, 256)
    return classes, np.where((numbers == 0) & (coding == "class*256+id"), NO_NUMBER, numbers)


def _beside(instances: np.ndarray, classes: np.ndarray, class_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Class and instance number, both `[h, w]`, of the pixels of an instance image and of its class image."""
    numbers = _as_number(instances)
    return _decode(classes, "class", class_path)[0], np.where(numbers == 0, NO_NUMBER, numbers)


def _check_one_class(path: Path, numbers: list[int]) -> None:
    """Refuse a class image in which an instance has several classes; `numbers` has one entry for each class of one."""
    found, counts = np.unique(numbers, return_counts=True)
    if len(split := found[counts > 1]):
        raise InputError(
            f"{path} gives instance {split[0]} more than one class ({len(split)} such instances); "
            "give all pixels of an instance one class"
        )


def _components(classes: np.ndarray) -> np.ndarray:
    """Number the connected components of each class, from 0; pixels with class `NO_NUMBER` keep it."""
    numbers, count = np.full_like(classes, NO_NUMBER), 0
    for value in np.unique(classes[classes != NO_NUMBER]):
        parts, found = ndimage.label(classes == value)  # pyright: ignore[reportGeneralTypeIssues]
        numbers = np.where(parts > 0, parts + count - 1, numbers)
        count += found
    return numbers


def _names(
    path: Path,
    names: dict[int, str],
    colors: Mapping[int, tuple[str, int]],
    one_class: bool,
    assumed: list[str],
) -> dict[int, str]:
    """The names of the values, where they do not follow from the label images; `names` are those declared."""
    if colors:
        return {value: name for value, (name, _) in colors.items()}
    if one_class and not names:
        assumed.append("labels: 0 is background, all other values are instances of one class, 'object'")
        return {0: "background", 1: "object"}
    if one_class and (1 not in names or set(names) - {0, 1}):
        raise InputError(f"{path}: with coding: instance, labels names the one class of the objects, as {{1: cell}}")
    return names


def _things(path: Path, declared: Mapping[str, Any], names: Mapping[int, str]) -> tuple[set[int], set[int]]:
    """The values of things that are declared, and those that are declared to be neither things nor stuff."""
    things = _values(path, "things", declared.get("things", []), names)
    stuff = _values(path, "stuff", declared.get("stuff", []), names)
    if both := things & stuff:
        raise InputError(f"{path}: class {min(both)} is in both things and stuff; choose one")
    return things, set(names) - things - stuff if declared.keys() >= {"things", "stuff"} else set()


def _check_names(path: Path, names: Mapping[int, str], things: set[int]) -> None:
    """Refuse classes without any name left, things that are none of them, and names that two have."""
    if not names or things - set(names):
        stray = f"things {sorted(things - set(names))} are void or have no name" if names else "no class is left"
        raise InputError(f"{path}: {stray}; correct labels, things and void")
    if twice := sorted(name for name, count in Counter(names.values()).items() if count > 1):
        raise InputError(f"{path}: the name {twice[0]} is used more than once; correct labels")


def _find_coding(
    path: Path,
    declared: Mapping[str, Any],
    names: Mapping[int, str],
    files: Sequence[Path],
    class_files: Sequence[Path],
) -> tuple[str, str]:
    """The coding as declared, or from other declarations or evenly sampled label images, and then the reason for it."""
    if (coding := declared.get("coding")) is not None:
        if coding not in CODINGS and not NUMBERED.fullmatch(str(coding)):
            raise InputError(f"{path}: coding {coding!r} is not known; choose {', '.join(CODINGS)}")
        return coding, ""
    if "colors" in declared:
        return "color", "colors are declared"
    if class_files:
        return "instance", "class images lie beside the label images"
    chosen = _sample(files)
    if not any(read_label_image(file).any() for file in chosen):  # most images have nothing to label
        labelled = (file for file in files if read_label_image(file).any())
        chosen = [*chosen[:1], *islice(labelled, SAMPLED)]
    meaning: dict[int, set[tuple[int, ...]]] = {}
    for file in chosen:
        for index, color in palette_colors(file).items():
            meaning.setdefault(index, set()).add(color)
    # A program that rebuilds the palette of each image keeps the colours but not the indices.
    rgb = any(len(colors) > 1 for colors in meaning.values())
    images = [(file, read_label_image(file, rgb=rgb)) for file in chosen]
    void = declared.get("void", [])
    void = {value for value in (void if isinstance(void, list) else [void]) if type(value) is int and value}
    classes_only = bool(set(names) - {0, 1, 255} or (declared.get("things") and not names))
    return recognize(images, Given(path, names, "things" in declared, void, classes_only, rgb))


def _colors(
    path: Path, declared: Mapping[str, Any], coding: str, files: Sequence[Path], assumed: list[str]
) -> dict[int, tuple[str, int]]:
    """For the coding `color`: class value, from 1 → name and colour, declared or found in all label images."""
    if coding != "color":
        if "colors" in declared:
            raise InputError(f"{path} has colors, which belong to coding: color; remove one of them")
        return {}
    if "labels" in declared:
        raise InputError(f"{path}: for coding: color, write colors such as 'road: [128, 64, 128]' instead of labels")
    if "colors" in declared:
        colors = _declared_colors(path, declared["colors"])
    else:
        found: set[int] = set()
        for file in files:
            found.update(np.unique(as_rgb_number(read_label_image(file, rgb=True))).tolist())
            if len(found) > MAX_COLORS:
                raise InputError(
                    f"{file} has too many colours to be classes; if each is one object, write 'coding: instance' to "
                    f"{path}; otherwise name the classes under colors"
                )
        colors = {hex_color(color): color for color in sorted(found)}
        assumed.append(f"colors: those found in {len(files)} label images, named by their colour")
    return dict(enumerate(colors.items(), start=1))


def _tabled_colors(home: Path, path: Path, files: Sequence[Path], assumed: list[str]) -> dict[str, Any]:
    """The key `colors` from a table that another program wrote; empty without one. `path` is the declaration."""
    if (table := color_table(home)) is None:
        return {}
    check_grey((read_label_image(file, rgb=True) for file in _sample(files)), *table, path)
    assumed.append(f"colors: those of {table[0].name}")
    return {"colors": table[1]}


def _declared_colors(path: Path, content: Any) -> dict[str, int]:
    """Name → R + 256 G + 65536 B."""
    colors: dict[str, int] = {}
    for name, color in content.items() if isinstance(content, dict) else [("colors", None)]:
        if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color):
            color = list(bytes.fromhex(color[1:]))
        if not (isinstance(color, list) and len(color) == 3 and all(type(c) is int and 0 <= c < 256 for c in color)):
            raise InputError(f"{path}: colors should be lines such as 'road: [128, 64, 128]'; correct {name}")
        number = int(color @ COLOR_WEIGHTS)
        if number in colors.values():
            raise InputError(f"{path}: colors gives {name} the colour of another class; correct one")
        colors[str(name)] = number
    return colors


def _sample(files: Sequence[Path]) -> Sequence[Path]:
    """About `SAMPLED` files, evenly spaced."""
    return files[:: max(1, len(files) // SAMPLED)]


def _survey(files: Sequence[Path], class_files: Sequence[Path], coding: str) -> tuple[list[frozenset[int]], set[int]]:
    """The class values in each label image, and those of all with an instance number above 0."""
    seen: list[frozenset[int]] = []
    found: set[int] = set()
    numbered: set[int] = set()
    for i, path in enumerate(files):
        pixels = read_label_image(path)
        if class_files:
            classes, numbers = _beside(pixels, read_label_image(class_files[i]), class_files[i])
        else:
            classes, numbers = _decode(pixels, coding, path)
        if classes.shape != numbers.shape:
            raise InputError(f"{path} and {class_files[i]} differ in size; export them at the image's size")
        seen.append(frozenset(np.unique(classes).tolist()))
        found.update(seen[-1])
        numbered.update(np.unique(classes[numbers > 0]).tolist())
        if class_files:
            numbered.discard(0)  # background, even if some class images are imprecise
        if len(found) > MAX_CLASSES:
            raise InputError(
                f"{path} has too many values to be classes, more than {MAX_CLASSES:,}; if each value is one object, "
                "write 'coding: instance' to classes.yaml"
            )
    return seen, numbered


def _usual_void(path: Path, coding: str, names: Mapping[int, str], seen: Sequence[frozenset[int]]) -> set[int]:
    """The values that are usually void, where the declaration does not say: 255 among classes, otherwise 0.

    Where objects count from 0, also class 0 is one.

    Args:
        path: the declaration, for messages.
        coding: of the label images.
        names: the classes that are declared.
        seen: the class values in each label image, or in some.

    Raises:
        InputError: 255, or a value near it, may be a class as well.
    """
    if coding not in ("class", "instance"):
        return {0} - set(names) if coding != "class*256+id from 0" else set()
    found = frozenset[int]().union(*seen)
    if 255 in names or (coding == "class" and not names and found == {0, 255}):
        return set()
    ordered, unnamed = sorted(found), coding == "class" and not names
    if unnamed and _is_spread(found):
        trimap = f" or 'void: {ordered[1]}' (nothing is known there, as in a trimap)" if len(found) == 3 else ""
        raise _unsure_void(path, 255, f"{_listed(ordered)}, evenly spread", trimap)
    if unnamed and 254 in found and 255 in found:
        raise _unsure_void(path, 255, f"{_listed(ordered)}, of which 254 and 255 are neighbours")
    if unnamed and _is_far(ordered):
        raise _unsure_void(path, ordered[-1], f"{_listed(ordered)}, the last far above the others")
    rest = [value for value in ordered if value != 255]
    also = "; as a class it needs a name in labels too, such as '255: NAME'" if names else ""
    if 255 in found and len(rest) == 1:
        raise _unsure_void(path, 255, f"only {rest[0]} and 255", also)
    if len(rest) > 1 and [v for v in seen if {0, 255} == v] and all(v <= {0, 255} for v in seen if 255 in v):
        same = "do two values mean the same? save them alike"
        raise _unsure_void(path, 255, f"some have 255 and others {_listed(rest)}, but none has both; {same}", also)
    return {255} - set(names)


def _unsure_void(path: Path, value: int, seen: str, also: str = "") -> InputError:
    lines = [f"'void: []' ({value} is a class)", f"'void: {value}' (it is none)"]
    return unsure(path, f"{value} may be a class or void in the label images ({seen})", lines, also)


def _reading(void: Collection[int], classes: Collection[int]) -> str:
    """What is a class and what is void in words, with the line that changes it; "" if there are no values."""
    if not classes:
        return ""
    kind = "is a class" if len(classes) == 1 else "are classes"
    if void:
        return f"; {_listed(classes)} {kind} and 255 is void, without a class ('void: []' would make it one)"
    return f"; {_listed(classes)} {kind}, and none is void ('void: {max(classes)}' would make {max(classes)} void)"


def _listed(values: Collection[int]) -> str:
    """A few values in words, or the first and the last."""
    *first, last = map(str, sorted(values))
    if len(first) > 6:
        return f"{first[0]} to {last} ({len(values)} values)"
    return f"{', '.join(first)} and {last}" if first else last


def _is_far(values: Sequence[int]) -> bool:
    """Whether the last of several ascending values is near 255 and far above the others, not one of an even spread."""
    highest = values[-1] if values else 0
    others = [value for value in values[:-1] if value]
    return bool(MIN_FAR <= highest < 255 and others and others[-1] < highest - 50 and not _is_even(frozenset(values)))


def _is_even(values: frozenset[int]) -> bool:
    """Whether few values are evenly spread from 0, as programs do to make classes visible."""
    steps = np.diff(sorted(values | {0}))
    return bool(len(steps) and steps.min() >= MIN_SPREAD and np.ptp(steps) <= 2)


def _is_spread(values: frozenset[int]) -> bool:
    """Whether they are evenly spread up to 255."""
    return max(values, default=0) == 255 and _is_even(values)


def read_declaration(home: Path) -> tuple[Path, dict[str, Any]]:
    """Read classes.yaml or classes.json of a data set; what it leaves out is taken from what Roboflow or nnU-Net wrote.

    Returns:
        The path of the declaration, which need not exist, and its content, empty if there is none.

    Raises:
        InputError: it is not YAML, not a mapping, or has a misspelt key.
    """
    path = next((home / name for name in DECLARATIONS if (home / name).is_file()), home / DECLARATIONS[0])
    content = read_yaml(read_text(path), str(path)) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path} should have lines such as 'things: [car]'; see docs/datasets.md")
    for key in content:
        if str(key).isdecimal():
            raise InputError(
                f"{path} has the key {key}; write the names of values below 'labels', as labels: {{1: car}}"
            )
        near = [MEANT[key]] if key in MEANT else difflib.get_close_matches(str(key), KEYS, n=1)
        if key not in KEYS and near:
            raise InputError(f"{path} has {key!r}; did you mean {near[0]!r}?")
    return path, {**roboflow_classes(home), **nnunet(home, content), **content}


def _mapping(path: Path, declared: dict[str, Any]) -> dict[int, Any]:
    try:
        return by_number(declared.get("labels", {}))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: labels should be lines such as '1: car', a value and a name; correct it") from error


def by_number(given: Mapping[Any, Any]) -> dict[int, Any]:
    """A mapping with keys that are whole numbers, maybe as text.

    Raises:
        AttributeError, TypeError, ValueError, OverflowError: a key is none, or two are the same number.
    """
    found = {int(key): content for key, content in given.items()}
    if len(found) < len(given) or any(isinstance(key, float) and not key.is_integer() for key in given):
        raise ValueError("two keys are the same number, or one is no whole number")
    return found


def _values(path: Path, key: str, given: Any, names: Mapping[int, str]) -> set[int]:
    """Class values from a list of values and names."""
    by_name = {name: value for value, name in names.items()}
    values = set()
    for entry in given if isinstance(given, list) else [given]:
        if not (type(entry) is int or (isinstance(entry, str) and entry in by_name)):
            raise InputError(f"{path}: {key} names {entry!r}, which labels lacks; add it there")
        values.add(by_name[entry] if isinstance(entry, str) else entry)
    return values
