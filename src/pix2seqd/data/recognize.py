"""Recognition of the coding of label images, from what their values look like.

A class has several patches in an image, and its value returns in other images. An instance is one patch, or a few, and
the instances of an image are numbered from 1. Where the values fit two codings, nothing is guessed.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from pix2seqd.data.contours import are_outlines, are_points, are_strokes
from pix2seqd.data.label_images import check_alpha
from pix2seqd.data.smeared import is_mixed, is_smooth, mixed, smeared, was_jpeg
from pix2seqd.files import InputError

COLOR_WEIGHTS = np.array([1, 256, 65536])
"""A colour as a number: R + 256 G + 65536 B."""
MEANING = {
    "class": "each value is a class",
    "instance": "0 is background, each other value is one object",
    "class*1000+id": "class * 1000 + number of the object",
    "class*256+id": "class * 256 + number of the object, from 1",
    "class*256+id from 0": "class * 256 + number of the object, from 0",
    "two-channel": "red is the class, green the number of the object",
    "color": "each colour is a class",
}
"""Coding → what it means. A class and a number may also be coded as `class*B+id` or `id*B+class` with any B."""
NUMBERED = re.compile(r"(class|id)\*([1-9][0-9]{1,8})\+(?!\1)(?:id|class)")
"""A coding of a class and a number in one value: which of both comes first, and what it is multiplied with."""
LARGER = {1000: (10_000, 100_000, 1_000_000), 256: (512, 1024, 4096, 65_536)}
"""Factors that fit all values which another factor fits, if the classes are multiples of what is between them."""
MIXED_OBJECTS = 0.6
"""Share of the values of one patch from which land of many patches hides objects beside it."""
LOOKED_AT = 3
"""Number of label images that are compared with themselves as JPEG."""
MAX_PATCHES = 200
"""Number of values of an image whose patches are counted; a sample is enough."""
SINGLE = 0.9
"""Share of the values with one patch from which they may be instances: a few are cut in two by others."""
MANY = 10
"""Number of values in an image from which instances can be told from classes."""
FEW_IMAGES = 5
"""Number of images below which values that do not return may be classes that are rare."""
SEVERAL = 3
"""Number of images from which values that are left out say that the others are classes."""
SAME = 0.8
"""Share of all values that an image has on average, above which the values are the same in all images."""
SCATTERED = 2.5
"""Number of patches of a value, on average, from which values are classes: few instances are cut in more than two."""
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
LOW_CHANNEL = 40
"""Value below which all values of a channel are rather the numbers of classes or objects than parts of colours."""
FEW_LOW = 8
"""Highest value of several low channels up to which they may be colours that somebody chose."""
MANY_ALONE = 16
"""Number of values in an image from which values of one patch, alone on the background, are instances of any size."""
NEARLY = 0.8
"""Share of the numbers up to the highest from which nearly all occur."""
MIN_BACKGROUND = 0.5
"""Share of the pixels of a stack with objects that are background."""
SAME_PLACE = 0.5
"""Share of the pixels of a value that the next slice of a stack has too."""
SPARSE = 0.25
"""Share of the numbers up to the highest value, below which few of them occur."""
SPECK = 0.02
"""Share of the area of a value up to which a patch is a stray speck, which says nothing."""
MANY_CLASSES = 256
"""Number of values that a set of classes may have if they are higher than 1000, or colours."""
NEARLY_ALL = 240
"""Number of values in an image above which nearly all of 8 bits are used."""
FEW_TONES = range(2, 9)
"""Highest number of values in an image that tell neighbours apart; greedy colouring of a plane needs up to about 8."""
ALIKE = 4
"""How many times larger the patches of one such value are than those of another, on average."""
APART = 0.97
"""Share of the border of values, in the middle, up to which patches touch others often enough to judge by it."""
LONG = 1.25
"""`_Seen.scatter` of a patch above which it may be several objects that touch."""
MAX_LONG = 0.15
"""Share of the area in such patches up to which patches of one value hardly ever touch."""
PLENTY = 64
"""Number of values in an image above which they are not classes of which each is one patch."""
OTHER_BACKGROUND = (
    "; with 'coding: instance', a background other than 0 is to be void, as in 'void: 1', or, if it is another value "
    "in each image, to be saved as 0; where 0 is an object, add 1 to all values"
)
"""What messages add where the background of objects seems not to be 0."""
ALIKE_CURE = "; otherwise save all of them alike, also those of all splits"
"""What messages add where some images seem to have another coding."""
HIGHEST = (2**16 - 1, 2**31 - 1, 2**32 - 1)
"""The highest values of label images, which programs often write for pixels without a label."""

POINTS = are_points, "only points, which have no area; draw masks, or, if dots of one size are meant"
OUTLINES = (
    are_outlines,
    "only lines around objects, with nothing inside; fill the objects (docs/datasets.md says how), or, "
    "if the lines are meant",
)
STROKES = (
    are_strokes,
    "only thin lines; of scribbles, what lies beside them would be taken for background: draw areas, or, if lines "
    "such as roads or vessels are meant",
)


@dataclass(frozen=True)
class _Seen:
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
        return self.zeros > 0


def recognize(
    images: Sequence[tuple[Path, np.ndarray]],
    declaration: Path,
    *,
    classes_only: bool,
    named: Collection[int] = (),
    things_given: bool = False,
    void: Sequence[int] = (),
    looked_up: bool = False,
) -> tuple[str, str]:
    """Recognise the coding of label images.

    Args:
        images: path and pixels of some label images of a data set.
        declaration: the file in which the user can choose the coding, for messages.
        classes_only: whether the values are known to be classes, since several are named.
        named: the values that the user named.
        things_given: whether the user said which classes are things.
        void: grey values that the user declared void.
        looked_up: whether the colours come from palettes that differ from image to image.

    Returns:
        The coding, a key of `MEANING`, and the reason in words.

    Raises:
        InputError: the images are not label images, or fit several codings.
    """
    greys = (pixels[..., 1] for _, pixels in images if pixels.ndim == 3 and pixels.shape[2] == 2)
    alphas = {value for alpha in greys for value in np.unique(alpha).tolist()}
    plain = [(path, _without_alpha(path, pixels, alphas)) for path, pixels in images]
    coding, reason = _recognize_plain(plain, declaration, classes_only, named, things_given, void, looked_up)
    if coding in ("class", "color") and not (classes_only or things_given):
        grey = [(path, p if p.ndim == 2 else p @ COLOR_WEIGHTS[: p.shape[2]]) for path, p in plain]
        _check_drawn(grey, declaration, [coding], STROKES)
    return coding, reason


def _recognize_plain(
    plain: list[tuple[Path, np.ndarray]],
    declaration: Path,
    classes_only: bool,
    named: Collection[int],
    things_given: bool,
    void: Sequence[int],
    looked_up: bool,
) -> tuple[str, str]:
    """As `recognize`, of images without an alpha channel."""
    if any(pixels.ndim == 3 and pixels.shape[2] == 3 for _, pixels in plain):
        _check_alike(plain, declaration)
        colors = [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2) for _, pixels in plain]
        if not all((c == c[..., :1]).all() for c in colors):
            colored = [(path, c) for (path, _), c in zip(plain, colors, strict=True)]
            return _recognize_colors(colored, declaration, named, things_given, looked_up)
        plain = [(path, c[..., 0]) for (path, _), c in zip(plain, colors, strict=True)]
    if any(pixels.ndim == 3 for _, pixels in plain):
        return _recognize_pairs([_pairs(path, pixels) for path, pixels in plain], declaration, named)
    seen = _look_at_all(plain, declaration, len(set(named) - {0, 255}) > 1)
    if not any(len(s.values) for s in seen):
        raise InputError(
            f"{declaration.parent}: the label images hold only 0, so nothing is labelled; export them again, "
            f"or write 'coding: class' to {declaration} if 0 is a class"
        )
    both = max((s.values.tolist() for s in seen), key=len)
    masks = all(not s.has_zero and np.isin(s.values, both).all() for s in seen)
    if masks and len(both) == 2 and 255 not in both and not (classes_only or things_given or void):
        raise _unsure_pair(declaration, *both)
    seen = [_keep(s, lambda values: ~np.isin(values, void)) for s in seen]
    values = np.unique(np.concatenate([s.values for s in seen]))
    if classes_only and values.max(initial=0) >= 1000 and np.isin(values, [*named, *HIGHEST]).all():
        return "class", "all values are named in the declaration"
    one_scene = _is_one_scene([pixels for _, pixels in plain])
    inverted = bool(np.mean([(pixels > 0).mean() for _, pixels in plain]) > 0.5)
    coding, reason = _recognize_grey(seen, declaration, classes_only, things_given, one_scene, inverted)
    if coding == "class" and not classes_only:
        _check_stretch(seen, declaration)
        if not things_given and _only_tell_apart(seen, [np.where(pixels == 255, 0, pixels) for _, pixels in plain]):
            raise _unsure_tones(declaration, "class")
    patches = [_patches([s]) if len(s.values) else 1 for s in seen]
    if coding == "instance" and max(patches) >= MANY_PIECES:
        odd, usual = (plain[int(i)][0] for i in (np.argmax(patches), np.argmin(patches)))
        raise _unsure(
            declaration,
            f"most number the objects, as {usual}, but values of {odd} have many patches, as classes have",
            ["instance"],
            ALIKE_CURE,
        )
    if len(seen) >= SEVERAL and not classes_only and _are_of_two_kinds(seen, coding):
        raise _unsure(
            declaration, "images have values of one or of another kind, and none has both", [coding], ALIKE_CURE
        )
    return coding, reason


def _are_of_two_kinds(seen: list[_Seen], coding: str) -> bool:
    """Whether images fall into two groups without a common value, or into those with and without numbers of objects."""
    images = [values for s in seen if (values := set(s.values.tolist()) - {255})]
    if base := re.search(r"[0-9]{3,}", coding):
        plain = [values for values in images if max(values) < int(base[0])]
        mixed = any(min(values) < int(base[0]) <= max(values) for values in images)
        return not mixed and len(set().union(*plain)) > 1
    groups: list[set[int]] = []
    for values in images if coding == "class" else ():
        apart = [group for group in groups if not group & values]
        groups = [*apart, values.union(*(group for group in groups if group & values))]
    return len(groups) == 2 and min(map(len, groups)) > 1


def _only_tell_apart(seen: list[_Seen], images: list[np.ndarray]) -> bool:
    """Whether values may be the few tones that graph colouring gives to objects, so that no two of one tone touch.

    Patches of a class that touch become one, of no simple form. Of tones, all but the commonest are there because their
    patches touch others. `images` are `[h, w]`, 0 where nothing is labelled.
    """
    seen = [s for s in (_keep(s, lambda values: values != 255) for s in seen) if len(s.values)]
    values, index = np.unique(np.concatenate([s.chosen for s in seen] or [[]]), return_inverse=True)
    if len(values) not in FEW_TONES or _patches(seen) < SCATTERED:
        return False
    patches, sizes = (
        np.bincount(index, np.concatenate(found))
        for found in ([s.patches for s in seen], [s.areas / s.patches for s in seen])
    )
    mean, free = sizes / np.bincount(index), np.concatenate([s.free for s in seen])
    commonest = index == patches.argmax()
    # Parts of objects, as nuclei in cells, lie in others and not beside them.
    if not 0.5 * np.median(free[commonest]) <= np.median(free[~commonest]) <= APART:
        return False
    total = long = 0
    for pixels in images:
        for value in np.unique(pixels[pixels > 0]):
            numbered, _ = ndimage.label(pixels == value, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
            places = np.nonzero(numbered)
            areas = np.bincount(of := numbered[places] - 1)
            variances = [np.bincount(of, p * p) / areas - (np.bincount(of, p) / areas) ** 2 for p in places]
            total += areas.sum()
            long += areas[np.sqrt(2 * np.pi * np.sum(variances, 0) / areas) > LONG].sum()
    return bool(mean.max() <= ALIKE * mean.min() and long <= MAX_LONG * total)


def _unsure_tones(declaration: Path, coding: str) -> InputError:
    what = "colours" if coding == "color" else "values"
    few = f"a few {what}, whose patches touch those of others and hardly ever one another"
    also = f"; if {what} only tell neighbours apart, give each object a number of its own (docs/datasets.md)"
    return _unsure(declaration, few, [coding], also)


def _check_alike(plain: Sequence[tuple[Path, np.ndarray]], declaration: Path) -> None:
    """Refuse numbers of classes in some images, which no other image has as a grey, among colours in others."""
    numbers = {value: path for path, pixels in plain if pixels.ndim == 2 for value in np.unique(pixels).tolist()}
    greys = {0, *(int(c) for _, p in plain if p.ndim == 3 for c in np.unique(p[(p == p[..., :1]).all(2)]))}
    colored = next((path for path, p in plain if p.ndim == 3 and (p != p[..., :1]).any()), None)
    if colored and not numbers.keys() <= greys and max(numbers) < LOW_CHANNEL:
        grey = numbers[max(numbers)]
        raise InputError(
            f"{declaration.parent}: some label images have numbers, as {grey.name}, and others colours, as "
            f"{colored.name}; save all of them alike"
        )


def _check_stretch(seen: list[_Seen], declaration: Path) -> None:
    """Refuse values that each image has spread to 255 in its own steps, so that they differ from image to image."""
    several = [np.concatenate([[0], s.values]) for s in seen if len(s.values) > 1]
    even = all(values[-1] == 255 and np.ptp(np.diff(values)) <= 1 for values in several)
    counts = {len(values) - 1 for values in several}
    if even and any(one % other and other % one for one, other in combinations(counts, 2)):
        raise InputError(
            f"{declaration.parent}: each label image is stretched to 255 on its own, so that a value means another "
            "class in another image; save the values as they are"
        )


def _look_at_all(plain: Sequence[tuple[Path, np.ndarray]], declaration: Path, several_named: bool) -> list[_Seen]:
    """What is seen in grey images, `[h, w]` each; lines may be what is meant if several classes are named.

    Raises:
        InputError: the values of one were smeared, or as `_look`.
    """
    if soft := [path for path, pixels in plain if is_smooth(pixels)]:
        raise InputError(
            f"{smeared(soft[0])}; of a black and white mask, a threshold restores the values: "
            f"mogrify -threshold 50% {soft[0]}"
        )
    if not several_named:
        _check_drawn(plain, declaration, ["class", "instance"], POINTS, OUTLINES)
    seen = [_look(path, pixels, declaration) for path, pixels in plain]
    if blurred := [path for path, pixels in plain if is_mixed(pixels)]:
        raise mixed(blurred[0], declaration, "values between those of two neighbours along its borders")
    if jpegs := [path for path, pixels in plain[:LOOKED_AT] if was_jpeg(pixels)]:
        raise mixed(jpegs[0], declaration, "the blocks of 8 x 8 pixels of a JPEG")
    return seen


def _check_drawn(
    plain: Sequence[tuple[Path, np.ndarray]],
    declaration: Path,
    codings: list[str],
    *kinds: tuple[Callable[[np.ndarray], bool], str],
) -> None:
    """Refuse values, `[h, w]` each, that are all of one of these kinds; `codings` are those of what is meant so."""
    labelled = [(path, pixels) for path, pixels in plain if pixels.any()]
    for are_alone, what in kinds:
        drawn = [path for path, pixels in labelled if are_alone(pixels)]
        if 2 * len(drawn) > len(labelled):
            raise InputError(f"{drawn[0]} has {what}, write to {declaration}: {_lines(codings)}")


def _without_alpha(path: Path, pixels: np.ndarray, alphas: set[int]) -> np.ndarray:
    """The pixels without the alpha channel of colours, or one of grey that says nothing: constant, or 0 and 255.

    `alphas` are the values of the alpha channels of all images that are grey.

    Raises:
        InputError: the mask seems to be the alpha channel of grey.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return pixels[..., :3]
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        if len(alphas) > 1 and alphas <= {0, 255}:
            check_alpha(path, pixels)
        if len(alphas) == 1 or alphas <= {0, 255}:
            return pixels[..., 0]
    return pixels


def _recognize_grey(
    seen: list[_Seen], declaration: Path, classes_only: bool, things_given: bool, one_scene: bool, inverted: bool
) -> tuple[str, str]:
    """The coding and the reason for it of grey values; `inverted` if most pixels are not 0."""
    union = np.unique(np.concatenate([s.values for s in seen]))
    highest = int(union.max(initial=0))
    if len(union) == 1 and any(s.has_zero for s in seen):
        if things_given:
            return "class", "things are declared"
        raise _unsure_mask(declaration, f"all is 0 or {highest}", str(highest), "class", inverted)
    if union.tolist() == [255, HIGHEST[0]]:
        raise InputError(
            f"{declaration.parent}: some label images have 255 and others {highest}, as masks of 8 and 16 bits; save "
            "all of them with 8 bits"
        )
    if highest in HIGHEST and union[:-1].max(initial=0) < 0.9 * highest and not classes_only:
        codings = ["class", "instance"] if union[:-1].max(initial=0) < 1000 else ["class*1000+id", "instance"]
        hint = f"; add 'void: {highest}' if these pixels have no label"
        raise _unsure(declaration, f"{highest} is far above the other values", codings, hint)
    if (highest < 1000 or highest in HIGHEST) and classes_only:
        return "class", "classes are named in the declaration"
    if highest >= 1000:
        return _recognize_high(seen, union, declaration, classes_only, one_scene)
    if max(len(s.values) for s in seen) > NEARLY_ALL and highest < 256 and _single_share(seen) < SINGLE:
        raise InputError(
            f"{declaration.parent}: an image has nearly all values below 256, and many have several patches, as if "
            f"more than 255 objects were saved with 8 bits; save them with 16, or write the coding to {declaration}"
        )
    # 255 far above all other values is void by convention, which both codings allow.
    if 255 not in union or union[union != 255].max(initial=0) >= 250:
        return _recognize_low([s for s in seen if len(s.values)], declaration, one_scene)
    # Numbers of objects that were spread to be seen end at 255, too, and have values above 127.
    bordered = union[union != 255].max(initial=0) < 128 and 2 * sum(255 in s.values for s in seen) >= len(seen)
    rest = [s for s in (_keep(s, lambda values: values != 255) for s in seen) if len(s.values)]
    return _recognize_low(rest, declaration, one_scene, void=True, bordered=bordered)


def _recognize_low(
    seen: list[_Seen], declaration: Path, one_scene: bool, *, void: bool = False, bordered: bool = False
) -> tuple[str, str]:
    """The coding and the reason for it of grey values below 1000.

    Args:
        seen: the images that have a value.
        declaration: the file in which the user can choose the coding.
        one_scene: the images are slices of a stack.
        void: 255 is void, and left out of `seen`.
        bordered: most images have this void, and the other values are low.
    """
    most, returning, what = max((len(s.values) for s in seen), default=0), _returning(seen), " and 255" if void else ""
    if most < 2:
        if len(seen) >= SEVERAL and returning < 0.3:
            one = "an image has one value, and other images have other ones"
            raise _unsure(declaration, one, ["instance", "class"])
        return "class", f"an image has at most one value besides 0{what}"
    background = all(s.has_zero for s in seen) and not _has_other_background(seen)
    single, row = _single_share(seen), _Row.of(seen)
    counts = f"an image has up to {most} values besides 0{what}"
    codings = ["instance", "class", *_small_bases(seen)]
    hint = "" if background else OTHER_BACKGROUND
    if row.counted and row.varied and background and not void and most >= MANY and len(seen) >= SEVERAL:
        few, many = min(row.ends), max(row.ends)
        return "instance", f"the values count from 1 without a gap, up to {few} to {many} in an image"
    if _patches(seen) >= SCATTERED and not (most >= MANY and ((row.counted and row.varied) or _in_place(seen))):
        pieces = _are_pieces(seen, one_scene=one_scene, many=row.counted and most >= MANY)
        if most > PLENTY or returning < 0.3 or pieces or _hides_objects(seen):
            raise _unsure(declaration, f"{counts}, and many values have several patches", codings, hint)
        return "class", f"{counts}, and many values have several patches"
    gaps = any((np.diff(s.values) > 1).any() for s in seen)
    sparse = row.total < SPARSE * sum(row.ends) and gaps
    if sparse and bordered:
        return "class", f"{counts}, most images have 255, and most numbers below the highest do not occur"
    if returning < 0.3 and not (single >= SINGLE and most >= MANY):
        raise _unsure(declaration, f"{counts}, other ones in each image", codings, hint)
    # The organs in the slices of a stack return as its nerves do.
    tracked = one_scene and _freedom(seen) > 0.5 * FREE
    if (
        sparse
        and single < SINGLE
        and not tracked
        and (_spread(seen) > MAX_SPREAD or (most < MANY and len(seen) >= SEVERAL))
    ):
        return "class", f"{counts}, some have several patches, and most numbers below the highest do not occur"
    if most >= MANY and single >= SINGLE and background and not void and _are_objects(seen, row, most, returning):
        return "instance", f"{counts}, and {_of_one_patch(single)}"
    if most < MANY and (reason := _few_classes(seen, row, background, tracked, most == 2 and void)):
        return "class", f"{counts}, {reason}"
    raise _unsure(declaration, f"{counts}, {_of_one_patch(single)}", codings, hint)


def _has_other_background(seen: list[_Seen]) -> bool:
    """Whether a value is the background of most images with several values: 1 of a watershed, or the highest.

    Where no image has one, 0 is an object as the others are: of their size, among values that fill the image.
    """
    most = [s for s in seen if len(s.chosen) >= FEW_IMAGES]
    objects = [s for s in most if 0.25 < s.zeros / np.median(s.areas) < 4]
    if objects and len(objects) >= NEARLY * len(most) and _freedom(most) <= LAND:
        return True
    around = [s for s in most if 2 * s.areas.max() > s.areas.sum()]
    found = [s for s in around if s.areas.max() > MAX_SPREAD * np.median(np.delete(s.areas, s.areas.argmax()))]
    return bool(found) and len(found) >= NEARLY * len(most)


def _small_bases(seen: list[_Seen]) -> list[str]:
    """Codings of a class and a number that values below 1000 fit."""
    found: list[str] = []
    for base in (100, 256):
        if _numbered_share(seen, base) > 0.5 and _counts_up(seen, base):
            order = _order(_both_parts(seen, base))
            found += [f"class*{base}+id"] * (order >= 0) + [f"id*{base}+class"] * (order <= 0)
    return found


def _hides_objects(seen: list[_Seen]) -> bool:
    """Whether most of many values are one patch each, as objects beside land of many patches."""
    return max(len(s.values) for s in seen) >= MANY and _single_share(seen) >= MIXED_OBJECTS


@dataclass(frozen=True)
class _Row:
    """How the values of images count up from 1."""

    ends: list[int]
    """The highest value of each image."""
    total: int
    """Number of values in all images."""
    counted: bool
    """Whether no image leaves a value out."""
    varied: bool
    """Whether the highest value differs from image to image."""
    constant: bool
    """Whether many images have the same highest value."""

    @classmethod
    def of(cls, seen: list[_Seen]) -> "_Row":
        ends = [int(s.values[-1]) for s in seen]
        counted = all(len(s.values) == s.values[-1] for s in seen)
        varied, constant = min(ends) < 0.8 * max(ends), len(seen) >= FEW_IMAGES and min(ends) == max(ends)
        return cls(ends, sum(len(s.values) for s in seen), counted, varied, constant)


def _are_objects(seen: list[_Seen], row: _Row, most: int, returning: float) -> bool:
    """Whether many values of one patch each are objects, and not parts of a body or regions of an atlas.

    Args:
        seen: the images.
        row: how their values count up.
        most: number of values in the image that has most.
        returning: from `_returning`.
    """
    # The parts of a car or a body are of similar size, but each image lacks others of them.
    steady, free = _steadiness(seen), _freedom(seen)
    gaps = np.median([len(s.values) / s.values[-1] for s in seen]) < 0.95
    unsure = gaps and (returning > 0.9 or (returning >= 0.3 and not steady < 0.3))
    # Regions of an atlas, of which each image has some, return only in many images.
    unsure |= row.total < 0.5 * sum(row.ends) and (len(seen) < FEW_IMAGES or returning >= 0.3)
    unsure |= not ((row.varied and len(seen) > 1) or _spread(seen) <= MAX_SPREAD)
    unsure |= len(seen) == 1 and free <= FREE
    # Of parts and regions, few are alone on the background, and not that many nearly without a gap.
    clear = most >= MANY_ALONE and row.total >= NEARLY * sum(row.ends) and free > FREE and not row.constant
    few = most <= PLENTY and not clear and (row.constant or unsure)
    parts = steady >= 0.5 and not (row.counted and row.varied)
    return not few and not parts


def _few_classes(seen: list[_Seen], row: _Row, background: bool, tracked: bool, and_void: bool) -> str:
    """Why a few values, most of few patches, are classes; "" if they may be objects.

    Args:
        seen: the images.
        row: how their values count up.
        background: every image has 0.
        tracked: the images are slices of a stack with objects.
        and_void: there are two values, and void.
    """
    if not background and _are_pieces(seen):
        return ""
    values = np.unique(np.concatenate([s.values for s in seen]))
    # Values that are 1, 2, 3 or 8, 16, 24 may be numbers of objects, unless they fill the image as land.
    numbered = tracked or (np.ptp(np.diff(values, prepend=0)) == 0 and _freedom(seen) > LAND)
    if row.constant and not numbered and not (row.counted and _spread(seen) <= 8):
        return "of which the highest is the same in all images"
    if not background and not (row.counted and (row.varied or len(seen) < SEVERAL)):
        return "and some images have no background of 0"
    # Classes that are one patch each leave out values; so do instances of which some were deleted. Only classes return.
    returning = row.total / len(seen) > SAME * len(values)
    if (not row.counted and not numbered and len(seen) >= SEVERAL and returning) or and_void:
        return "which are the same few in all images"
    return ""


def meaning(coding: str) -> str:
    """What a pixel means in a coding, in words."""
    if coding in MEANING or not (found := NUMBERED.fullmatch(coding)):
        return MEANING[coding]
    first, second = ("class", "number of the object")[:: 1 if found[1] == "class" else -1]
    return f"{first} * {found[2]} + {second}"


def _which_number(seen: list[_Seen], declaration: Path, coding: str, reason: str, base: int) -> tuple[str, str]:
    """The coding and the reason for it of values that count up within each `base`.

    Args:
        seen: the images.
        declaration: the file in which the user can choose the coding.
        coding: what they are, if the class comes first.
        reason: the reason for that.
        base: what separates both parts.

    Raises:
        InputError: a larger base fits as well, or the number may come first.
    """
    pairs = _both_parts(seen, base)
    high = np.unique(np.concatenate(pairs)[:, 0])
    larger = [other for other in LARGER[base] if not (high % (other // base)).any()]
    # Numbers above `base` run on through what would be the next class.
    runs = any(
        (np.isin(s.values + 1, s.values) & (s.values % base == base - 1) & (s.values > base)).any() for s in seen
    )
    if runs and (higher := [f"class*{other}+id" for other in LARGER[base] if _counts_up(seen, other)]):
        reason += ", and on through several of these"
        if len(higher) > 1:
            raise _unsure(declaration, reason, [*higher, "instance"])
        return higher[0], reason
    for pair in pairs if larger else ():
        pair[:, 0] //= larger[-1] // base
    order = _order(pairs)
    if order < 0 and not larger:
        return f"id*{base}+class", f"{reason}, and the multiples of {base} differ from image to image, as numbers do"
    others = [f"class*{other}+id" for other in larger]
    if order <= 0:
        others += [f"id*{other}+class" for other in (base, *larger)]
    if others:
        raise _unsure(declaration, reason, [coding, *others, "instance"])
    return coding, reason


def _both_parts(seen: list[_Seen], base: int) -> list[np.ndarray]:
    """The multiple of `base` and the rest, `[n, 2]`, of the values from `base` on of each image."""
    return [np.stack(np.divmod(s.values[s.values >= base], base), 1) for s in seen]


def _order(pairs: list[np.ndarray]) -> int:
    """Which part of values is the class: 1 for the first, -1 for the second, 0 if it may be either.

    The number is the part that counts up, to another end in each image, or that has at least twice as many values.

    Args:
        pairs: both parts of each image, `[n, 2]`.
    """
    if not _are_numbered(pairs, 1):
        return 1
    if not _are_numbered(pairs, 0):
        return -1
    first, second = (len({int(found[:, part].max(initial=0)) for found in pairs}) > 1 for part in (0, 1))
    if first != second:
        return 1 if second else -1
    high, low = (max(len(np.unique(found[:, part])) for found in pairs) for part in (0, 1))
    return int(low >= 2 * high) - int(high >= 2 * low)


def _recognize_high(
    seen: list[_Seen], union: np.ndarray, declaration: Path, classes_only: bool, one_scene: bool
) -> tuple[str, str]:
    """The coding and the reason for it of grey values that reach 1000; `union` has all of them.

    The ids of an atlas of organs reach 1000 too, such as 2, 41 and 1002: those that are numbered within a thousand have
    gaps, or are the same in all images.
    """
    highest = int(union[-1])
    most = max(len(s.values) for s in seen)
    single, returning = _single_share(seen), _returning(seen)
    dense = sum(len(s.values) for s in seen) >= 0.5 * sum(int(s.values.max(initial=0)) for s in seen)
    many = dense and most > PLENTY
    share = 0.0 if many or highest >= 1000 * 1000 else _numbered_share(seen, 1000)
    bases = (10_000, 65_536, 100_000, 1_000_000)
    fitting = (base for base in bases if highest >= base > 4 * (union[union >= base] % base).max())
    codings = ["instance", "class*1000+id", *(f"class*{base}+id" for base in fitting)]
    codings += ["id*1000+class"] if _order(_both_parts(seen, 1000)) <= 0 else []
    codings += ["class"] if len(union) <= MANY_CLASSES else []
    if not (union % 1000 * (union > 1000)).any() and not classes_only:
        raise _unsure(declaration, f"values reach {highest}, all full thousands", codings)
    if share and (_counts_up(seen, 1000) or (classes_only and share > 0.2 and (single < SINGLE or most < MANY))):
        counting = f"values reach {highest} and count up within each thousand"
        return _which_number(seen, declaration, "class*1000+id", counting, 1000)
    of_256 = highest < 2**16 and len(union) < 0.5 * (highest - union[0]) and len(np.unique(union // 256)) > 2
    if share < 0.2 and of_256 and _numbered_share(seen, 256) > 0.5:
        from_0, counting = _share_from_0(seen, 256), f"values reach {highest} and count up within each 256"
        if _counts_up(seen, 256) and abs(from_0 - 0.5) > 0.3:
            coding = "class*256+id" + (" from 0" if from_0 > 0.5 else "")
            return _which_number(seen, declaration, coding, counting, 256)
        raise _unsure(declaration, counting, ["class*256+id", "class*256+id from 0", "instance"])
    # The regions of an atlas are one patch each as well, but they return, or there are few of them.
    other = returning < 0.05 and len(seen) >= FEW_IMAGES and most >= 3
    alike = most > PLENTY and (dense or returning < 0.3 or len(seen) < SEVERAL) and _spread(seen) <= MAX_SPREAD
    lies_around = _has_other_background(seen)
    alike &= not lies_around
    if share < 0.2 and single >= SINGLE and (other or alike) and not classes_only:
        return "instance", f"values reach {highest}, and {_of_one_patch(single)}"
    # Of number * 1000 + class, the low values are land of several patches, but each high one is one object.
    high = [_keep(s, lambda values: values >= 1000) for s in seen]
    scattered = min(_patches(seen), _patches(high)) >= SCATTERED and not _are_pieces(seen, one_scene=one_scene)
    scattered &= not _hides_objects(seen)
    if share < 0.2 and not dense and len(union) <= MANY_CLASSES and scattered and len(seen) >= SEVERAL:
        return "class", f"values reach {highest}, and many of them have several patches"
    raise _unsure(declaration, f"values reach {highest}", codings, OTHER_BACKGROUND if lies_around else "")


def _recognize_colors(
    images: list[tuple[Path, np.ndarray]],
    declaration: Path,
    named: Collection[int],
    things_given: bool,
    looked_up: bool,
) -> tuple[str, str]:
    plain = [(path, pixels @ COLOR_WEIGHTS) for path, pixels in images]
    _check_drawn(plain, declaration, ["color"], POINTS, OUTLINES)
    for path, pixels in images:
        for channel in np.moveaxis(pixels, -1, 0):
            _look(path, channel, declaration)  # smeared colours differ little in each channel
    seen = [_look(path, pixels, declaration) for path, pixels in plain]
    values = np.unique(np.concatenate([s.values for s in seen]))
    if len(values) == 1 and any(s.has_zero for s in seen):
        if things_given:
            return "color", "things are declared"
        color = f'"{hex_color(int(values[0]))}"'
        raise _unsure_mask(declaration, f"all is black or {color}", color, "color")
    counts = f"they have {len(values)} colours besides black"
    codings, single = ["color", "instance"], _single_share(seen)
    if values.max() < 65536 and (values >= 256).any() and (values % 256).any():
        pairs = [_pairs(path, pixels) for path, pixels in images]
        first, second = (_are_numbered(pairs, classes) for classes in (0, 1))
        # Of few low colours, one channel nearly always seems to number the other; classes have several patches.
        numbers = np.concatenate(pairs)[:, 1]
        highest = int(numbers[numbers < 255].max(initial=0))
        many = highest >= MANY or (single >= SINGLE and (numbers.max() > 3 or _has_stuff(pairs, 0)))
        if _are_named(pairs, named) or (first and not second and many):
            return "two-channel", "blue is 0, and green numbers the objects of each red value"
        codings += ["two-channel"] if first else []
        if (first or second) and _patches(seen) < SCATTERED:
            raise _unsure(declaration, f"{counts}, all without blue, as numbers may have", codings)
    known = named and np.isin(np.where(values < 1000, values, values // 1000), [0, *named]).all()
    if 1000 <= values.max() < 256_000 and (
        _counts_up(seen, 1000, at_least=2) or (known and _numbered_share(seen, 1000) > 0.2)
    ):
        return "class*1000+id", "the colours as R + 256 G + 65536 B count up within each thousand"
    returning, most, several = _returning(seen), max(len(s.values) for s in seen), len(seen) >= SEVERAL
    one_scene = _is_one_scene([pixels for _, pixels in plain])
    if _patches(seen) >= SCATTERED:
        classes = most < 2 or not _are_pieces(seen, one_scene=one_scene)
    else:
        classes = single < 0.75 and returning >= 0.3 and several and not _nested(seen)
    if _patches(seen) >= SCATTERED and several and most > 1 and returning < 0.3:
        also = "; 'coding: class' takes the numbers in the palettes, and not their colours" if looked_up else ""
        codings += ["class"] if looked_up else []
        raise _unsure(declaration, f"{counts}, other ones in each image", codings, also)
    if len(values) <= MANY_CLASSES and classes:
        if not (things_given or named) and _only_tell_apart(seen, [pixels for _, pixels in plain]):
            raise _unsure_tones(declaration, "color")
        if _has_low_channel(values):
            numbers = f"{counts}, and one channel has only low numbers, as of classes or objects"
            also = "; if it is the class and another channel the object, save class * 1000 + number of the object"
            raise _unsure(declaration, numbers, codings, also)
        return "color", f"{counts}, of which many have several patches" + _near_colors(values) + _swapped_colors(seen)
    if single < SINGLE:
        also = "; if colours only tell neighbours apart, save a number for each object instead"
        raise _unsure(declaration, f"{counts}, {_of_one_patch(single)}", codings, also)
    if returning < 0.3 and most >= MANY and all(s.has_zero for s in seen):
        return "instance", f"{counts}, {_of_one_patch(single)}, and other images have other colours"
    if most < 2 and not (several and returning < 0.3):
        return "color", f"{counts}, one in each image"
    hint = " (or, if a JSON file says what each colour is, open the folder as coco:DIR)"
    raise _unsure(declaration, f"{counts}, {_of_one_patch(single)}", codings, hint)


def _recognize_pairs(pairs: list[np.ndarray], declaration: Path, named: Collection[int]) -> tuple[str, str]:
    """The coding and the reason for it of images of two channels, from the `_pairs` of each."""
    first, second = (_are_numbered(pairs, classes) for classes in (0, 1))
    if _are_named(pairs, named) or (first and not second):
        return "two-channel", "the second channel numbers the objects of each value of the first"
    what = "the first channel seems to number the objects, and the second to be their class"
    if not second:
        what = "neither of their two channels numbers objects"
    elif first:
        what = "each of their two channels may be the class, and the other number the objects"
    raise InputError(
        f"{declaration.parent}: of the label images, {what}; write 'coding: two-channel' to {declaration} if the first "
        "is the class and the second numbers the objects; otherwise save them so, or only one channel"
    )


def _pairs(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The distinct pairs of the first two channels of pixels `[h, w, channels]`: `[n, 2]`.

    Raises:
        InputError: there are so many that it is no label image.
    """
    if pixels.ndim == 2:
        pixels = np.stack([pixels, np.zeros_like(pixels)], -1)
    found = np.unique(pixels[..., 0] * 2**32 + pixels[..., 1])
    if len(found) > max(64, pixels[..., 0].size // 8):
        raise InputError(f"{path} has too many values to be labels; give label images, not photographs")
    return np.stack(np.divmod(found, 2**32), -1)


def _are_named(pairs: list[np.ndarray], named: Collection[int]) -> bool:
    """Whether the values of the first channel are named classes, and not those of the second too."""
    first, second = (np.isin(np.concatenate(pairs)[:, channel], [0, 255, *named]).all() for channel in (0, 1))
    return bool(named and first and not second)


def _are_numbered(pairs: list[np.ndarray], classes: int) -> bool:
    """Whether one channel numbers the objects of each class, or of all classes, from 0 or 1, and there are few classes.

    Args:
        pairs: the pairs of each image.
        classes: which of the two channels is the class. The number 255 is a crowd.
    """
    whole = count = 0
    several = False
    kinds: set[int] = set()
    for found in pairs:
        values, numbers = found[found[:, 1 - classes] != 255][:, :: 1 if classes == 0 else -1].T
        objects = numbers[numbers > 0]
        kinds.update(values[numbers > 0].tolist())
        several |= len(np.unique(values[numbers > 0])) < len(objects)
        count += len(objects)
        if len(np.unique(objects)) == len(objects) >= 0.9 * objects.max(initial=0):  # numbered through all classes
            whole += len(objects)
            continue
        for value in np.unique(values):
            own = numbers[(values == value) & (numbers > 0)]
            whole += len(own) if len(own) >= 0.9 * own.max(initial=0) else 0
    few = 2 * len(kinds) <= max(len(found) for found in pairs) + 1
    return bool(several and ((whole >= 0.9 * count and few) or _has_stuff(pairs, classes)))


def _has_stuff(pairs: list[np.ndarray], classes: int) -> bool:
    """Whether each class other than 0 has only the number 0, or only others, both occur, and half of the numbers do."""
    stuff = things = 0
    for found in pairs:
        values, numbers = found[found[:, 1 - classes] != 255][:, :: 1 if classes == 0 else -1].T
        for value in set(values.tolist()) - {0}:
            own = numbers[values == value]
            stuff += own.max() == 0
            things += len(own) if own.min() > 0 else 0
            if (own.min() == 0 < own.max()) or (len(own) < 0.5 * own.max() and len(set(numbers)) < 0.5 * numbers.max()):
                return False
    return bool(stuff and things > 1)


def _has_low_channel(values: np.ndarray) -> bool:
    """Whether one channel of colours has several numbers, all low, and the others tell the colours of one apart.

    So do several channels that are all low, as those of KITTI-STEP's maps, but for 255 where nothing is labelled.
    """
    channels = np.stack([values % 256, values // 256 % 256, values // 65536])
    inner = channels[:, (channels < 255).all(0)].max(1, initial=0)
    if (inner > 0).sum() > 1 and FEW_LOW <= inner.max() < LOW_CHANNEL:
        return True
    few = (len(set(channel.tolist()) - {0}) for channel in channels if channel.max() < LOW_CHANNEL)
    return any(1 < count <= len(values) / 2 for count in few)


def _near_colors(values: np.ndarray) -> str:
    """A remark about two colours that hardly differ, as two programs make them; "" if there are none."""
    channels = np.stack([values % 256, values // 256 % 256, values // 65536], 1)
    near = np.abs(channels[:, None] - channels).max(-1) <= 2
    first, second = np.nonzero(np.triu(near, 1))
    if not len(first):
        return ""
    one, other = (hex_color(int(values[found[0]])) for found in (first, second))
    return f" ({one} and {other} are nearly the same; if they mean the same, save them alike)"


def _swapped_colors(seen: list[_Seen]) -> str:
    """A remark about colours whose red and blue are swapped in other images, as OpenCV leaves them; "" otherwise."""
    every = [set(s.values.tolist()) for s in seen]
    swap = {
        value: value // 65536 + value // 256 % 256 * 256 + value % 256 * 65536 for found in every for value in found
    }
    pairs = [(a, b) for a, b in swap.items() if a < b and b in swap]
    if len(pairs) < 2 or any({*pair} <= found for pair in pairs for found in every):
        return ""
    one, other = map(hex_color, pairs[0])
    return f" ({one} and {other} are one colour with red and blue swapped, in different images; if so, save them alike)"


def _returning(seen: list[_Seen]) -> float:
    """Share of the values of an image that other images have too, on average; 1 for a single image."""
    shares = []
    for i, one in enumerate(seen):
        others = [other.values for other in seen[:i] + seen[i + 1 :]]
        if others and len(one.values):
            shares.append(np.isin(one.values, np.concatenate(others)).mean())
    return float(np.mean(shares)) if shares else 1.0


def _keep(seen: _Seen, kept: Callable[[np.ndarray], np.ndarray]) -> _Seen:
    """What was seen of the values for which `kept` is true."""
    some = kept(seen.chosen)
    patches, areas, scatter = (of[some] for of in (seen.patches, seen.areas, seen.scatter))
    evenness, free = seen.evenness[some], seen.free[some]
    return _Seen(seen.values[kept(seen.values)], seen.chosen[some], patches, areas, scatter, evenness, free, seen.zeros)


def _single_share(seen: list[_Seen]) -> float:
    """Share of values with one patch, of all values of all images."""
    patches = np.concatenate([s.patches for s in seen])
    return float((patches == 1).mean()) if len(patches) else 0.0


def _numbered_share(seen: list[_Seen], base: int) -> float:
    """How far values consist of a class and a number that counts up from 0 or 1 within the class.

    Args:
        seen: the images.
        base: the number that separates class and number.

    Returns:
        The share of the numbers up to the highest that occur: near 1 for whole images, less for crops of images, and
        near 0 for other values. 0 if there are many values without a number.
    """
    numbers = _numbers_of_classes(seen, base)
    plain = {value for s in seen for value in s.values[s.values < base].tolist()}
    return sum(map(len, numbers)) / max(1, sum(int(n[-1]) + 1 for n in numbers)) if len(plain) <= 64 else 0.0


def _share_from_0(seen: list[_Seen], base: int) -> float:
    """Share of the classes with several numbers in an image that have the number 0 there; 0.5 if there is none."""
    several = [numbers for numbers in _numbers_of_classes(seen, base) if len(numbers) > 1]
    return float(np.mean([numbers[0] == 0 for numbers in several])) if several else 0.5


def _numbers_of_classes(seen: list[_Seen], base: int) -> list[np.ndarray]:
    """The numbers of each class in each image, ascending, of values from `base` on: class * base + number."""
    found: list[np.ndarray] = []
    for s in seen:
        classes, numbers = np.divmod(s.values[s.values >= base], base)
        found += [numbers[classes == value] for value in np.unique(classes)]
    return found


def _counts_up(seen: list[_Seen], base: int, at_least: int = 3) -> bool:
    """Whether values from `base` on are a class and a number that counts up, nearly without gaps, from 0 or 1.

    Of the same few numbers in all images this cannot be told, unless they begin with 0.

    Args:
        seen: the images.
        base: what separates class and number.
        at_least: how many numbers from 1 a class needs if all images have the same.
    """
    groups = _numbers_of_classes(seen, base)
    sizes = np.array([len(numbers) for numbers in groups])
    whole = [len(numbers) >= 0.9 * (numbers[-1] + int(numbers[0] == 0)) for numbers in groups]
    varied = len({tuple(s.values[s.values >= base].tolist()) for s in seen}) > 1
    from_0 = any(len(numbers) > 1 and numbers[0] == 0 for numbers in groups)
    most = sizes.max(initial=0)
    several = from_0 or (most > 1 if varied else most >= at_least and len(seen) < SEVERAL)
    return bool(several and sizes[whole].sum() >= 0.6 * sizes.sum())


def _are_pieces(seen: list[_Seen], *, one_scene: bool = False, many: bool = False) -> bool:
    """Whether values have few patches, as nerves that are cut several times, and not as land.

    The patches are of similar size, and about as many for each value. Those of land differ more, also where it fills
    the image as densely packed nerves do.

    Args:
        seen: the images.
        one_scene: the images show the same scene, as the slices of a stack, in which the patches differ more.
        many: there are many values that count from 1 in each image, as the numbers of objects; also these differ more.
    """
    counts = np.concatenate([s.patches for s in seen])
    if not (counts > 1).any():
        return False
    even, free = np.median(np.concatenate([s.evenness for s in seen])[counts > 1]), _freedom(seen)
    unlike = counts.std() / counts.mean()
    enough = max(len(s.values) for s in seen) >= MANY
    alone = even > (0.35 if enough else 0.5) and unlike <= MAX_UNLIKE and free > FREE
    packed = even > (0.4 if enough else 0.6) and unlike <= (MAX_UNLIKE if enough else 0.4)
    packed &= free <= LAND and _spread(seen) <= MAX_SPREAD
    pieces = alone or packed or (one_scene and free > 0.5 * FREE) or (many and even > 0.4 and free > LAND)
    return bool(pieces and _patches(seen) < MANY_PIECES)


def _freedom(seen: list[_Seen]) -> float:
    """How far the values lie on the background, without touching others, from 0 to 1."""
    return float(np.median(np.concatenate([s.free for s in seen])))


def _is_one_scene(images: Sequence[np.ndarray]) -> bool:
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


def _of_one_patch(single: float) -> str:
    """The share of the values with one patch in words."""
    return "each value is one patch" if single == 1 else f"{single:.0%} of the values are one patch"


def _patches(seen: list[_Seen]) -> float:
    """Number of patches of a value, on average; more than 8 are taken as 8."""
    return float(np.minimum(np.concatenate([s.patches for s in seen]), 8).mean())


def _in_place(seen: list[_Seen]) -> bool:
    """Whether the patches of a value are near each other, as those of an object that others cover in part."""
    several = np.concatenate([s.patches for s in seen]) > 1
    return bool(np.median(np.concatenate([s.scatter for s in seen])[several]) < 1.5)


def _spread(seen: list[_Seen]) -> float:
    """How many times larger the large values are than the small ones."""
    areas = np.concatenate([s.areas for s in seen])
    return float(np.quantile(areas, 0.9) / np.quantile(areas, 0.1))


def _nested(seen: list[_Seen]) -> bool:
    """Whether the values of an image are all in each image with more of them, as with numbers that count from 1."""
    ordered = sorted((s.values for s in seen), key=len)
    return all(np.isin(few, more).all() for few, more in pairwise(ordered))


def _steadiness(seen: list[_Seen]) -> float:
    """How far the area of a value is the same in all images: near 1 for the parts of a body, near 0 for numbers.

    NaN if fewer than `MANY` values return.
    """
    areas: dict[int, list[float]] = {}
    for s in seen:
        for value, area in zip(s.chosen.tolist(), np.log(s.areas).tolist(), strict=True):
            areas.setdefault(value, []).append(area)
    several = [np.array(found) for found in areas.values() if len(found) > 1]
    if len(several) < MANY:
        return np.nan
    within = sum(((found - found.mean()) ** 2).sum() for found in several) / sum(len(found) - 1 for found in several)
    return float(1 - within / max(np.concatenate(several).var(ddof=1), 1e-9))


def _look(path: Path, values: np.ndarray, declaration: Path) -> _Seen:
    """Count the values of an image and their patches.

    Args:
        path: the label image, for messages.
        values: int64 `[h, w]`.
        declaration: the file in which the user can choose the coding, for messages.

    Raises:
        InputError: there are so many values or so small patches that it is no label image.
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
    return _Seen(found[present], found[chosen], *counted, _free(dense, found)[chosen], int(counts[found == 0].sum()))


def _free(dense: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Share of the border of each value at which 0 begins; 0 for one without a border.

    Args:
        dense: the index of the value of each pixel, `[h, w]`.
        found: the values.
    """
    border, free = np.zeros((2, len(found)))
    for before, after in ((dense[:, :-1], dense[:, 1:]), (dense[:-1], dense[1:])):
        apart = before != after
        for here, there in ((before[apart], after[apart]), (after[apart], before[apart])):
            border += np.bincount(here, minlength=len(found))
            free += np.bincount(here[found[there] == 0], minlength=len(found))
    return free / np.maximum(border, 1)


def hex_color(number: int) -> str:
    """A colour R + 256 G + 65536 B as "#rrggbb"."""
    return f"#{number % 256:02x}{number // 256 % 256:02x}{number // 65536:02x}"


def _unsure_mask(declaration: Path, seen: str, value: str, coding: str, inverted: bool = False) -> InputError:
    other = " or 'things: [0]' (each connected patch of 0 is one object, as the mask may be inverted)" * inverted
    return InputError(
        f"{declaration.parent}: the label images are masks that can be read in several ways ({seen}); write one of "
        f"these lines to {declaration}: 'things: [{value}]' (each connected patch of {value} is one object){other} or "
        f"'coding: {coding}' ({value} is an area, whose objects are not counted) or 'coding: instance' (all of "
        f"{value} in an image is one object)"
    )


def _unsure_pair(declaration: Path, low: int, high: int) -> InputError:
    return InputError(
        f"{declaration.parent}: the label images are masks that can be read in several ways (all is {low} or {high}); "
        f"write one of these lines to {declaration}: 'things: [{high}]' (each connected patch of {high} is one object) "
        f"or 'things: [{low}]' (each connected patch of {low} is one object) or 'coding: class' (both are areas)"
    )


def _unsure(declaration: Path, seen: str, codings: list[str], hint: str = "") -> InputError:
    return InputError(
        f"{declaration.parent}: the label images can be read in several ways ({seen}); "
        f"write one of these lines to {declaration}: {_lines(codings)}{hint}"
    )


def _lines(codings: list[str]) -> str:
    return " or ".join(f"'coding: {coding}' ({meaning(coding)})" for coding in codings)
