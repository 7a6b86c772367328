# Tests of the rpcd plugin: against a running daemon, without one, and with a configuration that is being edited. Run by
# `run` under busybox ash.
#
# shellcheck shell=dash disable=SC3043 # ash has local

daemon=
finish() {
	[ -z "$daemon" ] || kill "$daemon"
	wait
}
trap finish EXIT
fail() {
	echo "plugin.sh: $*" >&2
	exit 1
}

rm -rf "$root"
mkdir -p "$root/etc/config" "$root/usr/bin" "$root/var/run/bamqp"
ln -s "$bamqp" "$root/usr/bin/bamqp"
sed "s|=/|=$root/|" "$package/files/bamqp.rpcd" >"$root/plugin"
plugin() { echo '{}' | busybox ash "$root/plugin" "$@"; }

# The answer's value for PYTHON, where `answer` is what rpcd would read.
expect() { # PYTHON ARGUMENT...
	local python="$1"
	shift
	plugin "$@" >"$root/answer"
	python3 -c "import json, sys; answer = json.load(open(sys.argv[1])); sys.exit(not ($python))" "$root/answer" ||
		fail "$*: not $python: $(cat "$root/answer")"
}

cat >"$root/etc/config/bamqp" <<CONFIG
config bamqp 'main'
	option listen '127.0.0.1:0'
	option peer_listen '127.0.0.1:0'
	option state_dir '$root/state'
	option key '$root/state/key'
config peer 'B'
	option address '127.0.0.1:9'
	option public_key 'YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU='
CONFIG

expect 'answer == {"status": {}, "peers": {}, "trust": {}}' list
for method in status peers trust; do
	expect '"no daemon answers" in answer["error"]' call $method
done
plugin call forget 2>/dev/null && fail "call forget: expected an error"

"$bamqp" run --config "$root/etc/config/bamqp" 2>"$root/messages" &
daemon=$!
tries=0
until [ -S "$root/state/control" ]; do
	tries=$((tries + 1))
	[ $tries -lt 300 ] || fail "the daemon does not start: $(cat "$root/messages")"
	sleep 0.1
done
expect 'answer["router"]["peers"] == 1' call status
expect 'answer["peers"][0]["peer"] == "B"' call peers
expect 'answer["trust"][0]["standing"] == "newcomer"' call trust
# A running daemon has peers whose numbers change: only the shape can be compared.
"$bamqp" trust --json --config "$root/etc/config/bamqp" >"$root/direct"
plugin call trust | cmp "$root/direct" || fail "call trust: not what bamqp trust --json says"

# What is in force counts, not what is being edited.
cp "$root/etc/config/bamqp" "$root/var/run/bamqp/config"
echo "half a \"line" >>"$root/etc/config/bamqp"
expect '"router" in answer' call status
rm "$root/var/run/bamqp/config"
expect '"expected" in answer["error"]' call status
