"""The same as `ifguide merge-masks`."""

import sys

from ifguide.cli import main

sys.exit(main(["merge-masks", *sys.argv[1:]]))
