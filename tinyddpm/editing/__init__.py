"""Editing images with a trained network; import the file you need.

inversion    invert, round_trip_error, sdedit, transfer, slerp
inpainting   inpaint, resampling_grid, complete, hide_half
handwriting  morph, handwriting, blend_labels; the measures brightness, slant, stroke_width
strip        write, write_steps, windowed, windows_of
"""
