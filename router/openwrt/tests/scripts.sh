# Tests of the small scripts: uci-defaults, the ntp hook. Run by `run` under busybox ash.
#
# shellcheck shell=dash disable=SC3043 # ash has local

fail() {
	echo "scripts.sh: $*" >&2
	exit 1
}

# Runs one of the package's files with its paths below $root.
run() { # FILE
	sed "s|/etc/config/bamqp|$root/config|; s|/var/run|$root/var/run|g" "$package/files/$1" >"$root/script"
	(
		set +eu
		# shellcheck disable=SC2317 # the script calls it
		uci() { echo "$lan"; }
		. "$root/script"
	)
}

rm -rf "$root"
mkdir -p "$root"

for lan in '' 192.168.1.1 '192.168.1.1/24' 'fd00::1/64'; do
	cp "$package/files/bamqp.config" "$root/config"
	run bamqp.defaults
	cmp "$package/files/bamqp.config" "$root/config" || fail "LAN address '$lan': the configuration was changed"
done
for lan in 10.1.2.1 '10.1.2.1/24 10.1.3.1/24'; do
	cp "$package/files/bamqp.config" "$root/config"
	run bamqp.defaults
	grep -q "option listen '10.1.2.1:3128'" "$root/config" || fail "LAN address '$lan': listens elsewhere"
	grep -q "what is illegal" "$root/config" || fail "the text on what taking part means is gone"
	"$bamqp" check --config "$root/config" || fail "LAN address '$lan': a bad configuration"
done

flag="$root/var/run/bamqp/clock-is-set"
for ACTION in periodic unsync step; do
	run bamqp.ntp
	[ ! -e "$flag" ] || fail "ACTION=$ACTION: the clock is not set"
done
ACTION=stratum
run bamqp.ntp
[ -e "$flag" ] || fail "ACTION=$ACTION: the clock is set"
run bamqp.ntp # again: every few minutes
