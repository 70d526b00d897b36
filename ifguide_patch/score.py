"""``deepy.py score.py``: what every process of a scoring run runs, in the place of the checkout's ``train.py``."""

from ifguide_patch.scoring.run import main

if __name__ == "__main__":
    main()
