"""The same as `ifguide experiment`."""

import sys

from ifguide.cli import main

sys.exit(main(["experiment", *sys.argv[1:]]))
