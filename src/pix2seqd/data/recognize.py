"""Recognition of the coding of label images, from what their values look like.

A class has several patches in an image, and its value returns in other images. An instance is one patch, or a few, and
the instances of an image are numbered from 1. Where the values fit two codings, nothing is guessed.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from pix2seqd.data.contours import are_outlines, are_points, are_strokes
from pix2seqd.data.label_images import check_alpha
from pix2seqd.data.seen import (
    FEW_IMAGES,
    FREE,
    LAND,
    MANY,
    MANY_PIECES,
    MAX_SPREAD,
    NEARLY,
    SEVERAL,
    Images,
    are_one_scene,
    look,
)
from pix2seqd.data.smeared import is_mixed, is_smooth, mixed, smeared, was_jpeg
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import id_to_rgb

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
LOOKED_AT = 3
"""Number of label images that are compared with themselves as JPEG."""
SINGLE = 0.9
"""Share of the values with one patch from which they may be instances: a few are cut in two by others."""
SAME = 0.8
"""Share of all values that an image has on average, above which the values are the same in all images."""
SCATTERED = 2.5
"""Number of patches of a value, on average, from which values are classes: few instances are cut in more than two."""
LOW_CHANNEL = 40
"""Value below which all values of a channel are rather the numbers of classes or objects than parts of colours."""
FEW_LOW = 8
"""Highest value of several low channels up to which they may be colours that somebody chose."""
MANY_ALONE = 16
"""Number of values in an image from which values of one patch, alone on the background, are instances of any size."""
SPARSE = 0.25
"""Share of the numbers up to the highest value, below which few of them occur."""
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
"""`Seen.scatter` of a patch above which it may be several objects that touch."""
SOLID = 0.85
"""Share of its convex hull below which a patch may be several objects that touch."""
MAX_MERGED = 0.15
"""Share of the area in such patches up to which patches of one value hardly ever touch."""
MAX_TONE_PATCHES = 100
"""About the number of patches of a value and image whose form is looked at; a sample is enough."""
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
class Given:
    """What is known of label images before they are looked at."""

    declaration: Path
    """The file in which the user can choose the coding, for messages."""
    named: Collection[int] = ()
    """The values that the user named."""
    things: bool = False
    """Whether the user said which classes are things."""
    void: Collection[int] = ()
    """Grey values that the user declared void."""
    classes_only: bool = False
    """Whether the values are known to be classes, since several are named."""
    looked_up: bool = False
    """Whether the colours come from palettes that differ from image to image."""


def recognize(images: Sequence[tuple[Path, np.ndarray]], given: Given) -> tuple[str, str]:
    """Recognise the coding of label images, from path and pixels of some of them.

    Returns the coding, a key of `MEANING`, and the reason in words.

    Raises:
        InputError: they are not label images, or fit several codings.
    """
    greys = (pixels[..., 1] for _, pixels in images if pixels.ndim == 3 and pixels.shape[2] == 2)
    alphas = {value for alpha in greys for value in np.unique(alpha).tolist()}
    plain = [(path, _without_alpha(path, pixels, alphas)) for path, pixels in images]
    coding, reason = _recognize_plain(plain, given)
    if coding in ("class", "color") and not (given.classes_only or given.things):
        grey = [(path, p if p.ndim == 2 else p @ COLOR_WEIGHTS[: p.shape[2]]) for path, p in plain]
        _check_drawn(grey, given.declaration, [coding], STROKES)
    return coding, reason


def _recognize_plain(plain: list[tuple[Path, np.ndarray]], given: Given) -> tuple[str, str]:
    """As `recognize`, of images without an alpha channel."""
    declaration = given.declaration
    if any(pixels.ndim == 3 and pixels.shape[2] == 3 for _, pixels in plain):
        _check_alike(plain, declaration)
        colors = [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2) for _, pixels in plain]
        if not all((c == c[..., :1]).all() for c in colors):
            colored = [(path, c) for (path, _), c in zip(plain, colors, strict=True)]
            return _recognize_colors(colored, given)
        plain = [(path, c[..., 0]) for (path, _), c in zip(plain, colors, strict=True)]
    if any(pixels.ndim == 3 for _, pixels in plain):
        return _recognize_pairs([_pairs(path, pixels) for path, pixels in plain], given)
    seen = _look_at_all(plain, declaration, len(set(given.named) - {0, 255}) > 1)
    if not any(len(s.values) for s in seen):
        raise InputError(
            f"{declaration.parent}: the label images hold only 0, so nothing is labelled; export them again, "
            f"or write 'coding: class' to {declaration} if 0 is a class"
        )
    both = max((s.values.tolist() for s in seen), key=len)
    masks = all(not s.has_zero and np.isin(s.values, both).all() for s in seen)
    if masks and len(both) == 2 and 255 not in both and not (given.classes_only or given.things or given.void):
        raise _unsure_pair(declaration, *both)
    seen = seen.keep(lambda values: ~np.isin(values, list(given.void)))
    values = seen.values
    if given.classes_only and values.max(initial=0) >= 1000 and np.isin(values, [*given.named, *HIGHEST]).all():
        return "class", "all values are named in the declaration"
    one_scene = are_one_scene([pixels for _, pixels in plain])
    inverted = bool(np.mean([(pixels > 0).mean() for _, pixels in plain]) > 0.5)
    coding, reason = _recognize_grey(seen, given, one_scene, inverted)
    if coding == "class" and not given.classes_only:
        _check_stretch(seen, declaration)
        if not given.things and _only_tell_apart(seen, (np.where(pixels == 255, 0, pixels) for _, pixels in plain)):
            raise _unsure_tones(declaration, "class")
    patches = [Images([s]).patches if len(s.values) else 1 for s in seen if coding == "instance"]
    if max(patches, default=0) >= MANY_PIECES:
        odd, usual = (plain[int(i)][0] for i in (np.argmax(patches), np.argmin(patches)))
        raise _unsure(
            declaration,
            f"most number the objects, as {usual}, but values of {odd} have many patches, as classes have",
            ["instance"],
            ALIKE_CURE,
        )
    if len(seen) >= SEVERAL and not given.classes_only and _are_of_two_kinds(seen, coding):
        raise _unsure(
            declaration, "images have values of one or of another kind, and none has both", [coding], ALIKE_CURE
        )
    return coding, reason


def _are_of_two_kinds(seen: Images, coding: str) -> bool:
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
    if len(groups) != 2 or min(map(len, groups)) < 2:
        return False
    # Of many classes of which an image has few, groups arise by chance, but their values hardly return.
    parts = [seen.keep(partial(np.isin, test_elements=list(group))).labelled for group in groups]
    return all(len(part) > 1 and part.returning >= NEARLY for part in parts)


def _only_tell_apart(seen: Images, images: Iterable[np.ndarray]) -> bool:
    """Whether values may be the few tones that graph colouring gives to objects, so that no two of one tone touch.

    Patches of a class that touch become one, of no simple form. Of tones, all but the commonest are there because their
    patches touch others. `images` are `[h, w]`, 0 where nothing is labelled.
    """
    seen = seen.keep(lambda values: values != 255).labelled
    values, index = np.unique(np.concatenate([s.chosen for s in seen] or [[]]), return_inverse=True)
    if len(values) not in FEW_TONES or seen.patches < SCATTERED:
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
    if mean.max() > ALIKE * mean.min():
        return False
    total = merged = 0
    for pixels in images:
        for value in np.unique(pixels[pixels > 0]):
            numbered, count = ndimage.label(pixels == value, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
            boxes = ndimage.find_objects(numbered)
            for i in range(0, count, 1 + count // MAX_TONE_PATCHES):
                patch = numbered[boxes[i]] == i + 1
                total += patch.sum()
                merged += patch.sum() * _may_be_several(patch)
    return bool(merged <= MAX_MERGED * total)


def _may_be_several(patch: np.ndarray) -> bool:
    """Whether a patch, bool `[h, w]`, is so long or so far from convex that it may be several objects that touch."""
    rows, columns = np.nonzero(patch)
    if np.sqrt(2 * np.pi * (rows.var() + columns.var()) / len(rows)) > LONG:
        return True
    corners = [np.stack([rows + y, columns + x], 1) for y in (0, 1) for x in (0, 1)]
    return len(rows) < SOLID * ConvexHull(np.concatenate(corners)).volume  # in the plane, the volume is the area


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


def _check_stretch(seen: Images, declaration: Path) -> None:
    """Refuse values that each image has spread to 255 in its own steps, so that they differ from image to image."""
    several = [np.concatenate([[0], s.values]) for s in seen if len(s.values) > 1]
    even = all(values[-1] == 255 and np.ptp(np.diff(values)) <= 1 for values in several)
    counts = {len(values) - 1 for values in several}
    if even and any(one % other and other % one for one, other in combinations(counts, 2)):
        raise InputError(
            f"{declaration.parent}: each label image is stretched to 255 on its own, so that a value means another "
            "class in another image; save the values as they are"
        )


def _look_at_all(plain: Sequence[tuple[Path, np.ndarray]], declaration: Path, several_named: bool) -> Images:
    """What is seen in grey images, `[h, w]` each; lines may be what is meant if several classes are named.

    An image whose values were smeared, or an error of `look`, is an `InputError`.
    """
    if soft := [path for path, pixels in plain if is_smooth(pixels)]:
        raise InputError(
            f"{smeared(soft[0])}; of a black and white mask, a threshold restores the values: "
            f"mogrify -threshold 50% {soft[0]}"
        )
    if not several_named:
        _check_drawn(plain, declaration, ["class", "instance"], POINTS, OUTLINES)
    seen = Images(look(path, pixels, declaration) for path, pixels in plain)
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

    `alphas` are the values of the alpha channels of all images that are grey. A mask that seems to be the alpha channel
    of grey is an `InputError`.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return pixels[..., :3]
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        if len(alphas) > 1 and alphas <= {0, 255}:
            check_alpha(path, pixels)
        if len(alphas) == 1 or alphas <= {0, 255}:
            return pixels[..., 0]
    return pixels


def _recognize_grey(seen: Images, given: Given, one_scene: bool, inverted: bool) -> tuple[str, str]:
    """The coding and the reason for it of grey values; `inverted` if most pixels are not 0."""
    declaration, classes_only = given.declaration, given.classes_only
    union = seen.values
    highest = int(union.max(initial=0))
    if len(union) == 1 and any(s.has_zero for s in seen):
        if given.things:
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
        return _recognize_high(seen, given, one_scene)
    if seen.most > NEARLY_ALL and highest < 256 and seen.single_share < SINGLE:
        raise InputError(
            f"{declaration.parent}: an image has nearly all values below 256, and many have several patches, as if "
            f"more than 255 objects were saved with 8 bits; save them with 16, or write the coding to {declaration}"
        )
    # 255 far above all other values is void by convention, which both codings allow.
    if 255 not in union or union[union != 255].max(initial=0) >= 250:
        return _recognize_low(seen.labelled, declaration, one_scene)
    # Numbers of objects that were spread to be seen end at 255, too, and have values above 127.
    bordered = union[union != 255].max(initial=0) < 128 and 2 * sum(255 in s.values for s in seen) >= len(seen)
    rest = seen.keep(lambda values: values != 255).labelled
    return _recognize_low(rest, declaration, one_scene, void=True, bordered=bordered)


def _recognize_low(
    seen: Images, declaration: Path, one_scene: bool, *, void: bool = False, bordered: bool = False
) -> tuple[str, str]:
    """The coding and the reason for it of grey values below 1000; `seen` are the images that have a value.

    If `void`, 255 is left out of `seen`. If `bordered`, most images have this void, and the other values are low.
    """
    most, returning, what = seen.most, seen.returning, " and 255" if void else ""
    if most < 2:
        if len(seen) >= SEVERAL and returning < 0.3:
            one = "an image has one value, and other images have other ones"
            raise _unsure(declaration, one, ["instance", "class"])
        return "class", f"an image has at most one value besides 0{what}"
    background = all(s.has_zero for s in seen) and not seen.have_other_background
    single, row = seen.single_share, _Row.of(seen)
    counts = f"an image has up to {most} values besides 0{what}"
    codings = ["instance", "class", *_small_bases(seen)]
    hint = "" if background else OTHER_BACKGROUND
    if row.counted and row.varied and background and not void and most >= MANY and len(seen) >= SEVERAL:
        few, many = min(row.ends), max(row.ends)
        return "instance", f"the values count from 1 without a gap, up to {few} to {many} in an image"
    if seen.patches >= SCATTERED and not (most >= MANY and ((row.counted and row.varied) or seen.are_in_place)):
        pieces = seen.are_pieces(one_scene=one_scene, many=row.counted and most >= MANY)
        if most > PLENTY or returning < 0.3 or pieces or seen.hide_objects:
            raise _unsure(declaration, f"{counts}, and many values have several patches", codings, hint)
        return "class", f"{counts}, and many values have several patches"
    gaps = any((np.diff(s.values) > 1).any() for s in seen)
    sparse = row.total < SPARSE * sum(row.ends) and gaps
    if sparse and bordered:
        return "class", f"{counts}, most images have 255, and most numbers below the highest do not occur"
    if returning < 0.3 and not (single >= SINGLE and most >= MANY):
        raise _unsure(declaration, f"{counts}, other ones in each image", codings, hint)
    # The organs in the slices of a stack return as its nerves do.
    tracked = one_scene and seen.freedom > 0.5 * FREE
    if (
        sparse
        and single < SINGLE
        and not tracked
        and (seen.spread > MAX_SPREAD or (most < MANY and len(seen) >= SEVERAL))
    ):
        return "class", f"{counts}, some have several patches, and most numbers below the highest do not occur"
    if most >= MANY and single >= SINGLE and background and not void and _are_objects(seen, row, most, returning):
        return "instance", f"{counts}, and {_of_one_patch(single)}"
    if most < MANY and (reason := _few_classes(seen, row, background, tracked, most == 2 and void)):
        return "class", f"{counts}, {reason}"
    raise _unsure(declaration, f"{counts}, {_of_one_patch(single)}", codings, hint)


def _small_bases(seen: Images) -> list[str]:
    """Codings of a class and a number that values below 1000 fit."""
    found: list[str] = []
    for base in (100, 256):
        if seen.numbered_share(base) > 0.5 and seen.count_up(base):
            order = _order(_both_parts(seen, base))
            found += [f"class*{base}+id"] * (order >= 0) + [f"id*{base}+class"] * (order <= 0)
    return found


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
    def of(cls, seen: Images) -> "_Row":
        ends = [int(s.values[-1]) for s in seen]
        counted = all(len(s.values) == s.values[-1] for s in seen)
        varied, constant = min(ends) < 0.8 * max(ends), len(seen) >= FEW_IMAGES and min(ends) == max(ends)
        return cls(ends, sum(len(s.values) for s in seen), counted, varied, constant)


def _are_objects(seen: Images, row: _Row, most: int, returning: float) -> bool:
    """Whether many values of one patch each are objects, and not parts of a body or regions of an atlas."""
    # The parts of a car or a body are of similar size, but each image lacks others of them.
    steady, free = seen.steadiness, seen.freedom
    gaps = np.median([len(s.values) / s.values[-1] for s in seen]) < 0.95
    unsure = gaps and (returning > 0.9 or (returning >= 0.3 and not steady < 0.3))
    # Regions of an atlas, of which each image has some, return only in many images.
    unsure |= row.total < 0.5 * sum(row.ends) and (len(seen) < FEW_IMAGES or returning >= 0.3)
    unsure |= not ((row.varied and len(seen) > 1) or seen.spread <= MAX_SPREAD)
    unsure |= len(seen) == 1 and free <= FREE
    # Of parts and regions, few are alone on the background, and not that many nearly without a gap.
    clear = most >= MANY_ALONE and row.total >= NEARLY * sum(row.ends) and free > FREE and not row.constant
    few = most <= PLENTY and not clear and (row.constant or unsure)
    parts = steady >= 0.5 and not (row.counted and row.varied)
    return not few and not parts


def _few_classes(seen: Images, row: _Row, background: bool, tracked: bool, and_void: bool) -> str:
    """Why a few values, most of few patches, are classes; "" if they may be objects.

    If `background`, every image has 0. If `tracked`, they are slices of a stack with objects. If `and_void`, there are
    two values, and void.
    """
    if not background and seen.are_pieces():
        return ""
    values = seen.values
    # Values that are 1, 2, 3 or 8, 16, 24 may be numbers of objects, unless they fill the image as land.
    numbered = tracked or (np.ptp(np.diff(values, prepend=0)) == 0 and seen.freedom > LAND)
    if row.constant and not numbered and not (row.counted and seen.spread <= 8):
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


def _which_number(seen: Images, declaration: Path, coding: str, reason: str, base: int) -> tuple[str, str]:
    """The coding and the reason for it of values that count up within each `base`.

    `coding` is what they are if the class comes first, for this `reason`. If a larger base fits as well, or the number
    may come first, it is an `InputError`.
    """
    pairs = _both_parts(seen, base)
    high = np.unique(np.concatenate(pairs)[:, 0])
    larger = [other for other in LARGER[base] if not (high % (other // base)).any()]
    # Numbers above `base` run on through what would be the next class.
    runs = any(
        (np.isin(s.values + 1, s.values) & (s.values % base == base - 1) & (s.values > base)).any() for s in seen
    )
    if runs and (higher := [f"class*{other}+id" for other in LARGER[base] if seen.count_up(other)]):
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


def _both_parts(seen: Images, base: int) -> list[np.ndarray]:
    """The multiple of `base` and the rest, `[n, 2]`, of the values from `base` on of each image."""
    return [np.stack(np.divmod(s.values[s.values >= base], base), 1) for s in seen]


def _order(pairs: list[np.ndarray]) -> int:
    """Which part of values is the class: 1 for the first, -1 for the second, 0 if it may be either.

    The number is the part that counts up, to another end in each image, or that has at least twice as many values.
    `pairs` has both parts for each image, `[n, 2]`.
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


def _recognize_high(seen: Images, given: Given, one_scene: bool) -> tuple[str, str]:
    """The coding and the reason for it of grey values that reach 1000.

    The ids of an atlas of organs reach 1000 too, such as 2, 41 and 1002: those that are numbered within a thousand have
    gaps, or are the same in all images.
    """
    declaration, classes_only = given.declaration, given.classes_only
    union = seen.values
    highest = int(union[-1])
    most = seen.most
    single, returning = seen.single_share, seen.returning
    dense = sum(len(s.values) for s in seen) >= 0.5 * sum(int(s.values.max(initial=0)) for s in seen)
    many = dense and most > PLENTY
    share = 0.0 if many or highest >= 1000 * 1000 else seen.numbered_share(1000)
    bases = (10_000, 65_536, 100_000, 1_000_000)
    fitting = (base for base in bases if highest >= base > 4 * (union[union >= base] % base).max())
    codings = ["instance", "class*1000+id", *(f"class*{base}+id" for base in fitting)]
    codings += ["id*1000+class"] if _order(_both_parts(seen, 1000)) <= 0 else []
    codings += ["class"] if len(union) <= MANY_CLASSES else []
    if not (union % 1000 * (union > 1000)).any() and not classes_only:
        raise _unsure(declaration, f"values reach {highest}, all full thousands", codings)
    if share and (seen.count_up(1000) or (classes_only and share > 0.2 and (single < SINGLE or most < MANY))):
        counting = f"values reach {highest} and count up within each thousand"
        return _which_number(seen, declaration, "class*1000+id", counting, 1000)
    of_256 = highest < 2**16 and len(union) < 0.5 * (highest - union[0]) and len(np.unique(union // 256)) > 2
    if share < 0.2 and of_256 and seen.numbered_share(256) > 0.5:
        from_0, counting = seen.share_from_0(256), f"values reach {highest} and count up within each 256"
        if seen.count_up(256) and abs(from_0 - 0.5) > 0.3:
            coding = "class*256+id" + (" from 0" if from_0 > 0.5 else "")
            return _which_number(seen, declaration, coding, counting, 256)
        raise _unsure(declaration, counting, ["class*256+id", "class*256+id from 0", "instance"])
    # The regions of an atlas are one patch each as well, but they return, or there are few of them.
    other = returning < 0.05 and len(seen) >= FEW_IMAGES and most >= 3
    alike = most > PLENTY and (dense or returning < 0.3 or len(seen) < SEVERAL) and seen.spread <= MAX_SPREAD
    lies_around = seen.have_other_background
    alike &= not lies_around
    if share < 0.2 and single >= SINGLE and (other or alike) and not classes_only:
        return "instance", f"values reach {highest}, and {_of_one_patch(single)}"
    # Of number * 1000 + class, the low values are land of several patches, but each high one is one object.
    high = seen.keep(lambda values: values >= 1000)
    scattered = min(seen.patches, high.patches) >= SCATTERED and not seen.are_pieces(one_scene=one_scene)
    scattered &= not seen.hide_objects
    if share < 0.2 and not dense and len(union) <= MANY_CLASSES and scattered and len(seen) >= SEVERAL:
        return "class", f"values reach {highest}, and many of them have several patches"
    raise _unsure(declaration, f"values reach {highest}", codings, OTHER_BACKGROUND if lies_around else "")


def _recognize_colors(images: list[tuple[Path, np.ndarray]], given: Given) -> tuple[str, str]:
    declaration = given.declaration
    plain = [(path, pixels @ COLOR_WEIGHTS) for path, pixels in images]
    _check_drawn(plain, declaration, ["color"], POINTS, OUTLINES)
    for path, pixels in images:
        for channel in np.moveaxis(pixels, -1, 0):
            look(path, channel, declaration)  # smeared colours differ little in each channel
    seen = Images(look(path, pixels, declaration) for path, pixels in plain)
    values = seen.values
    if len(values) == 1 and any(s.has_zero for s in seen):
        if given.things:
            return "color", "things are declared"
        color = f'"{hex_color(int(values[0]))}"'
        raise _unsure_mask(declaration, f"all is black or {color}", color, "color")
    counts = f"they have {len(values)} colours besides black"
    codings, single = ["color", "instance"], seen.single_share
    if values.max() < 65536 and (values >= 256).any() and (values % 256).any():
        pairs = [_pairs(path, pixels) for path, pixels in images]
        first, second = (_are_numbered(pairs, classes) for classes in (0, 1))
        # Of few low colours, one channel nearly always seems to number the other; classes have several patches.
        numbers = np.concatenate(pairs)[:, 1]
        highest = int(numbers[numbers < 255].max(initial=0))
        many = highest >= MANY or (single >= SINGLE and (numbers.max() > 3 or _has_stuff(pairs, 0)))
        if _are_named(pairs, given.named) or (first and not second and many):
            return "two-channel", "blue is 0, and green numbers the objects of each red value"
        codings += ["two-channel"] if first else []
        if (first or second) and seen.patches < SCATTERED:
            raise _unsure(declaration, f"{counts}, all without blue, as numbers may have", codings)
    known = given.named and np.isin(np.where(values < 1000, values, values // 1000), [0, *given.named]).all()
    if 1000 <= values.max() < 256_000 and (
        seen.count_up(1000, at_least=2) or (known and seen.numbered_share(1000) > 0.2)
    ):
        return "class*1000+id", "the colours as R + 256 G + 65536 B count up within each thousand"
    returning, most, several = seen.returning, seen.most, len(seen) >= SEVERAL
    one_scene = are_one_scene([pixels for _, pixels in plain])
    if seen.patches >= SCATTERED:
        classes = most < 2 or not seen.are_pieces(one_scene=one_scene)
    else:
        classes = single < 0.75 and returning >= 0.3 and several and not seen.are_nested
    if seen.patches >= SCATTERED and several and most > 1 and returning < 0.3:
        also = "; 'coding: class' takes the numbers in the palettes, and not their colours" if given.looked_up else ""
        codings += ["class"] if given.looked_up else []
        raise _unsure(declaration, f"{counts}, other ones in each image", codings, also)
    if len(values) <= MANY_CLASSES and classes:
        if not (given.things or given.named) and _only_tell_apart(seen, (pixels for _, pixels in plain)):
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


def _recognize_pairs(pairs: list[np.ndarray], given: Given) -> tuple[str, str]:
    """The coding and the reason for it of images of two channels, from the `_pairs` of each."""
    first, second = (_are_numbered(pairs, classes) for classes in (0, 1))
    if _are_named(pairs, given.named) or (first and not second):
        return "two-channel", "the second channel numbers the objects of each value of the first"
    what = "the first channel seems to number the objects, and the second to be their class"
    if not second:
        what = "neither of their two channels numbers objects"
    elif first:
        what = "each of their two channels may be the class, and the other number the objects"
    raise InputError(
        f"{given.declaration.parent}: of the label images, {what}; write 'coding: two-channel' to {given.declaration} "
        "if the first is the class and the second numbers the objects; otherwise save them so, or only one channel"
    )


def _pairs(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The distinct pairs of the first two channels of pixels `[h, w, channels]`: `[n, 2]`.

    So many that it is no label image are an `InputError`.
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

    `classes` is which of the two channels is the class. The number 255 is a crowd.
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
    channels = id_to_rgb(values).T
    inner = channels[:, (channels < 255).all(0)].max(1, initial=0)
    if (inner > 0).sum() > 1 and FEW_LOW <= inner.max() < LOW_CHANNEL:
        return True
    few = (len(set(channel.tolist()) - {0}) for channel in channels if channel.max() < LOW_CHANNEL)
    return any(1 < count <= len(values) / 2 for count in few)


def _near_colors(values: np.ndarray) -> str:
    """A remark about two colours that hardly differ, as two programs make them; "" if there are none."""
    channels = id_to_rgb(values).astype(int)
    near = np.abs(channels[:, None] - channels).max(-1) <= 2
    first, second = np.nonzero(np.triu(near, 1))
    if not len(first):
        return ""
    one, other = (hex_color(int(values[found[0]])) for found in (first, second))
    return f" ({one} and {other} are nearly the same; if they mean the same, save them alike)"


def _swapped_colors(seen: Images) -> str:
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


def _of_one_patch(single: float) -> str:
    """The share of the values with one patch in words."""
    return "each value is one patch" if single == 1 else f"{single:.0%} of the values are one patch"


def hex_color(number: int) -> str:
    """A colour R + 256 G + 65536 B as "#rrggbb"."""
    return f"#{id_to_rgb(number).tobytes().hex()}"


def _unsure_mask(declaration: Path, seen: str, value: str, coding: str, inverted: bool = False) -> InputError:
    zero = ["'things: [0]' (each connected patch of 0 is one object, as the mask may be inverted)"] * inverted
    area = f"'coding: {coding}' ({value} is an area, whose objects are not counted)"
    lines = [_things(value), *zero, area, f"'coding: instance' (all of {value} in an image is one object)"]
    return unsure(declaration, f"{_MASKS} ({seen})", lines)


def _unsure_pair(declaration: Path, low: int, high: int) -> InputError:
    lines = [_things(high), _things(low), "'coding: class' (both are areas)"]
    return unsure(declaration, f"{_MASKS} (all is {low} or {high})", lines)


def _unsure(declaration: Path, seen: str, codings: list[str], hint: str = "") -> InputError:
    return unsure(declaration, f"the label images can be read in several ways ({seen})", [_lines(codings)], hint)


def unsure(declaration: Path, what: str, lines: list[str], hint: str = "") -> InputError:
    """The error that label images fit several declarations: `what` about them, and the lines to choose from."""
    choice = f"write one of these lines to {declaration}: {' or '.join(lines)}{hint}"
    return InputError(f"{declaration.parent}: {what}; {choice}")


_MASKS = "the label images are masks that can be read in several ways"


def _things(value: object) -> str:
    return f"'things: [{value}]' (each connected patch of {value} is one object)"


def _lines(codings: list[str]) -> str:
    return " or ".join(f"'coding: {coding}' ({meaning(coding)})" for coding in codings)
