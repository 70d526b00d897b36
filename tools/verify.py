"""The same as `ifguide verify`."""

import sys

from ifguide.cli import main

sys.exit(main(["verify", *sys.argv[1:]]))
