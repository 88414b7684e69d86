"""What crosses the wire between a Segue device and a Segue cloud.

Import the modules by name: ``identity``, ``sampling``, ``timeline``, ``text``, ...
"""

__version__ = "0.1.0"
