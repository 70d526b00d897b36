"""The same as `ifguide preprocess`."""

import sys

from ifguide.cli import main

sys.exit(main(["preprocess", *sys.argv[1:]]))
