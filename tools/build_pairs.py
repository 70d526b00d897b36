"""The same as `ifguide build-pairs`."""

import sys

from ifguide.cli import main

sys.exit(main(["build-pairs", *sys.argv[1:]]))
