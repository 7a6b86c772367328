"""What is measured: links, what happens to them, and over which ways the file is fetched."""

import re
from dataclasses import dataclass

MIB = 1 << 20
FOUR = (20, 15, 10, 5)
# Of an Ethernet frame of 1514 bytes 1448 are payload: what a perfect download over a shaped line gets.
PAYLOAD = 1448 / 1514

OWN, POOLED, NEW, RELAYED, ARIA = "own link", "bamqp", "bamqp, newcomers", "bamqp, relayed", "aria2c -x16"
HAPROXY, SPLICED, TINY = "haproxy", "haproxy, splice", "tinyproxy"
WAYS = {
    OWN: "curl over the own link alone",
    POOLED: "curl through BAMQP, whose peers have a clean record",
    NEW: "curl through BAMQP, started afresh: the peers are all newcomers",
    RELAYED: "curl through BAMQP without peers",
    ARIA: "aria2c with 16 connections over haproxy and a tinyproxy on every router (the client needs aria2c)",
    HAPROXY: "curl through haproxy, mode tcp",
    SPLICED: "curl through haproxy, mode tcp with splice-response",
    TINY: "curl through tinyproxy",
}


@dataclass(frozen=True)
class Scenario:
    name: str
    links: tuple = FOUR            # Mbit/s, the own link first; () for loopback without any
    rtts: tuple = (0,)             # ms; one for all, or one for each
    size: int = 64 * MIB
    window: str = "1M"
    ways: tuple = (OWN, POOLED)
    events: tuple = ()             # (seconds, router, what happens: see Neighbourhood.happen)
    folder: str = ""               # of the URL
    clients: int = 1
    client_mbits: float = 0        # the client reads no faster
    small: tuple = ()              # sizes of small files, each fetched often, instead of one of `size`
    quick: tuple = ()              # the ways that the default set has of it

    def sessions(self):
        """Pooled downloads at once that a router has to allow; what it allows by default, if that is enough."""
        return max(4, self.clients)

    def delays(self):
        return self.rtts * len(self.links) if len(self.rtts) == 1 else self.rtts

    def rates(self, seconds):
        """Mbit/s of every link at a time."""
        rates = list(self.links)
        for at, router, what in self.events:
            if at <= seconds:
                rates[router - 1] = {"down": 0, "up": self.links[router - 1]}.get(what, what)
        return rates

    def ideal(self, size, own_only=False):
        """Seconds that `size` bytes take if every link is used in full all the time."""
        left, now = size * 8 / 1e6 / PAYLOAD, 0.0
        for until in sorted({at for at, *_ in self.events if at > 0}) + [float("inf")]:
            rates = self.rates(now)
            rate = rates[0] if own_only else sum(rates)
            if self.client_mbits:
                rate = min(rate, self.client_mbits / PAYLOAD)
            if rate and left / rate <= until - now:
                return now + left / rate
            left, now = left - rate * (until - now), until
        return None


def scenarios():
    faults = {
        "dies": ((4, 3, "down"),),
        "silent": ((4, 3, 0),),
        "slow": ((4, 2, 1.5),),
        "back": ((2, 2, 0), (6, 2, 15)),
        "own-dies": ((4, 1, "down"),),
        "own-silent": ((4, 1, 0),),
    }
    all_ways, ours = (OWN, POOLED, NEW, ARIA), (POOLED, NEW)
    yield Scenario("four", ways=all_ways, quick=(POOLED, NEW, ARIA))
    yield Scenario("four-rtt40", rtts=(40,), ways=all_ways, quick=(POOLED, ARIA))
    yield Scenario("four-rtt100", rtts=(100,), window="4M", ways=all_ways)
    yield Scenario("four-rtt120", rtts=(120,), window="4M")
    yield Scenario("four-mixed", rtts=(20, 40, 100, 200), window="4M", ways=all_ways)
    yield Scenario("two", links=(20, 20))
    yield Scenario("four-equal", links=(12,) * 4, ways=ours)
    yield Scenario("eight-equal", links=(6,) * 8, window="2M", ways=ours)
    yield Scenario("1:4", links=(32, 8))
    yield Scenario("1:16", links=(32, 2))
    yield Scenario("40/2", links=(40, 2))
    yield Scenario("own-slowest", links=(5, 20, 15, 10), ways=ours)
    for name, events in faults.items():
        ways = (POOLED,) if name.startswith("own-") else (POOLED, ARIA)
        yield Scenario(name, events=events, ways=ways, quick=(POOLED,) if name == "silent" else ())
        yield Scenario(f"{name}-rtt40", events=events, rtts=(40,), ways=(POOLED,))
    yield Scenario("small", small=(1 << 10, 16 << 10, 64 << 10, 256 << 10, MIB), quick=(OWN, POOLED))
    yield Scenario("small-4M", small=(4 * MIB,))
    yield Scenario("small-rtt40", rtts=(40,), small=(1 << 10, 64 << 10, MIB, 4 * MIB))
    yield Scenario("no-ranges", size=16 * MIB, folder="without-ranges/")
    yield Scenario("two-clients", clients=2, size=32 * MIB)
    yield Scenario("slow-client", client_mbits=8, size=16 * MIB)
    for lanes in (2, 4, 8, 16, 32):
        yield Scenario(f"lanes-{lanes}", links=(48 / lanes,) * lanes, window="4M", ways=(POOLED,))
    for clients in (1, 4, 16, 32):
        yield Scenario(f"downloads-{clients}", clients=clients, size=64 * MIB // clients, ways=(POOLED,))
    relays = (RELAYED, SPLICED, HAPROXY, TINY)
    yield Scenario("50-relayed", links=(50,), size=32 * MIB, ways=(OWN, *relays), quick=(RELAYED, SPLICED, TINY))
    yield Scenario("loopback", links=(), size=256 * MIB, window="2M", ways=(OWN, POOLED, *relays),
                   quick=(POOLED, *relays))


def chosen(patterns, everything):
    """[(scenario, its ways)…] of those whose whole name one of the regular expressions matches; without any, the
    default set."""
    known = list(scenarios())
    for pattern in patterns:
        if not any(re.fullmatch(pattern, one.name) for one in known):
            raise ValueError(f"no scenario is called {pattern}; --list shows them")
    if patterns:
        return [(one, one.ways) for one in known if any(re.fullmatch(pattern, one.name) for pattern in patterns)]
    return [(one, one.ways if everything else one.quick) for one in known if everything or one.quick]
