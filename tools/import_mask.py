"""The same as `ifguide import-mask`."""

import sys

from ifguide.cli import main

sys.exit(main(["import-mask", *sys.argv[1:]]))
