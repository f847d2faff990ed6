"""The command `pix2seqd models`."""

from pathlib import Path

from pix2seqd.cli.options import Flag


def models(*folders: Path, markdown: Flag = False) -> None:
    """List the models: what each finds, is made for and was trained on, how good and how fast it is.

    The bundled models come first. A fact that is not known is shown as -. The facts are in the head of the model card,
    the file README.md in the folder of a model, under the key pix2seqd.

    Args:
        folders: Folders of other checkpoints to list, for example runs/mine/model.
        markdown: Print a table in Markdown.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pix2seqd import cards

    listed = [*cards.bundled(), *map(cards.read_card, folders)]
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
