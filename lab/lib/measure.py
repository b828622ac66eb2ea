"""What the lab measures with: the probe, iperf3, processor time, and the arithmetic of chance.

In:   a network. Out: numbers with their units in their names.
"""

import json
import math
import os
import statistics
import subprocess
import time

from lab.lib.network import Refusal

Z_99 = 2.576  # of the normal distribution: the middle 99 %
READY_PATIENCE_S = 20


def probe(program, network, source, target, address=None, batch=1, **numbers):
    """Starts the probe from `source` to `target`; .result() waits for what it saw."""
    words = [program, f"from={network.path(source)}", f"to={network.path(target)}", f"address={address or network.hosts[target]}",
             f"batch={batch}", *(f"{key}={int(value)}" for key, value in numbers.items())]
    return Probe(subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


class Probe:
    def __init__(self, process):
        self.process = process

    def result(self):
        out, error = self.process.communicate()
        if self.process.returncode != 0:
            raise Refusal(error.strip())
        return json.loads(out)


def wait4(process):
    """Waits for the process; returns its processor seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


class Iperf:
    """One TCP transfer by iperf3 from one host to another."""

    def __init__(self, network, source, target, address, seconds, congestion="cubic", omit=0, port=5201):
        self.seconds = seconds
        # A server of one transfer says when it listens.
        self.server = network.popen(target, ["iperf3", "-s", "-1", "--forceflush", "-p", port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.server.stdout:
            if "listening" in line.lower():
                break
        self.client = network.popen(source, ["iperf3", "-c", address, "-p", port, "-t", seconds, "-O", omit, "-C", congestion, "-J"],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def result(self):
        """Returns {"bits_per_s", "cpu_s", "bytes", "retransmits", "intervals"}; processor time is of both ends."""
        text = self.client.stdout.read()
        self.server.stdout.read()
        cpu_s = wait4(self.client) + wait4(self.server)
        try:
            report = json.loads(text)
        except json.JSONDecodeError:
            report = {"error": text.strip()[-200:]}
        if "error" in report:
            raise Refusal(f"iperf3: {report['error']}")
        end = report["end"]
        return {"bits_per_s": end["sum_received"]["bits_per_second"], "bytes": end["sum_received"]["bytes"], "cpu_s": cpu_s,
                "retransmits": end["sum_sent"].get("retransmits", 0),
                "intervals": [interval["sum"]["bits_per_second"] for interval in report["intervals"]]}


def median(values):
    return statistics.median(values)


def share_interval(share, draws, correlation=0.0):
    """The middle 99 % of a share seen in so many draws; `correlation` of each with the next (Markov) widens it."""
    spread = Z_99 * math.sqrt(share * (1 - share) / draws * (1 + correlation) / (1 - correlation))
    return share - spread, share + spread


def wait_until(condition, what, patience_s=READY_PATIENCE_S):
    """Returns the first true value of condition()."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Refusal(f"waited {patience_s} s in vain for {what}")
        time.sleep(0.02)
