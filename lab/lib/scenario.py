"""Scenarios: who stands where, which roads lie between them, what happens when (docs/formats/scenario.md).

In:   a TOML file. Out: a checked Scenario in the emulator's terms, or a Refusal that names the key.
What only the program reads ([simulate], [devices], bulk_scale) is handed on to it in `text`.
"""

import dataclasses
import json
import pathlib
import re
import tomllib

from lab.lib.network import Refusal

COORDINATOR = "coordinator"
TABLES = {"scenario", "config", "sites", "coordinator", "hosts", "network", "paths", "devices", "events", "churn", "simulate"}
ABOUT = {"what", "seed", "duration", "steps", "bulk_scale", "deal", "resume"}
PLACE = {"site", "up", "down", "queue"}
HOST = PLACE | {"name", "count", "device", "slowdown", "join"}
NETWORK = {"jitter", "loss", "reorder", "burst"}
PATH = {"between", "jitter", "loss", "round_trip"}
EVENT = {"at", "do", "worker", "host", "between", "for", "up", "down", "loss", "jitter", "round_trip"}
ACTIONS = {"kill", "stop", "continue", "restart", "cut", "degrade", "move", "join"}
CHURN = {"every", "do", "for", "from", "until"}
CHURN_ACTIONS = ("kill", "stop", "restart", "cut")
TIME_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
RATE_BPS = {"bps": 1, "kbps": 1e3, "Mbps": 1e6, "Gbps": 1e9}
QUEUE_S = 0.1


@dataclasses.dataclass
class Host:
    name: str
    address: str
    site: str
    up_bps: int
    down_bps: int
    queue_s: float
    device: str = "cpu"
    slowdown: float = 1.0
    later: bool = False

    def words(self):
        """The emulator's settings of its own links."""
        queue = lambda rate: round(rate / 8 * self.queue_s)  # noqa: E731
        return f"up={self.up_bps} down={self.down_bps} up_queue={queue(self.up_bps)} down_queue={queue(self.down_bps)}"


@dataclasses.dataclass
class Event:
    at_s: float
    do: str
    hosts: list             # whom it strikes; of `cut` and `degrade` also one end of the roads
    others: list | None     # the other end; None: everybody
    for_s: float | None = None
    words: str = ""         # degrade: settings of the roads
    host_words: str = ""    # degrade: settings of the hosts

    def text(self):
        who = ", ".join(self.hosts) + (f" - {', '.join(self.others)}" if self.others else "")
        return f"{self.do} {who} {self.words} {self.host_words}".strip()


@dataclasses.dataclass
class Scenario:
    name: str
    what: str
    seed: int
    steps: int | None
    duration_s: float | None
    config: dict
    stages: int
    replicas: int
    coordinator: Host
    workers: list
    roads: dict             # {(name, name): settings of both directions}
    events: list
    churn: dict | None
    resume_s: float | None  # until the operator starts a run again that has ended for want of workers
    text: dict              # the scenario as it is run: of the asked size, with its settings

    @property
    def paced(self):
        return any(worker.device.startswith("paced:") for worker in self.workers)

    def hosts(self):
        return [self.coordinator, *self.workers]

    def seat(self, name):
        """(stage, replica) of a worker: stages are dealt in the order in which workers join. None for the coordinator."""
        number = next((number for number, worker in enumerate(self.workers) if worker.name == name), None)
        return None if number is None else (number % self.stages, number // self.stages)


def refuse_unknown(table, known, where):
    for key in table:
        if key not in known:
            raise Refusal(f"{where} has no key \"{key}\": there are {', '.join(sorted(known))}")


def quantity(text, units, example, where):
    mark = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text) if isinstance(text, str) else None
    if mark and (mark[2] in units or float(mark[1]) == 0):
        return float(mark[1]) * units.get(mark[2], 0)
    raise Refusal(f"{where}: expected a text such as \"{example}\", not {text!r}")


def seconds(text, where):
    return quantity(text, TIME_S, "35ms", where)


def rate(table, key, where):
    return round(quantity(table[key], RATE_BPS, "856Mbps", f"{where} {key}")) if key in table else 0


def share(value, where):
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return value
    raise Refusal(f"{where}: expected a share from 0 to 1, not {value!r}")


def make_host(table, name, number, sites, where):
    site = table.get("site", "")
    if (sites and site not in sites) or (site and not sites):
        raise Refusal(f"{where}: site {site!r}: there are {', '.join(sites) or 'none'}")
    slowdown = table.get("slowdown", 1)
    if not isinstance(slowdown, (int, float)) or not 1 <= slowdown <= 60:
        raise Refusal(f"{where}: slowdown is a number from 1 to 60, not {slowdown!r}")
    return Host(name, f"10.77.{number // 200}.{1 + number % 200}", site, rate(table, "up", where), rate(table, "down", where),
                seconds(table.get("queue", f"{QUEUE_S}s"), where), table.get("device", "cpu"), slowdown, table.get("join") == "later")


def deal(groups, order):
    """Yields (group, number in it) in the order in which workers are numbered."""
    left = [list(range(1, group.get("count", 1) + 1)) for group in groups]
    if order == "in-order":
        yield from ((group, number) for group, numbers in zip(groups, left) for number in numbers)
    while order == "round-robin" and any(left):
        yield from ((group, numbers.pop(0)) for group, numbers in zip(groups, left) if numbers)


def workers_of(text, sites, order):
    if order not in ("in-order", "round-robin"):
        raise Refusal(f"[scenario] deal = {order!r}: expected \"in-order\" or \"round-robin\"")
    groups = text.get("hosts", [])
    for group in groups:
        refuse_unknown(group, HOST, f"[[hosts]] {group.get('name', '')}")
        if not re.fullmatch(r"[A-Za-z0-9-]+", str(group.get("name", ""))):
            raise Refusal(f"[[hosts]] needs a name of letters, digits and -, not {group.get('name')!r}")
    return [make_host(group, group["name"] + (f"-{number}" if group.get("count", 1) > 1 else ""), at, sites, f"[[hosts]] {group['name']}")
            for at, (group, number) in enumerate(deal(groups, order), 1)]


def matrix(text):
    """Returns {frozenset of two sites (or of one): round trip in seconds}."""
    table = text.get("sites", {})
    refuse_unknown(table, {"names", "round_trip"}, "[sites]")
    names = table.get("names", [])
    trips = {}
    for i, row in enumerate(table.get("round_trip", [])):
        for j, cell in enumerate(row):
            if i >= len(names) or j >= len(names):
                raise Refusal(f"[sites] round_trip has more rows or columns than the {len(names)} names")
            trips[frozenset((names[i], names[j]))] = seconds(cell, f"[sites] round_trip {names[i]} - {names[j]}")
    missing = [f"{a} - {b}" for i, a in enumerate(names) for b in names[:i + 1] if frozenset((a, b)) not in trips]
    if missing:
        raise Refusal(f"[sites] round_trip has nothing for {missing[0]}")
    return names, trips


def road_words(settings):
    """The emulator's words for one road; all keys are named, so that they undo what was there before."""
    loss = settings["loss"]
    burst = settings["burst"] > 1
    # The format's jitter adds 0 to J; the emulator's adds 0 to twice its value.
    return (f"delay={round(settings['round_trip'] * 5e5)}us jitter={round(settings['jitter'] * 5e5)}us keep_order={'no' if settings['reorder'] else 'yes'} "
            f"loss={0 if burst else loss} burst_loss={loss if burst else 0} burst_length={settings['burst']} cut=no")


def roads_of(text, hosts, trips):
    network = text.get("network", {})
    refuse_unknown(network, NETWORK, "[network]")
    common = {"jitter": seconds(network.get("jitter", "0"), "[network] jitter"), "loss": share(network.get("loss", 0), "[network] loss"),
              "reorder": network.get("reorder", False), "burst": network.get("burst", 1)}
    roads = {}
    for number, one in enumerate(hosts):
        for other in hosts[number + 1:]:
            settings = {**common, "round_trip": trips.get(frozenset((one.site, other.site)), 0.0)}
            for path in text.get("paths", []):
                refuse_unknown(path, PATH, "[[paths]]")
                if ends_match(path.get("between"), one, other):
                    settings |= path_settings(path, "[[paths]]")
            roads[one.name, other.name] = settings
    return roads


def path_settings(table, where):
    read = {"jitter": seconds, "round_trip": seconds, "loss": share}
    return {key: function(table[key], f"{where} {key}") for key, function in read.items() if key in table}


def ends_match(between, one, other):
    if not (isinstance(between, list) and len(between) == 2):
        raise Refusal("[[paths]] needs between = [\"A\", \"B\"], two sites or two hosts")
    a, b = between
    at = lambda host, end: end in (host.name, host.site)  # noqa: E731
    return (at(one, a) and at(other, b)) or (at(one, b) and at(other, a))


def event_of(table, hosts, where):
    refuse_unknown(table, EVENT, where)
    do = table.get("do")
    if do not in ACTIONS:
        raise Refusal(f"{where}: do = {do!r}: there are {', '.join(sorted(ACTIONS))}")
    workers = [host.name for host in hosts[1:]]
    named = lambda end: [host.name for host in hosts if end in (host.name, host.site)]  # noqa: E731
    others = None
    if "between" in table and do in ("cut", "degrade"):
        struck, others = map(named, table["between"])
    elif "worker" in table:
        number = table["worker"]
        struck = workers[number - 1:number] if isinstance(number, int) and number > 0 else []
    else:
        struck = named(table.get("host"))[:1]
    if not struck or others == []:
        raise Refusal(f"{where}: whom does it strike? worker = 1 to {len(workers)}, or host = one of {', '.join(host.name for host in hosts)}")
    changed = path_settings(table, where)
    words = " ".join(text for key, text in (("round_trip", f"delay={round(changed.get('round_trip', 0) * 5e5)}us"),
                                            ("jitter", f"jitter={round(changed.get('jitter', 0) * 5e5)}us"),
                                            ("loss", f"loss={changed.get('loss', 0)}")) if key in changed)
    host_words = " ".join(f"{key}={rate(table, key, where)}" for key in ("up", "down") if key in table)
    if do == "degrade" and not words + host_words:
        raise Refusal(f"{where}: degrade needs any of up, down, loss, jitter, round_trip")
    return Event(seconds(table.get("at"), f"{where} at"), do, struck, others, seconds(table["for"], where) if "for" in table else None, words, host_words)


def churn_of(table):
    if table is None:
        return None
    refuse_unknown(table, CHURN, "[churn]")
    churn = {"do": table.get("do"), **{key: seconds(table[key], f"[churn] {key}") for key in CHURN - {"do"} if key in table}}
    if churn.get("every", 0) <= 0 or churn["do"] not in CHURN_ACTIONS:
        raise Refusal(f"[churn] needs every, the mean time between two events, above 0, and do = {', '.join(CHURN_ACTIONS)}")
    if churn["do"] in ("stop", "cut") and "for" not in churn:
        raise Refusal(f"[churn] do = \"{churn['do']}\" needs for: how long each lasts")
    return churn


def size_of(config, size, workers):
    """Returns stages and replicas; `size` ("4x2") takes the first workers of a larger scenario."""
    layout = config.setdefault("layout", {})
    if size:
        mark = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
        if not mark:
            raise Refusal(f"--size {size}: expected STAGESxREPLICAS, such as 4x2")
        layout["stages"], layout["replicas"] = int(mark[1]), int(mark[2])
    stages, replicas = layout.get("stages", 4), layout.get("replicas", 2)
    if stages * replicas > len(workers) or (not size and stages * replicas != len(workers)):
        raise Refusal(f"{stages} stages x {replicas} replicas need {stages * replicas} workers, and [[hosts]] are {len(workers)}")
    return stages, replicas


def with_settings(text, settings):
    """Puts "group.key=value" into [config]; "scenario.key=value" into [scenario], "churn.key=value" into [churn]."""
    for setting in settings:
        mark = re.fullmatch(r"([a-z_]+)\.([a-z_0-9]+)=(.*)", setting)
        if not mark:
            raise Refusal(f"--set {setting}: expected group.key=value, such as batch.microbatches=16 or scenario.duration=5min")
        try:
            value = tomllib.loads(f"value = {mark[3]}")["value"]
        except tomllib.TOMLDecodeError:
            value = mark[3]  # a text without its quotes
        group = (text if mark[1] in ("scenario", "churn") else text.setdefault("config", {})).setdefault(mark[1], {})
        group[mark[2]] = value


def toml_text(table, name=""):
    """A table as TOML: its values first, its tables after them."""
    def value(item):
        return f"[{', '.join(map(value, item))}]" if isinstance(item, list) else json.dumps(item, ensure_ascii=False)
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {value(item)}" for key, item in table.items() if not isinstance(item, dict) and not is_tables(item)]
    for key, item in table.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(item, dict):
            lines += ["", toml_text(item, inner)]
        elif is_tables(item):
            for each in item:
                lines += ["", f"[[{inner}]]", toml_text(each)]
    return "\n".join(lines)


def is_tables(item):
    return isinstance(item, list) and bool(item) and all(isinstance(each, dict) for each in item)


def resized(text, workers):
    """The scenario with these workers alone, each a group of its own, in their order."""
    groups = {host["name"] + (f"-{number}" if host.get("count", 1) > 1 else ""): host
              for host in text.get("hosts", []) for number in range(1, host.get("count", 1) + 1)}
    hosts = [{**{key: value for key, value in groups[worker.name].items() if key != "count"}, "name": worker.name} for worker in workers]
    return {**text, "scenario": {**text["scenario"], "deal": "in-order"}, "hosts": hosts}


def load(path, size=None, settings=()):
    """Reads and checks the file."""
    path = pathlib.Path(path)
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"there is no scenario {path}: those that are shipped lie in lab/scenarios/") from None
    except tomllib.TOMLDecodeError as error:
        raise Refusal(f"{path}: {error}") from None
    refuse_unknown(text, TABLES, str(path))
    with_settings(text, settings)
    about = text.get("scenario", {})
    refuse_unknown(about, ABOUT, "[scenario]")
    if "what" not in about or not {"steps", "duration"} & set(about):
        raise Refusal("[scenario] needs what, and steps or duration")
    sites, trips = matrix(text)
    refuse_unknown(text.get("coordinator", {}), PLACE, "[coordinator]")
    coordinator = make_host(text.get("coordinator", {}), COORDINATOR, 0, sites, "[coordinator]")
    workers = workers_of(text, sites, about.get("deal", "in-order"))
    config = text.get("config", {})
    stages, replicas = size_of(config, size, workers)
    workers = workers[:stages * replicas]
    hosts = [coordinator, *workers]
    later = next((worker.name for worker in workers if worker.later), None)
    if later:
        raise Refusal(f"host {later} joins later, and a run takes no workers after it has begun: leave its join out. The event join starts a worker "
                      "whose process has ended")
    return Scenario(path.stem, about["what"], about.get("seed", 1), about.get("steps"),
                    seconds(about["duration"], "[scenario] duration") if "duration" in about else None, config, stages, replicas, coordinator,
                    workers, roads_of(text, hosts, trips), [event_of(table, hosts, f"[[events]] {number}") for number, table in enumerate(text.get("events", []), 1)],
                    churn_of(text.get("churn")), seconds(about["resume"], "[scenario] resume") if "resume" in about else None, resized(text, workers))
