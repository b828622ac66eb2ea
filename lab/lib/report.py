"""Prints one result of ./lab/run, or two beside each other.

In:   results (lab/README.md, "result.json"). Out: tables; whether two of them are equal bit for bit.
"""

from lab.lib import table

MB = 1e6
PARTS = ("busy", "flush", "pace", "network", "reduce", "recovery", "other")


def text(value, digits=3):
    return "" if value is None else f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def last(values):
    return values[max(values, key=int)] if values else None


def figures(result):
    """Yields (what, value); None where a result has no such thing."""
    workers = [sums for name, sums in result["traffic"].items() if name != "coordinator"]
    account = result.get("account") or {}
    yield "stages x replicas", f"{result['stages']} x {result['replicas']}"
    yield "steps", result["steps"]
    if not result.get("paced"):  # whose losses are hashes
        yield "loss of the last step", last(result["losses"])
        yield "validation loss", last(result["validation"])
    yield "seconds from the first to the last step", result["seconds"]
    yield "seconds a step, median", result["step_s"]
    yield "tokens/s", result["tokens_per_s"]
    for part in PARTS:
        yield f"device time: {part}, %", 100 * account["device_ns"][part] / max(1, sum(account["device_ns"].values())) if account else None
    yield "flush by arithmetic, %", 100 * account["flush_arithmetic"] if account else None
    yield "bulk scale", account.get("bulk_scale")
    yield "work done again, % of all", 100 * account["repeated_share"] if account.get("incidents") else None
    yield "workers lost", result["workers_lost"]
    yield "attempts", result["attempts"]
    yield "resumes", result.get("resumes") or None
    yield "sent by a worker, MB, mean", sum(sums["sent_bytes"] for sums in workers) / max(1, len(workers)) / MB
    yield "packets lost on the road", sum(sums["lost_packets"] for sums in result["traffic"].values())
    yield "packets dropped at full queues", sum(sums["dropped_packets"] for sums in result["traffic"].values())


def show(result, account=""):
    """`account`: the text of where the devices' time went, which tells of the events too."""
    print()
    if account:
        print(account)
    rows = [(what, text(value, 5)) for what, value in figures(result) if value is not None and not (account and what.startswith("device time"))]
    table.show((result["scenario"], ""), rows)
    if result["timeline"] and not account:
        print()
        table.show(("event", "after step", "seconds to the next step", "to a new step"),
                   [(played["text"], played["after_step"], text(played["recovery_s"]), text(played["new_step_s"])) for played in result["timeline"]])
    if result["repeated_differently"]:
        print(f"steps {result['repeated_differently'][:5]} were committed again after a resume, with other losses: that must not be")


def beside(results):
    """Rows of all results' figures; where there are two, of their ratios, and of the differences of percentages."""
    tables = [dict(figures(result)) for result in results]
    for what in dict.fromkeys(key for each in tables for key in each):
        values = [each.get(what) for each in tables]
        if all(value is None for value in values):
            continue
        yield (what, *(text(value, 5) for value in values), *([against(what, *values)] if len(values) == 2 else []))


def against(what, one, other):
    if not all(isinstance(value, (int, float)) for value in (one, other)):
        return ""
    if "%" in what:
        return f"{one - other:+.2f}"
    return text(float(one / other)) if other else ""


def agreement(what, one, other):
    """(a sentence, whether they are the same) of two tables of bits by step, over the steps that both have; None where a side has none."""
    common = sorted(set(one) & set(other), key=int)
    if not common:
        return (f"{what}: none on one side, or none of the same step", None) if one or other else (None, None)
    differ = [step for step in common if one[step] != other[step]]
    if differ:
        return f"{what}: differ at steps {', '.join(differ[:5])} of {len(common)}", False
    rest = len(set(one) ^ set(other))
    return f"{what}: {len(common)} equal, bit for bit" + (f" ({rest} more are on one side only)" if rest else ""), True


def agreements(one, other):
    """Yields the sentences about two results' mathematics, each with True, False or None."""
    ids = {result["config_id"] for result in (one, other) if result.get("config_id")}
    if len(ids) > 1:
        yield "they are runs of different mathematics (config_id): their losses and weights have nothing to do with each other", None
        return
    paced = " (hashes of all that went into them)" if one.get("paced") and other.get("paced") else ""
    yield agreement("losses" + paced, one["loss_bits"], other["loss_bits"])
    yield agreement("validation losses" + paced, one["validation_bits"], other["validation_bits"])
    states = [result.get("states") or {} for result in (one, other)]
    common = sorted(set(states[0]) & set(states[1]), key=int)
    if not common:
        yield "weights: no checkpoint of the same step on both sides", None
    else:
        a, b = (each[common[-1]] for each in states)
        yield f"weights after step {common[-1]}, state_sha256{paced}: {f'equal, {a}' if a == b else f'{a} and {b}'}", a == b


def compare(one, other):
    """Prints both results and returns whether all that both have is equal: losses, validation losses, weights."""
    table.show(("", one["scenario"], other["scenario"], "ratio, or %"), beside([one, other]))
    print()
    told = [each for each in agreements(one, other) if each[0]]
    for sentence, _ in told:
        print(sentence)
    return any(same for _, same in told) and all(same is not False for _, same in told)
