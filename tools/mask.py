"""The same as `ifguide mask`."""

import sys

from ifguide.cli import main

sys.exit(main(["mask", *sys.argv[1:]]))
