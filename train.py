"""One worker of a training run; deepy.py starts as many as the configuration says."""

import sys

from ifguide.engine.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
