"""Claim: packets of strangers change nothing: the run goes on with everybody it had, to the same bits, within the same memory.

Random bytes, and packets that begin like QUIC's (Initials of known and unknown versions, with lengths that lie, short headers, half
packets), are sent to the ports of the coordinator and of every worker for as long as the run lasts.
"""

import json
import random
import socket
import struct

from lib import runs

STEPS = 200
SEED = 9
BURST = 300
MEMORY_GROWTH_MAX_KB = 150_000


def initial(dice, version, sizes_lie):
    """A long-header packet of type Initial; what should be encrypted is random."""
    destination, source = dice.randbytes(dice.choice([0, 8, 18, 20])), dice.randbytes(dice.choice([0, 8, 20]))
    head = bytes([0xC0 | dice.randrange(16)]) + struct.pack(">I", version)
    head += bytes([len(destination)]) + destination + bytes([len(source)]) + source
    token = dice.randbytes(dice.choice([0, 0, 16, 64]))
    body = dice.randbytes(1200)
    claimed = dice.randrange(1 << 14) if sizes_lie else len(body)
    packet = head + struct.pack(">H", 0x4000 | len(token)) + token + struct.pack(">H", 0x4000 | claimed) + body
    return packet


def packet(dice):
    kind = dice.randrange(8)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 1500))
    if kind == 1:
        return bytes([0x40 | dice.randrange(64)]) + dice.randbytes(dice.randrange(0, 1200))  # a short header
    if kind == 2:
        return initial(dice, dice.randrange(2, 1 << 32), False)
    if kind == 3:
        return initial(dice, 0, True)  # looks like an answer to a version nobody offered
    if kind == 4:
        return initial(dice, 1, True)
    if kind == 5:
        return initial(dice, 1, False)[:dice.randrange(1, 60)]
    if kind == 6:
        lying = bytearray(initial(dice, 1, False))
        lying[5] = dice.randrange(21, 256)  # a connection id longer than the version allows
        return bytes(lying)
    return initial(dice, 1, False)


def resident_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class Hostile(runs.ProcessTest):
    def addresses(self, run):
        code, text = self.call("status", self.folder / run, "--json", name="status")
        self.assertEqual(code, 0, text)
        members = [member for stage in json.loads(text)["stages"] for member in stage["members"]]
        found = [member["address"] for member in members] + [(self.folder / run / "link").read_text().strip().split("@")[1]]
        self.assertEqual(len(found), 5)
        return [(address.rpartition(":")[0], int(address.rpartition(":")[2])) for address in found]

    def test_packets_of_strangers(self):
        reference = self.unsplit(schedule__steps=STEPS)
        program = self.train("run", layout__stages=2, layout__replicas=2, schedule__steps=STEPS)
        self.wait_for_step(program, "run", 2)
        targets = self.addresses("run")
        pids = [program.pid, *self.workers("run").values()]
        before = {pid: resident_kb(pid) for pid in pids}
        dice = random.Random(SEED)
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
        sent = 0
        try:
            while self.events("run", "step_committed")[-1]["step"] < STEPS - 20:
                self.assertTrue(program.running(), program.output()[-4000:])
                for _ in range(BURST):
                    dice.choice(sockets).sendto(packet(dice), dice.choice(targets))
                sent += BURST
                if sent == 10 * BURST:
                    self.addresses("run")  # friends are still answered
                after = {pid: resident_kb(pid) for pid in pids}
                for pid in pids:
                    self.assertLess(after[pid] - before[pid], MEMORY_GROWTH_MAX_KB, f"process {pid} after {sent} packets")
        finally:
            for each in sockets:
                each.close()
        self.assertGreater(sent, 10 * BURST)
        self.finish(program)
        self.assertEqual(self.events("run", "worker_lost"), [])
        self.assertEqual(len(self.events("run", "attempt_opened")), 1)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, f"{sent} hostile packets")


if __name__ == "__main__":
    runs.main()
