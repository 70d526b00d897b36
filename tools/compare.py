"""The same as `ifguide compare`."""

import sys

from ifguide.cli import main

sys.exit(main(["compare", *sys.argv[1:]]))
