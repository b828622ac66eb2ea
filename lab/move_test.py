"""Claim: a worker whose address changes stays in the run: its neighbours find it at the new one, nobody is lost, and losses and weights are
those of one machine doing all of it.

In:   STAGECOACH_BUILD_DIR. Exit status: 0, 1, or 77 where this machine cannot run a lab (it says why).
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.lib import claims  # noqa: E402

SCENARIO = claims.SCENARIOS / "move-small.toml"


def test(folder):
    result = claims.played(SCENARIO, folder / "moved")
    told = result["account"]
    return {
        "every step was committed": result["steps"] == 36,
        "the timeline was played": [event["do"] for event in result["timeline"]] == ["move", "move"],
        "nobody was lost": result["workers_lost"] == 0,
        "losses and weights are those of one machine": told["checked"] is True and told["weights"]["step"] == 36,
    }


if __name__ == "__main__":
    sys.exit(claims.hold(test))
