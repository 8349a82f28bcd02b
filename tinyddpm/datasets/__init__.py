"""Data sets by name, and images of your own."""

from .named import DATASETS, load_data
from .own import as_data, image_folder
from .resized import Resized, resize
