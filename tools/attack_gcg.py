"""The same as `ifguide attack-gcg`."""

import sys

from ifguide.cli import main

sys.exit(main(["attack-gcg", *sys.argv[1:]]))
