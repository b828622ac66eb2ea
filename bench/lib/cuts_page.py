"""The page of bench/cuts: tables, what earlier trials said beside what is found, and the picture.

In:   results as bench/cuts stores them: {row, shared, commit, numerics, seconds, validation: [[step, loss], …]}.
Out:  a page of Markdown, and beside it the picture of the curves (cuts_picture.py).
Why:  every sentence with a number in it is made from the results, so that a page cannot say what its runs do not.
"""

import json
import pathlib
import statistics
import sys

import drawing

TOKENS = "resbm+tokens"
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
DIM = 128
DEFAULT_VIEW = (32, 4)


class Found:
    """The final validation losses, by row and seed."""

    def __init__(self, results):
        self.results = results
        self.losses = {}
        for result in results:
            row = result["row"]
            key = (row["optimizer"], row["kind"], row["cuts"], row["width"], (row["rank"], row["window"]))
            self.losses.setdefault(key, {})[row["seed"]] = result["validation"][-1][1]

    @staticmethod
    def key(optimizer, kind="none", cuts=0, width=0, view=DEFAULT_VIEW):
        return (optimizer, kind, cuts, width, view if kind == TOKENS else (0, 0))

    def of(self, *key, **more):
        """{seed: loss} of a row; empty where it was not run."""
        return self.losses.get(self.key(*key, **more), {})

    def differences(self, a, b):
        """a − b for each seed that both have."""
        return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def cell(losses, baseline, bold=False):
    """Mean, range and number of seeds, and the mean distance from the row without cuts at the same seeds."""
    if not losses:
        return "–"
    values = list(losses.values())
    text = f"{statistics.mean(values):.3f}"
    if bold:
        text = f"**{text}**"
    if len(values) > 1:
        text += f" ({min(values):.3f}–{max(values):.3f}, {len(values)})"
    apart = [losses[seed] - baseline[seed] for seed in losses.keys() & baseline.keys()]
    if apart and losses is not baseline:
        text += f" {statistics.mean(apart):+.3f}"
    return text


def ratio(width):
    return f"{DIM // width}×"


def loss_table(found, cuts):
    lines = ["| cut | K (ratio) | " + " | ".join(OPTIMIZERS.values()) + " |", "| --- | --- |" + " --- |" * len(OPTIMIZERS)]
    none = {optimizer: found.of(optimizer) for optimizer in OPTIMIZERS}
    lines.append("| none | 128 | " + " | ".join(cell(none[o], none[o]) for o in OPTIMIZERS) + " |")
    for kind in ("resbm", TOKENS):
        for width in (32, 8, 2):
            cells = [cell(found.of(o, kind, cuts, width), none[o]) for o in OPTIMIZERS]
            lines.append(f"| {kind} | {width} ({ratio(width)}) | " + " | ".join(cells) + " |")
    return lines


def view_table(found):
    views = sorted({key[4] for key in found.losses if key[1] == TOKENS and key[2:4] == (3, 2)})
    parameters = {view: 256 * view[0] + DIM * view[0] * view[1] for view in views}
    lines = ["| r | w | parameters a cut | " + " | ".join(OPTIMIZERS.values()) + " |",
             "| --- | --- | --- |" + " --- |" * len(OPTIMIZERS)]
    for view in views:
        cells = []
        for optimizer in OPTIMIZERS:
            # Seed 1 alone: the other seeds exist for one of the rows only.
            at_one = {s: x for s, x in found.of(optimizer, TOKENS, 3, 2, view=view).items() if s == 1}
            cells.append(cell(at_one, found.of(optimizer)))
        lines.append(f"| {view[0]} | {view[1]} | {parameters[view]:,} | " + " | ".join(cells) + " |")
    return lines


def byte_table(tokens):
    """What a cut sends forward for a token, in the number format of the study (fp32) and in that of large runs (bf16)."""
    ids = 4 * (tokens + 1) / tokens
    lines = ["| K (ratio) | z in fp32 | z in bf16 | token ids | their share forward, fp32 | bf16 |", "| --- | --- | --- | --- | --- | --- |"]
    for width in (128, 32, 8, 2):
        shares = [f"{ids / (ids + number * width):.0%}" for number in (4, 2)]
        lines.append(f"| {width} ({ratio(width)}) | {4 * width} | {2 * width} | {ids:.2f} | {shares[0]} | {shares[1]} |")
    return lines


# What the small trials behind the design found (one seed, 600 steps of 16 × 128 tokens, the same model): a − b.
CLAIMS = [
    ("resbm 4× − none", ("resbm", 3, 32), ("none", 0, 0), {"adamw": 0.013, "muon": 0.025}),
    ("resbm 16× − none", ("resbm", 3, 8), ("none", 0, 0), {"adamw": 0.049, "muon": 0.093}),
    ("resbm+tokens 16× − resbm 16×", (TOKENS, 3, 8), ("resbm", 3, 8), {"adamw": -0.055, "muon": -0.033}),
    ("resbm+tokens 16× − none", (TOKENS, 3, 8), ("none", 0, 0), {"adamw": -0.006, "muon": 0.060}),
    ("resbm+tokens 64× − resbm 16×", (TOKENS, 3, 2), ("resbm", 3, 8), {"muon": -0.044}),
    ("resbm+tokens 64× − none", (TOKENS, 3, 2), ("none", 0, 0), {"muon": 0.049}),
    ("resbm+tokens 64× − resbm 64×", (TOKENS, 3, 2), ("resbm", 3, 2), {}),
    ("one cut: resbm 16× − none", ("resbm", 1, 8), ("none", 0, 0), {}),
    ("one cut: resbm+tokens 64× − resbm 16×", (TOKENS, 1, 2), ("resbm", 1, 8), {}),
    ("one cut: resbm+tokens 64× − none", (TOKENS, 1, 2), ("none", 0, 0), {}),
]


def claim_table(found):
    lines = ["| difference | optimizer | trials | here: mean (range, seeds) | repeated |", "| --- | --- | --- | --- | --- |"]
    for words, a, b, trials in CLAIMS:
        for optimizer, name in OPTIMIZERS.items():
            here = found.differences(found.of(optimizer, *a), found.of(optimizer, *b))
            if not here:
                continue
            before = trials.get(optimizer)
            verdict = "–" if before is None else "yes" if all(x * before > 0 for x in here) else \
                "no" if all(x * before <= 0 for x in here) else "not at every seed"
            spread = f" ({min(here):+.3f} to {max(here):+.3f}, {len(here)})" if len(here) > 1 else " (1)"
            lines.append(f"| {words} | {name} | {'–' if before is None else f'{before:+.3f}'} "
                         f"| {statistics.mean(here):+.3f}{spread} | {verdict} |")
    return lines


def counted(found, a, b):
    """How often a is below b: "3 of 3 seeds with AdamW (−0.031 on average), …"."""
    parts = []
    for optimizer, name in OPTIMIZERS.items():
        here = found.differences(found.of(optimizer, *a), found.of(optimizer, *b))
        if here:
            parts.append(f"at {sum(x < 0 for x in here)} of {len(here)} seeds with {name} ({statistics.mean(here):+.3f} on average)")
    return " and ".join(parts) or "not measured"


def summary(found):
    left = []
    for optimizer, name in OPTIMIZERS.items():
        lost = found.differences(found.of(optimizer, "resbm", 3, 2), found.of(optimizer))
        still = found.differences(found.of(optimizer, TOKENS, 3, 2), found.of(optimizer))
        if lost and still:
            left.append(f"{statistics.mean(lost):+.3f} and {statistics.mean(still):+.3f} ({name})")
    return [
        f"- Tokens at the cut, the same ratio, three cuts. 16×: `{TOKENS}` is below `resbm` "
        + counted(found, (TOKENS, 3, 8), ("resbm", 3, 8)) + "; 64×: " + counted(found, (TOKENS, 3, 2), ("resbm", 3, 2)) + ".",
        "- 64× with tokens against 16× without, three cuts: below it " + counted(found, (TOKENS, 3, 2), ("resbm", 3, 8))
        + "; one cut: " + counted(found, (TOKENS, 1, 2), ("resbm", 1, 8)) + ".",
        "- What three cuts of 64× cost beside none, without tokens and with them: " + "; ".join(left) + "." if left else "",
    ]


def setting_lines(results, wanted, machine):
    shared = results[0]["shared"]
    tokens = shared["schedule.steps"] * shared["batch.sequences"] * 128
    commits = sorted({result["commit"] for result in results})
    numerics = sorted({result["numerics"] for result in results})
    return [
        f"Made by `bench/cuts` from {len(results)} of {wanted} runs; commit {', '.join(commits)}; {machine}; numerics class: "
        f"{', '.join(numerics)}.",
        "",
        f"The laptop's model (`configs/laptop.toml`: D 128, 4 layers, 0.8 M parameters, bytes) on the King James text, the last 5 % "
        f"held out. Each run: {shared['schedule.steps']} steps of {shared['batch.sequences']} × 128 tokens ({tokens:,}), warm-up 50, "
        "cosine to a tenth, peak rate 0.003 (Muon's matrices 0.021), weight decay 0.1, clipping 1.0: the defaults. A seed sets the "
        "first weights and the order of the text; runs of one seed read the same text in the same order. Validation: "
        f"{shared['batch.eval_microbatches'] * shared['batch.sequences']} × 128 held-out bytes, the same for all, nats per byte. "
        "Numbers are fp32, sums fixed64.",
    ]


def write(page, results, wanted, machine, root):
    page.parent.mkdir(parents=True, exist_ok=True)
    found = Found(results)
    picture = draw(page, results, root)
    lines = ["# What a cut costs, and what tokens at the cut buy back", "", *setting_lines(results, wanted, machine), "",
             *[line for line in summary(found) if line], "",
             "In the tables: mean (least–most, number of seeds; nothing where it is one), then the mean distance from `none` at the same "
             "seeds; – was not run.", "", "## Three cuts: after every layer but the last", "", *loss_table(found, 3), ""]
    if picture:
        lines += [f"![Validation loss over steps, three cuts, seed 1]({page.stem}.svg)", "",
                  f"The same as [PNG]({page.stem}.png). Drawn with {picture} from PyPI, in an environment of the bench's own.", ""]
    lines += ["## One cut: in the middle", "", *loss_table(found, 1), "",
              "## Beside the earlier trials", "",
              "The trials: one seed, 600 steps, a program of its own (microbatches drawn at random, 64 held-out windows); for 64× they "
              "had r 64, w 8. \"Repeated\": the sign is theirs at every seed here.", "", *claim_table(found), "",
              "## Width and window of the view", "", "Three cuts, 64×, seed 1:", "", *view_table(found), "",
              "The bytes on the road are the same in each row.", "",
              "## Bytes on the road", "",
              "Bytes a token and cut, forward; dz is as large as z and goes back alone. `resbm+tokens` sends what `resbm` sends: the "
              "token ids travel with z for the tail's labels anyway, 4 bytes each.", "", *byte_table(128), "",
              f"The share is this model's: at D {DIM} a 64× cut leaves two numbers a token. Orion's 64× leaves 144, 288 bytes in bf16, and "
              f"the ids are {4 / (4 + 288):.1%} of what goes forward. Where they weigh, they could be packed: 1 byte for a vocabulary of "
              "256, 17 bits for 128,256.", "",
              "## What this does not show", "",
              "The model is small, the runs are short and at a high rate, and bytes are more predictable from their neighbours than "
              "words are: the size of the gain in a large model is not known from here. One seed, where a cell says no range, shows "
              "directions only. `resbm+tokens` below `none` does not say that squeezing helps: its receivers have a short convolution "
              "over tokens that `none` lacks, and a model without cuts but with that convolution is not among the rows.", ""]
    page.write_text("\n".join(lines).replace(" -0.", " −0.").replace("(-0.", "(−0."), encoding="utf-8")


def draw(page, results, root):
    """Returns the name and version of what drew; None where there is no picture."""
    drawn, why_not = drawing.draw(root, pathlib.Path(__file__).parent / "cuts_picture.py", page.with_suffix(""), text=json.dumps(results))
    if drawn is None:
        print(f"no picture: {why_not}", file=sys.stderr)
    return drawn
