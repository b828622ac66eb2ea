"""Network namespaces joined by the emulator, made for one run and gone after it.

In:   hosts and the emulator's commands (lab/README.md). Out: a network in which programs can be started, and nothing once it is closed.
Namespaces and folders bear the process that made them in their names, so that whatever a killed run left is found and removed by the
next one, and nobody else's is touched.
"""

import ctypes
import os
import pathlib
import re
import signal
import shutil
import socket
import subprocess
import tempfile
import time

PREFIX = "sclab"
NETNS = pathlib.Path("/run/netns")
DEVICE = "lab0"  # TunDevice::kName
SKIPPED = 77     # exit status: not possible on this machine
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
START_PATIENCE_S = 30
# A single TCP connection stops at 0.46 Gbit/s over 50 ms with the usual limit of 4 MB: TCP gets what QUIC gets.
TCP_BUFFER_BYTES = 64 << 20


class Refusal(Exception):
    """What cannot be done, said so that it can be put right."""


def why_not():
    """Why this machine cannot run a lab; None where it can."""
    if os.geteuid() != 0:
        return "the lab needs root, to make network namespaces and TUN devices: run it with sudo, or as root"
    if not pathlib.Path("/dev/net/tun").exists():
        return "the lab needs /dev/net/tun: modprobe tun, or --device /dev/net/tun for a container"
    for program, package in (("ip", "iproute2"), ("iperf3", "iperf3")):
        if shutil.which(program) is None:
            return f"the lab needs the program {program} (Debian package {package})"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"the lab may not make network namespaces here: {tried.stderr.strip()}"


def start_time(pid):
    """When the process began, in the kernel's ticks; None where there is none. Tells a process from a later one of its number."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return None


def owner_tag(pid=None):
    pid = pid or os.getpid()
    return f"{PREFIX}-{pid}-{start_time(pid)}-"


def is_left_over(name):
    """True where `name` bears the mark of a process that is gone."""
    mark = re.fullmatch(rf"{PREFIX}-(\d+)-(\d+)-.*", name)
    return bool(mark) and start_time(mark[1]) != mark[2]


def remove_namespace(name):
    """Ends what runs in the namespace and removes it."""
    for _ in range(50):
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
        for pid in inside:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not inside:
            break
        time.sleep(0.02)  # until the kernel has buried them
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def remove_left_overs():
    """Removes what runs that were killed have left; returns the names of it."""
    places = [path for folder in (NETNS, pathlib.Path(tempfile.gettempdir())) if folder.exists()
              for path in folder.iterdir() if is_left_over(path.name)]
    for path in places:
        if path.parent == NETNS:
            remove_namespace(path.name)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in places)


def present(tag):
    """Returns the names of namespaces and folders that bear the tag."""
    return sorted(path.name for folder in (NETNS, pathlib.Path(tempfile.gettempdir())) if folder.exists()
                  for path in folder.iterdir() if path.name.startswith(tag))


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_on_signals():
    """Makes SIGTERM and SIGHUP end this process as Ctrl-C does: by way of its clean-up."""
    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


class Network:
    """Hosts in a star, each a namespace of its own. Use it with `with`: it is gone at the end, whatever happened."""

    def __init__(self, emulator, seed=1):
        self.emulator_program, self.seed = str(emulator), seed
        self.hosts, self.commands, self.processes, self.plain = {}, [], [], []
        self.emulator = self.client = None
        self.tag = owner_tag()
        self.folder = None

    def __enter__(self):
        remove_left_overs()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=self.tag))
        return self

    def __exit__(self, *_exception):
        self.close()

    def host(self, name, address, settings=""):
        """Adds a host; `settings` are those of the command `host`, such as "up=20M"."""
        self.hosts[name] = address
        self._make_namespace(name)
        self.commands.append(f"host {name} netns={self.path(name)} address={address} {settings}")

    def _make_namespace(self, name):
        subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True)
        settings = {"ipv4/tcp_wmem": f"4096 65536 {TCP_BUFFER_BYTES}", "ipv4/tcp_rmem": f"4096 131072 {TCP_BUFFER_BYTES}",
                    "ipv4/tcp_no_metrics_save": "1", "ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}
        script = "; ".join(f"echo '{value}' > /proc/sys/net/{key}" for key, value in settings.items())
        subprocess.run([*self.inside(name), "sh", "-c", script], capture_output=True, check=False)

    def veth(self, one, other, addresses):
        """Two more namespaces, joined by a bare veth pair: what the emulator is measured against."""
        for name in (one, other):
            self.plain.append(name)
            self._make_namespace(name)
        ip = lambda *words: subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: E731
        ip("-n", self.namespace(one), "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", self.namespace(other))
        for name, address in zip((one, other), addresses):
            ip("-n", self.namespace(name), "address", "add", f"{address}/16", "dev", DEVICE)
            ip("-n", self.namespace(name), "link", "set", DEVICE, "up")

    def start(self):
        """Starts the emulator; the hosts are joined when this returns."""
        plan, control = self.folder / "plan", self.folder / "control"
        plan.write_text("\n".join(self.commands) + "\n", encoding="utf-8")
        words = [self.emulator_program, "--plan", str(plan), "--control", str(control), "--seed", str(self.seed)]
        self.emulator = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                         start_new_session=True, preexec_fn=die_with_parent)
        if self.emulator.stdout.readline().strip() != "ready":
            raise Refusal(self.emulator.stderr.read().strip() or "the emulator ended without a word")
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.client.bind("")  # a name of the kernel's own, to be answered at
        self.client.settimeout(START_PATIENCE_S)
        self.client.connect(str(control))

    def ask(self, command):
        """Gives the emulator a command and returns its answer."""
        try:
            self.client.send(command.encode())
            answer = self.client.recv(1 << 20).decode()
        except OSError as error:
            raise Refusal(f"the emulator is gone ({error}); it said: {self.emulator.stderr.read().strip() or 'nothing'}") from None
        if not answer.startswith("ok\n"):
            raise Refusal(f"{command}: {answer}")
        return answer[3:]

    def counts(self):
        """Returns {(from, to): {"packets": …, "lost": …, …}} of what the emulator has carried."""
        lines = self.ask("stats").splitlines()
        keys = lines[0].split()[3:]
        return {tuple(line.split()[:2]): dict(zip(keys, map(int, line.split()[2:]))) for line in lines if not line.startswith("#")}

    def namespace(self, name):
        return self.tag + name

    def path(self, name):
        return NETNS / self.namespace(name)

    def inside(self, name):
        """The words that run a command in the host's namespace."""
        return ["ip", "netns", "exec", self.namespace(name)]

    def popen(self, name, words, **options):
        """Starts a program in the host's namespace; it ends with this process at the latest."""
        process = subprocess.Popen([*self.inside(name), *map(str, words)], preexec_fn=die_with_parent, start_new_session=True,
                                   stdin=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process

    def close(self):
        """Ends all programs and removes all namespaces. A second call does nothing."""
        signals = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.processes.clear()
        if self.emulator is not None:
            self.emulator.stdin.close()
            try:
                self.emulator.wait(10)
            except subprocess.TimeoutExpired:
                self.emulator.kill()
                self.emulator.wait()
            for stream in (self.emulator.stdout, self.emulator.stderr):
                stream.close()
            self.emulator = None
        if self.client is not None:
            self.client.close()
            self.client = None
        for name in [*self.hosts, *self.plain]:
            remove_namespace(self.namespace(name))
        self.hosts.clear()
        self.plain.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in signals:
            signal.signal(number, handler)
