"""Clips made from labelled micrographs: real nuclei move over their own background, with known ids.

A micrograph is decomposed once into its nuclei and the inpainted background. A frame is a view of the background by a
drifting camera, plus the light that each nucleus adds, moved by `nuclei_motion`.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from pix2seqd.data.sample import Clip, Dataset, LazyFrames, Sample
from pix2seqd.data.synthetic.nuclei_motion import WARM_UP, MotionParameters, Nuclei, at_rest, simulate
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import Taxonomy

BACKGROUND, FIRST_NUCLEUS = 1, 2
"""Segment ids; nuclei are numbered from 2."""
_MARGIN = 40  # pixels by which an image is mirrored beyond its border, so that nuclei enter and leave
_HALO = 4  # width in pixels of the halo around a nucleus
_SIDES = (20, 28, 36, 48, 64, 96, 144, 256)  # possible sides of the squares into which nuclei are cropped


@dataclass(frozen=True, eq=False)
class Micrograph:
    """An image decomposed into nuclei and background.

    Attributes:
        image: uint8 `[H, W, 3]`, the real image, mirrored beyond its border.
        background: uint8 `[H, W, 3]`, without nuclei.
        labels: unsigned `[H, W]`, of as few bytes as suffice, 0 or the number of the nucleus.
        center: centres of the nuclei, `[n, 2]` y, x.
        radius: radii of disks of the same areas, `[n]`.
        reach: half of the longer side of each bounding box, `[n]`.
        classes: contiguous classes of the nuclei, int `[n]`.
    """

    image: np.ndarray
    background: np.ndarray
    labels: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    reach: np.ndarray
    classes: np.ndarray

    @classmethod
    def from_sample(cls, sample: Sample, size: tuple[int, int]) -> "Micrograph":
        """Decompose an image for views of `size` (height, width)."""
        sides = [max(_MARGIN, -(-(n - m) // 2) + _MARGIN) for n, m in zip(size, sample.image.shape[:2], strict=True)]
        border = [(side, side) for side in sides]
        image = np.pad(sample.image, [*border, (0, 0)], mode="reflect")
        panoptic = sample.panoptic.without_crowds()
        things = {s.id: panoptic.taxonomy.class_of(s.category_id) for s in panoptic.segments if s.isthing}
        whole = np.where(np.isin(panoptic.segmentation, list(things)), panoptic.segmentation, 0)
        labels, classes = _components(np.pad(whole, border, mode="reflect"), things)
        boxes = np.array([box for _, box in Runs.encode(labels).measure().values()], float).reshape(-1, 4)
        areas = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
        return cls(
            image=image,
            background=_inpaint(image, labels > 0),
            labels=labels.astype(np.min_scalar_type(len(classes))),
            center=boxes[:, 1::-1] + (boxes[:, 3:1:-1] - 1) / 2,
            radius=np.sqrt(areas / np.pi),
            reach=boxes[:, 2:].max(axis=1, initial=0) / 2,
            classes=np.array(classes, int),
        )

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.image.nbytes + self.background.nbytes + self.labels.nbytes


def _components(labels: np.ndarray, classes: dict[int, int]) -> tuple[np.ndarray, list[int]]:
    """Connected components, numbered from 1, and the class of each; a mirrored nucleus is another component."""
    result, found = np.zeros(labels.shape, np.int32), []
    for segment_id, (_, (x, y, width, height)) in Runs.encode(labels).measure().items():
        box = np.s_[y : y + height, x : x + width]
        pieces, count = ndimage.label(labels[box] == segment_id)  # pyright: ignore[reportGeneralTypeIssues]
        result[box][pieces > 0] = pieces[pieces > 0] + len(found)
        found += [classes[segment_id]] * count
    return result, found


def _inpaint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Replace the pixels of a bool mask `[h, w]` by the surrounding colour and the texture mirrored at the outline."""
    hole = np.asarray(ndimage.binary_dilation(mask, iterations=_HALO))
    if hole.all():
        hole = mask
    known = np.logical_not(hole)
    if not known.any():
        return np.broadcast_to(np.median(image, axis=(0, 1)), image.shape).astype(np.uint8)
    weights = known.astype(np.float32)
    colors = image * weights[..., None]
    blurred = [(_blur(colors, width), _blur(weights, width)) for width in (61, 21, 7)]
    counts = np.array(Image.fromarray(image).histogram(Image.fromarray(known))).reshape(3, 256)
    mean = counts @ np.arange(256) / np.count_nonzero(known)

    def smooth(at: tuple[np.ndarray, ...], steps: int) -> np.ndarray:
        """The surrounding colour of some pixels, the finer the more steps."""
        result = mean
        for color, weight in blurred[:steps]:
            result = (color[at] + 0.02 * result) / (weight[at][:, None] + 0.02)
        return result

    nearest = np.asarray(ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True))
    inside = np.nonzero(hole)
    nearest = nearest[:, *inside]
    mirrored = np.clip(2 * nearest - inside, 0, np.array(hole.shape)[:, None] - 1)
    rows, columns = np.where(hole[tuple(mirrored)], nearest, mirrored)
    texture = image[rows, columns] - smooth((rows, columns), 3)
    result = image.copy()
    result[inside] = (smooth(inside, 2) + texture).clip(0, 255)
    return result


def _blur(values: np.ndarray, width: int) -> np.ndarray:
    for axis in (0, 1):
        values = ndimage.uniform_filter1d(values, width, axis=axis)
    return values


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """The random draws of one clip."""

    nuclei: list[Nuclei]
    """States of the nuclei, one per frame."""
    camera: np.ndarray
    """Top left corner of each frame in the micrograph, y and x, `[frames, 2]`."""
    gain: np.ndarray
    """Brightness of each frame, `[frames]`."""
    grain: float
    """Standard deviation of the sensor noise, as a share of the range of the frame."""
    seed: int
    """Seed of the sensor noise."""


def random_plan(rng: np.random.Generator, micrograph: Micrograph, size: tuple[int, int], frames: int) -> ClipPlan:
    """Draw the nuclei of a clip, their motion, and the motion of the camera."""
    limits = np.array(micrograph.labels.shape) - size - 1.0
    speed = np.exp(rng.uniform(np.log(0.1), np.log(4.0))) * (rng.random() < 0.7)
    moves = speed * np.cumsum(rng.normal(0, 0.4, (frames, 2)) + rng.normal(0, 0.7, 2), axis=0)
    if rng.random() < 0.1:  # the stage jumps
        moves[rng.integers(frames) :] += rng.normal(0, 8, 2)
    start = rng.uniform(np.minimum(_MARGIN / 2, limits / 2), np.maximum(limits - _MARGIN / 2, limits / 2))
    camera = np.clip(start + moves, 0, limits)
    low, high = camera.min(axis=0) - _MARGIN / 2, camera.max(axis=0) + size + _MARGIN / 2
    inside = np.flatnonzero(((micrograph.center > low) & (micrograph.center < high)).all(axis=1))
    kept = inside[rng.random(len(inside)) > rng.choice([0.0, 0.1, 0.4])]
    copies = rng.choice(inside, int(rng.choice([0.0, 0.1, 0.4]) * len(inside))) if len(inside) else inside
    source = np.concatenate([kept, copies])
    center = np.concatenate([micrograph.center[kept], rng.uniform(low, high, (len(copies), 2))])
    motion = MotionParameters(
        pace=float(np.exp(rng.uniform(np.log(0.01), np.log(0.4)))),
        flow=rng.normal(0, 0.3, 2) * (rng.random() < 0.3),
        division=float(rng.choice([0.0, 0.003, 0.012])),
        defocus=float(rng.choice([0.0, 0.0, 0.004])),
    )
    nuclei = at_rest(rng, source, center, micrograph.radius[source])
    # The warm-up moves all nuclei by the common drift; shift them back first.
    nuclei.center[:] -= WARM_UP * motion.flow
    return ClipPlan(
        nuclei=simulate(rng, nuclei, motion, frames),
        camera=camera,
        gain=np.exp(np.cumsum(rng.normal(0, 0.003, frames)) + rng.normal(0, rng.uniform(0, 0.02), frames)),
        grain=float(rng.uniform(0, 0.02)),
        seed=int(rng.integers(2**31)),
    )


class Sprites:
    """The cropped nuclei of a clip.

    Each is a float square `[5, side, side]`: the light that the nucleus adds to the background (RGB), its opacity, and
    its mask.
    """

    def __init__(self, micrograph: Micrograph, sources: np.ndarray) -> None:
        self.micrograph = micrograph
        width = 2 * micrograph.reach + 2 * _HALO + 2
        self.side = np.take(_SIDES, np.searchsorted(_SIDES, width), mode="clip")
        self.row = np.zeros(len(width), int)
        self.squares: dict[int, torch.Tensor] = {}
        for side in np.unique(self.side[sources]).tolist():
            numbers = sources[self.side[sources] == side]
            self.row[numbers] = np.arange(len(numbers))
            self.squares[side] = _crop(micrograph, numbers, side)

    def warped(
        self, nuclei: Nuclei, camera: np.ndarray, size: tuple[int, int]
    ) -> list[tuple[int, int, int, np.ndarray]]:
        """Number, top, left and warped square of each nucleus in view, back to front."""
        position, matrices = nuclei.center - camera, nuclei.matrices()
        sides = self.side[nuclei.source]
        stretched = np.where(nuclei.progress > 0, 1.7, 1.2) * sides
        inside = ((position > -stretched[:, None] / 2) & (position < size + stretched[:, None] / 2)).all(1)
        visible = (nuclei.focus > 0) & inside
        result = []
        for side, width in set(zip(sides[visible].tolist(), stretched[visible].astype(int).tolist(), strict=True)):
            which = np.flatnonzero(visible & (sides == side) & (stretched.astype(int) == width))
            corner = np.floor(position[which]).astype(int) - width // 2
            grid = self._sampling_grid(nuclei, which, matrices[which], position[which] - corner, width, side)
            squares = self.squares[side][self.row[nuclei.source[which]]]
            warped = F.grid_sample(squares, grid, mode="bilinear", align_corners=True).numpy()
            result += zip(which.tolist(), *corner.T.tolist(), warped, strict=True)
        return sorted(result, key=lambda item: item[0])

    def _sampling_grid(
        self, nuclei: Nuclei, which: np.ndarray, matrices: np.ndarray, center: np.ndarray, width: int, side: int
    ) -> torch.Tensor:
        """The position in the sprite of each pixel of a warped square: `[n, width, width, 2]`, x and y in -1..1."""
        y, x = (np.arange(width, dtype=np.float32) - center[:, axis, None].astype(np.float32) for axis in (0, 1))
        y, x = np.broadcast_arrays(y[:, :, None], x[:, None, :])
        radius = nuclei.radius[which].astype(np.float32)[:, None, None]
        if (progress := nuclei.progress[which].astype(np.float32)[:, None, None]).any():
            sin, cos = (f(nuclei.axis[which]).astype(np.float32)[:, None, None] for f in (np.sin, np.cos))
            along, across = cos * y + sin * x, cos * x - sin * y
            across = across * (1 + 1.3 * progress**2 * np.exp(-((along / (0.4 * radius)) ** 2)))  # the waist
            y, x = cos * along - sin * across, sin * along + cos * across
        back = np.linalg.inv(matrices).astype(np.float32)[..., None, None]
        y, x = back[:, 0, 0] * y + back[:, 0, 1] * x, back[:, 1, 0] * y + back[:, 1, 1] * x
        bend = nuclei.shape[which, 2:].astype(np.float32)[..., None, None] / radius[:, None]
        y, x = y + bend[:, 0] * (x * x), x + bend[:, 1] * (y * y)
        source = self.micrograph.center[nuclei.source[which]]
        rest = (source - np.floor(source) + side // 2).astype(np.float32)[..., None, None]
        scale = np.float32(2 / (side - 1))
        return torch.from_numpy(np.stack([(x + rest[:, 1]) * scale - 1, (y + rest[:, 0]) * scale - 1], axis=-1))


def _crop(micrograph: Micrograph, numbers: np.ndarray, side: int) -> torch.Tensor:
    corner = np.floor(micrograph.center[numbers]).astype(int) - side // 2
    rows, columns = (
        np.clip(corner[:, axis, None] + np.arange(side), 0, micrograph.labels.shape[axis] - 1) for axis in (0, 1)
    )
    pixels = rows[:, :, None], columns[:, None, :]
    labels = micrograph.labels[pixels]
    own = labels == numbers[:, None, None] + 1
    mask = torch.from_numpy(own).float()[:, None]
    free = torch.from_numpy((labels == 0) | own)[:, None]
    halo = F.max_pool2d(mask, 2 * _HALO - 1, 1, _HALO - 1) * free
    opacity = torch.maximum(F.avg_pool2d(halo, 3, 1, 1), mask)
    added = torch.from_numpy(micrograph.image[pixels].astype(np.float32) - micrograph.background[pixels])
    return torch.cat([added.permute(0, 3, 1, 2) * opacity, opacity, mask], dim=1)


def render(
    micrograph: Micrograph, plan: ClipPlan, sprites: Sprites, frame: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Render one frame: image, uint8 `[h, w, 3]`, and segment ids, int32 `[h, w]`."""
    nuclei, camera = plan.nuclei[frame], plan.camera[frame]
    base = _camera_view(micrograph.background, camera, size)
    canvas = base.copy()
    labels = np.full(size, BACKGROUND, np.int32)
    brightness = nuclei.light * (1 + 0.3 * nuclei.progress) * nuclei.focus
    for number, top, left, square in sprites.warped(nuclei, camera, size):
        down, right = top + square.shape[1], left + square.shape[2]
        rows, columns = slice(max(top, 0), max(down, 0)), slice(max(left, 0), max(right, 0))
        local_canvas, local_labels = canvas[:, rows, columns], labels[rows, columns]
        square = square[:, rows.start - top :, columns.start - left :]
        square = square[:, : local_labels.shape[0], : local_labels.shape[1]]
        # The light of overlapping nuclei adds up partially.
        under = local_canvas - base[:, rows, columns]
        local_canvas -= (np.float32(0.7 * nuclei.focus[number]) * square[3]) * under
        local_canvas += np.float32(brightness[number]) * square[:3]
        if nuclei.focus[number] > 0.5:
            local_labels[square[4] > 0.5] = nuclei.id[number] + FIRST_NUCLEUS
    rng = np.random.default_rng([plan.seed, frame])
    contrast = np.float32(plan.grain * max(canvas.max() - canvas.min(), 1))
    canvas = canvas * np.float32(plan.gain[frame]) + contrast * rng.standard_normal(size, np.float32)
    return np.ascontiguousarray((canvas.clip(0, 255) + 0.5).astype(np.uint8).transpose(1, 2, 0)), labels


def _camera_view(image: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop the view of a camera at subpixel position: uint8 `[H, W, 3]` → float32 `[3, h, w]`."""
    (top, left), (down, right) = np.floor(camera).astype(int), (camera % 1).astype(np.float32)
    part = image[top : top + size[0] + 1, left : left + size[1] + 1].transpose(2, 0, 1).astype(np.float32)
    part = part[:, :-1] + down * (part[:, 1:] - part[:, :-1])
    return part[:, :, :-1] + right * (part[:, :, 1:] - part[:, :, :-1])


class NucleiClips:
    """`length` clips of `frames` frames of `size` (height, width) pixels, made from the images of a data set.

    Clip i depends only on (data set, seed, i). Decomposed images are cached up to `cache_bytes`. A `ClipDataset`. The
    data set must have things and one stuff class, the background.
    """

    def __init__(
        self,
        images: Dataset,
        length: int,
        frames: int,
        size: tuple[int, int],
        seed: int = 0,
        cache_bytes: int = 2**30,
    ) -> None:
        stuff = [c for c in images.taxonomy.categories if not c.isthing]
        if len(stuff) != 1 or len(images.taxonomy) < 2:
            raise InputError(f"clips need images of things on one stuff class, the background, not {stuff}")
        if length < 1 or frames < 1:
            raise InputError(f"{length} clips of {frames} frames cannot be made; give 1 or more")
        self.images, self.length, self.frames, self.size, self.seed = images, length, frames, size, seed
        self.background = images.taxonomy.class_of(stuff[0].id)
        self.cache: dict[int, Micrograph] = {}
        self.cache_left = cache_bytes

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the images."""
        return self.images.taxonomy

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        rng = np.random.default_rng([self.seed, index])
        micrograph = self._micrograph(int(rng.integers(len(self.images))))
        plan = random_plan(rng, micrograph, self.size, self.frames)
        sprites = Sprites(micrograph, np.unique(plan.nuclei[0].source))
        name = f"{self.seed:04d}-{index:08d}"
        return Clip(
            name, LazyFrames(self.frames, lambda k: self._render(micrograph, plan, sprites, k, f"{name}-{k:05d}"))
        )

    def _render(self, micrograph: Micrograph, plan: ClipPlan, sprites: Sprites, frame: int, name: str) -> Sample:
        image, labels = render(micrograph, plan, sprites, frame, self.size)
        nuclei = plan.nuclei[frame]
        classes = micrograph.classes[nuclei.source].tolist()
        class_of = {
            BACKGROUND: self.background,
            **dict(zip((nuclei.id + FIRST_NUCLEUS).tolist(), classes, strict=True)),
        }
        return Sample(name, image, Panoptic.from_segmentation(labels, class_of, self.taxonomy))

    def _micrograph(self, number: int) -> Micrograph:
        if number in self.cache:
            return self.cache[number]
        micrograph = Micrograph.from_sample(self.images[number], self.size)
        if micrograph.nbytes <= self.cache_left:
            self.cache_left -= micrograph.nbytes
            self.cache[number] = micrograph
        return micrograph
