"""What the chapters are made with: proofs, comparisons, exercises and figures.

holds("1.2", left, right)           the equation (1.2) of this chapter, executed
same(mine, tinyddpm.q_sample, ...)  what you built and what the library has give equal values
guess(0.5, truth)                   your number beside the measured one
band(92, 80, 98, "of 100 read")     a measured number, and the range of it on other machines
check("01a", answer)                not attempted, ok, or what went wrong
show(picture, "title")              a picture, pixel by pixel
tiles({"ten digits": images})       labelled rows of images, enlarged by a whole factor
play("three.gif")                   a GIF
"""

from .exercises import check
from .figures import play, show, tiles
from .proofs import band, guess, holds, same
