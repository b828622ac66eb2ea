"""Claim: however a model is cut and replicated, its losses, norms and final tensors are those of one process, bit for bit.

fp32, sums in 64-bit fixed point, real QUIC between real processes: unsplit = 4 x 1 = 4 x 3 = 2 x 2, with and without bottlenecks.
"""

from lib import runs

LAYOUTS = [(4, 1), (4, 3), (2, 2)]


class Equality(runs.ProcessTest):
    def check(self, cut):
        reference = self.unsplit(model__cut_kind=cut)
        self.assertEqual(sorted(reference.steps), list(range(1, 51)))
        self.assertEqual(sorted(reference.evaluations), [0, 20, 40, 50])
        self.assertGreater(len(reference.tensors), 100)
        for stages, replicas in LAYOUTS:
            run = f"{stages}x{replicas}"
            self.finish(self.train(run, model__cut_kind=cut, layout__stages=stages, layout__replicas=replicas))
            outcome = runs.Outcome(self.folder / run)
            self.assert_equal_bits(outcome, reference, f"{run}, cut {cut}")

    def test_plain_cuts(self):
        self.check("none")

    def test_bottlenecks(self):
        self.check("resbm")

    def test_another_seed_gives_other_bits(self):
        """A comparison that cannot fail proves nothing."""
        first = self.unsplit("first", schedule__steps=3, schedule__warmup_steps=1)
        second = self.unsplit("second", schedule__steps=3, schedule__warmup_steps=1, model__seed=7)
        self.assertNotEqual(first.steps, second.steps)
        self.assertNotEqual(first.evaluations, second.evaluations)
        self.assertNotEqual(first.tensors, second.tensors)


if __name__ == "__main__":
    runs.main()
