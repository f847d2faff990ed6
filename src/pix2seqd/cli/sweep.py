"""`pix2seqd sweep`: Figure 6 for a checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from pix2seqd.cli.options import count
from pix2seqd.files import InputError, require

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter


def _numbers(kind: Any, tokens: Sequence[Any]) -> tuple[float, ...]:
    """`1,2,5` → numbers, 0 or more, whole ones where `kind` is tuple[int, ...]."""
    text, number = tokens[0].value, get_args(kind)[0]
    try:
        numbers = tuple(dict.fromkeys(map(number, text.split(","))))
    except ValueError:
        wanted = "whole numbers" if number is int else "numbers"
        raise ValueError(f"{text!r} is no list of {wanted} such as 1,2,5.") from None
    if not all(0 <= value <= 1e6 for value in numbers):
        raise ValueError(f"{text!r}: give numbers from 0 to a million.")
    return numbers


_LIST = Parameter(converter=_numbers, n_tokens=1, accepts_keys=False)
Wholes = Annotated[tuple[int, ...], _LIST]


def sweep(
    checkpoint: str,
    /,
    *,
    data: str,
    steps: Wholes = (),
    first_steps: Wholes = (),
    td: Annotated[tuple[float, ...], _LIST] = (),
    min_pixels: Wholes = (),
    seed: Annotated[int, count(0, 2**63 - 1)] = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    out: Path = Path("sweep.json"),
) -> None:
    """Score a checkpoint under many settings of inference (the paper's Figure 6, on clips Figure 7).

    One thing varies at a time, the others stay as the checkpoint has them. A plot is written beside OUT, as PNG.

    Args:
        checkpoint: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        data: labelled pictures or clips, as for `evaluate`.
        steps: numbers of denoising steps, such as 1,2,5,10,20,50; on clips those of all frames but the first.
        first_steps: on clips, those of the first frame.
        td: time differences, such as 0,1,2,3.
        min_pixels: smallest segments, such as 0,40,80,160.
        seed: start of the random numbers.
        device: where to compute; auto takes a GPU if there is one.
        dtype: precision; auto takes what suits the device.
        out: the JSON file to write.
    """
    from pix2seqd import distributed
    from pix2seqd.data import is_clips
    from pix2seqd.panoptic.results import check_writable
    from pix2seqd.segmenter import Segmenter

    clips = is_clips(data)
    if clips and (td or min_pixels or not (steps or first_steps)):
        raise InputError("on clips --steps and --first-steps vary; give for instance --first-steps 1,8 --steps 1,8")
    if not clips and (first_steps or not (steps or td or min_pixels)):
        raise InputError("on pictures give --steps 1,2,5,10,20 or --td 0,1,2,3 or --min-pixels 0,40,80, or several")
    require("the plot of a sweep", "train", "matplotlib")
    check_writable(out.parent)
    distributed.rank()  # each has a device of its own from here on
    segmenter = Segmenter.from_pretrained(checkpoint, device, dtype)
    if clips:
        from pix2seqd.cli.evaluate_clips import sweep_clips

        sweep_clips(segmenter, data, out, first_steps, steps, seed)
    else:
        _sweep_pictures(segmenter, data, out, {"steps": steps, "td": td, "min_pixels": min_pixels}, seed)


def _sweep_pictures(
    segmenter: "Segmenter", data: str, out: Path, values: Mapping[str, Sequence[float]], seed: int
) -> None:
    from rich.console import Console

    from pix2seqd import distributed
    from pix2seqd.cli.progress import scoring
    from pix2seqd.data import open_dataset
    from pix2seqd.evaluation import sweep as run
    from pix2seqd.files import write_atomically, write_json

    dataset = open_dataset(data, segmenter.checkpoint.data.size)
    rows = run.sweep(segmenter, dataset, values, seed, scoring(len(dataset)))
    if distributed.rank() > 0:
        return
    Console().print(run.render(rows))
    settings = {**segmenter.describe(), "data": data, "seed": seed}
    write_json(out, {"settings": settings, "rows": rows})
    with write_atomically(out.with_suffix(".png")) as temporary:
        run.plot(rows, segmenter).save(temporary, "PNG")
    print(f"written to {out} and {out.with_suffix('.png')}")
