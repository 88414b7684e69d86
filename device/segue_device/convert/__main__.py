"""``python -m segue_device.convert``: another name of ``segue convert``."""

import sys

from segue_device.cli import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
