"""The same as `ifguide train-classifier`."""

import sys

from ifguide.cli import main

sys.exit(main(["train-classifier", *sys.argv[1:]]))
