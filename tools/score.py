"""The same as `ifguide score`."""

import sys

from ifguide.cli import main

sys.exit(main(["score", *sys.argv[1:]]))
