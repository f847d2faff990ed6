"""The command `pix2seqd`. Each subcommand has a file of its own and imports heavy libraries only when it runs."""

import atexit
import gc
import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError

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
    "id for every object.",
    version=lambda: version("pix2seqd"),
    exit_on_error=False,  # `main` prints errors in one line
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for command in (benchmark, check_data, convert_data, distill, export, figures, metric, serve, shard, sweep, video):
    app.command(command)
SETTINGS = "RECIPE|FILE.yaml... [--SECTION.SETTING VALUE]... [OPTIONS]"
app.command(ablate, usage=f"Usage: pix2seqd ablate TABLE {SETTINGS}")
app.command(evaluate, usage="Usage: pix2seqd evaluate CHECKPOINT --data DATA [OPTIONS]")
app.command(models, usage="Usage: pix2seqd models [MODEL...] [OPTIONS]")
app.command(segment, usage="Usage: pix2seqd segment IMAGE|FOLDER... [OPTIONS]")
app.command(train, usage=f"Usage: pix2seqd train {SETTINGS}")


def main() -> None:
    """Run the command line. The exit code is 0, 2 after bad input, or 130 after Ctrl-C; neither prints a traceback."""
    atexit.register(gc.freeze)  # at its end Python would look through all that was imported for garbage: 0.2 s
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # for names a terminal cannot show
    try:
        sys.exit(app(sys.argv[1:]) or 0)
    except (InputError, CycloptsError) as error:
        say(f"pix2seqd: {' '.join(str(error).split())}", to_stderr=True)
        sys.exit(2)
    except OSError as error:  # of a path that nobody asked more closely about: too long, forbidden, on a broken disk
        what = f"cannot use {error.filename} ({error.strerror})" if error.filename else str(error)
        say(f"pix2seqd: {InputError(what)}; check the path and its permissions", to_stderr=True)
        sys.exit(2)
    except UnicodeEncodeError as error:  # from a library that writes names as UTF-8
        name = error.object[max(0, error.start - 50) : error.end + 50]
        say(f"pix2seqd: {InputError(name)!s} is no text in UTF-8; give it another name", to_stderr=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "pix2seqd: interrupted; every file that was written is complete. "
            "To continue, repeat the command (train and distill: with --resume)",
            file=sys.stderr,
        )
        sys.exit(130)
