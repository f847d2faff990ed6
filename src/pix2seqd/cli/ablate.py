"""`pix2seqd ablate`: Tables 3, 4 and 5 of the paper on any recipe."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pix2seqd.cli.options import count


def ablate(
    table: Literal["table3", "table4", "table5"],
    /,
    *settings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    seeds: Annotated[int, count(1, 100)] = 3,
    out: Path = Path("runs/ablations"),
    smoke: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a recipe once for each row of a table of the paper and each seed, and print the table beside the paper's.

    The recipe coco-512 is the paper's. OUT receives every run, TABLE.json and TABLE.png; what is there already is not
    done again, so an interrupted command goes on where it was, and tables share the runs of the recipe itself.

    Args:
        table: table3 (input scaling), table4 (loss) or table5 (loss weights).
        settings: recipe and what to change in it, as for `train`.
        seeds: trainings of each row.
        out: folder to write to; one for each recipe.
        smoke: everything in seconds: narrow networks, a few steps, drawn scenes.
    """
    from rich.console import Console

    from pix2seqd import distributed
    from pix2seqd.cli.recipe import read_recipe
    from pix2seqd.files import require, write_atomically, write_json
    from pix2seqd.training import ablate as run

    recipe = read_recipe(settings, smoke)
    require("an ablation", "train", "accelerate", "tensorboard", "matplotlib")
    rows = run.ablate(table, recipe, out, seeds)
    if distributed.rank() != 0:
        return
    Console().print(run.render(table, rows))
    write_json(out / f"{table}.json", {"recipe": recipe.to_dict(), "rows": rows})
    with write_atomically(out / f"{table}.png") as temporary:
        run.plot(table, rows).save(temporary, "PNG")
    print(f"written to {out}: {table}.json, {table}.png")
