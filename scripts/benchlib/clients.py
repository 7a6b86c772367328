"""One download, watched from where the client is: when its bytes come and whether they are the right ones."""

import os
import subprocess
import threading
import time

PATIENCE = 240  # seconds for one download
STANDSTILL = 30  # seconds without a byte after which it is given up
PIECE = 1 << 20


class Download:
    """What came of one download. Times are in seconds from just before the client was started."""

    def __init__(self):
        self.seconds = None
        self.first_byte = None
        self.right = False
        self.complaint = ""
        self.arrivals = []  # (time, bytes so far), for a client that delivers in order

    def standstill(self, after):
        """Longest time in which nothing came, from `after` on."""
        times = [after] + [at for at, _ in self.arrivals if at > after]
        return max((later - sooner for sooner, later in zip(times, times[1:])), default=None)

    def progress(self, every=0.1):
        """How many bytes had come after each tenth of a second."""
        steps, i, so_far = [], 0, 0
        while self.arrivals and i < len(self.arrivals):
            while i < len(self.arrivals) and self.arrivals[i][0] <= (len(steps) + 1) * every:
                so_far = self.arrivals[i][1]
                i += 1
            steps.append(so_far)
        return steps

    def goodput(self, after):
        """Bytes per second from `after` to the end; `None` if it was over by then."""
        before = max((so_far for at, so_far in self.arrivals if at <= after), default=0)
        if not self.arrivals or self.arrivals[-1][0] <= after:
            return None
        last, whole = self.arrivals[-1]
        return (whole - before) / (last - after)


def curl(space, node, url, content, proxy=None, extra=(), began=None):
    """Downloads with curl and compares the stream with `content` as it comes."""
    result, piece = Download(), None
    argv = ["curl", "-sSf", "--noproxy", "", "--max-time", str(PATIENCE), "--speed-limit", "1", "--speed-time",
            str(STANDSTILL), "-o", "-", "-w", "%{stderr}first %{time_starttransfer}\n", *extra,
            *(["-x", proxy] if proxy else []), url]
    start = time.monotonic()
    if began:
        began(start)
    child = subprocess.Popen(space.inside(node, *argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, pipesize=PIECE)
    came, right = 0, True
    while piece := os.read(child.stdout.fileno(), PIECE):
        right = right and piece == content[came:came + len(piece)]
        came += len(piece)
        result.arrivals.append((time.monotonic() - start, came))
    told = child.stderr.read().decode()
    child.wait()
    child.stdout.close()
    child.stderr.close()
    result.seconds = time.monotonic() - start
    result.right = right and came == len(content) and child.returncode == 0
    for line in told.splitlines():
        if line.startswith("first "):
            result.first_byte = float(line.split()[1])
        else:
            result.complaint = line
    if not result.right and not result.complaint:
        result.complaint = f"{came} bytes of {len(content)}" + ("" if right else ", and wrong ones")
    return result


def several_curls(count, *arguments, **options):
    """The same download by several clients at once: as one, over when the last is."""
    results = [None] * count

    def one(i):
        results[i] = curl(*arguments, **options)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slowest = max(results, key=lambda result: result.seconds)
    slowest.right = all(result.right for result in results)
    slowest.first_byte = max((result.first_byte or 0) for result in results)
    slowest.complaint = next((result.complaint for result in results if result.complaint), "")
    slowest.arrivals = []  # of one client only: says nothing about all
    return slowest


def aria2(space, node, url, content, folder, proxy, connections, began=None):
    """Downloads with aria2c over many connections, in any order, into a file."""
    result, file = Download(), f"{folder}/aria2-file"
    for old in (file, file + ".aria2"):
        if os.path.exists(old):
            os.remove(old)
    argv = ["aria2c", "-q", "--no-conf", "--file-allocation=none", "-d", folder, "-o", "aria2-file", "-k", "1M",
            "-x", str(connections), "-s", str(connections), f"--all-proxy={proxy}", url]
    start = time.monotonic()
    if began:
        began(start)
    try:
        done = subprocess.run(space.inside(node, *argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PATIENCE)
        result.complaint = "" if done.returncode == 0 else f"aria2c ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        result.complaint = f"not done after {PATIENCE} s"
    result.seconds = time.monotonic() - start
    if os.path.exists(file):
        with open(file, "rb") as came:
            result.right = not result.complaint and came.read() == content
        os.remove(file)
    return result
