from pathlib import Path

import pytest

from pix2seqd.checkpoint import from_pretrained
from pix2seqd.config import BUNDLED, DEFAULT_FOR_CLIPS, DEFAULT_MODEL
from pix2seqd.files import InputError
from pix2seqd.interop import cards
from pix2seqd.interop.cards import Card, read_card
from pix2seqd.panoptic.taxonomy import Taxonomy


def with_card(folder: Path, head: str) -> Path:
    (folder / "README.md").write_text(f"---\n{head}\n---\n\n# A model\n")
    return folder


def test_read_card_takes_facts_from_the_head(folder):
    facts = "license: cc0-1.0\npixels: 3\npix2seqd:\n  made_for: |\n    cats\n    and dogs\n  quality: 12.5\n"
    card = read_card(with_card(folder, facts))
    assert (card.made_for, card.quality, card.licence) == ("cats and dogs", "12.5", "cc0-1.0")
    assert card.name == str(folder)
    assert card.finds.startswith("disk, ") and "; stuff: " in card.finds
    assert (card.not_for, card.trained_on, card.sampling, card.time) == ("-", "-", "-", "-")


@pytest.mark.parametrize("text", [None, "", "# no head\n", "---\nnever closed\n"])
def test_read_card_without_facts_is_all_unknown(folder, text: str | None):
    if text is not None:
        (folder / "README.md").write_text(text)
    assert read_card(folder, "mine") == Card("mine", read_card(folder).finds)


def test_read_card_several_licences_and_control_characters(folder):
    card = read_card(with_card(folder, 'license: [mit, cc0-1.0]\npix2seqd: {time: "1 s\\e[31m"}'))
    assert card.licence == "mit, cc0-1.0"
    assert card.time == "1 s\\x1b[31m"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("pix2seqd: fast", "must be a section"),
        ("pix2seqd:\n  quality: [1, 2]", "'quality' in its head must be one line"),
        ("pix2seqd: [", "is not valid YAML"),
        ("- one\n- two", "keys and values"),
        ("a: &b 1\nc: *b", "anchor"),
    ],
)
def test_read_card_damaged_head_is_a_one_line_error(folder, head: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        read_card(with_card(folder, head))
    assert str(folder / "README.md") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no list of categories"),
        (lambda folder: (folder / "config.json").write_text('{"categories": 3}'), "no list of categories"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_read_card_of_what_is_no_checkpoint(folder, change, message: str):
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_card(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_bundled_checkpoints_state_their_facts():
    listed = {card.name: card for card in cards.bundled()}
    assert set(listed) == {path.name for path in BUNDLED.iterdir()}
    assert list(listed)[:2] == [DEFAULT_MODEL, DEFAULT_FOR_CLIPS]
    for card in listed.values():
        stated = [card.finds, card.made_for, card.not_for, card.trained_on, card.quality, card.licence]
        assert cards.UNKNOWN not in stated, card.name
        assert card.for_clips in (cards.UNKNOWN, *listed)


@pytest.mark.parametrize("card", cards.bundled(), ids=lambda card: card.name)
def test_bundled_checkpoints_sample_as_they_state(card: Card):
    checkpoint = from_pretrained(card.name)
    start = "a grid of ids" if checkpoint.model.config.mask.init_id_cell else "noise"
    if checkpoint.model.config.mask.init_id_cell and checkpoint.model.config.decoder.past_frames:
        start += " and the last mask"
    infer = checkpoint.infer
    steps = f"{infer.first_steps} steps for the first frame and {infer.steps} for later ones"
    steps = steps if infer.first_steps else f"{infer.steps} steps"
    assert card.sampling == f"from {start}, {steps}, {infer.consensus} samples"


def test_summary_names_things_first_and_shortens():
    taxonomy = Taxonomy.from_coco([{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "cat"}])
    assert cards.summary("m", taxonomy) == "model m finds cat and sky; for other images: pix2seqd models"
    one = Taxonomy.from_coco([{"id": 1, "name": "cat"}])
    assert "finds cat; for" in cards.summary("m", one)
    many = Taxonomy.from_coco([{"id": n, "name": f"c{n}"} for n in range(1, 134)])
    assert "finds c1, c2, c3, c4, c5, c6 and 127 more; for" in cards.summary("m", many)


def test_markdown_escapes_bars():
    assert cards.markdown([Card("a|b", "x")]).splitlines()[2].startswith("| `a\\|b` | x | - |")
