"""The command `pix2seqd`. Each subcommand is a function; what is heavy is imported when a subcommand needs it."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import AS_PUBLISHED, Inference, count
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
app.command("pix2seqd.cli.benchmark:benchmark", name="benchmark", help="Measure how fast a model is here.")
app.command("pix2seqd.cli.check_data:check_data", name="check-data", help="Tell what was understood of a data set.")
app.command(
    "pix2seqd.cli.convert_data:convert_data", name="convert-data", help="COCO detection json to panoptic format."
)
app.command("pix2seqd.cli.ablate:ablate", name="ablate", help="Tables 3, 4 and 5 of the paper on any recipe.")
app.command("pix2seqd.cli.distill:distill", name="distill", help="Make a checkpoint that needs a step or two.")
app.command("pix2seqd.cli.sweep:sweep", name="sweep", help="Score a checkpoint under many settings (Figure 6).")
app.command("pix2seqd.cli.export:export", name="export", help="Write a checkpoint as ONNX graphs.")
app.command("pix2seqd.cli.figures:figures", name="figures", help="Draw the paper's Figures 3 and 4 from any data.")
app.command("pix2seqd.cli.metric:metric", name="metric", help="PQ, J&F or STQ of what any tool predicted.")
app.command("pix2seqd.cli.serve:serve", name="serve", help="See, correct and save segmentations in a browser.")
app.command("pix2seqd.cli.shard:shard", name="shard", help="Write a data set as WebDataset shards.")
app.command("pix2seqd.cli.video:video", name="video", help="Segment a video and track what is in it.")


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
    model: str = "nuclei-fast",
    out: Path = Path("pix2seqd-out"),
    batch_size: Annotated[int | None, count(1)] = None,
    engine: Literal["local", "ray"] = "local",
    workers: Annotated[int, count(1)] = 2,
    inference: Inference = AS_PUBLISHED,
) -> int:
    """Segment pictures; the result is a data set in COCO panoptic format, with an overlay for each picture.

    OUT receives panoptic.json, panoptic/STEM.png (segment ids), overlay/STEM.png (for the eye) and images/ (copies).
    Pictures that are done already with the same settings are skipped, so an interrupted run goes on where it was.

    Args:
        pictures: picture files, and folders whose pictures are taken (without subfolders).
        model: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        out: folder to write to.
        batch_size: pictures at a time; changes the speed, not the result.
        engine: local: this process, or, started by torchrun, several that share the pictures; ray: a Ray cluster.
        workers: actors of the ray engine.
        inference: how the checkpoint is used.
    """
    from functools import partial

    from pix2seqd import distributed
    from pix2seqd.cli.segmenting import locally, print_segments, segment_into
    from pix2seqd.images.load import find_images, load_image
    from pix2seqd.panoptic.results import PanopticWriter, make_folders

    sources = find_images(pictures)
    if not sources:
        raise InputError("nothing to segment; give a picture or a folder of pictures")
    if len(sources) == 1:
        load_image(sources[0])  # a mistyped name is told before the model is loaded
    make_folders(out)
    first, stride = distributed.rank(), distributed.world_size()
    segmenter = inference.segmenter(model)
    options = inference.given()
    settings = {**segmenter.describe(), **options}
    with PanopticWriter(out, segmenter.taxonomy, settings, sources) as writer:
        mine = sources[first::stride]
        todo = [source for source in mine if not writer.is_done(source)]
        named = [(source, writer.stem(source)) for source in todo]
        options = {**options, "batch_size": batch_size}
        if engine == "ray" and todo:
            from pix2seqd.cli.ray_engine import on_ray

            results = on_ray(partial(inference.segmenter, model), out, named, settings, options, workers)
        else:
            results = locally(segmenter, out, named, settings, options)
        failed = segment_into(writer, mine, todo, results)
        if len(sources) == len(mine) == 1 and not failed:
            print_segments(sources[0].name, writer.segments(sources[0]))
    distributed.barrier()
    print(f"written to {out}: panoptic.json, panoptic/, overlay/, images/")
    return 2 if failed else 0


@app.command(usage="Usage: pix2seqd train RECIPE|FILE.yaml... [--SECTION.SETTING VALUE]... [OPTIONS]")
def train(
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    smoke: Annotated[bool, Parameter(negative=())] = False,
    show: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a model; it can be resumed at any moment, and Ctrl-C saves first.

    Recipes: nuclei and nuclei-video (microscopy), shapes (drawn scenes), camvid (street scenes, classes only); the
    paper's stages coco-masks (decoder without pictures), coco-256, coco-1024, then cityscapes, davis or kitti-step;
    coco-512 (base of its ablations).

    On several processes: torchrun --standalone --nproc-per-node N -m pix2seqd train ...

    Args:
        settings: a bundled recipe (see above) or a YAML file, and what to change in it: further files, and
            settings such as --train.steps 500 or --train-data coco:DIR@train.
        out: folder of the run. Default: runs/RECIPE.
        resume: go on with the run in that folder.
        smoke: the same run in a few seconds: narrow networks, drawn scenes. Settings given beside it win.
        show: print all settings as YAML and stop; the way to write a file of one's own.
    """
    from pix2seqd.cli.recipe import read_recipe, to_yaml

    recipe = read_recipe(settings, smoke)
    if show:
        print(to_yaml(recipe), end="")
        return
    out = out or Path("runs") / (Path(settings[0]).stem + "-smoke" * smoke)
    from pix2seqd.training.train import train

    train(recipe, out, resume)
    print(f"written to {out}; try it: pix2seqd segment PICTURE --model {out / 'model'}")


@app.command(usage="Usage: pix2seqd evaluate CHECKPOINT --data coco:DIR[@SPLIT] [OPTIONS]")
def evaluate(
    checkpoint: str,
    /,
    *,
    data: str,
    group_by: str | None = None,
    every: Annotated[int, count(1)] = 1,
    tracking: Literal["model", "iou", "none"] = "model",
    first_steps: Annotated[int | None, count(1, 1000)] = None,
    adaptive: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    out: Path = Path("evaluation.json"),
    inference: Inference = AS_PUBLISHED,
) -> None:
    """Score a checkpoint on labelled pictures or clips, as a table and as JSON.

    Pictures: PQ, AP, F1 and mean IoU. Clips: J&F, STQ, changes of ids, steps and frames per second.

    Args:
        checkpoint: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        data: coco:DIR[@SPLIT] or another data set of pictures; davis:DIR@SPLIT, kitti-step:DIR@SPLIT,
            nuclei-clips:DIR@SPLIT:COUNT[xFRAMES] or shapes-clips:COUNT[xFRAMES][@SEED]; see docs/datasets.md.
        group_by: key of the json's image records (say modality) whose values are scored apart as well.
        every: clips: show every so many frames only, for faster motion; 1: all.
        tracking: clips: model, as `pix2seqd video` does it; or, every frame by itself, ids by IoU matching or none.
        first_steps: clips: denoising steps of the first frame; --steps are those of the others.
        adaptive: clips: steps of a later frame on average, spent where the mask changes; 0: always --steps.
        out: the JSON file to write.
        inference: how the checkpoint is used.
    """
    from rich.console import Console

    from pix2seqd import distributed
    from pix2seqd.cli.progress import scoring
    from pix2seqd.data import is_clips, open_dataset
    from pix2seqd.evaluation import images as run
    from pix2seqd.files import write_json
    from pix2seqd.panoptic.results import check_writable

    clips = is_clips(data)
    if (clips and group_by is not None) or (not clips and (tracking != "model" or every > 1)):
        raise InputError("--group-by is for pictures, --tracking and --every for clips; leave it out")
    tracked = _given(clips and tracking == "model", first_steps=first_steps, adaptive=adaptive)
    check_writable(out.parent)
    number = distributed.rank()  # from here on each process has a device of its own
    segmenter, options = inference.segmenter(checkpoint), inference.given()
    if clips:
        from pix2seqd.cli.evaluate_clips import evaluate_clips

        evaluate_clips(segmenter, data, out, every, tracking, {**options, **tracked})
        return
    dataset = open_dataset(data, segmenter.checkpoint.data.size)
    groups, progress = _groups(dataset, group_by), scoring(len(dataset))
    results = run.evaluate(segmenter, dataset, groups=groups, progress=progress, **options)
    if number > 0:
        return
    Console().print(run.render(results))
    write_json(out, {"settings": {**segmenter.describe(), **options, "data": data}, **results})
    print(f"written to {out}")


def _given(sensible: bool, **options: float | None) -> dict[str, float]:
    """Those options of tracking that were given, if they make sense."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and not sensible:
        raise InputError(f"--{min(given).replace('_', '-')} is for clips with --tracking model; leave it out")
    return given


def _groups(dataset: "Dataset", key: str | None) -> list[str] | None:
    """The value of `key` in each image record of the data set's json."""
    if key is None:
        return None
    records = getattr(dataset, "records", [])
    if not records or any(key not in record for record in records):
        raise InputError(f"not every image of the data has {key!r} in its record; choose another --group-by")
    return [str(record[key]) for record in records]
