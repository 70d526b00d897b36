#!/usr/bin/env python
"""Launch training, as GPT-NeoX's deepy.py: python deepy.py train.py -d configs model.yml data.yml"""

import sys

from ifguide.launch import main

if __name__ == "__main__":
    sys.exit(main())
