"""Publish a checkpoint on the Hugging Face hub, with a model card that says what it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pix2seqd.checkpoint import FILES, Checkpoint, from_pretrained
from pix2seqd.files import InputError, write_atomically

CARD = "README.md"


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    data: str = "",
    licence: str = "",
    results: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Upload a checkpoint folder to the hub; nothing else that lies in the folder is sent.

    Args:
        folder: as `save_pretrained` writes it. Its README.md is the model card; where there is none, one is written
            there first, of what follows.
        repository: "owner/name"; made if it does not exist.
        data: what it was trained on: name, source, licence.
        licence: of the weights, as the hub writes it ("cc-by-4.0").
        results: the content of the evaluation.json that `pix2seqd evaluate` writes.
        options: of `huggingface_hub.HfApi` (endpoint, token).

    Returns:
        Its address.

    Raises:
        InputError: no whole checkpoint; no card and no data or licence to write one from; the hub refuses.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds a checkpoint")
    pretrained = from_pretrained(folder)
    if not (folder / CARD).is_file():
        if not data or not licence:
            raise InputError(f"{folder / CARD} does not exist; write it, or give data and licence to write it from")
        with write_atomically(folder / CARD) as temporary:
            temporary.write_text(model_card(pretrained, repository, data, licence, results or {}), encoding="utf-8")
    api = HfApi(**options)
    try:
        api.create_repo(repository, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[*FILES, CARD]))
    except Exception as error:  # whatever the network library of the hub's client raises
        raise InputError(f"cannot upload to {repository!r}: {' '.join(str(error).split())}") from error


def model_card(pretrained: Checkpoint, repository: str, data: str, licence: str, results: Mapping[str, Any]) -> str:
    """Markdown: what it segments, the data, the measured numbers, how to use it, under the hub's metadata."""
    from huggingface_hub import ModelCardData

    head = ModelCardData(
        license=licence,
        library_name="pix2seqd",
        pipeline_tag="image-segmentation",
        tags=["panoptic-segmentation", "diffusion"],
    )
    kinds = {"Things": True, "Stuff": False}
    lists = [
        f"- {kind}: {', '.join(c.name for c in pretrained.taxonomy.categories if c.isthing == isthing) or 'none'}"
        for kind, isthing in kinds.items()
    ]
    count = sum(parameter.numel() for parameter in pretrained.model.parameters())
    height, width = pretrained.data.size
    return "\n".join(
        [
            f"---\n{head.to_yaml()}\n---\n",
            f"# {repository.split('/')[-1]}\n",
            "Panoptic segmentation by bit diffusion (Pix2Seq-D, arXiv 2210.06366): "
            f"{count:,} parameters, trained on pictures of {height} x {width} pixels.\n",
            *lists,
            f"\nTrained on: {data}\n\nLicence of the weights: {licence}\n",
            *_numbers(results),
            "## Use\n\n```sh\npip install pix2seqd\n```\n\n```python",
            "from pix2seqd import Segmenter\n",
            f'Segmenter.from_pretrained("{repository}").image("picture.png").save("mask.png")',
            "```\n\nOr with `transformers`:\n\n```python",
            "import pix2seqd.interop.transformers  # makes transformers know the model",
            "from transformers import pipeline\n",
            f'pipeline("image-segmentation", model="{repository}")("picture.png")',
            "```\n",
        ]
    )


def _numbers(results: Mapping[str, Any]) -> list[str]:
    """The part of the card with what was measured, in percent; empty without results."""
    if not results:
        return []
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items() if value is not None)
    rows = []
    for name, result in results.items():
        if name == "settings":
            continue
        quality, hit = result["panoptic_quality"], result["average_precision"]["thresholds"]["0.50"]
        values = [*(quality["All"][key] for key in ("pq", "sq", "rq")), quality["Things"]["pq"], quality["Stuff"]["pq"]]
        cells = ["–" if value is None else f"{100 * value:.1f}" for value in (*values, hit["ap"])]
        rows.append(f"| {name} | {result['images']} | {' | '.join(cells)} |")
    return [
        "## Measured\n",
        "| pictures | n | PQ | SQ | RQ | PQ things | PQ stuff | AP@0.5 |\n|---|---|---|---|---|---|---|---|",
        *rows,
        f"\nIn percent. Settings: {settings}.\n",
    ]
