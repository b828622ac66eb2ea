"""Pictures of a result: the whole run, and one usual step of it.

In:   a folder of ./lab/run, where the pictures shall lie. Out: SVG and PNG of each; what drew them.
"""

import sys

from lab.lib import programs
from lab.lib.network import Refusal

sys.path.insert(0, str(programs.ROOT / "bench" / "lib"))

import drawing  # noqa: E402  (the benches' way to matplotlib)


def usual_step(result):
    """The step of median length among those of the attempts that nothing disturbed; None where there is none."""
    seconds = {int(step): length for step, length in (result.get("step_seconds") or {}).items()}
    ordered = sorted(seconds, key=lambda step: (seconds[step], step))
    return ordered[len(ordered) // 2] if ordered else None


def draw(folder, path, step=None):
    """Draws PATH.svg and PATH.png; returns the name and version of what drew."""
    drawn, why_not = drawing.draw(programs.ROOT, programs.ROOT / "lab" / "lib" / "draw_activity.py", folder, path, *([] if step is None else [step]))
    if drawn is None:
        raise Refusal(f"no picture of {folder}: {why_not.strip()}")
    return drawn
