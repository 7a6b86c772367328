"""A neighbourhood of network namespaces: who is there, over which lines, and what happens to the lines.

    origin ===(a line for each router, shaped both ways in "modem")=== r1 r2 … rN
                                                                       |  |     |
                                              air (bridge, shaped) ----+--+-----+
                                                                       |
                                                                     client

Addresses: the origin 10.0.0.1; router i 10.1.i.2 on its line, 10.77.0.i in the air; the client 192.168.1.2, of which
router 1 is 192.168.1.1. All of it lives in namespaces named after this process, nothing is added to the host's own.
Not responsible for the programs that run in it (programs.py).
"""

import json
import os
import subprocess
import sys

ORIGIN = "10.0.0.1"
LAN = "192.168.1.1"
AIR_MBITS = 54  # each port, each way
UP_MBITS = 5
QUEUE_MS = 100  # what the queue in front of each line holds
# The same congestion control everywhere, whatever the host's default is.
CONGESTION = "cubic"


class Missing(Exception):
    """What this machine can't do, with what would help."""


def run(*argv, **options):
    """Runs a command that has to succeed."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Missing(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Space:
    """Namespaces that end with it, and what runs in them with them."""

    def __init__(self, names):
        self.prefix = f"bench{os.getpid()}-"
        self.names = []
        self.children = []
        try:
            for name in names:
                run("ip", "netns", "add", self.prefix + name)
                self.names.append(name)
                self.ip(name, "link", "set", "lo", "up")
                # No run learns from an earlier one what its connections were like; and nothing but IPv4.
                sysctls = ["ipv4.conf.all.rp_filter=0", "ipv4.conf.default.rp_filter=0", "ipv4.ip_forward=1",
                           "ipv4.tcp_no_metrics_save=1", "ipv6.conf.all.disable_ipv6=1",
                           "ipv6.conf.default.disable_ipv6=1"]
                self.run(name, "sysctl", "-qw", *(f"net.{one}" for one in sysctls))
        except BaseException:
            self.close()
            raise

    def inside(self, name, *argv):
        """The command that runs `argv` in a namespace; it becomes `argv`, under the same process id."""
        return ["ip", "netns", "exec", self.prefix + name, *argv]

    def run(self, name, *argv):
        return run(*self.inside(name, *argv))

    def ip(self, name, *argv):
        return run("ip", "-n", self.prefix + name, *argv)

    def start(self, name, argv, log, stdout=None):
        """Starts a server; it is ended by `stop` or with the namespaces."""
        with open(log, "ab") as out:
            child = subprocess.Popen(self.inside(name, *argv), stdin=subprocess.DEVNULL, stdout=stdout or out,
                                     stderr=out, start_new_session=True)
        self.children.append(child)
        return child

    def stop(self, child):
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child in self.children:
            self.children.remove(child)

    def close(self):
        for child in list(self.children):
            self.stop(child)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.prefix + name], stderr=subprocess.DEVNULL)
        self.names = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Neighbourhood(Space):
    """Routers with a line each; `links` in Mbit/s towards the router, `rtts` in ms."""

    def __init__(self, links, rtts, delay_program, logs):
        self.links, self.rtts = list(links), list(rtts)
        self.delay_program, self.logs = delay_program, logs
        self.routers = range(1, len(links) + 1)
        super().__init__(["origin", "modem", "air", "client"] + [f"r{i}" for i in self.routers])
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self):
        self.ip("origin", "addr", "add", f"{ORIGIN}/32", "dev", "lo")
        self.ip("air", "link", "add", "bridge", "type", "bridge")
        self.ip("air", "link", "set", "bridge", "up")
        for i in self.routers:
            router = f"r{i}"
            self.cable("origin", f"line{i}", "modem", f"in{i}")
            self.cable("modem", f"out{i}", router, "wan")
            self.address("origin", f"line{i}", f"10.1.{i}.1")
            self.address(router, "wan", f"10.1.{i}.2")
            self.ip(router, "route", "add", "default", "via", f"10.1.{i}.1", "congctl", CONGESTION)
            self.rate(i, self.links[i - 1])
            self.join(i, self.rtts[i - 1])
            self.cable("air", f"port{i}", router, "air")
            self.ip("air", "link", "set", f"port{i}", "master", "bridge")
            self.address(router, "air", f"10.77.0.{i}")
            self.shape("air", f"port{i}", AIR_MBITS)
            self.shape(router, "air", AIR_MBITS)
        self.cable("r1", "lan", "client", "eth")
        self.address("r1", "lan", LAN)
        self.address("client", "eth", "192.168.1.2")
        self.ip("client", "route", "add", "default", "via", LAN, "congctl", CONGESTION)
        self.ip("origin", "route", "add", "192.168.1.0/24", "via", "10.1.1.2", "src", ORIGIN, "congctl", CONGESTION)

    def cable(self, one, its, other, others):
        self.ip(one, "link", "add", its, "type", "veth", "peer", "name", others, "netns", self.prefix + other)
        for name, interface in ((one, its), (other, others)):
            # Real frames, as long as they are on a line.
            self.run(name, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            self.ip(name, "link", "set", interface, "up")

    def address(self, name, interface, address):
        self.ip(name, "addr", "replace", f"{address}/24", "dev", interface)
        network = address.rsplit(".", 1)[0] + ".0/24"
        source = ORIGIN if name == "origin" else address
        self.ip(name, "route", "replace", network, "dev", interface, "proto", "kernel", "scope", "link",
                "src", source, "congctl", CONGESTION)

    def shape(self, name, interface, mbits):
        """What this interface sends; nothing at all for 0, which the other end can't see."""
        how = ["pfifo", "limit", "0"]
        if mbits > 0:
            burst = "65536" if mbits >= 40 else "16384"
            how = ["tbf", "rate", f"{int(mbits * 1e6)}bit", "burst", burst, "latency", f"{QUEUE_MS}ms"]
        self.run(name, "tc", "qdisc", "replace", "dev", interface, "root", *how)

    def rate(self, i, mbits):
        self.shape("modem", f"out{i}", mbits)
        self.shape("modem", f"in{i}", UP_MBITS if mbits else 0)

    def join(self, i, rtt):
        """Connects both ends of a line in the modem, by a bridge or by the program that takes its time."""
        if rtt:
            starter = [sys.executable, os.path.join(os.path.dirname(__file__), "delay.py")]
            argv = [*starter, f"in{i}", f"out{i}", self.delay_program, str(rtt / 2)]
            self.start("modem", argv, f"{self.logs}/delay{i}.log")
            return
        self.ip("modem", "link", "add", f"line{i}", "type", "bridge")
        self.ip("modem", "link", "set", f"line{i}", "up")
        for interface in (f"in{i}", f"out{i}"):
            self.ip("modem", "link", "set", interface, "master", f"line{i}")

    def happen(self, i, what):
        """`down`: the router sees its line go; `up`: it is back; a number: what the line carries from now on, in
        Mbit/s (0: packets vanish and nobody is told)."""
        if what == "down":
            self.ip(f"r{i}", "link", "set", "wan", "down")
        elif what == "up":
            self.ip(f"r{i}", "link", "set", "wan", "up")
            self.address(f"r{i}", "wan", f"10.1.{i}.2")
            self.ip(f"r{i}", "route", "replace", "default", "via", f"10.1.{i}.1", "congctl", CONGESTION)
        else:
            self.rate(i, what)

    def carried(self):
        """Bytes of frames that each line has brought its router so far."""
        told = (self.ip(f"r{i}", "-s", "-j", "link", "show", "wan") for i in self.routers)
        return [json.loads(one)[0]["stats64"]["rx"]["bytes"] for one in told]

    def mend(self):
        """Every line as it was."""
        for i in self.routers:
            self.happen(i, "up")
            self.rate(i, self.links[i - 1])


def check_kernel():
    """Tries what the neighbourhood needs of the kernel, so that what is missing is said at once."""
    if os.geteuid() != 0:
        raise Missing("needs root, for network namespaces (all traffic stays in them)")
    needs = {
        "network namespaces and veth": lambda space: space.ip(
            "a", "link", "add", "one", "type", "veth", "peer", "name", "two", "netns", space.prefix + "b"),
        "bridges": lambda space: space.ip("a", "link", "add", "bridge", "type", "bridge"),
        "the tbf queue": lambda space: space.run(
            "a", *"tc qdisc replace dev one root handle 1: tbf rate 1mbit burst 16384 latency 100ms".split()),
        f"{CONGESTION} per route": lambda space: space.ip(
            "a", *f"route add 10.9.0.0/24 dev lo congctl {CONGESTION}".split()),
    }
    with Space(["a", "b"]) as space:
        for what, attempt in needs.items():
            try:
                attempt(space)
            except Missing as error:
                raise Missing(f"this kernel lacks {what}: {error}") from error
