"""`pix2seqd train own`: a recipe for any labelled images; its settings follow from the data, with reasons in words."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pix2seqd import distributed
from pix2seqd.checkpoint import Checkpoint, find_backbone, from_pretrained
from pix2seqd.config import Recipe, bundled_names, merged, nested
from pix2seqd.data import is_clips, open_dataset
from pix2seqd.data.categories import with_categories
from pix2seqd.data.check import Report, check, content
from pix2seqd.data.find import find_splits, named, with_prefix
from pix2seqd.data.sample import Dataset, Sample, subsample
from pix2seqd.data.split import SUBSETS, describe, divide, undivided
from pix2seqd.files import InputError, a_few, exclusive_lock, require, say, write_json
from pix2seqd.panoptic.panoptic import typical_diameter
from pix2seqd.panoptic.results import check_makeable, make_folders
from pix2seqd.panoptic.reused_ids import ID_DISTANCE, neighbours
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.few_steps import MIN_SHARE, Student
from pix2seqd.training.recipes import RECIPES
from pix2seqd.training.train import MAY_CHANGE, new_model, read_recipe, train

DATA_FILE = "data.json"
"""File in the folder of a run that says what is trained on and what is scored (`data.split`)."""
JOIN_BELOW = 0.5
"""`InferConfig.join_below` where things differ in size (docs/notebook/facades.md)."""
MINUTES = 30.0
"""Time of a run, unless another length is given."""
MAX_DIVIDED = 20_000
"""Number of images up to which all are read to divide them by content."""
MAX_MEASURED = 5_000
"""Number of images that are read to choose the settings, if they need not be divided."""
SIDE = 256
"""Longer side of images that are shown to the network as a whole."""
_FINE = 10
"""Masks have the resolution of the input where small things have fewer pixels."""
STEP = 32
"""Height and width of the network's input are multiples of this."""
_UNLIMITED = 1_000_000
"""Number of steps of a run that ends by its time."""
_TRAINING = re.compile(r"(?i)train(val|ing)?\d*")
_VALIDATION = re.compile(r"(?i)(val|valid|validation|dev|eval)\d*")


@dataclass
class Statistics(Report):
    """What the choice of settings needs to know of a data set."""

    shapes: list[tuple[int, int]] = field(default_factory=list)
    """Height and width of each image."""
    diameters: list[np.ndarray] = field(default_factory=list)
    """Diameters of the things of each image: of discs of the same area, in pixels."""
    typical: list[float] = field(default_factory=list)
    """`typical_diameter` of each image with things."""
    grey: int = 0
    """Number of images without colour."""
    ranges: list[float] = field(default_factory=list)
    """Share of the values 0..255 between the 0.5th and the 99.8th percentile of each image."""
    ids_needed: int = 0
    """Largest number of ids that an image needs where they are reused, by a greedy colouring of the neighbours."""
    most_segments: int = 0
    """Largest number of segments of an image."""
    in_pieces: int = 0
    """Number of things that consist of several pieces of notable size."""
    heights: dict[str, list[float]] = field(default_factory=dict)
    """What may be high or low in an image (brightness, a category) → how low, as a share of the height, for each."""
    names: list[str] = field(default_factory=list)
    """Names of the images."""
    digests: list[bytes] = field(default_factory=list)
    """Digests of their pixels."""

    def add(self, sample: Sample) -> None:
        """Count one item."""
        super().add(sample)
        self.names.append(sample.name)
        self.digests.append(content(sample.image))
        panoptic = sample.panoptic.without_crowds()
        image = sample.image[::2, ::2]
        things = panoptic.things
        height, width = panoptic.segmentation.shape
        self.shapes.append((height, width))
        self.diameters.append(2 * np.sqrt(np.array([thing.area for thing in things], float) / np.pi))
        if things:
            self.typical.append(typical_diameter([thing.area for thing in things]))
        self.most_segments = max(self.most_segments, len(panoptic.segments))
        self.grey += bool((image == image[..., :1]).all())
        low, high = np.percentile(image, (0.5, 99.8))
        self.ranges.append((high - low) / 255)
        near = neighbours(np.array([thing.bbox for thing in things], float).reshape(-1, 4), ID_DISTANCE)
        self.ids_needed = max(self.ids_needed, _colors(near))
        self.in_pieces += sum(_is_in_pieces(panoptic.segmentation, thing.id, thing.bbox) for thing in things)
        rows = np.arange(len(image)) / max(len(image) - 1, 1) - 0.5
        slope = 12 * float((rows * image.mean(axis=(1, 2))).mean()) / 255
        self.heights.setdefault("what is bright", []).append(slope)
        for name in {segment.name for segment in panoptic.segments}:
            boxes = [(s.bbox, s.area) for s in panoptic.segments if s.name == name]
            total = sum(area for _, area in boxes)
            middle = sum((box[1] + box[3] / 2) * area for box, area in boxes) / total / height - 0.5
            self.heights.setdefault(name, []).append(middle)

    @property
    def upright(self) -> str:
        """What shows that images have an up and a down; empty: nothing does."""
        for name, values in self.heights.items():
            mean, spread = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
            if len(values) >= 5 and abs(mean) > 0.04 and abs(mean) > 6 * spread:
                return f"{name} is mostly {'low' if mean > 0 else 'high'}"
        return ""

    @property
    def spread(self) -> float:
        """Ratio of large to small things (90th and 10th percentile of the diameter) within a typical image."""
        ratios = [np.quantile(d, 0.9) / np.quantile(d, 0.1) for d in self.diameters if len(d) >= 5]
        return float(np.median(ratios)) if ratios else math.inf

    @property
    def relative(self) -> np.ndarray:
        """Diameters of all things as shares of the longer side of their image."""
        pairs = zip(self.diameters, self.shapes, strict=True)
        return np.concatenate([diameters / max(shape) for diameters, shape in pairs])


def _colors(near: np.ndarray) -> int:
    """Number of ids that a greedy colouring needs for these neighbours, bool `[n, n]`."""
    colors = np.zeros(len(near), int)
    for i in np.argsort(-near.sum(axis=1)):
        taken = set(colors[near[i]].tolist())
        colors[i] = next(color for color in range(1, len(near) + 1) if color not in taken)
    return int(colors.max(initial=0))


def _is_in_pieces(segmentation: np.ndarray, segment: int, box: tuple[int, int, int, int]) -> bool:
    """Whether more than a tenth of a segment is apart from its largest piece."""
    x, y, width, height = box
    mask = segmentation[y : y + height, x : x + width] == segment
    labels, count = ndimage.label(mask, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    return count > 1 and np.bincount(labels.ravel())[1:].max() < 0.9 * mask.sum()


class Choices:
    """Settings with their values and the reasons for them; what the user gave has priority.

    Settings are named by their paths, such as "model.mask.bits".
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.values: dict[str, Any] = {}
        self._reasons: dict[str, str] = {}

    def set(self, path: str, value: Any, reason: str) -> Any:
        """Choose a value, unless the user gave one; returns the one that holds."""
        if path in self.given:
            value, reason = self.given[path], "as given"
        self.values[path], self._reasons[path] = value, reason
        return value

    @property
    def lines(self) -> list[str]:
        """Each setting with its value and the reason."""
        shown = {path: list(value) if isinstance(value, tuple) else value for path, value in self.values.items()}
        return [f"{path} {shown[path]}: {reason}" for path, reason in self._reasons.items()]

    def nested(self) -> dict[str, Any]:
        """The values as sections."""
        return reduce(merged, (nested(path, value) for path, value in self.values.items()), {})


def choose(data: Statistics, start: Checkpoint | None, given: Mapping[str, Any]) -> Choices:
    """Choose the settings of a run from a checkpoint, or from random weights; what the user gave stays.

    An `InputError` names the flags of settings that do not suit the data.
    """
    choices = Choices(given)
    _choose_classes(choices, data, start)
    similar = is_similar(data)
    if similar:
        size, scale = _choose_windows(choices, data, start), 1.0
    else:
        size, scale = _choose_size(choices, data, start)
    _choose_stride(choices, start, size, choices.values["data.diameter"] if similar else scale * _small(data))
    _choose_appearance(choices, data, similar)
    _choose_sampling(choices, data, start, similar, scale)
    _choose_training(choices, data, start, size)
    return choices


def is_similar(data: Statistics) -> bool:
    """Whether the things are many small ones of one class and of similar size, as in microscopy."""
    kinds = [c for c in data.taxonomy.categories if c.isthing and data.tallies[c.id].segments]
    if len(kinds) != 1 or len(data.taxonomy) > 2 or not data.typical:
        return False
    share = float(np.median(data.typical)) / float(np.median([min(shape) for shape in data.shapes]))
    return data.spread <= 4 and share <= 0.25 and not data.upright


def _choose_classes(choices: Choices, data: Statistics, start: Checkpoint | None) -> None:
    """Classes, ids and the bits of both."""
    count, most = len(data.taxonomy) + 1, max(data.instances)
    mask = start.model.config.mask if start else None
    classes = choices.set("model.mask.classes", count, f"{count - 1} categories and void")
    if classes < count:
        raise InputError(
            f"the data has {count} classes with void; leave --model.mask.classes out, or give {count} or more"
        )
    class_bits = max((classes - 1).bit_length(), mask.bits[0] if mask else 2)
    pieces = data.in_pieces / max(1, sum(data.instances))
    unique = 0 < most <= 15 and pieces > 0.2
    if not most:
        why = "no image has things"
    elif unique:
        why = f"an image has up to {most} things, and {pieces:.0%} of them lie in several pieces"
    elif most > 15:
        why = f"an image has up to {most} things; only neighbours need different ids"
    else:
        why = f"an image has up to {most} things, and nearly all are in one piece"
    ids = choices.set("data.ids", "unique" if unique else "reused", why)
    needed = data.most_segments if ids == "unique" else data.ids_needed
    id_bits = 1 if not most else max(needed.bit_length(), mask.bits[1] if mask else 4, 4)
    id_bits = min(id_bits, 8 if ids == "unique" else 6)
    if not most:
        why = "one id is enough"
    else:
        why = f"up to {needed} " + ("segments in an image" if ids == "unique" else "ids are needed around a thing")
    bits = choices.set("model.mask.bits", [class_bits, id_bits], f"{classes} classes; {why}")
    instances = choices.set("model.mask.max_instances", 2 ** bits[1], f"all values of {bits[1]} bits")
    for what, number, place in (("classes", classes, 0), ("ids with 0", instances, 1)):
        if number > 2 ** bits[place]:
            enough = [max(bits[0], (classes - 1).bit_length()), max(bits[1], (instances - 1).bit_length())]
            raise InputError(
                f'{number} {what} do not fit {bits[place]} bits; leave --model.mask.bits out, or give "{enough}"'
            )
    if bits[0] > 10:
        choices.set("model.decoder.head", "linear", f"logits for {2 ** bits[0]:,} values would take too much memory")
        choices.set("model.decoder.bit_logits", False, "they need logits")
        choices.set("model.loss", "l2", "the linear head gives bits")


def _choose_windows(choices: Choices, data: Statistics, start: Checkpoint | None) -> tuple[int, int]:
    """Windows at one scale, for many things of similar size."""
    base = start.data if start and start.data.layout == "tile" else RECIPES["nuclei"].data
    median = float(np.median(data.typical))
    choices.set("data.layout", "tile", f"many things of one class and of similar size, about {median:.0f} pixels")
    choices.set("data.diameter", base.diameter, "images are scaled so that things have this diameter")
    size = choices.set("data.size", list(base.size), "windows of several things")
    choices.set("data.overlap", min(base.overlap, min(size) // 2), "a window shares two things with the next")
    choices.set("infer.input_scale", 2, "in use, windows of twice the side are quicker and have fewer seams")
    return tuple(size)


def _choose_size(choices: Choices, data: Statistics, start: Checkpoint | None) -> tuple[tuple[int, int], float]:
    """Whole images, or windows where things would become too small; also the scale of a typical image.

    Windows of half the side that the start shows images at, and of that side in use, cost less than whole images.
    """
    longest = float(np.median([max(shape) for shape in data.shapes]))
    relative = data.relative
    small = float(np.quantile(relative, 0.25)) if len(relative) else 0.0
    aspect = float(np.median([h / w for h, w in data.shapes]))
    side = SIDE if not len(relative) or small * 128 < 16 else 128
    if longest <= 1.25 * side:  # little is saved by making such images smaller
        side = math.ceil(longest / STEP) * STEP
    known = max(start.data.size) if start and start.data.layout == "resize" and "data.size" not in choices.given else 0
    if side == SIDE and known > 1.5 * side and longest >= 0.75 * known and small * known >= _FINE:
        why = f"the start shows images at {known} pixels; small things have {small * known:.0f} there"
        zoom = min(1.0, round(known / longest, 2)), f"images are about {longest:.0f} long"
        half = math.ceil(known / 2 / STEP) * STEP, "a window is half an image"
        if found := _choose_tiles(choices, why, zoom, half):
            choices.set("infer.input_scale", 2, "in use, a window is a whole image")
            return found
    if len(relative) and small * side < 5 and longest > 1.5 * side:
        pixels = small * longest
        zoom = min(1.0, round(12 / pixels, 2))
        why = f"small things ({pixels:.0f} pixels) would have {small * side:.0f} in images of {side} pixels"
        reason = f"small things have {pixels * zoom:.0f} pixels"
        if found := _choose_tiles(choices, why, (zoom, reason), (side, "windows of the images")):
            return found
    choices.set("data.layout", "resize", "each image is shown as a whole")
    height, width = (side, side / aspect) if aspect >= 1 else (side * aspect, side)
    shape = [max(STEP, math.ceil(n / STEP - 0.25) * STEP) for n in (height, width)]
    why = f"small things have {small * side:.0f} pixels there" if small else "there are no things to keep apart"
    size = tuple(choices.set("data.size", shape, f"images are about {longest:.0f} pixels long; {why}"))
    return size, max(size) / longest


def _choose_tiles(
    choices: Choices, why: str, zoom: tuple[float, str], side: tuple[int, str]
) -> tuple[tuple[int, int], float] | None:
    """Windows at one scale, with their size and the scale; None if the user wants whole images.

    The reason for windows is `why`; `zoom` (network pixels per image pixel) and `side` of a window come with theirs.
    """
    if choices.set("data.layout", "tile", why) != "tile":
        return None
    scale = choices.set("data.zoom", *zoom)
    size = choices.set("data.size", [side[0], side[0]], side[1])
    choices.set("data.overlap", min(size) // 4, "a quarter of a window")
    return tuple(size), scale


def _small(data: Statistics) -> float:
    """Diameter of small things in pixels of the images; 0: there are no things."""
    diameters = np.concatenate(data.diameters)
    return float(np.quantile(diameters, 0.25)) if len(diameters) else 0.0


def _choose_stride(choices: Choices, start: Checkpoint | None, size: tuple[int, int], pixels: float) -> None:
    """Resolution of the masks, where small things have so many `pixels` in the network's input."""
    if max(size) > 384:
        stride, why = 2, "masks have half the resolution, since the input is large"
    elif pixels < _FINE:
        stride, why = 1, "masks have the resolution of the input"
    elif start and start.model.config.mask.init_id_cell:
        stride, why = start.model.config.mask.stride, "as the start has it"
    else:
        stride, why = (
            2,
            f"half the resolution, three times as many images in a time; small things have {pixels:.0f} pixels",
        )
    choices.set("model.mask.stride", stride, why)


def _choose_appearance(choices: Choices, data: Statistics, similar: bool) -> None:
    """Normalisation and augmentation."""
    narrow = float(np.mean(np.array(data.ranges) < 0.5))
    stretch = similar or narrow > 0.2
    why = f"{narrow:.0%} of the images use less than half of the range of values"
    if similar:
        why = "the brightness of microscopy depends on the exposure"
    choices.set("data.normalize", "percentile" if stretch else "none", why)
    grey = data.grey / len(data.names)
    upright = data.upright or ("too few images to tell" if len(data.names) < 5 and grey < 0.5 else "")
    jitter = (0.65, 1.6) if choices.values["data.layout"] == "tile" else (0.8, 2.0)
    choices.set("augment.jitter", list(jitter), "random scales")
    why = f"images may have an up: {upright}" if upright else "nothing shows where up is"
    choices.set("augment.flip", "horizontal" if upright else "all", why)
    choices.set("augment.color_jitter", 0.4, "random brightness, contrast and colours")
    invert = 0.1 if grey > 0.5 and not upright else 0.0
    choices.set("augment.invert", invert, f"{grey:.0%} of the images are grey")


def _choose_sampling(choices: Choices, data: Statistics, start: Checkpoint | None, similar: bool, scale: float) -> None:
    """What sampling starts from, and its steps."""
    config = start.model.config if start else RECIPES["nuclei"].model
    few = choices.values.get("model.decoder.head", choices.given.get("model.decoder.head", "softmax")) == "softmax"
    cell = config.decoder.cell if few else 0
    why = "a grid of ids: two steps are enough, and few images" if few else "noise, since the head gives no logits"
    few = choices.set("model.mask.init_id_cell", cell, why) > 0
    if few and choices.values.get("model.decoder.head") == "linear":
        raise InputError("--model.mask.init_id_cell above 0 needs logits; leave it out")
    choices.set("infer.steps", 2 if few else 10, "as it is trained" if few else "from noise")
    choices.set("infer.td", 1.0 if few else 5.0, "the same")
    choices.set("infer.consensus", 3, "a segment is what two of three samples agree on")
    scales = [1.0, 1.2, 1.4] if similar else [1.0, 1.25, 0.8]
    choices.set("infer.sample_scales", scales, "samples of several scales share fewer errors")
    choices.set("infer.min_score", 0.0, "each evaluation chooses the limit of the scores that gives the best PQ")
    choices.set("infer.smooth", True, "outlines are smooth where the mask is coarser than the image")
    if similar:
        choices.set("infer.min_share", MIN_SHARE, "smaller segments are fragments")
    elif few and choices.values["data.ids"] == "reused":
        choices.set("infer.join_below", JOIN_BELOW, "pieces of a large thing, whose ids are not certain, become one")
    areas = np.concatenate(data.diameters) ** 2 * np.pi / 4
    smallest = float(np.quantile(areas, 0.02)) if len(areas) else 64.0
    pixels = int(min(max(smallest / 4, 4 / min(scale, 1.0) ** 2, 4), 200))
    choices.set("infer.min_pixels", pixels, f"the smallest things have {smallest:.0f}" if len(areas) else "no things")


def _choose_training(choices: Choices, data: Statistics, start: Checkpoint | None, size: tuple[int, int]) -> None:
    """Length, batch and learning rate."""
    if "train.steps" in choices.given:
        minutes = choices.set("train.minutes", 0.0, "the number of steps is given")
    else:
        minutes = choices.set("train.minutes", MINUTES, "the default; --train.minutes gives more or less time")
    why = "as many as the time allows" if minutes else "no time is set"
    steps = choices.set("train.steps", _UNLIMITED if minutes else 3000, why)
    # From nothing, many small steps learn more in a time than few large ones (docs/notebook/few-steps.md).
    batch = min(max(2**19 // max(size[0] * size[1], 1), 4), 16 if start else 8)
    choices.set("train.batch_size", batch, f"{size[0]} x {size[1]} pixels each")
    fine = start is not None and start.model.config.mask.init_id_cell > 0
    known = {category.name for category in start.taxonomy.categories} if start else set()
    # At 5e-4 and with few windows a step, a checkpoint of the same kind of things loses what it knows at first.
    if fine and (is_similar(data) or all(category.name in known for category in data.taxonomy.categories)):
        choices.set("train.lr", 2e-4, "the start knows such things already")
    else:
        choices.set("train.lr", 5e-4 if fine else 1.5e-3, "from trained steps" if fine else "much is new")
    choices.set("train.end_lr_factor", 0.02, "falls to the end")
    choices.set("train.warmup_steps", min(50, steps // 10), "at most a tenth of the run")
    decay = round(min(0.998, 0.5 ** (20 / max(steps, 1))), 4)
    choices.set("train.ema_decay", decay, "at most; half of the average comes from the last twentieth of a short run")
    choices.set("train.log_every", 10, "scalars in logs/")
    choices.set("train.evaluations", 8, "spread over the run; the best is kept")
    choices.set("train.evaluate_images", 20, "of the images that are held out")
    choices.set("train.patience", 4, "the run ends early after so many evaluations without a better PQ")


def nearest(data: Statistics) -> str:
    """The bundled checkpoint whose task is most alike; empty: none."""
    if len(data.taxonomy) + 1 > 2**10:
        return ""
    names = ("nuclei-fast",) if is_similar(data) else ("facades", "shapes")
    return next((name for name in names if name in bundled_names()), "")


def find_data(train_data: str, eval_data: str) -> tuple[str, str, str]:
    """Names of the data to train on and to score, from what the user gave, and a sentence about the choice, or "".

    The second name is empty where the first is to be divided. What does not exist, or has splits that do not say which
    to train on, is an `InputError`.
    """
    if not train_data:
        raise InputError("--train-data is missing; give a folder of images and labels, or coco:DIR@train")
    for source in filter(None, (train_data, eval_data)):
        if is_clips(source) and not source.startswith(("davis:", "kitti-step:")):
            raise InputError(f"{source} holds clips; train own learns from images: give images with labels")
    eval_data = with_prefix(eval_data)
    if ":" in train_data and not Path(train_data).exists():
        return train_data, eval_data, ""
    home = Path(train_data)
    kind, found = find_splits(home)
    if len(found) < 2:
        return named(kind, home, found[0] if found else ""), eval_data, ""
    train, other = ([split for split in found if word.fullmatch(split)] for word in (_TRAINING, _VALIDATION))
    if len(train) != 1 or len(other) > 1:
        names = " or ".join(named(kind, home, split) for split in found)
        raise InputError(f"{home} has several splits; give --train-data {names}")
    scored = eval_data or (named(kind, home, other[0]) if other else "")
    return named(kind, home, train[0]), scored, f"{home} has the splits {', '.join(found)}"


def measure(dataset: Dataset, source: str) -> Statistics:
    """Read a data set; an `InputError` if an item cannot be read, or none has a label."""
    statistics = check(dataset, 0, Statistics)
    if statistics.errors:
        more = f" ({len(statistics.errors)} such items)" if len(statistics.errors) > 1 else ""
        raise InputError(f"{statistics.errors[0]}{more}; pix2seqd check-data {source} lists all")
    if not any(tally.segments for tally in statistics.tallies.values()):
        raise InputError(f"{source} has no label; pix2seqd check-data {source} shows how it is understood")
    return statistics


def prepare(settings: Mapping[str, Any], out: Path) -> tuple[Recipe, dict[str, Any], list[str]]:
    """Look at the data, and choose everything; an `InputError` if the data or the settings do not suit.

    Args:
        settings: the user's settings, nested as a recipe is; `init` may be "auto" or "none".
        out: folder of the run.

    Returns:
        The recipe; the content of `DATA_FILE`, which has to be written to `out`; and lines that say what was chosen
        and why.
    """
    given = dict(_flat(settings))
    if given.get("model.decoder.past_frames"):
        raise InputError("train own learns from images; leave --model.decoder.past_frames out")
    if backbone := given.get("backbone"):  # before all images are read
        find_backbone(backbone)
    data, content, lines = _read(given.pop("train_data", ""), given.pop("eval_data", ""))
    wish, trust_size = given.pop("init", "auto"), bool(given.pop("trust_size", False))
    init = str({"auto": nearest(data), "none": ""}.get(wish, wish))
    start = from_pretrained(init, trust_size) if init else None
    choices = choose(data, start, given)
    lines += [f"init {init or 'none'}: {_reason(wish, init, data)}", *choices.lines]
    lines += [f"warning: {warning}" for warning in data.warnings]
    fresh = RECIPES["nuclei" if is_similar(data) else "camvid"].model
    model = start.model.config if start else fresh
    values = {"model": model.replace(decoder={"past_frames": 0}).to_dict()}
    values = merged(merged(values, choices.nested()), settings)
    file = out / DATA_FILE
    values |= {"train_data": f"split:{file}@train", "eval_data": f"split:{file}@eval", "init": init}
    try:
        return Recipe.from_dict(values, trust_size), content, lines
    except ValueError as error:
        raise InputError(f"the settings do not fit each other: {str(error).removeprefix('Recipe.')}") from error


def _read(train_data: str, eval_data: str) -> tuple[Statistics, dict[str, Any], list[str]]:
    """The data to train on, the content of `DATA_FILE`, and lines that say what is trained on and scored."""
    train_data, eval_data, said = find_data(train_data, eval_data)
    dataset, lines = open_dataset(train_data, (SIDE, SIDE)), [said] if said else []
    taxonomy = _things_first(dataset.taxonomy)
    if eval_data:
        try:
            scored = with_categories(open_dataset(eval_data, (SIDE, SIDE)), taxonomy)  # errors come before all is read
        except InputError as error:
            raise InputError(
                f"{eval_data} has other classes than {train_data}, which makes the model: {error}"
            ) from error
        data = measure(subsample(dataset, MAX_MEASURED), train_data)
        lines.append(f"trained on {train_data} ({len(dataset):,} images), scored on {eval_data}")
        trained = set(data.digests)
        if both := sum(d in trained for d in measure(subsample(scored, MAX_MEASURED), eval_data).digests):
            lines.append(f"warning: {both:,} of these images are trained on too (same content): PQ will be too high")
        return data, describe(taxonomy, train_data, eval_data), lines
    if len(dataset) > MAX_DIVIDED:
        raise InputError(f"{train_data} has {len(dataset):,} images, too many to divide; give --eval-data")
    data = measure(dataset, train_data)
    kept, held_out = divide(data.digests)
    if len(set(data.digests)) == 1:
        lines.append(f"{train_data} has a single image: the run is trained and scored on it, so PQ says little")
    else:
        names = a_few([data.names[i] for i in held_out])
        lines.append(
            f"trained on {len(kept):,} images of {train_data}; {len(held_out):,} are held out by their content "
            f"and scored: {names}"
        )
    return data, describe(taxonomy, train_data, train_data, data.names, held_out), lines


def _reason(wish: str, init: str, data: Statistics) -> str:
    if wish != "auto":
        return "as given"
    if not init:
        return "no bundled checkpoint has so many classes"
    if is_similar(data):
        return "things of one class and of similar size, as in microscopy; --init none starts from nothing"
    return "it knows how to tell things apart; --init none starts from nothing"


def _things_first(taxonomy: Taxonomy) -> Taxonomy:
    """The same categories in the order of the bundled checkpoints, things before stuff."""
    return Taxonomy(tuple(sorted(taxonomy.categories, key=lambda category: not category.isthing)))


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of each setting; a backbone is one value."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and name != "backbone":
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def build(recipe: Recipe) -> Pix2SeqD:
    """The model of a run; where it starts from a grid of ids, its loss is that of its own steps."""
    model = new_model(recipe)
    return Student(model, recipe.data, recipe.infer) if recipe.model.mask.init_id_cell else model


def resumed(settings: Mapping[str, Any], out: Path) -> Recipe:
    """The recipe of a run in `out` that goes on; an `InputError` if more than its length and patience changed."""
    recipe = read_recipe(out / "recipe.json")
    given = dict(_flat(settings))
    wish = given.pop("init", "auto")
    if wish not in ("auto", recipe.init or "none"):
        raise InputError(f"{out} began with --init {recipe.init or 'none'}; leave --init out or choose another --out")
    train_data, eval_data = (given.pop(name, "") for name in ("train_data", "eval_data"))
    if train_data:
        before = [undivided(f"split:{out / DATA_FILE}@{part}") for part in SUBSETS]
        train_data, eval_data, _ = find_data(train_data, eval_data)
        if [train_data, eval_data or train_data] != before:
            raise InputError(f"{out} was started with other data ({', '.join(before)}); choose another --out")
    elif eval_data:
        raise InputError("--eval-data needs --train-data; leave both out to go on with the data of the run")
    changes = {name: given.pop(f"train.{name}") for name in MAY_CHANGE if f"train.{name}" in given}
    stored = dict(_flat(recipe.to_dict()))
    for path, value in given.items():
        if path not in stored or json.dumps(value) != json.dumps(stored[path]):
            raise InputError(f"{out} was started with another --{path}; leave it out or choose another --out")
    if "steps" in changes:
        changes.setdefault("minutes", 0.0)
    elif changes.get("minutes"):
        changes["steps"] = _UNLIMITED
    try:
        return recipe.replace(train=changes)
    except ValueError as error:
        raise InputError(f"train: {error}") from error


def train_own(settings: Mapping[str, Any], out: Path, resume: bool = False) -> Checkpoint:
    """Train on any labelled images in the folder `out`; arguments and errors are those of `prepare` and `train`.

    The settings have at least `train_data`, unless the run goes on (`resume`), with its data and settings.
    """
    require("training", "train", "accelerate", "tensorboard", "matplotlib")
    if resume and (out / "recipe.json").exists():
        return train(resumed(settings, out), out, True, build)
    _check_new(out)
    check_makeable(out)
    recipe, content, lines = prepare(settings, out)
    with ExitStack() as kept:
        if distributed.rank() == 0:
            for line in lines:
                say(line)
            make_folders(out, ())
            kept.enter_context(exclusive_lock(out / ".own.lock"))  # `train` opens the data before it has the folder
            _check_new(out)  # another run may have begun meanwhile
            write_json(out / DATA_FILE, content)
        distributed.barrier()
        return train(recipe, out, resume, build)


def _check_new(out: Path) -> None:
    if (out / "recipe.json").exists():
        raise InputError(f"{out} already holds a run; go on with --resume or choose another --out")
