"""The same as `ifguide inspect`."""

import sys

from ifguide.cli import main

sys.exit(main(["inspect", *sys.argv[1:]]))
