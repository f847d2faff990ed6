"""The command `pix2seqd`. Each subcommand is a function; what is heavy is imported when a subcommand needs it."""

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from pix2seqd.app.options import AS_PUBLISHED, Inference, count
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from pix2seqd.data.sample import Dataset

app = App(
    name="pix2seqd",
    help="Panoptic segmentation of pictures by bit diffusion (Pix2Seq-D).",
    version=lambda: version("pix2seqd"),
    exit_on_error=False,  # `main` turns errors into one line
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def main() -> None:
    """Run the command line: exit code 0, 2 after bad input, 130 after Ctrl-C; no traceback for either."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # for names a terminal cannot show
    try:
        sys.exit(app(sys.argv[1:]) or 0)
    except (InputError, CycloptsError) as error:
        print("pix2seqd:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "pix2seqd: interrupted; what is written is whole, run it again (train: with --resume) to go on",
            file=sys.stderr,
        )
        sys.exit(130)


@app.command(usage="Usage: pix2seqd segment FILE|FOLDER... [OPTIONS]")
def segment(
    *pictures: Path,
    model: str = "nuclei",
    out: Path = Path("pix2seqd-out"),
    batch_size: Annotated[int | None, count(1)] = None,
    inference: Inference = AS_PUBLISHED,
) -> int:
    """Segment pictures; the result is a data set in COCO panoptic format, with an overlay for each picture.

    OUT receives panoptic.json, panoptic/STEM.png (segment ids), overlay/STEM.png (for the eye) and images/ (copies).
    Pictures that are done already with the same settings are skipped, so an interrupted run goes on where it was.

    Args:
        pictures: picture files, and folders whose pictures are taken (without subfolders).
        model: a bundled model (nuclei), a checkpoint folder, or an id on the Hugging Face hub.
        out: folder to write to.
        batch_size: pictures at a time; changes the speed, not the result.
        inference: how the checkpoint is used.
    """
    from pix2seqd.app.media import PanopticWriter, find_pictures, make_folders
    from pix2seqd.app.segmenting import print_segments, segment_into
    from pix2seqd.preprocess import load_image

    sources = find_pictures(pictures)
    if not sources:
        raise InputError("nothing to segment; give a picture or a folder of pictures")
    if len(sources) == 1:
        load_image(sources[0])  # a mistyped name is told before the model is loaded
    make_folders(out)
    segmenter = inference.segmenter(model)
    options = inference.given()
    with PanopticWriter(out, segmenter.taxonomy, {**segmenter.describe(), **options}) as writer:
        failed = segment_into(writer, segmenter, sources, {**options, "batch_size": batch_size})
        if len(sources) == 1:
            print_segments(sources[0].name, writer.segments(sources[0]))
    print(f"written to {out}: panoptic.json, panoptic/, overlay/, images/")
    return 2 if failed else 0


@app.command(usage="Usage: pix2seqd train RECIPE|FILE.yaml... [--SECTION.SETTING VALUE]... [OPTIONS]")
def train(
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    show: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a model; it can be resumed at any moment, and Ctrl-C saves first.

    On several processes: torchrun --standalone --nproc-per-node N -m pix2seqd train ...

    Args:
        settings: a bundled recipe (nuclei, shapes) or a YAML file, and what to change in it: further files, and
            settings such as --train.steps 500 or --train-data coco:DIR@train.
        out: folder of the run. Default: runs/RECIPE.
        resume: go on with the run in that folder.
        show: print all settings as YAML and stop; the way to write a file of one's own.
    """
    from pix2seqd.app.recipe import read_recipe, to_yaml

    recipe = read_recipe(settings)
    if show:
        print(to_yaml(recipe), end="")
        return
    out = out or Path("runs") / Path(settings[0]).stem
    from pix2seqd.run.train import train

    train(recipe, out, resume)
    print(f"written to {out}; try it: pix2seqd segment PICTURE --model {out / 'model'}")


@app.command(usage="Usage: pix2seqd evaluate CHECKPOINT --data coco:DIR[@SPLIT] [OPTIONS]")
def evaluate(
    checkpoint: str,
    /,
    *,
    data: str,
    group_by: str | None = None,
    out: Path = Path("evaluation.json"),
    inference: Inference = AS_PUBLISHED,
) -> None:
    """Score a checkpoint on labelled pictures: PQ, AP, F1 and mean IoU, as a table and as JSON.

    Args:
        checkpoint: a bundled model (nuclei), a checkpoint folder, or an id on the Hugging Face hub.
        data: coco:DIR[@SPLIT] or shapes:COUNT[@SEED].
        group_by: key of the json's image records (say modality) whose values are scored apart as well.
        out: the JSON file to write.
        inference: how the checkpoint is used.
    """
    from rich.console import Console
    from rich.progress import track

    from pix2seqd.app.media import check_writable
    from pix2seqd.data import open_dataset
    from pix2seqd.files import write_json
    from pix2seqd.run import evaluate as run

    check_writable(out.parent)
    segmenter = inference.segmenter(checkpoint)
    dataset = open_dataset(data, segmenter.pretrained.data.size)
    options = inference.given()

    def progress(samples: Iterator[Any]) -> Iterator[Any]:
        console = Console(stderr=True)
        yield from track(samples, "evaluating", total=len(dataset), console=console, transient=True)

    results = run.evaluate(segmenter, dataset, groups=_groups(dataset, group_by), progress=progress, **options)
    Console().print(run.render(results))
    settings = {**segmenter.describe(), **options, "data": data}
    write_json(out, {"settings": settings, **run.finite(results)})
    print(f"written to {out}")


@app.command(usage="Usage: pix2seqd check-data DIR [OPTIONS]")
def check_data(
    directory: Path,
    /,
    *,
    split: str | None = None,
    contact_sheet: Path | None = None,
    ids: Annotated[int, count(1)] = 100,
) -> int:
    """Tell what was understood of a data set in COCO panoptic format, and refuse what is inconsistent.

    Args:
        directory: its folder; see docs/datasets.md for the layouts.
        split: the split to check, e.g. train. Default: all there are.
        contact_sheet: PNG to write with some pictures and their segments (with one split only).
        ids: things per picture that the model can tell apart; more are counted.
    """
    from rich.console import Console

    from pix2seqd.data import check
    from pix2seqd.data.coco import CocoPanoptic, splits

    names = [split] if split is not None else splits(directory) or [""]
    if contact_sheet and len(names) > 1:
        raise InputError(f"a contact sheet shows one split; give --split {' or --split '.join(names)}")
    whole = True
    for name in names:
        dataset = CocoPanoptic.open(directory, name)
        report = check.check(dataset, ids)
        Console().print(f"{directory} {name}".rstrip(), markup=False, highlight=False, soft_wrap=True)
        Console().print(report)
        whole &= report.ok
        if contact_sheet:
            check.contact_sheet(dataset, contact_sheet)
            print(f"written to {contact_sheet}")
    return 0 if whole else 2


def _groups(dataset: "Dataset", key: str | None) -> list[str] | None:
    """The value of `key` in each image record of the data set's json."""
    if key is None:
        return None
    records = getattr(dataset, "records", [])
    if not records or any(key not in record for record in records):
        raise InputError(f"not every image of the data has {key!r} in its record; choose another --group-by")
    return [str(record[key]) for record in records]
