"""The same as `ifguide plan`."""

import sys

from ifguide.cli import main

sys.exit(main(["plan", *sys.argv[1:]]))
