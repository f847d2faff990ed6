"""`python -m pix2seqd`."""

from pix2seqd.cli.main import main

main()
