"""The command `pix2seqd`. Each subcommand has a file of its own and imports heavy libraries only when it runs."""

import atexit
import errno
import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

from cyclopts import App, CycloptsError, Group

from pix2seqd.cli.ablate import ablate
from pix2seqd.cli.benchmark import benchmark
from pix2seqd.cli.check_data import check_data
from pix2seqd.cli.convert_data import convert_data
from pix2seqd.cli.distill import distill
from pix2seqd.cli.evaluate import evaluate
from pix2seqd.cli.export import export
from pix2seqd.cli.figures import figures
from pix2seqd.cli.metric import metric
from pix2seqd.cli.models import models
from pix2seqd.cli.segment import segment
from pix2seqd.cli.serve import serve
from pix2seqd.cli.shard import shard
from pix2seqd.cli.sweep import sweep
from pix2seqd.cli.train import train
from pix2seqd.cli.video import video
from pix2seqd.files import InputError, say

app = App(
    name="pix2seqd",
    help="Panoptic segmentation of images and videos by bit diffusion (Pix2Seq-D): a class for every pixel, and an "
    "id for every object.\n\nBegin with `pix2seqd segment IMAGE`. `pix2seqd COMMAND --help` explains a command.",
    version=lambda: version("pix2seqd"),
    exit_on_error=False,  # `main` prints errors in one line
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
SETTINGS = "RECIPE|FILE.yaml... [--SECTION.SETTING VALUE]... [OPTIONS]"
USAGES = {
    ablate: f"TABLE {SETTINGS}",
    evaluate: "CHECKPOINT --data DATA [OPTIONS]",
    models: "[MODEL...] [OPTIONS]",
    segment: "IMAGE|FOLDER... [OPTIONS]",
    train: SETTINGS,
}
"""How a command is called, where cyclopts would say less."""
COMMANDS = {
    "Segment": (segment, video, serve, models),
    "Train and score": (check_data, convert_data, train, distill, evaluate, metric),
    "The paper's figures and tables": (figures, sweep, ablate),
    "More": (benchmark, export, shard),
}
"""The commands as `pix2seqd --help` lists them."""
for title, commands in COMMANDS.items():
    group = Group.create_ordered(title)
    for place, command in enumerate(commands):
        usage = f"Usage: pix2seqd {command.__name__} {USAGES[command]}" if command in USAGES else None
        app.command(command, group=group, sort_key=place, usage=usage)
app["--help"].group = app["--version"].group = Group.create_ordered("Options")


def main() -> None:
    """Run the command line.

    The exit code is 0, 2 after bad input, 130 after Ctrl-C, or 1 where nobody reads what it prints any more (`| head`).
    None of them prints a traceback.
    """
    atexit.register(_keep_garbage)
    _open_streams()
    try:
        _require_current_folder()
        sys.exit(app(sys.argv[1:]) or 0)
    except (InputError, CycloptsError) as error:
        say(f"pix2seqd: {' '.join(str(error).split())}", to_stderr=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes what is left at its end
        sys.exit(1)
    except OSError as error:  # of a path that nobody asked more closely about: too long, forbidden, on a broken disk
        what = f"cannot use {error.filename} ({error.strerror})" if error.filename else error.strerror or str(error)
        cure = "make room on the disk" if error.errno == errno.ENOSPC else "check the path and its permissions"
        say(f"pix2seqd: {InputError(what)}; {cure}", to_stderr=True)
        sys.exit(2)
    except UnicodeEncodeError as error:  # from a library that writes names as UTF-8
        name = error.object[max(0, error.start - 50) : error.end + 50]
        say(f"pix2seqd: {InputError(name)!s} is not UTF-8 text; give it another name", to_stderr=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "pix2seqd: interrupted; every file that was written is complete. "
            "To continue, repeat the command (train and distill: with --resume)",
            file=sys.stderr,
        )
        sys.exit(130)


def _require_current_folder() -> None:
    """Libraries that cannot find it say other things, or end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the current folder cannot be used ({error.strerror}); change to another one") from error


def _keep_garbage() -> None:
    """At its end Python would look through all that was imported for garbage, which takes 0.2 s."""
    if "triton" not in sys.modules:  # its C code complains about what is left
        gc.freeze()


def _open_streams() -> None:
    """Names that a terminal cannot show become escapes, and streams that the caller closed lead nowhere.

    Otherwise the next file that is opened would get the number of a closed one, and what libraries print.
    """
    for name in ("stdin", "stdout", "stderr"):  # in this order, since a file gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
