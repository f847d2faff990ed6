"""Make the notebooks: run the cells in this folder, as Jupyter does, and store them with their outputs.

pip install -e ".[notebook]" && python docs/notebook.py [NAME.ipynb ...]
"""

import sys
from pathlib import Path
from typing import Any

from pix2seqd.files import write_atomically

DOCS = Path(__file__).parent
NOTEBOOKS = {
    "notebook.ipynb": [
        "# pix2seqd in a notebook\n\nThe checkpoint `nuclei` comes with the package, the image with the repository.",
        'from pix2seqd import Segmenter\n\nimage = "../examples/nuclei.png"\n'
        'segmenter = Segmenter.from_pretrained("nuclei")\npanoptic = segmenter.image(image, steps=5)\npanoptic',
        "A `Panoptic` shows itself: every segment in its own colour, void black. It is a map of segment ids, and a "
        "record of what each segment is:",
        "print(panoptic.segmentation.shape, len(panoptic.segments), panoptic.segments[0])",
        "Laid over the image, at a third of its size:",
        "panoptic.overlay(image).reduce(3)",
    ],
    "own-data.ipynb": [
        "# Own data in ten minutes\n\nThis notebook draws a small data set, checks it, trains a model on it, scores "
        "the model and shows a result. It needs no network and no GPU. To use your own images, let `data` be your "
        "folder instead, with a folder `images`, and a folder `labels` that holds a label image of the same name for "
        "each: 0 is background, and every object has a number of its own. [Data sets](datasets.md) describes other "
        "layouts. In the last cell, give the path of one of your images.",
        "import tempfile\nfrom pathlib import Path\n\nimport numpy as np\nfrom PIL import Image\n\n\n"
        "def draw(rng):\n"
        '    """Beans on a table: an image, uint8 [96, 96, 3], and the number of each pixel\'s bean, 0 = table."""\n'
        "    y, x = np.mgrid[:96, :96]\n"
        "    image = np.array([90, 70, 50]) + 15 * np.sin(x / rng.uniform(5, 15))[..., None]\n"
        "    labels = np.zeros((96, 96), np.uint8)\n"
        "    for number in range(1, rng.integers(6, 14)):\n"
        "        top, left = rng.uniform(8, 88, 2)\n"
        "        angle = rng.uniform(0, np.pi)\n"
        "        along = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)\n"
        "        across = (y - top) * np.cos(angle) - (x - left) * np.sin(angle)\n"
        "        inside = (along / 11) ** 2 + (across / 7) ** 2\n"
        "        labels[inside < 1] = number\n"
        "        shade = (1.1 - 0.4 * inside)[..., None] * rng.uniform([130, 60, 30], [230, 140, 90])\n"
        "        image = np.where(inside[..., None] < 1, shade, image)\n"
        "    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8), labels\n\n\n"
        'place = Path(tempfile.mkdtemp())\ndata, run = place / "beans", place / "run"\n'
        'for name in ("images", "labels"):\n    (data / name).mkdir(parents=True)\n'
        "rng = np.random.default_rng(0)\n"
        "for number in range(60):\n"
        "    image, labels = draw(rng)\n"
        '    Image.fromarray(image).save(data / "images" / f"{number:02d}.png")\n'
        '    Image.fromarray(labels).save(data / "labels" / f"{number:02d}.png")\n'
        "data",
        "**Check the data.** The command reads every image and says how it understood the labels:",
        "import sys\n\n%env TERM=dumb\n"  # no progress bars: they fill a notebook
        'sheet = place / "sheet.png"\n!{sys.executable} -m pix2seqd check-data {data} --contact-sheet {sheet}\n'
        "Image.open(sheet).reduce(8)",
        "**Train.** All settings follow from the data. A tenth of the images is held out for the score. Longer is "
        "better: half an hour is a good start for real images.",
        "minutes = 3\n"
        "!{sys.executable} -m pix2seqd train own --train-data {data} --out {run} --train.minutes {minutes}",
        "**Score** the model on the images that were held out:",
        'scores = place / "evaluation.json"\n'
        '!{sys.executable} -m pix2seqd evaluate {run / "model"} --data split:{run / "data.json"}@eval --out {scores}',
        "**Use it** on an image that it has never seen:",
        "from pix2seqd import Segmenter\n\n"
        "image, labels = draw(np.random.default_rng(1000))\n"
        'panoptic = Segmenter.from_pretrained(run / "model").image(image)\n'
        'print(len(panoptic.things), "beans found;", len(np.unique(labels)) - 1, "were drawn")\n'
        "panoptic.overlay(image).resize((192, 192))",
        "On the command line the same is `pix2seqd segment IMAGE --model RUN/model`. [Training](training.md) says how "
        "to go on, and [The page](page.md) how to correct results by hand.",
    ],
}
"""File name → text, code, text, code, ..."""


def notebook(sources: list[str]) -> Any:
    """A notebook of these cells, not yet run (nbformat 4.5)."""
    from nbformat import v4

    kinds = (v4.new_markdown_cell, v4.new_code_cell)
    cells = [kinds[number % 2](source, id=f"cell-{number}") for number, source in enumerate(sources)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def run(made: Any) -> None:
    """Run the cells of a notebook in this folder, and keep their outputs in it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    from nbclient import NotebookClient

    NotebookClient(made, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(DOCS)}}).execute()
    made.metadata = {key: made.metadata[key] for key in ("kernelspec",)} | {"language_info": {"name": "python"}}
    for cell in made.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/jpeg", None)  # the same image again


if __name__ == "__main__":
    import nbformat

    for name in sys.argv[1:] or NOTEBOOKS:
        made = notebook(NOTEBOOKS[name])
        run(made)
        with write_atomically(DOCS / name) as temporary:
            temporary.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
