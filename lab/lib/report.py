"""Prints one result of ./lab/run, or two beside each other.

In:   results (lab/README.md, "result.json"). Out: tables; whether two of them are equal bit for bit.
"""

from lab.lib import table

MB = 1e6


def text(value, digits=3):
    return "" if value is None else f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def last(values):
    return values[max(values, key=int)] if values else None


def figures(result):
    """Yields (what, value): what can be read from today's event logs."""
    workers = [sums for name, sums in result["traffic"].items() if name != "coordinator"]
    yield "stages x replicas", f"{result['stages']} x {result['replicas']}"
    yield "steps", result["steps"]
    yield "loss of the last step", last(result["losses"])
    yield "validation loss", last(result["validation"])
    yield "seconds from the first to the last step", result["seconds"]
    yield "seconds a step, median", result["step_s"]
    yield "tokens/s", result["tokens_per_s"]
    account = result.get("account")
    for part in ("busy", "flush", "pace", "network", "reduce", "recovery", "other"):
        yield f"device time: {part}, %", account and 100 * account["device_ns"][part] / max(1, sum(account["device_ns"].values()))
    yield "flush by arithmetic, %", account and 100 * account["flush_arithmetic"]
    yield "bulk scale", account and account["bulk_scale"]
    yield "workers lost", result["workers_lost"]
    yield "attempts", result["attempts"]
    yield "sent by a worker, MB, mean", sum(sums["sent_bytes"] for sums in workers) / max(1, len(workers)) / MB
    yield "packets lost on the road", sum(sums["lost_packets"] for sums in result["traffic"].values())
    yield "packets dropped at full queues", sum(sums["dropped_packets"] for sums in result["traffic"].values())


def show(result, account=""):
    """`account`: the text of where the devices' time went."""
    print()
    if account:
        print(account)
    table.show((result["scenario"], ""), [(what, text(value, 5)) for what, value in figures(result)])
    if result["timeline"]:
        print()
        table.show(("event", "who", "after step", "seconds to the next step"),
                   [(played["do"], ", ".join(played["who"]), played["after_step"], text(played["recovery_s"])) for played in result["timeline"]])


def equal(what, one, other):
    """Prints and returns whether two tables of bits are the same."""
    same = bool(one) and one == other
    differ = sorted((key for key in {*one, *other} if one.get(key) != other.get(key)), key=int)
    print(f"{what}: {f'{len(one)} equal, bit for bit' if same else 'none on one side' if not (one and other) else f'differ at {differ[:5]} of {len(one)} and {len(other)}'}")
    return same


def compare(one, other):
    """Prints both results and returns whether their losses and final states are equal."""
    rows = []
    for (what, a), (_, b) in zip(figures(one), figures(other)):
        both = isinstance(a, (int, float)) and isinstance(b, (int, float)) and b
        rows.append((what, text(a, 5), text(b, 5), text(float(a / b)) if both else ""))
    table.show(("", one["scenario"], other["scenario"], "ratio"), rows)
    print()
    same = [equal("losses", one["loss_bits"], other["loss_bits"]), equal("validation losses", one["validation_bits"], other["validation_bits"])]
    same.append(one["state_sha256"] is not None and one["state_sha256"] == other["state_sha256"])
    print(f"state_sha256: {'equal, ' + one['state_sha256'] if same[-1] else str(one['state_sha256']) + ' and ' + str(other['state_sha256'])}")
    return all(same)
