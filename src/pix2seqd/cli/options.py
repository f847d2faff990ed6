"""Options that several commands share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter


def _whole(_: type, tokens: Sequence[Any]) -> int:
    """Strict, where cyclopts would round 2.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number.") from None


def count(least: int, most: float = math.inf) -> Parameter:
    """A whole number from `least` to `most`."""
    return Parameter(converter=_whole, validator=Number(gte=least, lte=most))


@Parameter(name="*")
@dataclass(frozen=True)
class Inference:
    """How a checkpoint is used; the same options wherever one is."""

    steps: Annotated[int | None, count(1, 1000)] = None
    """denoising steps; more is slower and finer. Default: the checkpoint's."""
    td: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None
    """time difference of the asymmetric time intervals (section 3.3). Default: the checkpoint's."""
    seed: Annotated[int, count(0, 2**63 - 1)] = 0
    """start of the random numbers; the same seed gives the same result."""
    min_pixels: Annotated[int | None, count(0)] = None
    """smaller segments are dropped. Default: the checkpoint's."""
    diameter: Annotated[float | None, Parameter(validator=Number(gte=0))] = None
    """pixels that things are across, where you know it; spares checkpoints that need to know from looking twice."""
    consensus: Annotated[int | None, count(1)] = None
    """odd number of samples whose consensus is the answer. Default: the checkpoint's."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute; auto takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """precision; auto takes what suits the device."""

    def segmenter(self, name: str) -> "Segmenter":
        """Load the checkpoint."""
        from pix2seqd.segmenter import Segmenter

        return Segmenter.from_pretrained(name, device=self.device, dtype=self.dtype)

    def given(self) -> dict[str, Any]:
        """What `Segmenter.images` is to be told, without what is left to the checkpoint."""
        names = ("steps", "td", "seed", "min_pixels", "diameter", "consensus")
        options = {name: getattr(self, name) for name in names}
        return {name: value for name, value in options.items() if value is not None}


AS_PUBLISHED = Inference()
"""Everything left to the checkpoint."""
