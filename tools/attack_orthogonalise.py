"""The same as `ifguide attack-orthogonalise`."""

import sys

from ifguide.cli import main

sys.exit(main(["attack-orthogonalise", *sys.argv[1:]]))
