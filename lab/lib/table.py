"""Tables for a terminal.

In:   a head and rows of texts. Out: lines, columns as wide as their widest text; numbers stand right.
"""

import re

NUMBER = re.compile(r"^[-+]?[0-9.,]+(e[-+]?\d+)?\s*(%|x|ms|us|s|[kMG]?bit/s|[kM]?B|Gbit/s|Mbit/s)?$")


def lines(head, rows):
    """Yields the lines of the table."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    right = [bool(cells) and all(not row[i] or NUMBER.match(row[i]) for row in cells) for i in range(len(head))]
    for row in [list(head), ["-" * width for width in widths], *cells]:
        yield "  ".join(text.rjust(width) if left else text.ljust(width) for text, width, left in zip(row, widths, right)).rstrip()


def show(head, rows):
    for line in lines(head, rows):
        print(line)
