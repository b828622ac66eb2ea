"""Draws who computed when: a row a worker, time to the right; beneath it how the run went on.

In:   argv: a folder of ./lab/run, the picture's path without its suffix, and a step's number, or nothing for the whole run.
Out:  PATH.svg and PATH.png; on stdout, matplotlib's name and version.
Why:  alone, because matplotlib need not be there for anything else.

A row is cut into as many bins as the picture has columns. In each bin a worker's time is a stack: so much of it backward, so much forward, and
so on, from the bottom; what is left is waiting. Over a few steps the bins are shorter than a computation and the stack is simply its colour.
"""

import pathlib
import sys
import textwrap

import matplotlib
import matplotlib.lines
import matplotlib.ticker
import numpy

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from lab.lib import activity  # noqa: E402

# Text as text and a fixed salt: a small file, and the same one from the same numbers.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lab", "font.size": 9, "figure.facecolor": "white", "savefig.facecolor": "white"})
COLUMNS = 1400
TOGETHER = 4                    # columns that are one where all workers are summed up
COLOURS = {"backward": "#1f5f99", "forward": "#74b3e0", "evaluate": "#4f9d69", "void": "#d1495b", "close": "#e8b84a", "gone": "#5a5a5a"}
LABELS = {"backward": "backward, with what it computes again", "forward": "forward", "evaluate": "evaluation", "void": "work in vain: done again later",
          "close": "reduce and commit of the step", "gone": "not there"}
WAITING = "#f1f1f1"
LINE = "#8b1e3f"
ROW_PIXELS = {12: 26, 24: 18}   # up to so many rows; more of them are lower
LOW_ROW_PIXELS = 13
PIXELS_PER_INCH = 100
LABEL_WIDTH = 0.014             # of the picture, that a label needs for itself
LABELS_MOST = 24                # events with words; more of them are lines alone


def stacks(spans, began_s, ended_s):
    """Shares of each bin by kind: [kind][bin]."""
    out = numpy.zeros((len(activity.KINDS), COLUMNS))
    scale = COLUMNS / (ended_s - began_s)
    for kind, since, until in spans:
        a, b = (min(max((time - began_s) * scale, 0), COLUMNS) for time in (since, until))
        if b <= a:
            continue
        share, first, last = out[activity.KINDS.index(kind)], int(a), min(int(b), COLUMNS - 1)
        if first == last:
            share[first] += b - a
            continue
        share[first] += first + 1 - a
        share[first + 1:last] += 1
        share[last] += b - last
    return out


def pixels(shares, height):
    """A row as colours, its bottom first."""
    palette = numpy.array([matplotlib.colors.to_rgb(COLOURS[kind]) for kind in activity.KINDS] + [matplotlib.colors.to_rgb(WAITING)])
    levels = (numpy.arange(height) + 0.5) / height
    which = (numpy.cumsum(shares, axis=0)[None, :, :] <= levels[:, None, None]).sum(axis=1)
    return palette[which]


def row_pixels(rows):
    return next((height for most, height in ROW_PIXELS.items() if rows <= most), LOW_ROW_PIXELS)


def draw_rows(panel, told, began_s, ended_s, unit_s):
    """The picture proper; returns the shares of all workers together."""
    height, gap = row_pixels(len(told.rows)), 2
    image = numpy.ones((len(told.rows) * (height + gap), COLUMNS, 3))
    everybody = numpy.zeros((len(activity.KINDS), COLUMNS))
    for number, name in enumerate(told.rows):
        shares = stacks(told.spans[name], began_s, ended_s)
        everybody += shares
        image[number * (height + gap):number * (height + gap) + height] = pixels(shares, height)[::-1]
    panel.imshow(image, aspect="auto", interpolation="none", extent=(began_s / unit_s, ended_s / unit_s, len(told.rows) - 0.5, -0.5))
    seats = [told.result["workers"][name] for name in told.rows]
    replicas = told.result["replicas"]
    for stage in range(1, told.result["stages"]):
        panel.axhline(stage * replicas - 0.5, color="#444444", linewidth=0.6)
    if len(told.rows) <= 16:
        panel.set_yticks(range(len(told.rows)), [f"{stage}.{replica}  {name}" for (stage, replica), name in zip(seats, told.rows)])
        panel.set_ylabel("worker: stage.replica, host" if len(told.rows) > 4 else "worker")
    else:
        panel.set_yticks([stage * replicas + (replicas - 1) / 2 for stage in range(told.result["stages"])], range(told.result["stages"]))
        panel.set_ylabel(f"stage; its {replicas} replicas are rows")
    panel.tick_params(axis="y", length=0)
    return everybody / len(told.rows)


def draw_events(panels, told, began_s, ended_s, unit_s):
    """Lines through all panels; on the row of the struck a mark; words on top."""
    marks = [(event["at_s"], event) for event in told.result["timeline"] if began_s <= event["at_s"] <= ended_s]
    starts = [(at, step) for at, step in told.starts if began_s <= at <= ended_s]
    for at, event in marks:
        for panel in panels:
            panel.axvline(at / unit_s, color=LINE, linewidth=0.9, linestyle=(0, (4, 2)))
        for name in event["who"]:
            if name in told.rows:
                panels[0].plot([at / unit_s], [told.rows.index(name)], marker="X", markersize=7, color=LINE, markeredgecolor="white", markeredgewidth=0.7)
    for at, _ in starts:
        for panel in panels:
            panel.axvline(at / unit_s, color="#222222", linewidth=1.2)
    words = [(at, short(told, event), LINE) for at, event in marks] + [(at, f"started again, step {step}", "#222222") for at, step in starts]
    words = grouped(sorted(words), LABEL_WIDTH * (ended_s - began_s))
    for at, text, colour in words if len(words) <= LABELS_MOST else []:
        panels[0].annotate(text, (at / unit_s, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", annotation_clip=False,
                           rotation=30, rotation_mode="anchor", ha="left", va="bottom", fontsize=8, color=colour)


def grouped(words, width_s):
    """Joins labels that would cover each other: "kill 3.1" and "kill 4.0" become "kill 3.1, 4.0"."""
    out = []
    for at, text, colour in words:
        if out and at - out[-1][0] < width_s and out[-1][2] == colour:
            verb, _, rest = text.partition(" ")
            same = out[-1][1].split()[0] == verb and rest
            out[-1] = (out[-1][0], f"{out[-1][1]}, {rest if same else text}", colour)
        else:
            out.append((at, text, colour))
    return out


def short(told, event):
    if len(event["who"]) > 1:
        return event["do"]
    seat = told.result["workers"].get(event["who"][0])
    return f"{event['do']} {'.'.join(map(str, seat)) if seat else event['who'][0]}"


def draw_progress(panel, told, unit_s):
    """Loss over time; of paced devices, whose losses are hashes, the newest step."""
    if not told.result["paced"]:
        panel.plot([at / unit_s for at, _, _ in told.commits], [loss for _, _, loss in told.commits], color="#1f5f99", linewidth=1.2, label="training")
        if told.validation:
            panel.plot([at / unit_s for at, _, _ in told.validation], [loss for _, _, loss in told.validation], "o", markersize=4, color="#4f9d69", label="validation")
        panel.set_ylabel("loss, nats per token")
        return panel.legend(frameon=False, loc="upper right")
    points = sorted([(0.0, 0)] + [(at, step) for at, step, _ in told.commits] + told.starts + [(told.end_s, None)])
    if points[-1][1] is None:
        points[-1] = (told.end_s, points[-2][1])
    panel.step([at / unit_s for at, _ in points], [step for _, step in points], where="post", color="#1f5f99", linewidth=1.4)
    panel.set_ylabel("committed steps")
    panel.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    return None


def draw_together(panel, everybody, began_s, ended_s, unit_s):
    """What all workers together did: shares of their time."""
    shown = [number for number, kind in enumerate(activity.KINDS) if everybody[number].any()]
    coarse = 100 * everybody.reshape(len(activity.KINDS), -1, TOGETHER).mean(axis=2)
    times = (began_s + (numpy.arange(COLUMNS // TOGETHER) + 0.5) * (ended_s - began_s) * TOGETHER / COLUMNS) / unit_s
    panel.stackplot(times, *(coarse[number] for number in shown), colors=[COLOURS[activity.KINDS[number]] for number in shown], linewidth=0, step="mid")
    panel.set_ylim(0, 100)
    panel.set_ylabel("workers, %")


def title(told, step):
    result, account = told.result, told.result["account"] or {}
    facts = [f"{len(told.rows)} workers, {result['stages']} stages × {result['replicas']}", "paced devices" if result["paced"] else "real tensors"]
    if account.get("bulk_scale", 1) != 1:
        facts.append(f"bulk traffic × {account['bulk_scale']:g}")
    if step is None:
        facts.append(f"{result['steps']} steps in {told.end_s:.0f} s")
        if account:
            facts.append(f"devices busy {100 * account['busy']:.0f} % of their time")
    head = f"{result['scenario']}: {result['what']}" if step is None else f"{result['scenario']}: step {step} alone"
    return textwrap.fill(head, 150) + "\n" + ", ".join(facts)


def main():
    folder, path, step = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None
    told = activity.read(folder)
    began_s, ended_s = (0.0, told.end_s) if step is None else told.steps[step]
    if step is not None:
        margin = 0.03 * (ended_s - began_s)
        began_s, ended_s = began_s - margin, ended_s + margin
    unit_s, unit = (1, "seconds") if ended_s - began_s < 300 else (60, "minutes")
    rows_in = max(1.0, len(told.rows) * (row_pixels(len(told.rows)) + 2) / PIXELS_PER_INCH)
    figure, panels = plt.subplots(2, 1, figsize=(15, rows_in + 4.2), sharex=True, layout="constrained", height_ratios=[rows_in, 1.7])
    everybody = draw_rows(panels[0], told, began_s, ended_s, unit_s)
    if step is None:
        draw_progress(panels[1], told, unit_s)
    else:
        draw_together(panels[1], everybody, began_s, ended_s, unit_s)
    draw_events(panels, told, began_s, ended_s, unit_s)
    panels[1].set_xlim(began_s / unit_s, ended_s / unit_s)
    column_s = (ended_s - began_s) / COLUMNS
    column = f"{column_s:.2g} s" if column_s >= 0.1 else f"{column_s * 1e3:.2g} ms"
    panels[1].set_xlabel(f"{unit} since training began   (a column of a row is {column}: its colours stand for shares of that time)")
    panels[1].grid(alpha=0.3, linewidth=0.5)
    figure.suptitle(title(told, step), fontsize=11, ha="left", x=0.01)
    shown = [kind for kind in ("forward", "backward", "evaluate", "close", "void", "gone") if everybody[activity.KINDS.index(kind)].any()]
    patches = [matplotlib.patches.Patch(color=COLOURS[kind], label=LABELS[kind]) for kind in shown]
    patches.append(matplotlib.patches.Patch(facecolor=WAITING, edgecolor="#bbbbbb", label="waiting"))
    if told.result["timeline"] and step is None:
        patches.append(matplotlib.lines.Line2D([], [], color=LINE, linewidth=0.9, linestyle=(0, (4, 2)), marker="X", label="event, by stage.replica"))
    figure.legend(handles=patches, loc="outside lower left", ncols=len(patches), frameon=False)
    figure.savefig(path + ".svg", metadata={"Date": None})
    figure.savefig(path + ".png", dpi=PIXELS_PER_INCH)
    print(f"matplotlib {matplotlib.__version__}")


if __name__ == "__main__":
    main()
