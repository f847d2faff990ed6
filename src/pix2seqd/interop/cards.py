"""Facts about a checkpoint from the head of its model card."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2seqd.config import BUNDLED, CARD, DEFAULT_FOR_CLIPS, DEFAULT_MODEL, bundled_names
from pix2seqd.files import InputError, printable, read_bytes, read_json, read_yaml
from pix2seqd.panoptic.taxonomy import Taxonomy

MAX_BYTES = 2**24
"""Bytes of the largest model card, and of the largest config.json, that is read."""
UNKNOWN = "-"
"""Stands for a fact that the card does not state."""
SHOWN_NAMES = 6
"""Number of categories that `summary` names."""


@dataclass(frozen=True)
class Card:
    """The facts about a checkpoint, each in one line; `UNKNOWN` where its model card says nothing."""

    name: str
    """Bundled name, or folder."""
    finds: str
    """The categories: things, then stuff."""
    made_for: str = UNKNOWN
    not_for: str = UNKNOWN
    trained_on: str = UNKNOWN
    sampling: str = UNKNOWN
    """Start of the denoising (noise, or a grid of ids), number of steps, and number of samples of the consensus."""
    quality: str = UNKNOWN
    """On images that were not trained on, in percent."""
    time: str = UNKNOWN
    """Per image."""
    licence: str = UNKNOWN
    """Of the weights."""
    for_clips: str = UNKNOWN
    """The bundled checkpoint that follows the same things through clips."""

    @property
    def role(self) -> str:
        """Text after the name of a default model."""
        return {DEFAULT_MODEL: " (default)", DEFAULT_FOR_CLIPS: " (default for clips)"}.get(self.name, "")


STATED = ("made_for", "not_for", "trained_on", "sampling", "quality", "time", "for_clips")
"""The facts in the section `pix2seqd` of a card's head. The licence is the hub's own key `license`."""


def read_card(folder: Path, name: str = "") -> Card:
    """The facts about the checkpoint in a folder, under a name, by default that of the folder.

    The folder holds config.json, model.safetensors and, if there is a card, README.md with a head in YAML. A folder
    that is none, or damaged, is an `InputError`.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that holds config.json and model.safetensors")
    if missing := [file for file in ("config.json", "model.safetensors") if not (folder / file).is_file()]:
        raise InputError(
            f"{folder} has no {missing[0]}; give a folder of a checkpoint, such as RUN/model of a training"
        )
    config = read_json(folder / "config.json", MAX_BYTES)
    try:
        taxonomy = Taxonomy.from_coco(config["categories"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} is not of a pix2seqd checkpoint: no list of categories") from error
    head = _head(folder / CARD)
    stated = head.get("pix2seqd", {})
    if not isinstance(stated, dict):
        raise InputError(f"{folder / CARD}: 'pix2seqd' in its head must be a section, with lines such as quality: TEXT")
    facts = {key: _line(stated.get(key), folder, key) for key in STATED}
    licence = head.get("license")
    licence = ", ".join(map(str, licence)) if isinstance(licence, list) else licence
    return Card(printable(name or str(folder)), finds(taxonomy), licence=_line(licence, folder, "license"), **facts)


def bundled() -> list[Card]:
    """The facts about the bundled checkpoints; the defaults come first."""
    names = sorted(bundled_names(), key=lambda name: (name != DEFAULT_MODEL, name != DEFAULT_FOR_CLIPS))
    return [read_card(BUNDLED / name, name) for name in names]


def finds(taxonomy: Taxonomy) -> str:
    """All categories in a line, things first."""
    kinds = {"": True, "stuff: ": False}
    names = {
        kind: ", ".join(printable(category.name) for category in taxonomy.categories if category.isthing == isthing)
        for kind, isthing in kinds.items()
    }
    return "; ".join(kind + listed for kind, listed in names.items() if listed)


def summary(name: str, taxonomy: Taxonomy) -> str:
    """The line that a command prints when it starts: the model, what it finds, and where others are listed."""
    names = [category.name for category in sorted(taxonomy.categories, key=lambda category: not category.isthing)]
    more = [f"{len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []
    shown = _listed([*names[:SHOWN_NAMES], *more])
    return f"model {name} finds {shown}; for other images: pix2seqd models"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


HEADS = {
    "finds": "finds",
    "made_for": "made for",
    "not_for": "not for",
    "trained_on": "trained on",
    "sampling": "sampling",
    "quality": "quality",
    "time": "time per image",
    "licence": "licence",
}
"""The facts that are shown of a `Card`, and what they are called."""


def markdown(cards: Iterable[Card]) -> str:
    """The facts as a table in Markdown, as it stands in README.md of the repository."""
    lines = [["model", *HEADS.values()], ["---"] * (1 + len(HEADS))]
    lines += [[f"`{card.name}`{card.role}", *(getattr(card, key) for key in HEADS)] for card in cards]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _head(path: Path) -> dict[str, Any]:
    """The YAML between the first two lines `---` of a model card; empty where there is none."""
    if not path.is_file():
        return {}
    first, *lines = read_bytes(path, MAX_BYTES).decode("utf-8-sig", errors="replace").splitlines() or [""]
    if first.rstrip() != "---" or "---" not in lines:
        return {}
    head = read_yaml("\n".join(lines[: lines.index("---")]), f"the head of {path}")
    if not isinstance(head, dict):
        raise InputError(f"the head of {path} is not a list of keys and values; write it as the hub describes it")
    return head


def _line(value: Any, folder: Path, key: str) -> str:
    if value is None:
        return UNKNOWN
    if not isinstance(value, str | int | float):
        raise InputError(f"{folder / CARD}: {key!r} in its head must be one line of text")
    return printable(" ".join(str(value).split())) or UNKNOWN
