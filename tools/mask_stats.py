"""The same as `ifguide mask-stats`."""

import sys

from ifguide.cli import main

sys.exit(main(["mask-stats", *sys.argv[1:]]))
