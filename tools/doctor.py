"""The same as `ifguide doctor`."""

import sys

from ifguide.cli import main

sys.exit(main(["doctor", *sys.argv[1:]]))
