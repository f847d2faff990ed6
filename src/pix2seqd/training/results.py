"""What a run has reached so far: the scores of its evaluations, the best of them, and images that show them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pix2seqd.evaluation import plot
from pix2seqd.files import InputError, read_json, write_json, write_png
from pix2seqd.panoptic.taxonomy import Taxonomy

FILE = "results.json"
TILE = 256
"""Side of an image in the contact sheet, in pixels."""


class Results:
    """The scores of a run with `TrainConfig.evaluations`, kept in the run's folder.

    What an earlier, interrupted process scored later than the step at which the run starts is forgotten. A damaged
    results.json is an `InputError`.
    """

    def __init__(self, out: Path, taxonomy: Taxonomy, step: int) -> None:
        self.out, self.taxonomy = out, taxonomy
        content = read_json(out / FILE) if step and (out / FILE).is_file() else {}
        try:
            self.losses = [(int(at), float(loss)) for at, loss in content.get("losses", []) if at <= step]
            self.scores = [dict(s) for s in content.get("evaluations", []) if s["step"] <= step]
            for score in self.scores:
                score["seconds"] = float(score["seconds"])
                score["pq"] = _quality(score["pq"])
                score["per_class"] = {str(name): _quality(pq) for name, pq in score["per_class"].items()}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{out / FILE} is damaged; delete it, and the scores so far are forgotten") from error

    @property
    def waited(self) -> int:
        """Number of evaluations since the best one."""
        return len(self.scores) - 1 - self._best() if self.scores else 0

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the best PQ: "step", "seconds", "pq", "sq", "rq", and "per_class" as name → PQ."""
        return self.scores[self._best()]

    @property
    def seconds(self) -> float:
        """Time that all evaluations have taken."""
        return sum(score["seconds"] for score in self.scores)

    def add(self, step: int, seconds: float, result: dict[str, Any]) -> bool:
        """Take the scores after a step, as `evaluation.images.evaluate` gives them for all images.

        Returns whether PQ is better than in all evaluations before.
        """
        quality = result["panoptic_quality"]
        classes = {row["name"]: row["pq"] for row in quality["per_class"].values()}
        scores = {key: quality["All"][key] for key in ("pq", "sq", "rq")}
        self.scores.append({"step": step, "seconds": round(seconds, 1), **scores, "per_class": classes})
        return self.waited == 0

    def write(self) -> None:
        """Write results.json and results.png."""
        write_json(self.out / FILE, {"losses": self.losses, "best": self.best["step"], "evaluations": self.scores})
        steps = [score["step"] for score in self.scores]
        of_classes = {
            category.name: [score["per_class"].get(category.name) for score in self.scores]
            for category in self.taxonomy.categories
        }
        curves = plot.training_curves(self.losses, steps, [score["pq"] for score in self.scores], of_classes)
        write_png(self.out / "results.png", curves)

    def draw(self, result: dict[str, Any], rows: Sequence[Sequence[Image.Image]]) -> None:
        """Draw the best evaluation: the confusion matrix of its result, and `rows` of image, truth and prediction.

        They become confusion.png and predictions.png.
        """
        if result["confusion"]:
            write_png(self.out / "confusion.png", plot.confusion_matrix(**result["confusion"]))
        tiles = [[ImageOps.pad(image.convert("RGB"), (TILE, TILE), color="white") for image in row] for row in rows]
        sheet = plot.grid(tiles, [""] * len(tiles), ["image", "truth", "prediction"])
        write_png(self.out / "predictions.png", sheet)

    def _best(self) -> int:
        """Index of the first evaluation with the highest PQ; a PQ that is not defined counts as none."""
        return max(range(len(self.scores)), key=lambda i: (np.nan_to_num(self.scores[i]["pq"], nan=-1), -i))


def _quality(stored: Any) -> float:
    """PQ as results.json has it; null is nan, as in `write_json`."""
    return float("nan") if stored is None else float(stored)
