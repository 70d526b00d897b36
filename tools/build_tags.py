"""The same as `ifguide build-tags`."""

import sys

from ifguide.cli import main

sys.exit(main(["build-tags", *sys.argv[1:]]))
