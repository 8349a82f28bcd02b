"""What the chapters are made with: proofs, comparisons, exercises and figures.

holds("1.2", left, right)           the equation (1.2) of this chapter, executed
same(mine, tinyddpm.q_sample, ...)  what you built and what the library has give equal values
guess(0.5, truth)                   your number beside the measured one
band(92, 80, 98, "of 100 read")     a measured number, and the range of it on other machines
check("01a", answer)                not attempted, ok, or what went wrong
tiles({"ten digits": images})       labelled rows of images, enlarged by a whole factor
clock(t, schedule)                  what stands above a picture: the time and its log-SNR
show(picture, "title")              a picture, pixel by pixel
play("three.gif"), play(steps)      a GIF; a slider over a sampler's steps
show_figure("what it shows")        matplotlib's current figure; label_lines(axes) labels its lines
"""

from .exercises import check
from .figures import (
    BLINKERED,
    EXACT,
    NETWORK,
    NOISE,
    REST,
    SIGNAL,
    STEERED,
    TEXT,
    clock,
    label_lines,
    play,
    show,
    show_figure,
    tiles,
)
from .proofs import band, guess, holds, same
