"""What is seen in label images: their values, the patches of each, and where these lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from pix2seqd.data.smeared import mixed, smeared
from pix2seqd.files import InputError

MIXED_OBJECTS = 0.6
"""Share of the values of one patch from which land of many patches hides objects beside it."""
MAX_PATCHES = 200
"""Number of values of an image whose patches are counted; a sample is enough."""
MANY = 10
"""Number of values in an image from which instances can be told from classes."""
FEW_IMAGES = 5
"""Number of images below which values that do not return may be classes that are rare."""
SEVERAL = 3
"""Number of images from which values that are left out say that the others are classes."""
MANY_PIECES = 6
"""Number of patches of a value, on average, from which they are no pieces of one object, even if they are alike."""
MAX_UNLIKE = 0.6
"""How much the numbers of patches of the values differ, as a share of their mean, if they are the pieces of objects."""
FREE = 0.75
"""Share of the border of a value that is the background's if the value lies alone."""
LAND = 0.2
"""Share of the border of the values, in the middle, up to which they are areas that fill the image, as land."""
MAX_SPREAD = 16
"""How many times larger the large objects of a kind are than the small ones."""
NEARLY = 0.8
"""Share of the numbers up to the highest from which nearly all occur."""
MIN_BACKGROUND = 0.5
"""Share of the pixels of a stack with objects that are background."""
SAME_PLACE = 0.5
"""Share of the pixels of a value that the next slice of a stack has too."""
SPECK = 0.02
"""Share of the area of a value up to which a patch is a stray speck, which says nothing."""


@dataclass(frozen=True)
class Seen:
    """One label image, as numbers without 0."""

    values: np.ndarray
    """The distinct values, ascending."""
    chosen: np.ndarray
    """Some of the values, of which there is more to tell."""
    patches: np.ndarray
    """Number of connected patches (8 neighbours) of each chosen value, without specks."""
    areas: np.ndarray
    """Number of pixels of each chosen value."""
    scatter: np.ndarray
    """How far the pixels of each chosen value lie from their middle: 1 for a disc, above 1.5 for patches far apart."""
    evenness: np.ndarray
    """Size of the middle patch of each chosen value, as a share of its largest."""
    free: np.ndarray
    """Share of the border of each chosen value at which 0 begins."""
    zeros: int
    """Number of pixels of 0."""

    @property
    def has_zero(self) -> bool:
        """Whether some pixels are 0."""
        return self.zeros > 0

    def keep(self, kept: Callable[[np.ndarray], np.ndarray]) -> "Seen":
        """What was seen of the values for which `kept` is true."""
        some = kept(self.chosen)
        patches, areas, scatter = (of[some] for of in (self.patches, self.areas, self.scatter))
        evenness, free = self.evenness[some], self.free[some]
        values = self.values[kept(self.values)]
        return Seen(values, self.chosen[some], patches, areas, scatter, evenness, free, self.zeros)


class Images(list[Seen]):
    """What was seen in several label images."""

    @property
    def values(self) -> np.ndarray:
        """The distinct values of all images, ascending."""
        return np.unique(np.concatenate([s.values for s in self]))

    @property
    def most(self) -> int:
        """Number of values in the image that has most."""
        return max((len(s.values) for s in self), default=0)

    def keep(self, kept: Callable[[np.ndarray], np.ndarray]) -> "Images":
        """What was seen of the values for which `kept` is true."""
        return Images(s.keep(kept) for s in self)

    @property
    def labelled(self) -> "Images":
        """The images that have a value."""
        return Images(s for s in self if len(s.values))

    @property
    def returning(self) -> float:
        """Share of the values of an image that other images have too, on average; 1 for a single image."""
        shares = []
        for i, one in enumerate(self):
            others = [other.values for other in self[:i] + self[i + 1 :]]
            if others and len(one.values):
                shares.append(np.isin(one.values, np.concatenate(others)).mean())
        return float(np.mean(shares)) if shares else 1.0

    @property
    def single_share(self) -> float:
        """Share of values with one patch, of all values of all images."""
        patches = np.concatenate([s.patches for s in self])
        return float((patches == 1).mean()) if len(patches) else 0.0

    def numbered_share(self, base: int) -> float:
        """How far values consist of a class and a number that counts up from 0 or 1 within the class.

        It is the share of the numbers up to the highest that occur: near 1 for whole images, less for crops of images,
        and near 0 for other values. It is 0 if there are many values without a number.
        """
        numbers = self.numbers_of_classes(base)
        plain = {value for s in self for value in s.values[s.values < base].tolist()}
        return sum(map(len, numbers)) / max(1, sum(int(n[-1]) + 1 for n in numbers)) if len(plain) <= 64 else 0.0

    def share_from_0(self, base: int) -> float:
        """Share of the classes with several numbers in an image that have the number 0 there; 0.5 if there is none."""
        several = [numbers for numbers in self.numbers_of_classes(base) if len(numbers) > 1]
        return float(np.mean([numbers[0] == 0 for numbers in several])) if several else 0.5

    def numbers_of_classes(self, base: int) -> list[np.ndarray]:
        """The numbers of each class in each image, ascending, of values from `base` on: class * base + number."""
        found: list[np.ndarray] = []
        for s in self:
            classes, numbers = np.divmod(s.values[s.values >= base], base)
            found += [numbers[classes == value] for value in np.unique(classes)]
        return found

    def count_up(self, base: int, at_least: int = 3) -> bool:
        """Whether values from `base` on are a class and a number that counts up, nearly without gaps, from 0 or 1.

        Of the same few numbers in all images this cannot be told, unless they begin with 0, or reach `at_least`.
        """
        groups = self.numbers_of_classes(base)
        sizes = np.array([len(numbers) for numbers in groups])
        whole = [len(numbers) >= 0.9 * (numbers[-1] + int(numbers[0] == 0)) for numbers in groups]
        varied = len({tuple(s.values[s.values >= base].tolist()) for s in self}) > 1
        from_0 = any(len(numbers) > 1 and numbers[0] == 0 for numbers in groups)
        most = sizes.max(initial=0)
        several = from_0 or (most > 1 if varied else most >= at_least and len(self) < SEVERAL)
        return bool(several and sizes[whole].sum() >= 0.6 * sizes.sum())

    def are_pieces(self, *, one_scene: bool = False, many: bool = False) -> bool:
        """Whether values have few patches, as nerves that are cut several times, and not as land.

        The patches are of similar size, and about as many for each value. Those of land differ more, also where it
        fills the image as densely packed nerves do. They may differ more if the images are slices of one scene, and if
        there are `many` values that count from 1 in each image, as the numbers of objects.
        """
        counts = np.concatenate([s.patches for s in self])
        if not (counts > 1).any():
            return False
        even, free = np.median(np.concatenate([s.evenness for s in self])[counts > 1]), self.freedom
        unlike = counts.std() / counts.mean()
        enough = self.most >= MANY
        alone = even > (0.35 if enough else 0.5) and unlike <= MAX_UNLIKE and free > FREE
        packed = even > (0.4 if enough else 0.6) and unlike <= (MAX_UNLIKE if enough else 0.4)
        packed &= free <= LAND and self.spread <= MAX_SPREAD
        pieces = alone or packed or (one_scene and free > 0.5 * FREE) or (many and even > 0.4 and free > LAND)
        return bool(pieces and self.patches < MANY_PIECES)

    @property
    def freedom(self) -> float:
        """How far the values lie on the background, without touching others, from 0 to 1."""
        return float(np.median(np.concatenate([s.free for s in self])))

    @property
    def patches(self) -> float:
        """Number of patches of a value, on average; more than 8 are taken as 8."""
        return float(np.minimum(np.concatenate([s.patches for s in self]), 8).mean())

    @property
    def are_in_place(self) -> bool:
        """Whether the patches of a value are near each other, as those of an object that others cover in part."""
        several = np.concatenate([s.patches for s in self]) > 1
        return bool(np.median(np.concatenate([s.scatter for s in self])[several]) < 1.5)

    @property
    def spread(self) -> float:
        """How many times larger the large values are than the small ones."""
        areas = np.concatenate([s.areas for s in self])
        return float(np.quantile(areas, 0.9) / np.quantile(areas, 0.1))

    @property
    def are_nested(self) -> bool:
        """Whether the values of an image are all in each image with more of them, as with numbers that count from 1."""
        ordered = sorted((s.values for s in self), key=len)
        return all(np.isin(few, more).all() for few, more in pairwise(ordered))

    @property
    def steadiness(self) -> float:
        """How far the area of a value is the same in all images: near 1 for the parts of a body, near 0 for numbers.

        NaN if fewer than `MANY` values return.
        """
        areas: dict[int, list[float]] = {}
        for s in self:
            for value, area in zip(s.chosen.tolist(), np.log(s.areas).tolist(), strict=True):
                areas.setdefault(value, []).append(area)
        several = [np.array(found) for found in areas.values() if len(found) > 1]
        if len(several) < MANY:
            return np.nan
        squares = sum(((found - found.mean()) ** 2).sum() for found in several)
        within = squares / sum(len(found) - 1 for found in several)
        return float(1 - within / max(np.concatenate(several).var(ddof=1), 1e-9))

    @property
    def have_other_background(self) -> bool:
        """Whether a value is the background of most images with several values: 1 of a watershed, or the highest.

        Where no image has one, 0 is an object as the others are: of their size, among values that fill the image.
        """
        most = Images(s for s in self if len(s.chosen) >= FEW_IMAGES)
        objects = [s for s in most if 0.25 < s.zeros / np.median(s.areas) < 4]
        if objects and len(objects) >= NEARLY * len(most) and most.freedom <= LAND:
            return True
        around = [s for s in most if 2 * s.areas.max() > s.areas.sum()]
        found = [s for s in around if s.areas.max() > MAX_SPREAD * np.median(np.delete(s.areas, s.areas.argmax()))]
        return bool(found) and len(found) >= NEARLY * len(most)

    @property
    def hide_objects(self) -> bool:
        """Whether most of many values are one patch each, as objects beside land of many patches."""
        return self.most >= MANY and self.single_share >= MIXED_OBJECTS


def look(path: Path, values: np.ndarray, declaration: Path) -> Seen:
    """Count the values of an image, int64 `[h, w]`, and their patches.

    Raises:
        InputError: there are so many values, or so small patches, that it is no label image.
    """
    found, dense, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(found) > max(64, values.size // 8) or len(found) > 2**17:
        raise InputError(
            f"{path} has too many values to be labels; give label images, not photographs or probabilities"
        )
    dense = dense.reshape(values.shape)
    boxes = ndimage.find_objects(dense + 1)
    present = np.flatnonzero(found)
    chosen = present[:: max(1, len(present) // MAX_PATCHES)]
    every, patches, areas, scatter, evenness, specks = [], [], [], [], [], []
    for i in chosen:
        numbered, count = ndimage.label(dense[boxes[i]] == i, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
        sizes = np.bincount(numbered.ravel())[1:]
        every.append(count)
        patches.append((sizes > SPECK * sizes.sum()).sum())
        areas.append(sizes.sum())
        if count > 1 and np.median(sizes) < 3:
            specks.append(i)
        spread = sum(places.var() for places in np.nonzero(numbered))
        evenness.append(np.median(sizes[sizes >= min(SPECK * sizes.sum(), sizes.max())]) / sizes.max())
        scatter.append(np.sqrt(2 * np.pi * spread / sizes.sum()))
    if len(found) > 16 and np.median(np.divide(areas, every)) < 4:
        raise smeared(path)
    near = [(np.abs(found - found[i]) <= 2) & (counts >= 4 * counts[i]) for i in specks]
    if 3 * sum(map(np.any, near)) >= len(found) and any((found[large] > 0).any() for large in near):
        raise mixed(path, declaration, "values that hardly differ from larger ones and lie in them as specks")
    counted = (np.array(patches, int), np.array(areas), np.array(scatter), np.array(evenness))
    return Seen(found[present], found[chosen], *counted, _free(dense, found)[chosen], int(counts[found == 0].sum()))


def _free(dense: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Share of the border of each of the `found` values at which 0 begins; 0 for one without a border.

    `dense` has the index of the value of each pixel, `[h, w]`.
    """
    border, free = np.zeros((2, len(found)))
    for before, after in ((dense[:, :-1], dense[:, 1:]), (dense[:-1], dense[1:])):
        apart = before != after
        for here, there in ((before[apart], after[apart]), (after[apart], before[apart])):
            border += np.bincount(here, minlength=len(found))
            free += np.bincount(here[found[there] == 0], minlength=len(found))
    return free / np.maximum(border, 1)


def are_one_scene(images: Sequence[np.ndarray]) -> bool:
    """Whether a value lies at about the same place in one image and the next, as in the slices of a stack.

    Most of them is background; clips of classes that fill the image are not meant.
    """
    shares: list[float] = []
    if np.mean([(pixels == 0).mean() for pixels in images]) < MIN_BACKGROUND:
        return False
    for one, other in pairwise(images):
        if one.shape != other.shape:
            return False
        values, counts = np.unique(one[one > 0], return_counts=True)
        both, common = np.unique(one[(one == other) & (one > 0)], return_counts=True)
        inside = dict(zip(both.tolist(), common.tolist(), strict=True))
        shares += [inside.get(v, 0) / n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v in other]
    return bool(shares) and float(np.median(shares)) > SAME_PLACE
