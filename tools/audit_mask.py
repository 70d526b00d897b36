"""The same as `ifguide audit-mask`."""

import sys

from ifguide.cli import main

sys.exit(main(["audit-mask", *sys.argv[1:]]))
