"""The exercises of chapter 14: one step."""

import torch

from .exercises import Exercise, Experiment

M, SIGMA = 0.3, 0.5


def spread(u):
    return ((1 - u) ** 2 * SIGMA**2 + u**2) ** 0.5


def average(z, u, u_s):
    moved = (1 - u_s) * M + spread(u_s) / spread(u) * (z - (1 - u) * M)
    return (z - moved) / (u - u_s)


def velocity(z, u):
    return (u - (1 - u) * SIGMA**2) / spread(u) ** 2 * (z - (1 - u) * M) - M


def walk(slope=lambda average, z, u, u_s: average(z, u, u_s), time=lambda u, u_s: u - u_s):
    """A walk with some velocity for some time at each step."""

    def answer(average, z, clocks):
        for u, u_s in zip(clocks, clocks[1:]):
            z = z - time(u, u_s) * slope(average, z, u, u_s)
        return z

    return answer


def counted(answer, average, z, clocks):
    """The end of the walk, and how often it asked for an average: exact ones would reach it in one step, too."""
    calls = []

    def watched(*arguments):
        calls.append(arguments)
        return average(*arguments)

    return answer(watched, z, clocks), len(calls)


def walks():
    z = torch.linspace(-1.5, 2, 8).double()
    return [(average, z, [1.0, 0.4, 0.1]), (average, z, [0.9, 0.7, 0.5, 0.25])]


def curvature(path, share=None, line=None, power=2):
    steps = (path[1:] - path[:-1]) * (len(path) - 1 if share is None else share)
    line = path[-1] - path[0] if line is None else line(path)
    return (steps - line).abs().pow(power).mean()


def paths():
    u = torch.linspace(1, 0, 6).double()[:, None]
    for start in (torch.tensor([0.5, -2.0, 1.0]), torch.tensor([3.0, 0.1])):
        yield (start.double() * spread(u) + 0.4 * u**3,)


def target(average, z, u, u_s, velocity, h, sign=-1, of_z=1, of_u=1, gap=None, width=2):
    later, earlier = (average(z + k * of_z * velocity, u + k * of_u, u_s) for k in (h, -h))
    return velocity + sign * ((u - u_s) if gap is None else gap(u, u_s)) * (later - earlier) / (width * h)


def forward(average, z, u, u_s, velocity, h):
    return velocity - (u - u_s) * (average(z + h * velocity, u + h, u_s) - average(z, u, u_s)) / h


def points():
    z, u = torch.linspace(-1.5, 2, 6).double(), torch.tensor([0.95, 0.8, 0.6, 0.5, 0.9, 0.7]).double()
    for share in (0.3, 0.8):
        yield average, z, u, share * u, velocity(z, u), 1e-4


EXERCISES = {
    "14a": Exercise(
        walk(),
        walks,
        {
            "noise is at the clock 1: on the way to 0 the velocity is subtracted": walk(time=lambda u, u_s: u_s - u),
            "each step took the average down to 0; it needs the one down to its own end": (
                walk(slope=lambda average, z, u, u_s: average(z, u, 0.0))
            ),
            "a step lasts u - u_s, and yours went on for the time u": walk(time=lambda u, u_s: u),
            "that is the velocity now, which the average was to replace": walk(
                lambda average, z, u, u_s: velocity(z, u)
            ),
            "all in one step: walk through the clocks in between, too": (
                lambda average, z, clocks: z - (clocks[0] - clocks[-1]) * average(z, clocks[0], clocks[-1])
            ),
            "a velocity is not yet a distance: multiply by the time of the step, u - u_s": walk(time=lambda u, u_s: 1),
        },
        call=counted,
    ),
    "14b": Exercise(
        curvature,
        paths,
        {
            "these are distances of a step: over its time, 1 / k, they are velocities": lambda path: curvature(path, 1),
            "the number of steps is one less than that of the clocks": lambda path: curvature(path, len(path)),
            "differences of both signs cancel: square them before the mean": lambda path: (
                (len(path) - 1) * path.diff(dim=0) - (path[-1] - path[0])
            ).mean(),
            "the difference is to be squared": lambda path: curvature(path, power=1),
            "compare with the line from the start of each path to its end, not with the mean of all paths": (
                lambda path: curvature(path, line=lambda path: (path[-1] - path[0]).mean())
            ),
            "that is from clean to noise: the steps go the other way": (
                lambda path: curvature(path, line=lambda path: path[0] - path[-1])
            ),
        },
    ),
    "14c": Exercise(
        target,
        points,
        {
            "the derivative is subtracted: A = velocity - (u - u_s) dA/du": lambda *a: target(*a, sign=1),
            "z moves along the path as well, by h times the velocity": lambda *a: target(*a, of_z=0),
            "the clock moves as well: its own derivative is missing": lambda *a: target(*a, of_u=0),
            "that looks ahead only, and its error falls like h: central differences look back as well": forward,
            "from -h to h are two h": lambda *a: target(*a, width=1),
            "the factor is the time between both clocks, u - u_s, not u": lambda *a: target(*a, gap=lambda u, u_s: u),
        },
        within=1e-5,
    ),
    "14d": Experiment(
        140,
        160,
        {
            "one step gives no spread at all: both walks end at the mean": (0.5, 1.5),
            "half the distance of the two ends is the standard deviation, not all of it": (2, 5),
            "that is 90 % of sigma, where 99 % was asked": (10, 20),
            "that is 95 % of sigma, where 99 % was asked": (25, 35),
            "there the variance has 99 %: take its root, the standard deviation": (280, 320),
        },
    ),
}
