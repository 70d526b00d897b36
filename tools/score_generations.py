"""The same as `ifguide score-generations`."""

import sys

from ifguide.cli import main

sys.exit(main(["score-generations", *sys.argv[1:]]))
