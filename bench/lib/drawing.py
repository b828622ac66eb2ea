"""Runs a program that draws with matplotlib: with this Python, or where it lacks that, with an environment made for it once.

In:   the repository's root, the program, its arguments and its standard input. Out: what it printed.
Why:  matplotlib need not be there for anything else.
"""

import pathlib
import subprocess
import sys


def has_matplotlib(python):
    return subprocess.run([python, "-c", "import matplotlib"], capture_output=True, check=False).returncode == 0


def python_for(root):
    """Returns a Python with matplotlib; the first time this may ask PyPI for it."""
    if has_matplotlib(sys.executable):
        return sys.executable
    environment = root / ".stagecoach" / "bench" / "venv"
    python = str(environment / "bin" / "python")
    if not pathlib.Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    if not has_matplotlib(python):
        subprocess.run([python, "-m", "pip", "install", "-q", "matplotlib"], check=True)
    return python


def draw(root, program, *words, text=""):
    """Returns (what the program printed, None), or (None, why there is no picture)."""
    try:
        python = python_for(root)
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"matplotlib is not there and could not be installed: {error}"
    done = subprocess.run([python, str(program), *map(str, words)], input=text, capture_output=True, text=True, check=False)
    return (done.stdout.strip(), None) if done.returncode == 0 else (None, done.stderr[-800:])
