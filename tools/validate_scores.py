"""The same as `ifguide validate-scores`."""

import sys

from ifguide.cli import main

sys.exit(main(["validate-scores", *sys.argv[1:]]))
