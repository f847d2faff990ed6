"""Make notebook.ipynb: run its cells in the repository's root, and store their outputs.

python docs/notebook.py
"""

import ast
import base64
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from pix2seqd.files import write_atomically

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
CELLS = [
    "# pix2seqd in a notebook\n\nStart it in the root of the repository. The checkpoint `nuclei` comes with it.",
    'from pix2seqd import Segmenter\n\nsegmenter = Segmenter.from_pretrained("nuclei")\n'
    'panoptic = segmenter.image("examples/nuclei.png", steps=5)\npanoptic',
    "A `Panoptic` shows itself: every segment in its own colour, void black. It is a map of segment ids, and a "
    "record of what each segment is:",
    "print(panoptic.segmentation.shape, len(panoptic.segments), panoptic.segments[0])",
    "Laid over the image, at half its size:",
    'panoptic.overlay("examples/nuclei.png").reduce(2)',
]
"""Text, code, text, code, ..."""


def run(code: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a cell as a notebook stores them: printed text, and the value of its last expression."""
    *body, last = ast.parse(code).body
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    outputs = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        png = base64.b64encode(value._repr_png_()).decode()
        data = {"image/png": png, "text/plain": type(value).__name__}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def notebook() -> dict[str, Any]:
    """All cells with their outputs (nbformat 4.5)."""
    names, cells = {}, []
    for number, source in enumerate(CELLS):
        cell = {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}, "source": source}
        if number % 2:
            cell |= {"cell_type": "code", "execution_count": number // 2 + 1, "outputs": run(source, names)}
        cells.append(cell)
    language = {"language_info": {"name": "python"}}
    return {"cells": cells, "metadata": language, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    os.chdir(NOTEBOOK.parents[1])
    with write_atomically(NOTEBOOK) as temporary:
        temporary.write_text(json.dumps(notebook(), indent=1) + "\n", encoding="utf-8")
