"""The same as `ifguide tasks-path`."""

import sys

from ifguide.cli import main

sys.exit(main(["tasks-path", *sys.argv[1:]]))
