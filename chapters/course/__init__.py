"""What the chapters are made with: proofs, comparisons, exercises and figures.

holds("1.2", left, right)           the equation (1.2) of this chapter, executed
same(mine, tinyddpm.q_sample, ...)  what you built and what the library has give equal values
guess(0.5, truth)                   your number beside the measured one
check("01a", answer)                not attempted, ok, or what went wrong
show(picture, "title")              a picture, pixel by pixel
play("three.gif")                   a GIF
"""

from .exercises import check
from .figures import play, show
from .proofs import guess, holds, same
