"""The same as `ifguide attack-relearn`."""

import sys

from ifguide.cli import main

sys.exit(main(["attack-relearn", *sys.argv[1:]]))
