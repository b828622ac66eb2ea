"""What strikes a run when: the scenario's events, what ends them, and churn.

In:   a Scenario, the time since training began, who is at work. Out: events that are due, in order.
Why:  the same seed strikes the same workers at the same times as in the planner (src/world/sim/planned_events.cpp), as long as the same
      ones are at work.
"""

import math

from lab.lib.dice import Dice, mix
from lab.lib.scenario import Event

CHURN_DICE = 5     # which of a seed's dice: PlannedWorld's
UNDO = "as before"  # the roads of a host that was cut off or degraded


def undoing(event, now_s):
    """What ends an event that was to last a while."""
    return Event(now_s + event.for_s, {"stop": "continue"}.get(event.do, UNDO), event.hosts, event.others)


class Timeline:
    def __init__(self, scenario):
        self.churn, self.end_s = scenario.churn, scenario.duration_s or math.inf
        self.waiting = sorted(scenario.events, key=lambda event: event.at_s)
        self.dice = Dice(mix(scenario.seed, CHURN_DICE))
        self.churn_s = self.next_churn((self.churn or {}).get("from", 0.0))

    def next_churn(self, after_s):
        """When churn strikes next: a Poisson process. None: never."""
        if self.churn is None:
            return None
        at_s = after_s - math.log(1 - self.dice.unit()) * self.churn["every"]
        return at_s if at_s <= min(self.churn.get("until", math.inf), self.end_s) else None

    def due(self, now_s, at_work):
        """Yields what strikes up to now; `at_work()` names the workers that churn may draw."""
        while True:
            churn_next = self.churn_s is not None and (not self.waiting or self.churn_s < self.waiting[0].at_s)
            at_s = self.churn_s if churn_next else self.waiting[0].at_s if self.waiting else None
            if at_s is None or at_s > now_s:
                return
            event = self.draw() if churn_next else self.waiting.pop(0)
            if churn_next:
                candidates = at_work()
                if candidates:
                    event.hosts.append(candidates[self.dice.below(len(candidates))])
                self.churn_s = self.next_churn(at_s)
            if not event.hosts:
                continue  # nobody was at work
            if event.for_s is not None:
                self.waiting = sorted([*self.waiting, undoing(event, now_s)], key=lambda each: each.at_s)
            yield event

    def draw(self):
        return Event(self.churn_s, self.churn["do"], [], None, self.churn.get("for"))
