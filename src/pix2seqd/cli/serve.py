"""The command `pix2seqd serve`."""

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pix2seqd.cli.options import CHECKPOINT_DEFAULTS, Inference, count, print_summary
from pix2seqd.config import DEFAULT_MODEL
from pix2seqd.files import InputError, say
from pix2seqd.interop.cards import read_card
from pix2seqd.page.limits import Limits

SAMPLES = Path("examples")
"""Where samples are, if nothing else is said."""
_ENDS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that end the server: what `kill` sends, and a terminal that is closed (Windows has no such signal)."""


@Parameter(name="*")
@dataclass(frozen=True)
class Maximum:
    """What one visitor, or all together, may do."""

    max_pixels: Annotated[int, count(1)] = Limits.pixels
    """Largest image or frame of a clip, in pixels. Larger ones are refused."""
    max_megabytes: Annotated[int, count(1)] = Limits.megabytes
    """Largest upload, in MB."""
    max_seconds: Annotated[int, count(1)] = Limits.seconds
    """Longest computation of one request, in seconds."""
    queue: Annotated[int, count(1)] = Limits.queue
    """Number of requests of each kind that may wait. Further requests are refused."""
    max_visitor_megabytes: Annotated[int, count(1)] = Limits.visitor_megabytes
    """Uploads and results of one visitor, in MB. The oldest of them make room for new ones."""
    max_total_megabytes: Annotated[int, count(1)] = Limits.total_megabytes
    """Uploads and results of all visitors, in MB. Further ones are refused."""
    max_visitors: Annotated[int, count(1)] = Limits.visitors
    """Number of open pages that are remembered. Those with unsaved corrections are not forgotten for a new one, which
    is refused instead."""

    def limits(self) -> Limits:
        """As the page takes them."""
        return Limits(**{name.removeprefix("max_"): value for name, value in vars(self).items()})


USUAL = Maximum()
"""The limits where nothing else is said."""


def serve(
    *,
    model: str = DEFAULT_MODEL,
    out: Path = Path("pix2seqd-page"),
    samples: Path = SAMPLES,
    host: str = "127.0.0.1",
    port: Annotated[int, count(1, 65535)] = 7860,
    names: Annotated[list[str], Parameter(negative=())] = [],  # noqa: B006
    password: Annotated[str | None, Parameter(env_var="PIX2SEQD_PASSWORD")] = None,
    open_: Annotated[bool, Parameter("--open", negative=())] = False,
    maximum: Maximum = USUAL,
    inference: Inference = CHECKPOINT_DEFAULTS,
) -> None:
    """Segment, correct and save images in a browser.

    The page is at http://127.0.0.1:7860 until you press Ctrl-C. Nothing leaves this machine. The command needs
    `pip install "pix2seqd[web]"`.

    OUT receives the images and masks that are saved on the page. It is a data set in COCO panoptic format, which
    `pix2seqd train` takes as coco:OUT.

    Args:
        model: A bundled model (`pix2seqd models` lists them), the folder of a checkpoint, or the id of a model
            on the Hugging Face hub. The page starts with it; visitors can choose a bundled model instead. The
            tab Clip takes the model for clips that the card of the chosen one names, if any.
        out: Folder to write to. Nothing is written anywhere else.
        samples: Folder of images and clips that the page offers as samples, if it exists.
        host: Address to listen on. 0.0.0.0 or :: admits other machines; this needs a password, or --open.
        port: Port to listen on.
        names: Name under which browsers ask for this server, if it is neither its address nor the machine's own name.
            Repeat it for several.
        password: Password that visitors have to enter. Prefer the environment variable, because other users of the
            machine can see the command line.
        open_: Everyone who can reach the page may use it, without a password.
        maximum: What visitors may do.
        inference: How the checkpoint is used. The page starts with these settings.
    """
    from pix2seqd.checkpoint import find_folder
    from pix2seqd.page.server import serving
    from pix2seqd.page.visitors import is_local
    from pix2seqd.panoptic.results import make_folders

    if not (is_local(host.strip("[]")) or password or open_):
        raise InputError(f"everyone who can reach {host} could use this page; set --password or allow it with --open")
    if not samples.is_dir() and samples != SAMPLES:
        say(f"pix2seqd: there is no folder {samples}, so the page offers no samples", to_stderr=True)
    segmenter = inference.segmenter(model)
    next(segmenter.images((), **inference.given()), None)  # refuses what is wrong with the options
    card = read_card(find_folder(model), model)
    make_folders(out, ())
    print_summary(segmenter)
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    with serving(
        segmenter,
        out,
        load=inference.segmenter,
        card=card,
        samples=samples if samples.is_dir() else None,
        defaults=inference.given(),
        limits=maximum.limits(),
        host=host.strip("[]"),
        port=port,
        names=names,
        password=password or None,
    ) as url:
        del segmenter  # it makes room for others
        say(f"the page is at {url} (Ctrl-C ends it); saved images go to {out}")
        while True:
            time.sleep(3600)


def _end(*_: object) -> None:
    """End in order: images that are being saved are finished, and temporary files are removed."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)
