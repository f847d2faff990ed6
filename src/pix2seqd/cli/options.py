"""Options that several commands share."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.files import InputError, a_few, printable, say
from pix2seqd.interop.cards import summary

if TYPE_CHECKING:
    from rich.progress import Progress

    from pix2seqd.panoptic.taxonomy import Taxonomy
    from pix2seqd.segmenter import Segmenter


@contextmanager
def loading() -> Iterator[None]:
    """Import modules and load a model without garbage collection, which would look through all of them many times."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was loaded stays
        gc.enable()


def _whole(_: type, tokens: Sequence[Any]) -> int:
    """A whole number; cyclopts itself would round 2.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number.") from None


Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
"""An option without a value."""
CHECKPOINT_NAME = (
    "a bundled model (`pix2seqd models` lists them), the folder of a checkpoint, or the id of a model on the Hugging "
    "Face hub."
)
"""The values that name a checkpoint, for help texts."""
Checkpoint = Annotated[str, Parameter(help=CHECKPOINT_NAME[0].upper() + CHECKPOINT_NAME[1:])]
"""Bundled name, folder or hub id of a checkpoint."""
TrustSize = Annotated[
    Flag,
    Parameter(
        help="Accept a checkpoint of any size. Otherwise sizes in config.json have limits (SECURITY.md), because a "
        "checkpoint from an untrusted source could exhaust the machine."
    ),
]
"""Whether the limits of sizes do not hold."""
Channel = Annotated[
    str | None,
    Parameter(
        help="Number (from 1) or name of the channel to take, of images with channels. Default: up to three channels "
        "are shown as colours; of more, the first is taken."
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], Parameter(help="Where to compute. auto takes a GPU if there is one.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Parameter(
        help="Precision. auto takes bfloat16 where the device computes it natively, otherwise float32.",
    ),
]


def count(minimum: int, maximum: float = math.inf) -> Parameter:
    """A whole number from `minimum` to `maximum`."""
    return Parameter(converter=_whole, validator=Number(gte=minimum, lte=maximum))


def numbers(number: type[float], minimum: int, show_default: Callable[[Any], str] | bool = False) -> Parameter:
    """Numbers from `minimum` to a million with commas between them; one that is given twice counts once."""

    def split(_: type, tokens: Sequence[Any]) -> tuple[float, ...]:
        text = tokens[0].value
        try:
            values = tuple(dict.fromkeys(map(number, text.split(","))))
        except ValueError:
            wanted = "whole numbers" if number is int else "numbers"
            raise ValueError(f"{text!r} is not a list of {wanted} such as 1,2,5.") from None
        if not all(minimum <= value <= 1e6 for value in values):
            raise ValueError(f"{text!r}: give numbers from {minimum} to a million.")
        return values

    return Parameter(converter=split, n_tokens=1, accepts_keys=False, negative=(), show_default=show_default)


@Parameter(name="*")
@dataclass(frozen=True)
class Inference:
    """How a checkpoint is used. Every command that segments has these options."""

    steps: Annotated[int | None, count(1, 1000)] = None
    """Number of denoising steps. More steps take more time. Default: set by the checkpoint."""
    td: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None
    """Time difference of the paper's asymmetric time intervals (section 3.3), in steps: every step removes noise as if
    it went this many steps further. Default: set by the checkpoint."""
    seed: Annotated[int, count(0, 2**63 - 1)] = 0
    """Seed of the random noise. The same seed gives the same result."""
    min_pixels: Annotated[int | None, count(0)] = None
    """Size of the smallest segment, in pixels. Smaller segments are dropped. Default: set by the checkpoint."""
    diameter: Annotated[float | None, Parameter(validator=Number(gte=0))] = None
    """Typical diameter of the objects, in pixels, for models that bring objects to one size (nuclei, nuclei-fast,
    nuclei-video). Default: the model estimates it first, which takes time."""
    consensus: Annotated[int | None, count(1)] = None
    """Number of masks that are sampled for each image, odd. The result is what most of them agree on. 1 is fastest.
    Default: set by the checkpoint."""
    smooth: bool | None = None
    """Smooth outlines where the mask is coarser than the image. --no-smooth: blocks of the mask's pixels, as in the
    paper. Default: set by the checkpoint."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    trust_size: TrustSize = False

    def segmenter(self, name: str) -> "Segmenter":
        """Load the checkpoint."""
        with loading():
            from pix2seqd.segmenter import Segmenter

            return Segmenter.from_pretrained(name, device=self.device, dtype=self.dtype, trust_size=self.trust_size)

    def given(self) -> dict[str, Any]:
        """The options of `Segmenter.images` that were given; the checkpoint sets the others."""
        names = ("steps", "td", "seed", "min_pixels", "diameter", "consensus", "smooth")
        return not_none(**{name: getattr(self, name) for name in names})


def print_summary(segmenter: "Segmenter") -> None:
    """Say on stderr which model is at work and what it finds; of several processes only the first one says it."""
    from pix2seqd import distributed

    if distributed.rank() == 0:
        say(f"pix2seqd: {summary(segmenter.describe()['model'], segmenter.taxonomy)}", to_stderr=True)


def print_message(progress: "Progress", message: InputError | str) -> None:
    """Print an error or a note in one line, above a progress bar."""
    line = f"pix2seqd: {printable(' '.join(str(message).split()))}"
    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_renamed(named: Sequence[tuple[Path, str]]) -> None:
    """Say on stderr which results have another name than their image, because another image has it."""
    renamed = [f"{source} is {name}" for source, name in named if name != printable(source.stem)]
    if renamed:
        advice = "panoptic.json names the source of each image"
        say(f"pix2seqd: other images have the same name: {a_few(renamed)} in the results; {advice}", to_stderr=True)


def print_unfamiliar(found: Sequence[object], total: int, things: str, model: str) -> None:
    """Warn on stderr if some of `total` things look unlike those that the model is made for: the names `found`."""
    if found:
        unlike = f"{len(found)} of {total} {things} look unlike those that {model} is made for ({a_few(found)})"
        advice = "their segments may mean nothing; for other models: pix2seqd models"
        say(f"pix2seqd: warning: {unlike}; {advice}", to_stderr=True)


def not_none(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


CHECKPOINT_DEFAULTS = Inference()
"""The checkpoint sets everything."""


@Parameter(name="*")
@dataclass(frozen=True)
class Selection:
    """Which segments are kept."""

    min_score: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None
    """Smallest score of a segment, 0 to 1: how sure the model is of it. The pixels of segments with lower scores become
    void: they belong to no segment. Default: as the model says (nuclei-fast and nuclei-video: 0.4, facades: 0.35,
    nuclei: 0.3, shapes: 0); 0 for clips."""
    classes: Annotated[list[str] | None, Parameter(negative=())] = None
    """Names of the categories to keep, separated by commas. The pixels of other segments become void. Default: all
    categories."""

    def given(self, taxonomy: "Taxonomy") -> dict[str, Any]:
        """The options of `Segmenter.images` that were given; an `InputError` if a class is not in the taxonomy."""
        known = {category.name for category in taxonomy.categories}
        # A name may have commas itself.
        parts = [[text] if text in known else text.split(",") for text in self.classes or ()]
        classes = sorted({name.strip() for part in parts for name in part})
        taxonomy.check_names(classes)
        return not_none(min_score=self.min_score, classes=classes or None)


ALL_SEGMENTS = Selection()
"""Nothing is left out."""
