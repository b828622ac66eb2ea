"""Finds the built programs; builds them first where no build folder is named.

In:   STAGECOACH_BUILD_DIR: a build folder whose programs are taken as they are. Without it: build/, brought up to date by lab/build.sh.
Out:  paths.
"""

import os
import pathlib
import subprocess

from lab.lib.network import Refusal

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACES = {"lab_emulator": "lab/lab_emulator", "lab_probe": "lab/lab_probe", "link_peer": "bench/link_peer/link_peer", "stagecoach": "stagecoach"}


def built(*names):
    """Returns the paths of the programs."""
    folder = os.environ.get("STAGECOACH_BUILD_DIR")
    if not folder:
        done = subprocess.run(["bash", str(ROOT / "lab" / "build.sh"), *names], check=False)
        if done.returncode != 0:
            raise Refusal("the lab's programs could not be built: see above")
        folder = ROOT / "build"
    paths = [pathlib.Path(folder) / PLACES[name] for name in names]
    for name, path in zip(names, paths):
        if not path.exists():
            raise Refusal(f"{path} is not there: ninja -C {folder} {name}, or unset STAGECOACH_BUILD_DIR")
    return paths
