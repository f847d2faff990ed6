"""`python -m pix2seqd`."""

from pix2seqd.app.cli import main

main()
