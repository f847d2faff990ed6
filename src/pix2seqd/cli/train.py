"""The command `pix2seqd train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pix2seqd.cli.options import Flag
from pix2seqd.files import InputError, say

if TYPE_CHECKING:
    from pix2seqd.config import Recipe


def train(
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    resume: Flag = False,
    smoke: Flag = False,
    show: Flag = False,
    trust_size: Flag = False,
) -> None:
    """Train a model.

    On your own images, without a recipe: pix2seqd train own --train-data DIR. All settings follow from the data, and
    are printed with their reasons.

    The bundled recipes are:

    * nuclei, nuclei-video (cell nuclei in microscopy)
    * shapes (drawn scenes; needs no data)
    * camvid (street scenes; classes without instances)
    * coco-masks, coco-256, coco-1024 (the paper's stages on COCO, each from the one before)
    * cityscapes, davis, kitti-step (the paper's fine-tuning)
    * coco-512 (the base of the paper's ablations)

    OUT/model is the trained checkpoint: with own the best one, otherwise the last one. A run can be stopped at any
    moment and continued with --resume. Ctrl-C saves the run first.

    On several processes: torchrun --standalone --nproc-per-node N -m pix2seqd train ...

    Args:
        settings: own, the name of a bundled recipe or a YAML file, then what to change in it: more YAML files, and
            settings such as --train.steps 500 or --train-data coco:DIR@train. Later ones have priority. own needs
            --train-data. Without --eval-data it holds out a tenth of the images. It also takes --train.minutes 30 and
            --init none.
        out: Folder of the run. Default: runs/RECIPE.
        resume: Continue the run in the folder OUT. It may get another length: --train.steps N or --train.minutes N.
        smoke: Make the run so small that it takes seconds: narrow networks, few steps, drawn scenes. Settings on the
            command line still have priority.
        show: Print all settings as YAML and stop. Use it to write your own file.
        trust_size: Take a model and a checkpoint (--init) of any size. Without it, sizes have limits (SECURITY.md),
            because a checkpoint from an untrusted source could exhaust the machine.
    """
    from pix2seqd.cli.recipe import read_recipe, read_settings

    if trust_size:
        settings = (*settings, "--trust-size", "true")
    if settings and settings[0] == "own":
        _own(read_settings(settings[1:]), out or Path("runs/own"), resume, smoke, show)
        return
    recipe = read_recipe(settings, smoke)
    if show:
        _show(recipe)
        return
    out = out or Path("runs") / (Path(settings[0]).stem + "-smoke" * smoke)
    from pix2seqd.training.train import train as run

    run(recipe, out, resume)
    say(f"written to {out}; try it: pix2seqd segment IMAGE --model {out / 'model'}")


def _own(settings: dict[str, Any], out: Path, resume: bool, smoke: bool, show: bool) -> None:
    if smoke:
        raise InputError("own has no --smoke; give --train.steps 4 for a short run")
    from pix2seqd.training import own

    if show:
        _show(own.prepare(settings, out)[0])
        return
    own.train_own(settings, out, resume)
    model = out / "model"
    say(f"written to {out}: model/ is the best, last/ the last, results.png the course of the run")
    data = f"split:{out / own.DATA_FILE}@eval"
    say(f"score it on all images that were held out: pix2seqd evaluate {model} --data {data}")
    say(f"try it: pix2seqd segment IMAGE --model {model}")


def _show(recipe: "Recipe") -> None:
    from pix2seqd.cli.recipe import to_yaml

    for line in to_yaml(recipe).splitlines():
        say(line)
