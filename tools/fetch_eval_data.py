"""The same as `ifguide fetch-eval-data`."""

import sys

from ifguide.cli import main

sys.exit(main(["fetch-eval-data", *sys.argv[1:]]))
