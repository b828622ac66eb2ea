"""The scenarios on which the planner is held against the lab: small, each with one thing that the others have not.

In:   nothing. Out: scenarios as tables (docs/formats/scenario.md). Devices are paced, so that what is compared is everything else.
"""

STEPS = 8
WIDE = {"dim": 512, "cut_width": 128}  # a boundary of 131 kB in float32, where the others have 33 kB
EVENTS_AT = "6s"


def scenario(what, stages, replicas, line, network=None, model=None, microbatches=16, device=None, hosts=None, events=None, about=None):
    """One site for all; `line` is what each host has: up, down, and the round trip between any two."""
    line = dict(line)
    trip = line.pop("round_trip", None)
    hosts = hosts or [{"count": stages * replicas}]
    table = {
        "scenario": {"what": what, "seed": 11, "steps": STEPS, **(about or {})},
        "config": {"model": {"layers": stages, **(model or {})}, "layout": {"stages": stages, "replicas": replicas},
                   "batch": {"microbatches": microbatches, "eval_microbatches": 0}},
        "network": network or {},
        "hosts": [{"name": f"host{number}", "device": "paced:stage", **line, **host} for number, host in enumerate(hosts, 1)],
        "devices": {"stage": device or {"forward": ["40ms"], "backward": ["80ms"]}},
    }
    if trip:
        table["sites"] = {"names": ["here"], "round_trip": [[trip]]}
        table["coordinator"] = {"site": "here"}
        for host in table["hosts"]:
            host["site"] = "here"
    if events:
        table["events"] = events
    return table


SCENARIOS = {
    "lan": scenario("no limit of rate, no delay", 4, 2, {}),
    "delay": scenario("80 ms between any two", 4, 2, {"round_trip": "80ms", "up": "500Mbps", "down": "500Mbps"}),
    "narrow": scenario("20 Mbit/s up, wide boundaries", 4, 2, {"round_trip": "30ms", "up": "20Mbps", "down": "100Mbps"}, model=WIDE),
    "lossy": scenario("0.5 % loss over 50 ms", 4, 2, {"round_trip": "50ms", "up": "100Mbps", "down": "200Mbps"}, {"loss": 0.005, "jitter": "2ms"}),
    "deep": scenario("eight stages of one", 8, 1, {"round_trip": "30ms", "up": "100Mbps", "down": "100Mbps"}),
    "broad": scenario("two stages of four, a reduce among four", 2, 4, {"round_trip": "20ms", "up": "100Mbps", "down": "100Mbps"}, microbatches=32),
    "uneven": scenario("stages of one to two times the work", 4, 2, {"round_trip": "20ms", "up": "100Mbps", "down": "100Mbps"},
                       device={"forward": ["30ms", "60ms", "40ms", "30ms"], "backward": ["60ms", "120ms", "80ms", "60ms"]}),
    "slow-one": scenario("one worker of eight twice as slow", 4, 2, {"round_trip": "20ms", "up": "100Mbps", "down": "100Mbps"},
                         hosts=[{"slowdown": 2}, {"count": 7}]),
    "quick": scenario("a tenth of the work: the road counts", 4, 2, {"round_trip": "20ms", "up": "100Mbps", "down": "100Mbps"}, microbatches=48,
                      device={"forward": ["8ms"], "backward": ["16ms"]}),
    "killed": scenario("one worker of eight is killed", 4, 2, {"round_trip": "20ms", "up": "100Mbps", "down": "100Mbps"},
                       events=[{"at": EVENTS_AT, "do": "kill", "worker": 3}], about={"steps": 16}),
}
