"""The same as `ifguide preprocess-pairs`."""

import sys

from ifguide.cli import main

sys.exit(main(["preprocess-pairs", *sys.argv[1:]]))
