"""`pix2seqd benchmark`: how fast a model is on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def _counts(_: type, tokens: Sequence[Any]) -> tuple[int, ...]:
    """`256,512` → whole numbers, 1 or more."""
    try:
        numbers = tuple(int(part) for part in tokens[0].value.split(","))
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is no list of whole numbers such as 256,512.") from None
    if min(numbers) < 1:
        raise ValueError(f"{tokens[0].value!r}: give numbers from 1.")
    return numbers


Counts = Annotated[tuple[int, ...], Parameter(converter=_counts, n_tokens=1, accepts_keys=False)]


def benchmark(
    *,
    model: str = "paper",
    sizes: Counts = (256, 512),
    steps: Counts = (2, 20),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    out: Path = Path("benchmark.json"),
) -> None:
    """Measure encoder, decoder step, what surrounds them, and all of it end to end, from a file to a panoptic PNG.

    Run it on a machine that does nothing else.

    Args:
        model: paper, small or tiny (random weights), a bundled model, a checkpoint folder, or a hub id.
        sizes: sides of the pictures in pixels, such as 256,512,1024.
        steps: numbers of denoising steps to run end to end, such as 2,20.
        device: where to compute; auto takes a GPU if there is one.
        dtype: precision; auto takes what suits the device.
        out: the JSON file to write.
    """
    from rich.console import Console

    from pix2seqd.evaluation import benchmark as run
    from pix2seqd.files import InputError, write_json
    from pix2seqd.panoptic.results import check_writable

    check_writable(out.parent)
    try:
        results = run.benchmark(model, list(sizes), list(steps), device, dtype, Console(stderr=True).print)
    except ValueError as error:  # a size that the strides do not allow
        raise InputError(f"sizes {','.join(map(str, sizes))} do not suit {model}: {error}") from error
    for table in run.render(results):
        Console().print(table)
    write_json(out, results)
    print(f"written to {out}")
