"""The same as `ifguide fit-factors`."""

import sys

from ifguide.cli import main

sys.exit(main(["fit-factors", *sys.argv[1:]]))
