"""What the numbers in a mask mean: category ids of the data set, and contiguous classes 1..n of the model.

The model's class channel holds 0 for void and 1..n for the n categories in the order of the taxonomy. Everything a
user sees (files, tables, `Segment.category_id`) has the data set's own category ids. `Taxonomy` translates between
the two.
"""

import colorsys
import difflib
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pix2seqd.files import InputError, a_few, is_control

MAX_NAME = 1000
"""Characters of the longest category name."""
SHOWN_NAMES = 20
"""Number of names that a message lists."""
VOID = 0
"""Class and id of pixels without a segment (paper §2: "0 denotes the null label")."""


@dataclass(frozen=True)
class Category:
    """One category of a data set, as in the `categories` list of COCO panoptic json."""

    id: int
    """The data set's own id, 1 or more."""
    name: str
    isthing: bool
    """True: countable, one segment per instance. False: stuff, one segment per image."""
    color: tuple[int, int, int]
    """RGB, 0..255."""

    @property
    def kind(self) -> str:
        """thing or stuff."""
        return "thing" if self.isthing else "stuff"

    def __str__(self) -> str:
        """Everything but the colour, for messages."""
        return f"{self.id} {self.name!r} ({self.kind})"


def distinct_color(index: int) -> tuple[int, int, int]:
    """RGB 0..255, number `index` of an endless series of well separated colours (golden-angle hues)."""
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.35 * (index % 2), 0.95 - 0.2 * (index % 3))
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class Taxonomy:
    """The ordered categories of a data set; class c of the model is `categories[c - 1]`.

    Raises:
        ValueError: no category at all, an id below 1 or above 2³¹ - 1, a colour outside 0..255, or an id or name used
            twice. A name that is not one printable line: it could hold commands for a terminal.
    """

    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not self.categories:
            raise ValueError("a taxonomy needs at least one category")
        for what in ("id", "name"):
            values = [getattr(category, what) for category in self.categories]
            repeated = sorted(value for value, count in Counter(values).items() if count > 1)
            if repeated:
                raise ValueError(f"category {what} {repeated[0]!r} is used more than once")
        for category in self.categories:
            if category.id < 1:
                raise ValueError(f"category id {category.id} is below 1 (0 means void)")
            if category.id >= 2**31:
                raise ValueError(f"category id {reprlib.repr(category.id)} is above {2**31 - 1}")
            if len(category.name) > MAX_NAME or any(map(is_control, category.name)):
                shown = reprlib.repr(category.name)
                raise ValueError(f"category name {shown} is not one line of at most {MAX_NAME} printable characters")
            if not all(0 <= value <= 255 for value in category.color):
                raise ValueError(f"color {category.color} of category {category.name!r} is not of values 0 to 255")

    def __len__(self) -> int:
        return len(self.categories)

    @cached_property
    def things(self) -> list[bool]:
        """Whether each contiguous class is one of things, from class 0, void, which is not."""
        return [False, *(category.isthing for category in self.categories)]

    @cached_property
    def _class_of(self) -> dict[int, int]:
        return {category.id: index for index, category in enumerate(self.categories, start=1)}

    def class_of(self, category_id: int) -> int:
        """Contiguous class 1..n of a category id of the data set.

        Raises:
            KeyError: the taxonomy has no such category.
        """
        if category_id not in self._class_of:
            raise KeyError(f"unknown category id {category_id}; known: {reprlib.repr(sorted(self._class_of))}")
        return self._class_of[category_id]

    def category(self, class_index: int) -> Category:
        """Category of a contiguous class 1..n.

        Raises:
            KeyError: another class.
        """
        if not 1 <= class_index <= len(self.categories):
            raise KeyError(f"class {class_index} is outside 1..{len(self.categories)}")
        return self.categories[class_index - 1]

    def check_names(self, names: Iterable[str]) -> None:
        """Check that categories of these names exist.

        Raises:
            InputError: one does not.
        """
        known = [category.name for category in self.categories]
        if unknown := [name for name in names if name not in known]:
            lower = {name.casefold(): name for name in known}
            near = difflib.get_close_matches(unknown[0].casefold(), lower, n=1)
            hint = f"did you mean {lower[near[0]]!r}? " if near else ""
            raise InputError(f"there is no class {unknown[0]!r}; {hint}known: {a_few(known, SHOWN_NAMES)}")

    @classmethod
    def from_coco(cls, categories: Iterable[Mapping[str, Any]]) -> "Taxonomy":
        """From the `categories` list of COCO json; `isthing` (default: true) and `color` (generated) may be missing.

        Raises:
            ValueError: an entry without id or name, or with values of the wrong kind.
        """
        result = []
        for index, entry in enumerate(categories):
            try:
                red, green, blue = entry.get("color") or distinct_color(index)
                category = Category(
                    id=int(entry["id"]),
                    name=str(entry["name"]),
                    isthing=bool(entry.get("isthing", True)),
                    color=(int(red), int(green), int(blue)),
                )
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
                wanted = "a category has an id (a number), a name and, if any, a color of three numbers"
                raise ValueError(
                    f"category number {index + 1} is not understood ({reprlib.repr(entry)}): {wanted}"
                ) from error
            result.append(category)
        return cls(tuple(result))

    def to_coco(self) -> list[dict[str, Any]]:
        """The `categories` list of COCO panoptic json."""
        return [
            {
                "id": category.id,
                "name": category.name,
                "supercategory": category.name,
                "isthing": int(category.isthing),
                "color": list(category.color),
            }
            for category in self.categories
        ]
