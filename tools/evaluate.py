"""The same as `ifguide evaluate`."""

import sys

from ifguide.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
