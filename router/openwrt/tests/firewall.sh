# The firewall's part of transparent mode, in network namespaces: a client, the router, a web server. The rules are what
# firewall4 makes of the data that the init script gave to procd ($root.firewall.json, by init.sh), around the package's
# own files. Needs root.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v nft >/dev/null || ! command -v ip >/dev/null; then
  echo "firewall.sh: needs root, nft and ip: not tested here"
  exit 0
fi
fail() {
  echo "firewall.sh: $*" >&2
  ip netns exec "$router" nft list ruleset >&2 || true
  exit 1
}

client=bamqp-c-$$ router=bamqp-r-$$ web=bamqp-w-$$
running=()
finish() {
  [ ${#running[@]} = 0 ] || kill "${running[@]}" 2>/dev/null || true
  wait
  for space in "$client" "$router" "$web"; do ip netns del "$space" 2>/dev/null || true; done
}
trap finish EXIT
for space in "$client" "$router" "$web"; do
  ip netns add "$space"
  ip -n "$space" link set lo up
done
link() { # NAMESPACE NAME PREFIX4 PREFIX6 N: the router is number N there, the other one 2
  ip -n "$router" link add "$2" type veth peer name eth0 netns "$1"
  ip -n "$router" addr add "$3.$5/24" dev "$2"
  ip -n "$router" addr add "$4::$5/64" dev "$2" nodad
  ip -n "$1" addr add "$3.2/24" dev eth0
  ip -n "$1" addr add "$4::2/64" dev eth0 nodad
  ip -n "$router" link set "$2" up
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via "$3.$5"
  ip -n "$1" -6 route add default via "$4::$5"
}
# The router's addresses are those that stub.sh tells the init script.
link "$client" br-lan 192.168.1 2001:db8:1 1
link "$web" wan 198.51.100 2001:db8 7
ip netns exec "$router" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

# Whoever answers says who it is.
serve() { # NAMESPACE PORT WHO
  ip netns exec "$1" python3 -c '
import http.server, socket, sys
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(sys.argv[2])))
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())
    def log_message(self, *_): pass
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Both(("::", int(sys.argv[1])), Who).serve_forever()' "$2" "$3" &
  running+=($!)
  served=$!
  for _ in $(seq 100); do
    ip netns exec "$1" curl -s -o /dev/null --max-time 5 "http://127.0.0.1:$2/" && return
    sleep 0.1
  done
  fail "nothing listens on port $2"
}
get() { ip netns exec "$client" curl -sS --noproxy '*' --max-time 5 "http://$1/" 2>&1 || true; }
answers() { # ADDRESS WHO
  local who
  who=$(get "$1")
  [ "$who" = "$2" ] || fail "$1: $who answers, not $2"
}
refused() { get "$1" | grep -q "Couldn't connect\|Failed to connect\|refused" || fail "$1: not refused"; }

python3 - "$package" "$root.firewall.json" >"$root.fw4.nft" <<'PYTHON'
import json, sys
package, data = sys.argv[1:]
sets, rules = [], []
for entry in json.load(open(data))["instances"]["bamqp"]["data"]["firewall"]:
    address = {"ipv4": "ip", "ipv6": "ip6"}[entry["family"]]
    if entry["type"] == "ipset":
        elements = ", ".join(entry["entry"])
        sets.append(f"set {entry['name']} {{ type {entry['family']}_addr; flags interval; auto-merge; elements = {{ {elements} }} }}")
    else:
        assert entry["target"] == "DNAT" and entry["src"] == "lan" and entry["ipset"][0] == "!"
        rules.append(f"{entry['proto']} dport {entry['src_dport']} {address} daddr != @{entry['ipset'][1:]}"
                     f" counter redirect to {entry['dest_port']}")
lines = "\n".join
print(f"""table inet fw4 {{
{lines(sets)}
include "{package}/files/bamqp-refused.table.nft"
chain dstnat {{ type nat hook prerouting priority dstnat; policy accept; iifname "br-lan" jump dstnat_lan; }}
chain dstnat_lan {{
include "{package}/files/bamqp-refused.dstnat_lan.nft"
{lines(rules)}
}}
}}""")
PYTHON
ip netns exec "$router" nft -f "$root.fw4.nft" || fail "nft does not take the rules"

serve "$web" 80 web
serve "$web" 8080 other-port
serve "$router" 80 router-page
serve "$router" 3129 daemon
daemon=$served
for web_address in 198.51.100.2 '[2001:db8::2]'; do
  answers "$web_address" daemon
done
answers 198.51.100.2:8080 other-port
# What is the router's own stays with it, at any of its addresses.
for own in 192.168.1.1 198.51.100.7 '[2001:db8:1::1]' '[2001:db8::7]'; do
  answers "$own" router-page
done

# The daemon dies: the connection that shows it is refused, those after it pass.
kill "$daemon"
wait "$daemon" 2>/dev/null || true
for web_address in 198.51.100.2 '[2001:db8::2]'; do
  refused "$web_address"
  answers "$web_address" web
  answers "$web_address" web
done
# It is back, and the minute is over.
serve "$router" 3129 daemon
answers 198.51.100.2 web
ip netns exec "$router" nft flush set inet fw4 bamqp_refused
answers 198.51.100.2 daemon
answers '[2001:db8::2]' daemon
# A connection to another port that is refused is nobody's death.
refused 192.168.1.1:81
answers 198.51.100.2 daemon
