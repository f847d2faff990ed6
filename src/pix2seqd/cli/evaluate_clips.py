"""What `pix2seqd evaluate` and `pix2seqd sweep` do with clips; of several processes the first one writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pix2seqd import distributed
from pix2seqd.cli.progress import scoring
from pix2seqd.data import open_clips
from pix2seqd.data.clips import EveryNth
from pix2seqd.evaluation import clips as run
from pix2seqd.files import write_atomically, write_json
from pix2seqd.metrics.region_contour import MAX_PROPOSALS

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter

FRAMES = 24
"""Of clips that are made here, unless the data say it."""


def evaluate_clips(
    segmenter: "Segmenter", data: str, out: Path, every: int, tracking: run.Tracking, options: dict[str, Any]
) -> None:
    """Score a checkpoint on every so many frames of clips; `options` are those of `run.evaluate_video`."""
    clips = EveryNth(open_clips(data, segmenter.size, FRAMES), every)
    progress = scoring(len(clips))
    tracks = _max_tracks(data)
    result = run.evaluate_video(segmenter, clips, tracking=tracking, max_tracks=tracks, progress=progress, **options)
    if distributed.rank() > 0:
        return
    Console().print(run.render({tracking: result}))
    write_json(out, {"settings": _settings(segmenter, data, every=every, tracking=tracking, **options), **result})
    print(f"written to {out}")


def sweep_clips(
    segmenter: "Segmenter", data: str, out: Path, first_steps: Sequence[int], steps: Sequence[int], seed: int
) -> None:
    """Figure 7: score a checkpoint on clips with several numbers of steps, write the results and their plot."""
    clips = open_clips(data, segmenter.size, FRAMES)
    progress = scoring(len(first_steps) + len(steps), shared=False)
    rows = run.sweep_steps(segmenter, clips, first_steps, steps, seed, progress, max_tracks=_max_tracks(data))
    if distributed.rank() > 0:
        return
    Console().print(run.render({f"{name} {row['value']}": row for name in rows for row in rows[name]}))
    write_json(out, {"settings": _settings(segmenter, data, seed=seed), **rows})
    with write_atomically(out.with_suffix(".png")) as temporary:
        run.plot(rows, segmenter).save(temporary, "PNG")
    print(f"written to {out} and {out.with_suffix('.png')}")


def _max_tracks(data: str) -> int | None:
    """Tracks that J&F takes into account: as many as the protocol of DAVIS allows, elsewhere all."""
    return MAX_PROPOSALS if data.startswith("davis:") else None


def _settings(segmenter: "Segmenter", data: str, **options: Any) -> dict[str, Any]:
    return {**segmenter.describe(), **options, "data": data}
