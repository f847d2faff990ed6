"""How unlike an image is to those that a model was trained on (out-of-distribution detection).

The feature statistics of an image are the mean and the standard deviation of each channel of the encoder's map. For
images of one kind these numbers vary together in a certain way. `Familiarity` holds their mean and covariance over
training images; the out-of-distribution score of another image is its Mahalanobis distance from them (Lee et al. 2018),
in units of the limit that few training images exceed. The encoder computes the map anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pix2seqd.files import InputError, require_regular, require_size, write_atomically

FILE = "familiarity.safetensors"
"""Name of the file beside the weights."""
MAX_BYTES = 2**27
"""Bytes of the largest such file that is read."""
HEADER = 2**16
"""Bytes of such a file beside its numbers."""
_SHRINKAGE = 0.05
"""Part of the covariance that is replaced by a multiple of the identity, so that few images suffice."""
_FOLDS = 4
_LIMIT = 1.6
"""Standard deviations from the mean of the logarithm of the distance to the limit."""


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The distribution of the training images' feature statistics.

    Attributes:
        mean: float32 `[d]`.
        whitening: float32 `[d, d]`: the square of (statistics - mean) times this, averaged, is the squared distance,
            in units of the limit.
        min_pixels: of the smallest of these images. Smaller ones show too little to be judged.
    """

    mean: Tensor
    whitening: Tensor
    min_pixels: int

    @classmethod
    def fit(cls, statistics: Tensor, min_pixels: int) -> "Familiarity":
        """From the feature statistics `[n, d]` of training images.

        The limit is taken from images that the statistics do not contain: each quarter is compared with the others.
        """
        values, fold = statistics.double().cpu(), torch.arange(len(statistics)) % _FOLDS
        distances = torch.cat(
            [_distance(values[fold == k], *_statistics(values[fold != k])) for k in range(_FOLDS)]
        ).clamp(min=1e-12)
        spread = distances.log()
        limit = (spread.mean() + _LIMIT * spread.std()).exp()
        mean, whitening = _statistics(values)
        return cls(mean.float(), (whitening / limit).float(), min_pixels)

    def ood_score(self, statistics: Tensor) -> float:
        """Of the image with these `feature_statistics`: 0 for the mean of the training images, 1 at the limit."""
        return float(_distance(statistics[None].double(), self.mean.double(), self.whitening.double()))


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[d]` and whitening matrix `[d, d]` of values `[n, d]`."""
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = 1 / (deviation + 1e-3 * deviation.mean() + 1e-12)  # channels that never vary count little
    scaled = (values - mean) * scale
    variances, axes = torch.linalg.eigh(scaled.mT @ scaled / len(scaled))
    variances = variances.clamp(min=0)
    variances = (1 - _SHRINKAGE) * variances + _SHRINKAGE * variances.mean() + 1e-12
    return mean, scale[:, None] * axes / variances.sqrt()


def _distance(values: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    return ((values - mean) @ whitening).square().mean(dim=1).sqrt()


def moments(features: Tensor, size: Sequence[int], inside: tuple[int, int]) -> Tensor:
    """Sums over the part of a window that is not padding; those of several windows can be added.

    `features` is the encoder's map of a window, `[c, h, w]`; `size` and `inside` are height and width of the window and
    of the part of it that is the image, in pixels. Returns float32 `[1 + 2 c]`: the number of cells, and for each
    channel the sum of the values and of their squares.
    """
    rows, columns = (-(-part * n // whole) for part, n, whole in zip(inside, features.shape[1:], size, strict=True))
    values = features[:, :rows, :columns].float().flatten(1)
    return torch.cat([values.new_full((1,), values.shape[1]), values.sum(dim=1), values.square().sum(dim=1)])


def feature_statistics(windows: Sequence[Tensor]) -> Tensor:
    """Mean and standard deviation of each channel over an image, `[2 c]`, from the moments of its windows."""
    count, total = torch.stack(tuple(windows)).cpu().double().sum(dim=0).split([1, len(windows[0]) - 1])
    mean, square = (total / count).chunk(2)
    return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()])


def write(familiarity: Familiarity | None, folder: Path) -> None:
    """Write the statistics into a checkpoint's folder; None removes those of earlier weights."""
    if familiarity is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    smallest = torch.tensor([familiarity.min_pixels])
    tensors = {"mean": familiarity.mean, "whitening": familiarity.whitening, "min_pixels": smallest}
    with write_atomically(folder / FILE) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}))


def read(folder: Path, channels: int) -> Familiarity | None:
    """The statistics in a checkpoint's folder, for an encoder's map of so many channels; None if it has none.

    A file that is damaged, or belongs to another model, is an `InputError`.
    """
    path, size = folder / FILE, 2 * channels
    require_regular(path)
    if not path.is_file():
        return None
    require_size(path, min(MAX_BYTES, 4 * size * (size + 1) + HEADER))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not safetensors ({error}); copy it again, or delete it") from error
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    expected = {"mean": ((size,), torch.float32), "whitening": ((size, size), torch.float32)}
    expected |= {"min_pixels": ((1,), torch.int64)}
    if shapes != expected or not all(value.isfinite().all() for value in tensors.values()):
        raise InputError(f"{path} does not belong to the config.json beside it; copy it again, or delete it")
    return Familiarity(tensors["mean"], tensors["whitening"], int(tensors["min_pixels"]))
