"""Publish a checkpoint on the Hugging Face hub, with a model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pix2seqd.checkpoint import FILES, Checkpoint, from_pretrained
from pix2seqd.config import CARD
from pix2seqd.files import InputError, printable, write_atomically
from pix2seqd.images import familiarity


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    data: str = "",
    licence: str = "",
    results: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Upload a checkpoint folder to the hub; other files in the folder are not sent.

    Args:
        folder: as `save_pretrained` writes it. Its README.md is the model card; if it is missing, it is written there
            first, from `data`, `licence` and `results`.
        repository: "owner/name"; made if it does not exist.
        data: what the model was trained on: name, source, licence.
        licence: of the weights, as the hub writes it ("cc-by-4.0").
        results: the content of the file evaluation.json that `pix2seqd evaluate` writes.
        options: arguments of `huggingface_hub.HfApi` (endpoint, token).

    Returns:
        The upload's address.

    Raises:
        InputError: the folder holds no complete checkpoint; it has no card, and data or licence is missing; the upload
            failed.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds a checkpoint")
    checkpoint = from_pretrained(folder)
    if not (folder / CARD).is_file():
        if not data or not licence:
            raise InputError(f"{folder / CARD} does not exist; write it, or give data and licence to write it from")
        with write_atomically(folder / CARD) as temporary:
            temporary.write_text(model_card(checkpoint, repository, data, licence, results or {}), encoding="utf-8")
    api = HfApi(**options)
    try:
        api.create_repo(repository, exist_ok=True)
        return str(
            api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[*FILES, familiarity.FILE, CARD])
        )
    except Exception as error:  # the hub's client passes on any error of its network library
        raise InputError(f"cannot upload to {repository!r}: {' '.join(str(error).split())}") from error


def model_card(checkpoint: Checkpoint, repository: str, data: str, licence: str, results: Mapping[str, Any]) -> str:
    """The model card in Markdown: the hub's metadata, categories, data, measured numbers and how to use the model.

    The metadata have no `widget`: the hub runs no models of this library.
    """
    title = repository.split("/")[-1]
    categories = checkpoint.taxonomy.categories
    kinds = {
        kind: ", ".join(_plain(category.name) for category in categories if category.isthing == isthing) or "none"
        for kind, isthing in {"Things": True, "Stuff": False}.items()
    }
    count = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    height, width = checkpoint.data.size
    return "\n".join(
        [
            f"---\n{_metadata(title, data, licence, results)}\n---\n",
            f"# {title}\n",
            "Panoptic segmentation by bit diffusion (Pix2Seq-D, arXiv 2210.06366): "
            f"{count:,} parameters, trained on images of {height} x {width} pixels.\n",
            *(f"- {kind}: {names}" for kind, names in kinds.items()),
            f"\nTrained on: {data}\n\nLicence of the weights: {licence}\n",
            *_numbers(results),
            "## Use\n\n```sh\npip install pix2seqd\n```\n\n```python",
            "from pix2seqd import Segmenter\n",
            f'Segmenter.from_pretrained("{repository}")("image.png").save("mask.png")',
            "```\n\nOr with `transformers`:\n\n```python",
            "import pix2seqd.hf  # makes transformers know the model",
            "from transformers import pipeline\n",
            f'pipeline("image-segmentation", model="{repository}")("image.png")',
            "```\n",
        ]
    )


def _metadata(title: str, data: str, licence: str, results: Mapping[str, Any]) -> str:
    """The head of the card, in YAML: what the hub shows and searches, and the facts that `interop.cards` reads."""
    from huggingface_hub import EvalResult, ModelCardData

    measured = [
        (name, round(100 * result["panoptic_quality"]["All"]["pq"], 1))
        for name, result in _measured(results)
        if result["panoptic_quality"]["All"]["pq"] is not None
    ]
    facts = {"trained_on": " ".join(data.split())}
    facts |= {"quality": ", ".join(f"PQ {value} ({name})" for name, value in measured)} if measured else {}
    return ModelCardData(
        license=licence,
        library_name="pix2seqd",
        pipeline_tag="image-segmentation",
        tags=["panoptic-segmentation", "diffusion"],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-segmentation",
                task_name="Panoptic segmentation",
                dataset_type=str(results["settings"]["data"]),
                dataset_name=f"{results['settings']['data']} ({name})",
                metric_type="pq",
                metric_name="Panoptic quality",
                metric_value=value,
            )
            for name, value in measured
        ],
        pix2seqd=facts,
    ).to_yaml()


def _plain(name: str) -> str:
    """A name that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~&!])", r"\\\1", printable(name))


def _measured(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and result of each group of images."""
    return [(name, result) for name, result in results.items() if name != "settings"]


def _numbers(results: Mapping[str, Any]) -> list[str]:
    """The lines of the card with the measured numbers, in percent; none without results."""
    if not results:
        return []
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items() if value is not None)
    rows = []
    for name, result in _measured(results):
        quality, hit = result["panoptic_quality"], result["average_precision"]["thresholds"]["0.50"]
        values = [*(quality["All"][key] for key in ("pq", "sq", "rq")), quality["Things"]["pq"], quality["Stuff"]["pq"]]
        cells = ["–" if value is None else f"{100 * value:.1f}" for value in (*values, hit["ap"])]
        rows.append(f"| {_plain(name)} | {result['images']} | {' | '.join(cells)} |")
    return [
        "## Measured\n",
        "| images | n | PQ | SQ | RQ | PQ things | PQ stuff | AP@0.5 |\n|---|---|---|---|---|---|---|---|",
        *rows,
        f"\nIn percent. Settings: {settings}.\n",
    ]
