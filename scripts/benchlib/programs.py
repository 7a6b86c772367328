"""The programs that are measured, and the origin: how each is configured and started, and what it costs. Not
responsible for the network (bed.py) nor for downloads (clients.py)."""

import json
import os
import shutil
import subprocess
import time

from .bed import LAN, ORIGIN, Missing

TICK = os.sysconf("SC_CLK_TCK")
PROXY_PORT, PEER_PORT = 3128, 7733
BALANCER, SPLICED, PLAIN, TINY = 3127, 3130, 3131, 8888
WARM_UPS = 8  # at most; three clean sessions make a record


def cpu_seconds(children):
    """User and system time of processes, all their threads, those that ended included."""
    total = 0
    for child in children:
        with open(f"/proc/{child.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def forget_peak(children):
    for child in children:
        with open(f"/proc/{child.pid}/clear_refs", "w") as refs:
            refs.write("5")


def peak_bytes(children):
    total = 0
    for child in children:
        with open(f"/proc/{child.pid}/status") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    return total


def sent_again(child):
    """Segments that TCP has sent again in the child's namespace."""
    with open(f"/proc/{child.pid}/net/snmp") as counters:
        names, values = [line.split() for line in counters if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


def listens(child, port, patience=10):
    """Waits until something in the child's namespace listens on a port."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if child.poll() is not None:
            raise Missing(f"{' '.join(child.args)}: ended at once; its log says why (--keep)")
        with open(f"/proc/{child.pid}/net/tcp") as sockets:
            lines = [line.split() for line in sockets][1:]
        if any(line[3] == "0A" and int(line[1].split(":")[1], 16) == port for line in lines):
            return child
        time.sleep(0.05)
    raise Missing(f"{' '.join(child.args)}: does not listen on port {port}; its log says why (--keep)")


class Programs:
    """What runs in one space, each started when it is first needed. `at` is the folder for all files; `ours` the
    bamqp binary, its window and how many downloads it pools at once."""

    def __init__(self, space, at, ours, peers, loopback=False):
        self.space, self.at = space, at
        self.bamqp, self.window, self.sessions = ours
        self.loopback = loopback
        self.count = peers + 1
        self.running = {}
        self.daemons = []
        self.record = None  # "clean" or "new": what the running coordinator knows of its peers
        os.makedirs(at, exist_ok=True)

    def heard_by(self, i):
        """The routers that are a router's peers: all others."""
        return [j for j in range(1, self.count + 1) if j != i]

    # Where things are.

    def node(self, i):
        return "all" if self.loopback else f"r{i}"

    def lan(self, i):
        return f"127.0.{i}.1" if self.loopback else LAN if i == 1 else f"10.77.0.{i}"

    def air(self, i):
        return f"127.0.{i}.1" if self.loopback else f"10.77.0.{i}"

    @property
    def origin(self):
        return "127.0.0.1" if self.loopback else ORIGIN

    def write(self, name, text):
        path = f"{self.at}/{name}"
        with open(path, "w") as file:
            file.write(text)
        return path

    def once(self, name, node, argv, port):
        if name not in self.running:
            self.running[name] = listens(self.space.start(node, argv, f"{self.at}/{name}.log"), port)
        return self.running[name]

    # What others have.

    def nginx(self, www):
        folders = " ".join(f"{kind}_temp_path {self.at}/nginx-{kind};"
                           for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = self.write("nginx.conf", f"""
daemon off; master_process off; pid {self.at}/nginx.pid; error_log {self.at}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  sendfile on; tcp_nopush on; keepalive_requests 100000; access_log off; {folders}
  server {{
    listen 80 backlog=1024; root {www};
    location /without-ranges/ {{ alias {www}/; max_ranges 0; }}
  }}
}}
""")
        node = "all" if self.loopback else "origin"
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        return self.once("nginx", node, [program, "-e", f"{self.at}/nginx-error.log", "-c", config], 80)

    def haproxy(self, name, port, servers, options=()):
        lines = ["global", " nbthread 1", "defaults", " mode tcp", " timeout connect 5s", " timeout client 60s",
                 " timeout server 60s", *(f" option {option}" for option in options), "listen all",
                 f" bind {self.lan(1)}:{port}", " balance leastconn"]
        lines += [f" server s{i} {address} weight {weight}" for i, (address, weight) in enumerate(servers)]
        config = self.write(f"{name}.cfg", "\n".join(lines) + "\n")
        return self.once(name, self.node(1), ["haproxy", "-db", "-f", config], port)

    def tinyproxy(self, i):
        config = self.write(f"tinyproxy{i}.conf", f"""
User nobody
Group nogroup
Port {TINY}
Listen {self.air(i)}
Timeout 600
MaxClients 200
LogLevel Error
DisableViaHeader Yes
""")
        return self.once(f"tinyproxy{i}", self.node(i), ["tinyproxy", "-d", "-c", config], TINY)

    def balancer(self):
        """A proxy on every router and a balancer in front, which knows how fast each link is."""
        proxies = [self.tinyproxy(i) for i in range(1, self.count + 1)]
        least = min(self.space.links)
        servers = [(f"{self.air(i)}:{TINY}", max(1, round(self.space.links[i - 1] / least * 4)))
                   for i in range(1, self.count + 1)]
        balancer = self.haproxy("balancer", BALANCER, servers, ["splice-auto"])
        return [balancer, proxies[0]]

    # Ours.

    def config(self, i, peers, public):
        text = f"""config bamqp 'main'
	option enabled '1'
	option listen '{self.lan(i)}:{PROXY_PORT}'
	option peer_listen '{self.air(i)}:{PEER_PORT}'
	option key '{self.at}/{i}/key'
	option state_dir '{self.at}/{i}'
	option log_dir '{self.at}/{i}/log'
	option window '{self.window}'
	option max_sessions '{self.sessions}'
	option max_peer_sessions '{max(8, self.sessions)}'
	list allow_private '10.0.0.0/24'
"""
        if self.loopback:
            text += f"\toption wan_address '{self.lan(i)}'\n\tlist allow_private '127.0.0.0/8'\n"
        for j in peers:
            text += f"""config peer 'R{j}'
	option address '{self.air(j)}:{PEER_PORT}'
	option public_key '{public[j]}'
"""
        return self.write(f"{i}/config", text)

    def start_daemons(self):
        numbers = list(range(1, self.count + 1))
        public = {}
        for i in numbers:
            os.makedirs(f"{self.at}/{i}", exist_ok=True)
            key = f"{self.at}/{i}/key"
            if not os.path.exists(key):
                made = subprocess.run([self.bamqp, "keygen", "--key", key], check=True, stdout=subprocess.PIPE)
                self.write(f"{i}/public", made.stdout.decode())
            with open(f"{self.at}/{i}/public") as file:
                public[i] = file.read().strip()
        for i in numbers:
            config = self.config(i, self.heard_by(i), public)
            argv = [self.bamqp, "run", "--config", config]
            self.daemons.append(self.space.start(self.node(i), argv, f"{self.at}/{i}/messages"))
        for daemon in self.daemons:
            listens(daemon, PEER_PORT)
        until = time.monotonic() + 20
        while self.ask("status")["router"]["usable_peers"] < len(self.heard_by(1)):
            if time.monotonic() > until:
                raise Missing("the peers do not answer the coordinator; the logs say why (--keep)")
            time.sleep(0.2)

    def stop_daemons(self):
        for daemon in self.daemons:
            self.space.stop(daemon)
        self.daemons = []

    def ask(self, what):
        """What the coordinator says about itself."""
        argv = [self.bamqp, what, "--json", "--config", f"{self.at}/1/config"]
        return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)

    def routers(self, record, again, warm_up):
        """The daemons, with a coordinator whose peers have a `clean` record or none (`new`). `again`: as after a
        fresh start, whatever happened before. `warm_up` downloads something. Returns the coordinator."""
        kept, trust = f"{self.at}/clean-record", f"{self.at}/1/trust"
        if self.record == record and record == "clean" and not again:
            return self.daemons[0]
        self.stop_daemons()
        if os.path.exists(trust):
            os.remove(trust)
        if record == "clean" and os.path.exists(kept):
            shutil.copy(kept, trust)
        self.start_daemons()
        self.record = record
        if record == "clean" and not os.path.exists(kept):
            for _ in range(WARM_UPS):
                if all(peer["standing"] == "trusted" for peer in self.ask("trust")["trust"]):
                    break
                warm_up()
            self.stop_daemons()  # which writes the record
            if os.path.exists(trust):
                shutil.copy(trust, kept)
            self.start_daemons()
        return self.daemons[0]

    def last_session(self):
        """The coordinator's own account of its last pooled download, with its lanes; `None` if there is none."""
        status = self.ask("status")
        if not status["sessions"]:
            return None
        session = status["sessions"][-1]
        lanes = [lane for lane in status["lanes"] if lane["session"] == session["session"]]
        return {**session, "lanes": lanes}
