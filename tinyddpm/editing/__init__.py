"""Changing images with a trained network: inversion, inpainting, handwriting, strips of digits."""
