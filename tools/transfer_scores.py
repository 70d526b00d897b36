"""The same as `ifguide transfer-scores`."""

import sys

from ifguide.cli import main

sys.exit(main(["transfer-scores", *sys.argv[1:]]))
