"""The same as `ifguide train-tokenizer`."""

import sys

from ifguide.cli import main

sys.exit(main(["train-tokenizer", *sys.argv[1:]]))
