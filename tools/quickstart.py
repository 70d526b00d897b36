"""The same as `ifguide quickstart`."""

import sys

from ifguide.cli import main

sys.exit(main(["quickstart", *sys.argv[1:]]))
