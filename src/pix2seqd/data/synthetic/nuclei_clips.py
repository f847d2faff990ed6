"""Clips made of real pictures: nuclei cut from a labelled micrograph live over its background, with true ids.

A picture is taken apart once: its nuclei, and the background with the nuclei painted out. A frame is the background
seen by a drifting camera, plus what each nucleus adds to it, moved as `nuclei_motion` says.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from pix2seqd.data.sample import Clip, Dataset, MadeFrames, Sample
from pix2seqd.data.synthetic.nuclei_motion import WARM_UP, Bodies, Temper, live, settle
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic, measure
from pix2seqd.panoptic.taxonomy import Taxonomy

BACKGROUND, FIRST_NUCLEUS = 1, 2
"""Segment ids; nuclei have those from 2 on."""
_MARGIN = 40  # pixels by which a picture is mirrored beyond its border, so that nuclei come and go
_GLOW = 4  # pixels around a nucleus that its light reaches
_SIDES = (20, 28, 36, 48, 64, 96, 144, 256)  # of the squares that nuclei are cut out in


@dataclass(frozen=True, eq=False)
class Specimen:
    """A picture taken apart.

    Attributes:
        image: uint8 `[H, W, 3]`, mirrored beyond the border of the real one.
        background: uint8 `[H, W, 3]`, without nuclei.
        labels: int32 `[H, W]`, 0 or the number of the nucleus.
        center: of each nucleus, `[n, 2]` y, x.
        radius: of the disk of its area, `[n]`.
        reach: half of its box's longer side, `[n]`.
        classes: contiguous class of each nucleus, int `[n]`.
    """

    image: np.ndarray
    background: np.ndarray
    labels: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    reach: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, sample: Sample, size: tuple[int, int]) -> "Specimen":
        """Take a picture apart, to be seen in views of this size."""
        sides = [max(_MARGIN, -(-(n - m) // 2) + _MARGIN) for n, m in zip(size, sample.image.shape[:2], strict=True)]
        border = [(side, side) for side in sides]
        image = np.pad(sample.image, [*border, (0, 0)], mode="reflect")
        panoptic = sample.panoptic.without_crowds()
        things = {s.id: panoptic.taxonomy.class_of(s.category_id) for s in panoptic.segments if s.isthing}
        whole = np.where(np.isin(panoptic.segmentation, list(things)), panoptic.segmentation, 0)
        labels, classes = _pieces(np.pad(whole, border, mode="reflect"), things)
        boxes = np.array([box for _, box in measure(labels).values()], float).reshape(-1, 4)
        areas = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
        return cls(
            image=image,
            background=_paint_out(image, labels > 0),
            labels=labels,
            center=boxes[:, 1::-1] + (boxes[:, 3:1:-1] - 1) / 2,
            radius=np.sqrt(areas / np.pi),
            reach=boxes[:, 2:].max(axis=1, initial=0) / 2,
            classes=np.array(classes, int),
        )

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.image.nbytes + self.background.nbytes + self.labels.nbytes


def _pieces(labels: np.ndarray, classes: dict[int, int]) -> tuple[np.ndarray, list[int]]:
    """Connected pieces numbered from 1 on (a mirrored nucleus is another one), and the class of each."""
    result, found = np.zeros(labels.shape, np.int32), []
    for segment_id, (_, (x, y, width, height)) in measure(labels).items():
        box = np.s_[y : y + height, x : x + width]
        pieces, count = ndimage.label(labels[box] == segment_id)  # pyright: ignore[reportGeneralTypeIssues]
        result[box][pieces > 0] = pieces[pieces > 0] + len(found)
        found += [classes[segment_id]] * count
    return result, found


def _paint_out(image: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """The picture with its nuclei replaced by the colour around them and the texture mirrored at their outline."""
    hole = np.asarray(ndimage.binary_dilation(nuclei, iterations=_GLOW))
    if hole.all():
        hole = nuclei
    known = np.logical_not(hole)
    if not known.any():
        return np.broadcast_to(np.median(image, axis=(0, 1)), image.shape).astype(np.uint8)
    smooth = fine = np.broadcast_to(image[known].mean(axis=0), image.shape)
    for width in (61, 21, 7):
        smooth, weight = fine, _blur(known.astype(np.float32), width)[..., None]
        fine = (_blur(image * known[..., None].astype(np.float32), width) + 0.02 * smooth) / (weight + 0.02)
    nearest = np.asarray(ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True))
    limits = np.array(hole.shape).reshape(2, 1, 1) - 1
    mirrored = np.clip(2 * nearest - np.indices(hole.shape), 0, limits)
    rows, columns = np.where(hole[tuple(mirrored)], nearest, mirrored)
    texture = image[rows, columns] - fine[rows, columns]
    return np.where(hole[..., None], (smooth + texture).clip(0, 255), image).astype(np.uint8)


def _blur(values: np.ndarray, width: int) -> np.ndarray:
    for axis in (0, 1):
        values = ndimage.uniform_filter1d(values, width, axis=axis)
    return values


@dataclass(frozen=True, eq=False)
class Film:
    """All that is drawn by lot for one clip."""

    bodies: list[Bodies]
    """The nuclei, frame by frame."""
    camera: np.ndarray
    """Top left corner of each frame in the specimen, `[frames, 2]`."""
    gain: np.ndarray
    """Brightness of each frame, `[frames]`."""
    grain: float
    """Standard deviation of the sensor's noise."""
    seed: int


def describe(rng: np.random.Generator, specimen: Specimen, size: tuple[int, int], frames: int) -> Film:
    """Draw a clip: which nuclei there are, how lively they and the camera are."""
    limits = np.array(specimen.labels.shape) - size - 1.0
    speed = np.exp(rng.uniform(np.log(0.1), np.log(4.0))) * (rng.random() < 0.7)
    moves = speed * np.cumsum(rng.normal(0, 0.4, (frames, 2)) + rng.normal(0, 0.7, 2), axis=0)
    if rng.random() < 0.1:  # the stage jumps
        moves[rng.integers(frames) :] += rng.normal(0, 8, 2)
    start = rng.uniform(np.minimum(_MARGIN / 2, limits / 2), np.maximum(limits - _MARGIN / 2, limits / 2))
    camera = np.clip(start + moves, 0, limits)
    low, high = camera.min(axis=0) - _MARGIN / 2, camera.max(axis=0) + size + _MARGIN / 2
    inside = np.flatnonzero(((specimen.center > low) & (specimen.center < high)).all(axis=1))
    kept = inside[rng.random(len(inside)) > rng.choice([0.0, 0.1, 0.4])]
    copies = rng.choice(inside, int(rng.choice([0.0, 0.1, 0.4]) * len(inside))) if len(inside) else inside
    source = np.concatenate([kept, copies])
    center = np.concatenate([specimen.center[kept], rng.uniform(low, high, (len(copies), 2))])
    temper = Temper(
        pace=float(np.exp(rng.uniform(np.log(0.01), np.log(0.4)))),
        flow=rng.normal(0, 0.3, 2) * (rng.random() < 0.3),
        division=float(rng.choice([0.0, 0.003, 0.012])),
        defocus=float(rng.choice([0.0, 0.0, 0.004])),
    )
    bodies = settle(rng, source, center, specimen.radius[source])
    # The present place is where the warm-up began: go back by what all share.
    bodies.center[:] -= WARM_UP * temper.flow
    return Film(
        bodies=live(rng, bodies, temper, frames),
        camera=camera,
        gain=np.exp(np.cumsum(rng.normal(0, 0.003, frames)) + rng.normal(0, rng.uniform(0, 0.02), frames)),
        grain=float(rng.uniform(0, 0.02)),
        seed=int(rng.integers(2**31)),
    )


class Sprites:
    """The nuclei of a film as small pictures.

    Each is a float square `[5, side, side]`: what the nucleus adds to its background (RGB), where, and its mask.
    """

    def __init__(self, specimen: Specimen, sources: np.ndarray) -> None:
        self.specimen = specimen
        width = 2 * specimen.reach + 2 * _GLOW + 2
        self.side = np.take(_SIDES, np.searchsorted(_SIDES, width), mode="clip")
        self.row = np.zeros(len(width), int)
        self.squares: dict[int, torch.Tensor] = {}
        for side in np.unique(self.side[sources]).tolist():
            numbers = sources[self.side[sources] == side]
            self.row[numbers] = np.arange(len(numbers))
            self.squares[side] = _cut(specimen, numbers, side)

    def moved(
        self, bodies: Bodies, camera: np.ndarray, size: tuple[int, int]
    ) -> list[tuple[int, int, int, np.ndarray]]:
        """Number, top, left and square of each body in view, back to front."""
        place = bodies.center - camera
        sides = self.side[bodies.source]
        stretched = np.where(bodies.progress > 0, 1.7, 1.2) * sides
        seen = (bodies.focus > 0) & ((place > -stretched[:, None] / 2) & (place < size + stretched[:, None] / 2)).all(1)
        result = []
        for side, width in set(zip(sides[seen].tolist(), stretched[seen].astype(int).tolist(), strict=True)):
            which = np.flatnonzero(seen & (sides == side) & (stretched.astype(int) == width))
            corner = np.floor(place[which]).astype(int) - width // 2
            there = self._trace(bodies, which, place[which] - corner, width, side)
            squares = self.squares[side][self.row[bodies.source[which]]]
            moved = F.grid_sample(squares, there, mode="bilinear", align_corners=True).numpy()
            result += zip(which.tolist(), *corner.T.tolist(), moved, strict=True)
        return sorted(result, key=lambda item: item[0])

    def _trace(self, bodies: Bodies, which: np.ndarray, center: np.ndarray, width: int, side: int) -> torch.Tensor:
        """Where each pixel of a drawn square comes from in the sprite: `[n, width, width, 2]`, x and y in -1..1."""
        y, x = (np.arange(width, dtype=np.float32) - center[:, axis, None].astype(np.float32) for axis in (0, 1))
        y, x = np.broadcast_arrays(y[:, :, None], x[:, None, :])
        radius = bodies.radius[which].astype(np.float32)[:, None, None]
        if (progress := bodies.progress[which].astype(np.float32)[:, None, None]).any():
            sin, cos = (f(bodies.axis[which]).astype(np.float32)[:, None, None] for f in (np.sin, np.cos))
            along, across = cos * y + sin * x, cos * x - sin * y
            across = across * (1 + 1.3 * progress**2 * np.exp(-((along / (0.4 * radius)) ** 2)))  # the waist
            y, x = cos * along - sin * across, sin * along + cos * across
        back = np.linalg.inv(bodies.matrices()[which]).astype(np.float32)[..., None, None]
        y, x = back[:, 0, 0] * y + back[:, 0, 1] * x, back[:, 1, 0] * y + back[:, 1, 1] * x
        bend = bodies.shape[which, 2:].astype(np.float32)[..., None, None] / radius[:, None]
        y, x = y + bend[:, 0] * (x * x), x + bend[:, 1] * (y * y)
        source = self.specimen.center[bodies.source[which]]
        rest = (source - np.floor(source) + side // 2).astype(np.float32)[..., None, None]
        scale = np.float32(2 / (side - 1))
        return torch.from_numpy(np.stack([(x + rest[:, 1]) * scale - 1, (y + rest[:, 0]) * scale - 1], axis=-1))


def _cut(specimen: Specimen, numbers: np.ndarray, side: int) -> torch.Tensor:
    corner = np.floor(specimen.center[numbers]).astype(int) - side // 2
    rows, columns = (
        np.clip(corner[:, axis, None] + np.arange(side), 0, specimen.labels.shape[axis] - 1) for axis in (0, 1)
    )
    place = rows[:, :, None], columns[:, None, :]
    labels = specimen.labels[place]
    own = labels == numbers[:, None, None] + 1
    mask = torch.from_numpy(own).float()[:, None]
    free = torch.from_numpy((labels == 0) | own)[:, None]
    glow = F.max_pool2d(mask, 2 * _GLOW - 1, 1, _GLOW - 1) * free
    cover = torch.maximum(F.avg_pool2d(glow, 3, 1, 1), mask)
    added = torch.from_numpy(specimen.image[place].astype(np.float32) - specimen.background[place])
    return torch.cat([added.permute(0, 3, 1, 2) * cover, cover, mask], dim=1)


def draw(
    specimen: Specimen, film: Film, sprites: Sprites, frame: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One frame: picture uint8 `[h, w, 3]` and segment ids int32 `[h, w]`."""
    bodies, camera = film.bodies[frame], film.camera[frame]
    base = _view(specimen.background, camera, size)
    canvas = base.copy()
    labels = np.full(size, BACKGROUND, np.int32)
    for number, top, left, square in sprites.moved(bodies, camera, size):
        down, right = top + square.shape[1], left + square.shape[2]
        rows, columns = slice(max(top, 0), max(down, 0)), slice(max(left, 0), max(right, 0))
        canvas_there, labels_there = canvas[:, rows, columns], labels[rows, columns]
        square = square[:, rows.start - top :, columns.start - left :]
        square = square[:, : labels_there.shape[0], : labels_there.shape[1]]
        # Nuclei that lie over each other add up in a transparent specimen, less than fully.
        under = canvas_there - base[:, rows, columns]
        light = np.float32(bodies.light[number] * (1 + 0.3 * bodies.progress[number]) * bodies.focus[number])
        canvas_there -= (np.float32(0.7 * bodies.focus[number]) * square[3]) * under
        canvas_there += light * square[:3]
        if bodies.focus[number] > 0.5:
            labels_there[square[4] > 0.5] = bodies.id[number] + FIRST_NUCLEUS
    rng = np.random.default_rng([film.seed, frame])
    contrast = np.float32(film.grain * max(canvas.max() - canvas.min(), 1))
    canvas = canvas * np.float32(film.gain[frame]) + contrast * rng.standard_normal(size, np.float32)
    return np.ascontiguousarray((canvas.clip(0, 255) + 0.5).astype(np.uint8).transpose(1, 2, 0)), labels


def _view(image: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the camera sees, between pixels too: uint8 `[H, W, 3]` → float32 `[3, h, w]`."""
    (top, left), (down, right) = np.floor(camera).astype(int), (camera % 1).astype(np.float32)
    part = image[top : top + size[0] + 1, left : left + size[1] + 1].transpose(2, 0, 1).astype(np.float32)
    part = part[:, :-1] + down * (part[:, 1:] - part[:, :-1])
    return part[:, :, :-1] + right * (part[:, :, 1:] - part[:, :, :-1])


class NucleiClips:
    """`length` clips of `frames` frames of `size` (height, width) pixels, made of the pictures of a data set.

    Clip i depends on the data set, seed and i alone. A `ClipDataset`. Pictures that were taken apart are kept as far as
    `cache_bytes` reaches.

    Raises:
        InputError: the data set has no thing class, or not exactly one stuff class, the background.
    """

    def __init__(
        self,
        pictures: Dataset,
        length: int,
        frames: int,
        size: tuple[int, int],
        seed: int = 0,
        cache_bytes: int = 2**30,
    ) -> None:
        stuff = [c for c in pictures.taxonomy.categories if not c.isthing]
        if len(stuff) != 1 or len(pictures.taxonomy) < 2:
            raise InputError(f"clips are made of pictures of things on a background, the one stuff class, not {stuff}")
        if length < 1 or frames < 1:
            raise InputError(f"{length} clips of {frames} frames cannot be made; give 1 or more")
        self.pictures, self.length, self.frames, self.size, self.seed = pictures, length, frames, size, seed
        self.background = pictures.taxonomy.class_of(stuff[0].id)
        self.cache: dict[int, Specimen] = {}
        self.cache_left = cache_bytes

    @property
    def taxonomy(self) -> Taxonomy:
        """The pictures'."""
        return self.pictures.taxonomy

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        rng = np.random.default_rng([self.seed, index])
        specimen = self._specimen(int(rng.integers(len(self.pictures))))
        film = describe(rng, specimen, self.size, self.frames)
        sprites = Sprites(specimen, np.unique(film.bodies[0].source))
        name = f"{self.seed:04d}-{index:08d}"
        return Clip(name, MadeFrames(self.frames, lambda k: self._draw(specimen, film, sprites, k, f"{name}-{k:05d}")))

    def _draw(self, specimen: Specimen, film: Film, sprites: Sprites, frame: int, name: str) -> Sample:
        image, labels = draw(specimen, film, sprites, frame, self.size)
        bodies = film.bodies[frame]
        classes = specimen.classes[bodies.source].tolist()
        class_of = {
            BACKGROUND: self.background,
            **dict(zip((bodies.id + FIRST_NUCLEUS).tolist(), classes, strict=True)),
        }
        return Sample(name, image, Panoptic.from_segmentation(labels, class_of, self.taxonomy))

    def _specimen(self, number: int) -> Specimen:
        if number in self.cache:
            return self.cache[number]
        specimen = Specimen.of(self.pictures[number], self.size)
        if specimen.nbytes <= self.cache_left:
            self.cache_left -= specimen.nbytes
            self.cache[number] = specimen
        return specimen
