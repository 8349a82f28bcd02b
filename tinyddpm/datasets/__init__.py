"""Data sets by name, and images of your own."""

from .named import NAMES, load_data
from .own import as_data
