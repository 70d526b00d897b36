"""The same as `ifguide generate`."""

import sys

from ifguide.cli import main

sys.exit(main(["generate", *sys.argv[1:]]))
