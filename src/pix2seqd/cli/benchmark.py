"""The command `pix2seqd benchmark`."""

from pathlib import Path
from typing import Annotated, Literal

from pix2seqd.cli.options import Dtype, TrustSize, numbers
from pix2seqd.files import say


def _listed(given: tuple[int, ...]) -> str:
    return ",".join(map(str, given))


Counts = Annotated[tuple[int, ...], numbers(int, 1, _listed)]


def benchmark(
    *,
    model: str = "paper",
    sizes: Counts = (256, 512),
    steps: Counts = (2, 20),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Dtype = "auto",
    trust_size: TrustSize = False,
    out: Path = Path("benchmark.json"),
) -> None:
    """Measure how fast a model is on this machine.

    The encoder, one decoder step, reading and writing are measured alone, then everything from an image file to a
    panoptic PNG. Nothing else should run on the machine.

    Args:
        model: paper, small or tiny (networks with random weights), a bundled model (`pix2seqd models` lists
            them), the folder of a checkpoint, or the id of a model on the Hugging Face hub.
        sizes: Heights of the square images, in pixels, separated by commas.
        steps: Numbers of denoising steps, separated by commas.
        device: Where to compute. auto takes a GPU if there is one.
        out: JSON file to write.
    """
    from rich.console import Console

    from pix2seqd.evaluation import benchmark as run
    from pix2seqd.files import InputError, write_json
    from pix2seqd.panoptic.results import check_files

    check_files(out)
    console = Console(stderr=True)
    try:
        results = run.benchmark(model, list(sizes), list(steps), device, dtype, console.print, trust_size)
    except ValueError as error:  # a size that the strides do not divide
        raise InputError(f"{model} cannot take the sizes {_listed(sizes)}: {error}") from error
    for table in run.render(results):
        Console().print(table)
    write_json(out, results)
    say(f"written to {out}")
