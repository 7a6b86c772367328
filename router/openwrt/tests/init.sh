# Tests of files/bamqp.init: what procd is told for which configuration, and above all what it is not told. Run by `run`
# under busybox ash with the folder to test in ($root), the package's folder ($package) and a real bamqp ($bamqp).
#
# shellcheck shell=dash disable=SC3043 # ash has local

fail() {
	echo "init.sh: $test: $*" >&2
	[ ! -e "$root/calls" ] || sed 's/^/    /' "$root/calls" >&2
	exit 1
}

# A new router: the script with its paths below $root, the daemon's program, and CONFIG.
fresh() { # TEST CONFIG
	test="$1"
	rm -rf "$root"
	mkdir -p "$root/etc/config" "$root/usr/bin" "$root/var/run"
	ln -s "$bamqp" "$root/usr/bin/bamqp"
	sed "s|^\([A-Z_]*\)=/|\1=$root/|" "$package/files/bamqp.init" >"$root/script"
	printf '%s\n' "$2" >"$root/etc/config/bamqp"
	: >"$root/calls"
}

# Runs an action as rc.common does, in a process of its own; its exit code is in $code.
run() { # ACTION
	code=0
	(
		set +eu # OpenWrt's shell has neither
		. "$package/tests/stub.sh"
		. "$root/script"
		"$1"
	) >"$root/out" 2>&1 || code=$?
}

# Asserts that PYTHON is true of what procd was told; `bamqp` is the instance.
told() { # PYTHON
	python3 - "$root" "$1" <<-'PYTHON' || fail "procd was told $(cat "$root/procd.json"), not: $1"
		import json, sys
		root, expression = sys.argv[1:]
		service = json.loads(open(root + "/procd.json").read())
		bamqp = service["instances"].get("bamqp")
		firewall = (bamqp or {}).get("data", {}).get("firewall")
		sys.exit(not eval(expression))
	PYTHON
}
called() { grep -qF -e "$1" "$root/calls" || fail "expected the call: $1"; }
not_called() { ! grep -qF -e "$1" "$root/calls" || fail "unexpected call: $1"; }
edit() { # SED: changes the configuration, as uci commit would: a new file under the old name
	sed "$1" "$root/etc/config/bamqp" >"$root/edited"
	mv "$root/edited" "$root/etc/config/bamqp"
}

main="config bamqp 'main'
	option enabled '1'
	option state_dir '$root/etc/bamqp'
	option key '$root/etc/bamqp/key'
	option listen '192.168.1.1:3128'"

fresh "the example is switched off" "$(cat "$package/files/bamqp.config")"
run start
[ $code = 0 ] || fail "exit code $code: $(cat "$root/out")"
told 'service["instances"] == {} and service["triggers"] == [["config.change", "bamqp", "reload"]]'

fresh "the time of the day is the owner's" "$main"
echo 'CET-1CEST,M3.5.0,M10.5.0/3' >"$root/etc/TZ"
run start
told 'bamqp["env"] == {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}'

fresh "a daemon as it should be" "$main"
run start
[ $code = 0 ] || fail "exit code $code: $(cat "$root/out")"
told 'bamqp["command"] == [root + "/usr/bin/bamqp", "run", "--config", root + "/var/run/bamqp/config"]'
told 'bamqp["respawn"] == ["3600", "15", "0"]'
told 'bamqp["stdout"] and bamqp["stderr"] and bamqp["no_new_privs"]'
told 'bamqp["user"] == bamqp["group"] == "bamqp"'
told 'bamqp["limits"] == {"core": "0", "nofile": "4096 4096"}'
told 'bamqp["capabilities"] == root + "/etc/capabilities/bamqp.json"'
told 'bamqp["jail"]["mount"] == {"/etc/hosts": "0", root + "/var/run/bamqp": "0", root + "/etc/bamqp": "1"}'
told '"data" not in bamqp'
told 'service["triggers"][1] == ["interface.*.up", "3000", "/etc/init.d/bamqp", "start"]'
cmp "$root/etc/config/bamqp" "$root/var/run/bamqp/config" || fail "the daemon gets another configuration"
[ -d "$root/etc/bamqp" ] || fail "no state_dir"
called "chown bamqp:bamqp $root/etc/bamqp"
called "chown root:bamqp $root/var/run/bamqp/config.new"

# Went on from here: it runs.
test="a bad configuration leaves a running daemon alone"
edit "s/192.168.1.1:3128/192.168.1.1/"
for action in start reload; do
	: >"$root/calls"
	run $action
	[ $code = 1 ] || fail "$action: exit code $code"
	not_called "procd set"
	not_called "signal"
	called "/etc/config/bamqp:5: listen '192.168.1.1': expected an address and a port"
	called "going on with the configuration that was in force"
	grep -q 192.168.1.1:3128 "$root/var/run/bamqp/config" || fail "a respawned daemon would get the bad one"
done

test="a mended configuration reaches the daemon by SIGHUP"
edit "s/'192.168.1.1'/'192.168.1.1:3127'/"
: >"$root/calls"
run reload
[ $code = 0 ] || fail "exit code $code: $(cat "$root/out")"
called "procd set"
called "signal bamqp bamqp HUP"
grep -q 3127 "$root/var/run/bamqp/config" || fail "the daemon does not get it"

test="other directories take a restart, which is procd's"
edit "s|'$root/etc/bamqp'|'$root/mnt/state'|"
: >"$root/calls"
run reload
told 'bamqp["jail"]["mount"][root + "/mnt/state"] == "1"'
not_called "signal"

test="switched off, it is stopped"
edit "s/enabled '1'/enabled '0'/"
: >"$root/calls"
run reload
[ $code = 0 ] || fail "exit code $code"
told 'service["instances"] == {}'
not_called "signal"

test="switched on, it is started, and not killed by a signal for which it is not ready"
edit "s/enabled '0'/enabled '1'/"
: >"$root/calls"
run reload
told 'bamqp is not None'
not_called "signal"

fresh "a bad configuration at boot is waited for" "$(echo "$main" | sed s/listen/lisen/)"
run boot
told 'service["instances"] == {} and service["triggers"][0] == ["config.change", "bamqp", "reload"]'
called "unknown option lisen"
edit "s/lisen/listen/"
run reload
told 'bamqp is not None'

fresh "a section without a name" "$(echo "$main" | sed "s/ 'main'//")"
run start
told 'bamqp is not None'

fresh "directories in several places" "$main
	option log_dir '$root/mnt/log'"
run start
told 'bamqp["jail"]["mount"][root + "/mnt/log"] == "1" and bamqp["jail"]["mount"][root + "/etc/bamqp"] == "1"'

fresh "the system's directories are not given away" "$main
	option log_dir '$root/etc'"
echo "$root/etc" >"$root/foreign"
run start
told 'service["instances"] == {}'
called "$root/etc belongs to somebody else"
not_called "chown -hR"
[ ! -e "$root/var/run/bamqp/config" ] || fail "it is in force"
: >"$root/running"
run reload
[ $code = 1 ] || fail "exit code $code"
[ -e "$root/running" ] || fail "a running daemon was stopped"

for dir in "$root/etc/bamqp/../config" "$root/etc/bamqp/my disk"; do
	fresh "no directory like $dir" "$main
	option log_dir '$dir'"
	run start
	told 'service["instances"] == {}'
	called "$dir: expected a directory"
	not_called "chown bamqp:bamqp"
done

fresh "a key that root made is given to the daemon" "$main"
mkdir -p "$root/etc/bamqp"
echo "$root/etc/bamqp" >"$root/foreign"
run start
called "chown -hR bamqp:bamqp $root/etc/bamqp"
told 'bamqp is not None'

fresh "it is published where neighbours connect, with the key's fingerprint" "$main
	option peer_listen '10.77.0.1:7734'"
run start
told '"data" not in bamqp' # no key yet
"$bamqp" keygen --key "$root/etc/bamqp/key" >/dev/null
fingerprint="$("$bamqp" key --key "$root/etc/bamqp/key" | awk '$1 == "fingerprint" { print $2 }')"
[ ${#fingerprint} = 32 ] || fail "no fingerprint: $fingerprint"
run start
told 'bamqp["data"] == {"mdns": {"bamqp_7734": {"service": "_bamqp._tcp.local", "port": 7734, "txt": ["key='"$fingerprint"'"]}}}'
test="with the firewall's rules in the same data"
edit "s/option listen/option transparent '1'\n\toption listen/"
run start
told 'set(bamqp["data"]) == {"mdns", "firewall"} and len(firewall) == 4'
test="switched off, it is not published"
edit "s/option listen/option discover '0'\n\toption listen/"
run start
told 'set(bamqp["data"]) == {"firewall"}'

# Whether these options are all right, too, is for the daemon to say; here it says yes.
bamqp=/bin/true
transparent="$main
	option transparent '1'"
fresh "port 80 is redirected, as the instance's data" "$transparent"
: >"$root/network"
run start
told '[rule["type"] for rule in firewall] == ["ipset", "redirect"] * 2'
told '[rule["family"] for rule in firewall] == ["ipv4"] * 2 + ["ipv6"] * 2'
told 'all(rule["ipset"] == "!" + name["name"] for name, rule in zip(firewall[::2], firewall[1::2]))'
told 'all(rule["src"] == "lan" and rule["src_dport"] == "80" for rule in firewall[1::2])'
told 'all(rule["dest_port"] == "3129" and "dest_ip" not in rule for rule in firewall[1::2])'
told 'all(rule["proto"] == "tcp" and rule["target"] == "DNAT" for rule in firewall[1::2])'
told 'all(rule["match"] == ["dest_net"] for rule in firewall[::2])'
# Nothing local: private ranges, the router's own addresses, the LAN's own prefix.
told '{"192.168.0.0/16", "127.0.0.0/8", "198.51.100.7"} <= set(firewall[0]["entry"])'
told '{"fc00::/7", "fe80::/10", "2001:db8::7", "2001:db8:1::/64"} <= set(firewall[2]["entry"])'
cp "$root/procd.json" "$root.firewall.json" # firewall.sh tries it

test="switched off, the redirect is gone"
edit "s/transparent '1'/transparent '0'/"
run reload
told '"data" not in bamqp'

fresh "other places to listen" "$transparent
	list transparent_listen '192.168.1.1:8081'"
run start
told 'len(firewall) == 2 and firewall[1]["dest_ip"] == "192.168.1.1" and firewall[1]["dest_port"] == "8081"'
fresh "IPv6 only" "$transparent
	list transparent_listen '[fd00::1]:8082'"
run start
told 'len(firewall) == 2 and firewall[1]["dest_ip"] == "fd00::1" and firewall[1]["dest_port"] == "8082"'
