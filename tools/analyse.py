"""The same as `ifguide analyse`."""

import sys

from ifguide.cli import main

sys.exit(main(["analyse", *sys.argv[1:]]))
