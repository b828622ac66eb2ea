"""The program's random numbers (src/base/prng.h), so that a scenario's seed draws the same in the lab and in the planner.

In:   a seed. Out: words, bounded integers, shares.
"""

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def scramble(x):
    x = (x + GOLDEN) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def mix(one, other):
    """Folds `other` into `one`; order matters."""
    return scramble(scramble(one) ^ other)


class Dice:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed & WORD

    def next(self):
        word = scramble(self.state)
        self.state = (self.state + GOLDEN) & WORD
        return word

    def below(self, bound):
        """Uniform in [0, bound), by rejection; 0 where bound is 0."""
        if bound == 0:
            return 0
        limit = WORD - (WORD % bound + 1) % bound
        word = self.next()
        while word > limit:
            word = self.next()
        return word % bound

    def unit(self):
        """Uniform in [0, 1)."""
        return (self.next() >> 11) * 2.0**-53
