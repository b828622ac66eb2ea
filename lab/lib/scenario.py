"""Scenarios: who stands where, which roads lie between them, what happens when.

In:   a TOML file (lab/README.md lists its keys). Out: a checked Scenario, or a Refusal that names the key.
"""

import dataclasses
import pathlib
import tomllib

from lab.lib.network import Refusal

COORDINATOR = "coordinator"
TOP = {"about", "config", "set", "size", "full", "road", "coordinator", "worker", "link", "event", "seed"}
HOST = {"up", "down", "up_queue", "down_queue"}
ROAD = {"rate", "queue", "delay", "jitter", "keep_order", "loss", "burst_loss", "burst_length", "reorder", "reorder_by", "duplicate", "cut"}
PLACE = HOST | {"access", "site", "slow"}
ACTIONS = {"kill": set(), "stop": set(), "continue": set(), "restart": set(), "cut": set(), "rejoin": set(), "degrade": {"road"}, "move": {"address"}}
UNDONE_BY = {"stop": "continue", "cut": "rejoin"}
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclasses.dataclass
class Place:
    """A host: its own links, and how far it is from the middle of the network."""
    name: str
    address: str
    settings: str = ""
    access_ms: float = 0.0
    site: str = ""
    slow: float = 1.0


@dataclasses.dataclass
class Event:
    do: str
    who: str
    at_step: int | None
    at_s: float | None
    settings: str = ""
    address: str = ""
    for_s: float | None = None

    def when(self):
        return f"step {self.at_step}" if self.at_step is not None else f"{self.at_s:g} s"


@dataclasses.dataclass
class Scenario:
    name: str
    about: str
    config: pathlib.Path
    settings: dict
    stages: int
    replicas: int
    seed: int
    coordinator: Place
    workers: list
    roads: list     # the emulator's commands
    events: list

    def hosts(self):
        return [self.coordinator, *self.workers]


def refuse_unknown(table, known, where):
    for key in table:
        if key not in known:
            raise Refusal(f"{where} has no key \"{key}\": there are {', '.join(sorted(known))}")


def milliseconds(text, where):
    for unit, factor in UNITS_MS.items():
        number = text.removesuffix(unit)
        if text.endswith(unit) and number.replace(".", "", 1).isdigit():
            return float(number) * factor
    raise Refusal(f"{where}: \"{text}\" is no time such as 250us, 25ms or 1s")


def words(table, known, where):
    """The settings of a table as the emulator's key=value words; it checks the values itself."""
    refuse_unknown(table, known, where)
    return " ".join(f"{key}={'yes' if value is True else 'no' if value is False else value}" for key, value in table.items())


def place(table, name, address, where):
    refuse_unknown(table, PLACE, where)
    slow = table.get("slow", 1)
    if not isinstance(slow, (int, float)) or not 1 <= slow <= 60:
        raise Refusal(f"{where}: slow is a number from 1 to 60 (times slower), not {slow!r}")
    return Place(name, address, words({key: value for key, value in table.items() if key in HOST}, HOST, where),
                 milliseconds(table.get("access", "0ms"), where), table.get("site", ""), slow)


def roads_of(places, links, common):
    """The emulator's commands: what is common to all, the way to the middle and back, and named links instead of it."""
    named = {}
    for link in links:
        sites = link.get("between")
        if not (isinstance(sites, list) and len(sites) == 2):
            raise Refusal("[[link]] needs between = [\"site\", \"site\"]")
        rest = {key: value for key, value in link.items() if key != "between"}
        named[frozenset(sites)] = words(rest, ROAD, f"[[link]] between {sites}")
    commands = [f"pair * * {words(common, ROAD, '[road]')}"] if common else []
    for number, one in enumerate(places):
        for other in places[number + 1:]:
            delay_us = round((one.access_ms + other.access_ms) * 1000)
            link = named.get(frozenset((one.site, other.site)), "") if one.site and other.site else ""
            if delay_us or link:
                commands.append(f"both {one.name} {other.name} {f'delay={delay_us}us ' if delay_us else ''}{link}")
    return commands


def event(table, names, number):
    where = f"[[event]] {number}"
    do = table.get("do")
    if do not in ACTIONS:
        raise Refusal(f"{where}: do = {do!r}: there are {', '.join(ACTIONS)}")
    refuse_unknown(table, {"do", "who", "at_step", "at_s"} | ACTIONS[do] | ({"for_s"} if do in UNDONE_BY else set()), where)
    if table.get("who") not in names:
        raise Refusal(f"{where}: who = {table.get('who')!r}: there are {', '.join(names)}")
    if ("at_step" in table) == ("at_s" in table):
        raise Refusal(f"{where} needs at_step (done when that step is committed) or at_s (seconds after the first attempt), one of them")
    for key in ACTIONS[do]:
        if key not in table:
            raise Refusal(f"{where}: {do} needs {key}")
    return Event(do, table["who"], table.get("at_step"), table.get("at_s"),
                 words(table["road"], ROAD, where) if do == "degrade" else "", table.get("address", ""), table.get("for_s"))


def load(path, full=False, overrides=()):
    """Reads the file; `full` takes the size of [full] where there is one; `overrides` are key=value settings of the run."""
    path = pathlib.Path(path)
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"there is no scenario {path}: those that are shipped lie in lab/scenarios/") from None
    except tomllib.TOMLDecodeError as error:
        raise Refusal(f"{path}: {error}") from None
    refuse_unknown(text, TOP, str(path))
    size = {**text.get("size", {}), **(text.get("full", {}) if full else {})}
    refuse_unknown(size, {"stages", "replicas"}, "[size]")
    stages, replicas = size.get("stages", 1), size.get("replicas", 1)
    profiles = text.get("worker") or [{}]
    coordinator = place(text.get("coordinator", {}), COORDINATOR, "10.77.0.1", "[coordinator]")
    # Profiles are dealt in turn, so that one file serves any number of workers.
    workers = [place(profiles[i % len(profiles)], f"w{i}", f"10.77.{1 + i // 200}.{1 + i % 200}", f"[[worker]] {i % len(profiles)}")
               for i in range(stages * replicas)]
    places = [coordinator, *workers]
    names = [each.name for each in places]
    settings = {key: value for key, value in text.get("set", {}).items()}
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            raise Refusal(f"--set {override}: expected key=value, such as schedule.steps=20")
        settings[key] = value
    config = path.parent / text.get("config", "configs/laptop-8.toml")
    if not config.exists():
        raise Refusal(f"{path}: config = \"{text.get('config')}\": there is no {config}")
    return Scenario(path.stem, text.get("about", ""), config, settings, stages, replicas, text.get("seed", 1), coordinator, workers,
                    roads_of(places, text.get("link", []), text.get("road", {})),
                    [event(table, names, number) for number, table in enumerate(text.get("event", []), 1)])
