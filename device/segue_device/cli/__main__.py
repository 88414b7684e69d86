"""``python -m segue_device.cli``."""

from segue_device.cli import main

main()
