"""The command `pix2seqd ablate`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pix2seqd.cli.options import Flag, count
from pix2seqd.files import say


def ablate(
    table: Literal["table3", "table4", "table5"],
    /,
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    seeds: Annotated[int, count(1, 100)] = 3,
    out: Path = Path("runs/ablations"),
    smoke: Flag = False,
) -> None:
    """Repeat Table 3, 4 or 5 of the paper with any recipe.

    A model is trained for each row of the table and each seed. The scores are printed beside the paper's. The paper's
    own recipe is coco-512.

    OUT receives every run, TABLE.json and TABLE.png (a plot). Runs that are complete are not repeated. To continue an
    interrupted command, repeat it.

    Args:
        table: table3 (input scaling), table4 (loss) or table5 (loss weights).
        settings: A recipe and what to change in it, as for `pix2seqd train`.
        seeds: Number of trainings for each row, with different seeds.
        out: Folder to write to. Use one folder for each recipe.
        smoke: Make every run so small that it takes seconds: narrow networks, few steps, drawn scenes.
    """
    from rich.console import Console

    from pix2seqd import distributed
    from pix2seqd.cli.recipe import read_recipe
    from pix2seqd.files import require, write_json, write_png
    from pix2seqd.training import ablate as run

    recipe = read_recipe(settings, smoke)
    require("an ablation", "train", "accelerate", "tensorboard", "matplotlib")
    rows = run.ablate(table, recipe, out, seeds)
    if distributed.rank() != 0:
        return
    Console().print(run.render(table, rows))
    write_json(out / f"{table}.json", {"recipe": recipe.to_dict(), "rows": rows})
    write_png(out / f"{table}.png", run.plot(table, rows))
    say(f"written to {out}: {table}.json, {table}.png")
