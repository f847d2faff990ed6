"""The command `pix2seqd train`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pix2seqd.cli.options import Flag


def train(
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    resume: Flag = False,
    smoke: Flag = False,
    show: Flag = False,
) -> None:
    """Train a model.

    The bundled recipes are:

    * nuclei, nuclei-video (cell nuclei in microscopy)
    * shapes (drawn scenes; needs no data)
    * camvid (street scenes; classes without instances)
    * coco-masks, coco-256, coco-1024 (the paper's stages on COCO, each from the one before)
    * cityscapes, davis, kitti-step (the paper's fine-tuning)
    * coco-512 (the base of the paper's ablations)

    OUT/model is the trained checkpoint. A run can be stopped at any moment and continued with --resume. Ctrl-C saves
    the run first.

    On several processes: torchrun --standalone --nproc-per-node N -m pix2seqd train ...

    Args:
        settings: The name of a bundled recipe or a YAML file, then what to change in it: more YAML files, and settings
            such as --train.steps 500 or --train-data coco:DIR@train. Later ones have priority.
        out: Folder of the run. Default: runs/RECIPE.
        resume: Continue the run in the folder OUT.
        smoke: Make the run so small that it takes seconds: narrow networks, few steps, drawn scenes. Settings on the
            command line still have priority.
        show: Print all settings as YAML and stop. Use it to write your own file.
    """
    from pix2seqd.cli.recipe import read_recipe, to_yaml

    recipe = read_recipe(settings, smoke)
    if show:
        print(to_yaml(recipe), end="")
        return
    out = out or Path("runs") / (Path(settings[0]).stem + "-smoke" * smoke)
    from pix2seqd.training.train import train as run

    run(recipe, out, resume)
    print(f"written to {out}; try it: pix2seqd segment IMAGE --model {out / 'model'}")
