"""The same as `ifguide build-queries`."""

import sys

from ifguide.cli import main

sys.exit(main(["build-queries", *sys.argv[1:]]))
