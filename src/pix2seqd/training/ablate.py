"""Tables 3, 4 and 5 of the paper on any recipe: one training per row and seed, otherwise equal (§4.3)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.table import Table as RichTable

from pix2seqd import distributed
from pix2seqd.config import ModelConfig, Recipe
from pix2seqd.data import open_dataset
from pix2seqd.evaluation.images import evaluate
from pix2seqd.evaluation.plot import Curve, curves
from pix2seqd.files import InputError, read_json, write_json
from pix2seqd.metrics import percent
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.train import train

Table = Literal["table3", "table4", "table5"]
TITLES: dict[Table, str] = {"table3": "input scaling b", "table4": "loss", "table5": "loss weight p"}
PAPER: dict[Table, tuple[float, ...]] = {
    "table3": (40.8, 43.9, 38.7, 21.3),
    "table4": (41.9, 43.9),
    "table5": (40.4, 43.9, 43.7, 41.3),
}
"""PQ in the paper, row by row."""


def variants(table: Table, model: ModelConfig) -> dict[str, ModelConfig]:
    """Map each row of a table to the model with that row's setting.

    Table 4's ℓ2 regression gives analog bits directly. `bit_logits` need the softmax head, so with them the regression
    is of the expected bits.
    """
    if table == "table3":
        return {f"{b:g}": model.replace(mask={"scale": b}) for b in (0.03, 0.1, 0.3, 1.0)}
    if table == "table5":
        return {f"{p:g}": model.replace(p=p) for p in (0.0, 0.2, 0.4, 0.6)}
    return {
        "l2": model.replace(decoder={"head": "softmax" if model.decoder.bit_logits else "linear"}, loss="l2"),
        "cross_entropy": model.replace(decoder={"head": "softmax"}, loss="cross_entropy"),
    }


def ablate(table: Table, recipe: Recipe, out: Path, seeds: int) -> list[dict[str, Any]]:
    """Train and score every row of a table, `seeds` times; runs that are complete in `out` are not repeated.

    Args:
        table: the table's name.
        recipe: the run to repeat; the row's setting replaces its own. All of its `eval_data` is scored.
        out: folder, with runs of no other recipe. OUT/TABLE-ROW/seed-N holds a run, OUT/base the runs of the row that
            equals the recipe; tables in the same folder share them.
        seeds: number of trainings per row, with the seeds 0, 1, ...

    Returns:
        For each row {"row", "base": whether the row equals the recipe, "pq": one per seed, 0..1, "pq_things",
        "pq_stuff", "mean_iou": likewise, "paper": the paper's PQ, 0..1}.
    """
    if not recipe.eval_data:
        raise InputError("an ablation compares scores: give --eval-data")
    rows = []
    for (row, model), paper in zip(variants(table, recipe.model).items(), PAPER[table], strict=True):
        folder = out / ("base" if model == recipe.model else f"{table}-{row}")
        changed = recipe.replace(model=model)
        scores = [_score(changed, folder, seed) for seed in range(seeds)]
        collected = {key: [score[key] for score in scores] for key in scores[0]}
        rows.append({"row": row, "base": model == recipe.model, **collected, "paper": paper / 100})
    return rows


def _score(recipe: Recipe, folder: Path, seed: int) -> dict[str, float]:
    """Scores of a run, which is started, resumed or only read."""
    run, stored = folder / f"seed-{seed}", folder / f"seed-{seed}" / "evaluation.json"
    recipe = recipe.replace(train=recipe.train.replace(seed=seed))
    pretrained = train(recipe, run, resume=(run / "recipe.json").is_file())
    if not stored.is_file():
        dataset = open_dataset(recipe.eval_data, recipe.data.size)
        results = evaluate(Segmenter(pretrained), dataset)["all"]
        if distributed.rank() == 0:
            write_json(stored, results)
        distributed.barrier()
    results = read_json(stored)
    try:
        quality = results["panoptic_quality"]
        scores = {"pq": quality["All"]["pq"], "pq_things": quality["Things"]["pq"], "pq_stuff": quality["Stuff"]["pq"]}
        scores["mean_iou"] = results["mean_iou"]["mean_iou"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{stored} is damaged; delete it and repeat the command") from error
    return {key: float("nan") if value is None else value for key, value in scores.items()}


def _spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def render(table: Table, rows: Sequence[dict[str, Any]]) -> RichTable:
    """The table beside the paper's: mean ± standard deviation over the seeds, in percent."""
    shown = RichTable(TITLES[table], "PQ", "PQ things", "PQ stuff", "mIoU", "paper's PQ")
    for row in rows:
        shown.add_row(row["row"], *_cells(row), percent(row["paper"]))
    return shown


def _cells(row: dict[str, Any]) -> Iterator[str]:
    for key in ("pq", "pq_things", "pq_stuff", "mean_iou"):
        values = row[key]
        yield percent(float(np.mean(values))) + (f" ± {percent(_spread(values))}" if len(values) > 1 else "")


def plot(table: Table, rows: Sequence[dict[str, Any]]) -> Image.Image:
    """PQ of the rows with the standard deviation over the seeds; the recipe's own row is marked."""
    names = [row["row"] for row in rows]
    marked = next((row["row"] for row in rows if row["base"]), "")
    means = [100 * float(np.mean(row["pq"])) for row in rows]
    here = Curve(TITLES[table], names, means, [100 * _spread(row["pq"]) for row in rows], marked)
    return curves([here], "PQ")
