"""The same as `ifguide convert`."""

import sys

from ifguide.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
