"""The same as `ifguide attack-prompts`."""

import sys

from ifguide.cli import main

sys.exit(main(["attack-prompts", *sys.argv[1:]]))
