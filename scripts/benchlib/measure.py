"""Runs one scenario: builds its neighbourhood, fetches the file over each way as often as asked, in turn, and keeps
what was seen. Not responsible for how that is shown (table.py)."""

import os
import statistics
import sys
import threading
import time

from . import clients
from .bed import Missing, Neighbourhood, Space
from .programs import BALANCER, PLAIN, PROXY_PORT, SPLICED as SPLICED_PORT, TINY as TINY_PORT
from .programs import Programs, cpu_seconds, forget_peak, peak_bytes, sent_again
from .scenarios import ARIA, HAPROXY, MIB, NEW, OWN, PAYLOAD, POOLED, RELAYED, SPLICED, TINY

GIB = 1 << 30
SETTLE = 2.0  # seconds after the last event, or the start, from which "afterwards" counts
SMALL_RUNS = 5  # of each size, for each of the runs asked for


class Stage:
    """The network and the programs of one or more scenarios that need the same."""

    def __init__(self, scenario, tools, at):
        self.key = stage_key(scenario)
        self.content = tools.content
        os.makedirs(at, exist_ok=True)
        self.at = at
        if scenario.links:
            self.space = Neighbourhood(scenario.links, scenario.delays(), tools.delay, at)
        else:
            self.space = Space(["all"])
        peers = len(scenario.links) - 1 if scenario.links else 3
        try:
            ours = (tools.bamqp, scenario.window, scenario.sessions())
            self.programs = Programs(self.space, at, ours, peers, not scenario.links)
            self.alone = Programs(self.space, f"{at}/alone", ours, 0, not scenario.links)
            self.nginx = self.programs.nginx(tools.www)
        except BaseException:
            self.space.close()
            raise

    def close(self):
        self.space.close()


def stage_key(scenario):
    return scenario.links, scenario.delays(), scenario.window, scenario.sessions()


def idle_time():
    """Seconds that this machine's processors had nothing to do, and all there were."""
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def prepare(stage, scenario, way):
    """What runs on the coordinator for this way: (processes, the client's proxy, address of the origin)."""
    programs, origin = stage.programs, stage.programs.origin
    lan = programs.lan(1)

    def warm_up():
        size = 8 * MIB if scenario.links else scenario.size
        url, content = f"http://{origin}/file{size}", stage.content[:size]
        seen = clients.curl(stage.space, node(stage), url, content, f"http://{lan}:{PROXY_PORT}")
        if not seen.right:
            print(f"a download to warm up failed: {seen.complaint}", file=sys.stderr)
    if way in (POOLED, NEW):
        again = bool(scenario.events) or way == NEW
        daemon = programs.routers("clean" if way == POOLED else "new", again, warm_up)
        return [daemon], f"http://{lan}:{PROXY_PORT}", origin
    # What is left of the other daemons would share the ports.
    if way == RELAYED:
        programs.stop_daemons()
        programs.record = None
        return [stage.alone.routers("new", False, None)], f"http://{lan}:{PROXY_PORT}", origin
    if way == ARIA:
        return programs.balancer(), f"http://{lan}:{BALANCER}", origin
    if way == TINY:
        return [programs.tinyproxy(1)], f"http://{programs.air(1)}:{TINY_PORT}", origin
    if way in (HAPROXY, SPLICED):
        port, options = (SPLICED_PORT, ["splice-response"]) if way == SPLICED else (PLAIN, [])
        name = "haproxy-splice" if way == SPLICED else "haproxy"
        return [programs.haproxy(name, port, [(f"{origin}:80", 1)], options)], None, f"{lan}:{port}"
    return [], None, origin


def node(stage):
    return "client" if "client" in stage.space.names else "all"


def one_run(stage, scenario, way):
    """One download, as a dictionary of what was seen."""
    if way != RELAYED and stage.alone.daemons:
        stage.alone.stop_daemons()
        stage.alone.record = None
    on_router, proxy, origin = prepare(stage, scenario, way)
    if way == ARIA and scenario.events:
        time.sleep(1)
    url = f"http://{origin}/{scenario.folder}file{scenario.size}"
    content = stage.content[:scenario.size]
    timers, failed = [], []

    def happen(router, what):
        try:
            stage.space.happen(router, what)
        except Missing as error:
            failed.append(error)

    def began(start):
        for at, router, what in scenario.events:
            timer = threading.Timer(start + at - time.monotonic(), happen, (router, what))
            timer.start()
            timers.append(timer)
    forget_peak(on_router)
    carried = stage.space.carried() if scenario.links else []
    cpu, idle, again = cpu_seconds(on_router), idle_time(), sent_again(stage.nginx)
    if way == ARIA:
        seen = clients.aria2(stage.space, node(stage), url, content, stage.at, proxy, 16, began)
    else:
        extra = ["--limit-rate", str(int(scenario.client_mbits * 125_000))] if scenario.client_mbits else []
        arguments = (stage.space, node(stage), url, content, proxy, extra)
        if scenario.clients > 1:
            seen = clients.several_curls(scenario.clients, *arguments)
        else:
            seen = clients.curl(*arguments, began)
    now = idle_time()
    spent = cpu_seconds(on_router) - cpu
    size = scenario.size * scenario.clients
    ideal = scenario.ideal(size, own_only=way not in (POOLED, NEW, ARIA)) if scenario.links else None
    whole = scenario.ideal(size) if scenario.links else None
    run = {
        "right": seen.right,
        "complaint": seen.complaint,
        "seconds": seen.seconds,
        "mbits": size * 8 / 1e6 / seen.seconds,
        "limit": whole / seen.seconds if whole else None,
        "own_limit": ideal / seen.seconds if ideal and way not in (POOLED, NEW, ARIA) else None,
        "first_byte": seen.first_byte,
        "cpu_per_gib": spent * GIB / size if on_router else None,
        "peak_bytes": peak_bytes(on_router) if on_router else None,
        "idle": (now[0] - idle[0]) / max(1, now[1] - idle[1]),
        "segments_sent_again": sent_again(stage.nginx) - again,
        "line_use": [(after - before) * 8 / 1e6 / seen.seconds / link
                     for before, after, link in zip(carried, stage.space.carried(), scenario.links)]
        if scenario.links else [],
        "standstill": None,
        "afterwards": None,
        "bytes_after_each_100_ms": seen.progress(),
    }
    if scenario.links and seen.arrivals and not scenario.client_mbits:
        first, last = (scenario.events[0][0], scenario.events[-1][0]) if scenario.events else (SETTLE, 0)
        run["standstill"] = seen.standstill(first)
        afterwards = seen.goodput(last + SETTLE)
        if afterwards is not None:
            run["afterwards"] = afterwards * 8 / 1e6 / (sum(scenario.rates(last)) * PAYLOAD)
    if way in (POOLED, NEW):
        run["session"] = stage.programs.last_session()
    for timer in timers:
        timer.cancel()
        timer.join()
    if failed:
        raise failed[0]
    if scenario.events:
        stage.space.mend()
    return run


def scenario_runs(stage, scenario, ways, runs, tell):
    """[(way, [run…])…]; the ways in turn, so that what disturbs the machine disturbs all of them."""
    found = {way: [] for way in ways}
    for k in range(runs):
        for way in ways:
            tell(f"{scenario.name}: {way}, {k + 1} of {runs}")
            run = one_run(stage, scenario, way)
            found[way].append(run)
            tell(f"    {run['seconds']:.2f} s"
                 + (f", {run['limit']:.3f} of the limit" if run["limit"] else "")
                 + ("" if run["right"] else f", WRONG: {run['complaint']}"))
    return list(found.items())


def small_runs(stage, scenario, runs, tell):
    """Small files through BAMQP and over the own link, in turn; one entry for each size and way."""
    _, proxy, origin = prepare(stage, scenario, POOLED)
    found = []
    for size in scenario.small:
        tell(f"{scenario.name}: {size >> 10} KiB, {runs * SMALL_RUNS} times")
        times = {OWN: [], POOLED: []}
        for _ in range(runs * SMALL_RUNS):
            for way in times:
                url, content = f"http://{origin}/file{size}", stage.content[:size]
                seen = clients.curl(stage.space, node(stage), url, content, proxy if way == POOLED else None)
                times[way].append(seen)
        own = statistics.median(seen.seconds for seen in times[OWN])
        for way, all_seen in times.items():
            seconds = statistics.median(seen.seconds for seen in all_seen)
            found.append((f"{way}, {size >> 10} KiB", [{
                "right": all(seen.right for seen in all_seen),
                "complaint": next((seen.complaint for seen in all_seen if seen.complaint), ""),
                "seconds": seconds,
                "mbits": size * 8 / 1e6 / seconds,
                "first_byte": statistics.median(seen.first_byte or 0 for seen in all_seen),
                "later": seconds - own if way == POOLED else None,
                "times": len(all_seen),
            }]))
    return found
