"""A page of lab results: for each its tables, pictures, command, machine and commit; then all of them side by side.

In:   folders of ./lab/run. Out: a page of Markdown, and its pictures beside it.
Why:  every number on such a page is a run's own, so that the page cannot say what its runs do not.
"""

import pathlib

from lab.lib import activity, picture, report

GIB = 1 << 30


def machine_text(machine):
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / GIB:.0f} GiB of memory, {machine['system']}"


def markdown_rows(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def of_one(folder, told, page, name):
    """Yields the lines of one result, and draws it."""
    result = told.result
    drew = picture.draw(folder, page.with_name(name))
    step = picture.usual_step(result)
    step = step if step in told.steps else None
    if step is not None:
        picture.draw(folder, page.with_name(f"{name}-step"), step)
    kind = "its tensors are hashes of what they were made from" if result["paced"] else "real tensors"
    yield from (f"{result['what']}; {kind}.", "", "```", result["command"], "```", "",
                f"{result['date']}, commit {result['commit']}. {machine_text(result['machine'])}.", "",
                f"![{result['scenario']}: who computed when]({name}.svg)", "",
                f"The same as [PNG]({name}.png). Drawn with {drew}.", "")
    if step is not None:
        yield from (f"Step {step}, of median length:", "", f"![{result['scenario']}: step {step}]({name}-step.svg)", "", f"The same as [PNG]({name}-step.png).", "")
    account = folder / "account.txt"
    if account.exists():
        yield from ("```", *account.read_text(encoding="utf-8").rstrip().splitlines(), "```", "")
    yield from markdown_rows(("", result["scenario"]), [(what, report.text(value, 5)) for what, value in report.figures(result)
                                                         if value is not None and not what.startswith("device time")])
    yield ""


def side_by_side(results):
    """Yields the lines that hold all results against the first."""
    yield from ("## Side by side", "")
    head = ["", *(result["scenario"] for result in results), *(["ratio, or %"] if len(results) == 2 else [])]
    yield from markdown_rows(head, report.beside(results))
    yield ""
    for other in results[1:]:
        told = [sentence for sentence, _ in report.agreements(results[0], other) if sentence]
        yield from (f"{results[0]['scenario']} and {other['scenario']}:", "", *(f"- {sentence}" for sentence in told), "")


def write(path, folders, command):
    """Writes the page and its pictures."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    all_told = [activity.read(folder) for folder in folders]
    results = [told.result for told in all_told]
    lines = [f"# In the road lab: {', '.join(dict.fromkeys(result['scenario'] for result in results))}", "",
             f"Made by `{command}` from what the runs below have written. The words of the tables: [SIMULATE.md](../SIMULATE.md), the lab: "
             "[lab/README.md](../../lab/README.md).", ""]
    for number, (folder, told) in enumerate(zip(folders, all_told), 1):
        alone = len(folders) == 1
        clash = sum(result["scenario"] == told.result["scenario"] for result in results) > 1
        name = path.stem if alone else f"{path.stem}-{told.result['scenario']}" + (f"-{number}" if clash else "")
        lines += [] if alone else [f"## {told.result['scenario']}", ""]
        lines += of_one(folder, told, path, name)
    if len(results) > 1:
        lines += side_by_side(results)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
