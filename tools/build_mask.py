"""The same as `ifguide build-mask`."""

import sys

from ifguide.cli import main

sys.exit(main(["build-mask", *sys.argv[1:]]))
