"""`pix2seqd serve`: the page in a browser on this machine."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pix2seqd.cli.options import AS_PUBLISHED, Inference, count
from pix2seqd.files import InputError


def serve(
    *,
    model: str = "nuclei",
    out: Path = Path("pix2seqd-page"),
    samples: Path = Path("examples"),
    host: str = "127.0.0.1",
    port: Annotated[int, count(1, 65535)] = 7860,
    password: Annotated[str | None, Parameter(env_var="PIX2SEQD_PASSWORD")] = None,
    max_pixels: Annotated[int, count(1)] = 4_000_000,
    max_megabytes: Annotated[int, count(1)] = 50,
    max_seconds: Annotated[int, count(1)] = 600,
    queue: Annotated[int, count(1)] = 16,
    inference: Inference = AS_PUBLISHED,
) -> None:
    """Segment, correct and save in a browser: http://127.0.0.1:7860. Nothing leaves this machine.

    OUT receives what is saved on the page: a data set in COCO panoptic format, for check-data and train.

    Args:
        model: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        out: folder to write to; nothing is written anywhere else.
        samples: folder of pictures and clips to click on the page, if there is one.
        host: address to listen on; 0.0.0.0 lets other machines in: give a password then.
        port: to listen on.
        password: visitors have to give it; better in the environment, where no list of processes shows it.
        max_pixels: of a picture or a frame of a clip; larger ones are refused.
        max_megabytes: of an uploaded file.
        max_seconds: that one request may compute.
        queue: requests that may wait; further ones are refused.
        inference: how the checkpoint is used; the page starts with these settings.
    """
    from pix2seqd.page.limits import Limits
    from pix2seqd.page.server import LOCAL, serving
    from pix2seqd.panoptic.results import check_writable

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); choose another --out") from error
    check_writable(out)
    if host not in LOCAL and not password:
        print(f"pix2seqd: whoever reaches {host} can use this page; give a --password", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that temporary files go then, too
    limits = Limits(megabytes=max_megabytes, pixels=max_pixels, seconds=max_seconds, queue=queue)
    with serving(
        inference.segmenter(model),
        out,
        samples=samples if samples.is_dir() else None,
        defaults=inference.given(),
        limits=limits,
        host=host,
        port=port,
        password=password,
    ) as url:
        print(f"the page is at {url} (Ctrl-C ends it); what you save goes to {out}", flush=True)
        while True:
            time.sleep(3600)
