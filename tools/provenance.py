"""The same as `ifguide provenance`."""

import sys

from ifguide.cli import main

sys.exit(main(["provenance", *sys.argv[1:]]))
