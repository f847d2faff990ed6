"""The command `pix2seqd models`."""

from pathlib import Path

from pix2seqd.cli.options import Flag


def models(*checkpoints: str, markdown: Flag = False) -> None:
    """List the models: what each finds, is made for and was trained on, how good and how fast it is.

    A fact that is not known is shown as -. The facts are in the head of the model card, the file README.md in the
    folder of a model, under the key pix2seqd.

    Args:
        checkpoints: The models to list: names of bundled ones, folders, for example runs/mine/model, or ids of models
            on the Hugging Face hub. Default: all bundled models.
        markdown: Print a table in Markdown.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pix2seqd.interop import cards

    listed = [cards.read_card(_folder(name), name) for name in dict.fromkeys(checkpoints)] or cards.bundled()
    if markdown:
        print(cards.markdown(listed))
        return
    console = Console()
    for card in listed:
        console.print(Text(card.name + card.role, style="bold"), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2))
        for key, head in cards.HEADS.items():
            table.add_row(head, Text(getattr(card, key)))
        console.print(table)


def _folder(name: str) -> Path:
    if (folder := Path(name)).is_dir():
        return folder
    from pix2seqd.checkpoint import find_folder  # takes a second

    return find_folder(name)
