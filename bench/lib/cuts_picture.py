"""Draws the curves of bench/cuts: validation loss over steps, an optimizer a panel.

In:   argv: the picture's path without its suffix. stdin: results as bench/cuts stores them.
Out:  PATH.svg and PATH.png; on stdout, matplotlib's name and version.
Why:  alone, because matplotlib need not be there for anything else.
"""

import json
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)

# Text as text and a fixed salt: a small file, and the same one from the same numbers.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cuts", "font.size": 9})
STYLES = {
    ("none", 0): ("none", "#222222", "-"),
    ("resbm", 8): ("resbm 16×", "#c8553d", "-"),
    ("resbm", 2): ("resbm 64×", "#c8553d", "--"),
    ("resbm+tokens", 8): ("resbm+tokens 16×", "#2a6f97", "-"),
    ("resbm+tokens", 2): ("resbm+tokens 64×", "#2a6f97", "--"),
}


def shown(row):
    return row["seed"] == 1 and row["cuts"] in (0, 3) and (row["rank"], row["window"]) in ((0, 0), (32, 4))


def main():
    results = [result for result in json.load(sys.stdin) if shown(result["row"])]
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for panel, (optimizer, name) in zip(panels, (("adamw", "AdamW"), ("muon", "Muon"))):
        for (kind, width), (label, colour, line) in STYLES.items():
            for result in results:
                row = result["row"]
                if (row["optimizer"], row["kind"], row["width"]) == (optimizer, kind, width):
                    points = [(step, loss) for step, loss in result["validation"] if step >= 100]
                    panel.plot(*zip(*points), line, color=colour, label=label, linewidth=1.4)
        panel.set_title(name)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3, linewidth=0.5)
    panels[0].set_ylabel("validation loss, nats per byte")
    if panels[0].get_legend_handles_labels()[1]:
        panels[0].legend(frameon=False)
    figure.savefig(sys.argv[1] + ".svg", metadata={"Date": None})
    figure.savefig(sys.argv[1] + ".png", dpi=130)
    print(f"matplotlib {matplotlib.__version__}")


if __name__ == "__main__":
    main()
