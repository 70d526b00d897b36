"""The same as `ifguide score-text`."""

import sys

from ifguide.cli import main

sys.exit(main(["score-text", *sys.argv[1:]]))
