#!/bin/sh
# The packages feed's CI runs this where the package is installed, under qemu: test.sh PACKAGE VERSION.

[ "$1" = bamqp ] || exit 0

fail() {
	echo "test.sh: $*" >&2
	exit 1
}

[ "$(bamqp --version)" = "bamqp $2" ] || fail "bamqp --version is not bamqp $2: $(bamqp --version)"
bamqp check --config /etc/config/bamqp || fail "the configuration as shipped is not understood"
bamqp run --config /etc/config/bamqp 2>&1 | grep -q 'enabled is 0; nothing to do' || fail "it is shipped switched on"
[ "$(bamqp keygen --key /tmp/bamqp-test-key | wc -c)" = 45 ] || fail "keygen prints no key"
rm -f /tmp/bamqp-test-key
ls /etc/bamqp/key 2>/dev/null && fail "a key is shipped"
[ "$(/usr/libexec/rpcd/bamqp list)" = '{ "status": {}, "peers": {}, "trust": {} }' ] || fail "no rpcd plugin"
exit 0
