"""Editing images with a trained network, a subject a file: inversion, inpainting, handwriting and strips of digits."""
