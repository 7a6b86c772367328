# Tests of the Makefile: what it installs, with OpenWrt's rules and the feed's rust-package.mk replaced by a few lines.
set -euo pipefail
fail() {
  echo "package.sh: $*" >&2
  exit 1
}

rm -rf "$root"
build=$root/openwrt image=$root/image
mkdir -p "$build/include" "$build/feeds/packages/lang/rust" "$build/bin"
cp "$bamqp" "$build/bin/bamqp"
cat >"$build/rules.mk" <<MAKE
INCLUDE_DIR:=$build/include
PKG_BUILD_DIR:=$build/build_dir/bamqp
PKG_INSTALL_DIR:=$build
CP:=cp -a
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
MAKE
cat >"$build/include/package.mk" <<'MAKE'
define BuildPackage
install:
	$(call Package/$(1)/install,$(IMAGE))
prepare:
	$(Build/Prepare)
show:
	@echo '$(PKG_NAME) $(PKG_VERSION) $(MAKE_PATH) $(CARGO_PKG_PROFILE) $(PKG_LICENSE)'
endef
MAKE
printf 'CARGO_PKG_PROFILE:=release\ndefine RustBinPackage\nendef\n' >"$build/feeds/packages/lang/rust/rust-package.mk"
make_package() { make -s -C "$package" TOPDIR="$build" IMAGE="$image" "$@"; }

# The version is that of the program.
[ "$(make_package show)" = "$("$bamqp" --version) router router MIT" ] || fail "$(make_package show): another version"

make_package install
(cd "$image" && find . -type f -printf '%m %p\n' | sort -k 2) >"$root/installed"
diff - "$root/installed" <<'FILES' || fail "other files are installed"
644 ./etc/capabilities/bamqp.json
600 ./etc/config/bamqp
755 ./etc/hotplug.d/ntp/25-bamqp
755 ./etc/init.d/bamqp
755 ./etc/uci-defaults/80-bamqp
644 ./lib/upgrade/keep.d/bamqp
755 ./usr/bin/bamqp
755 ./usr/libexec/rpcd/bamqp
644 ./usr/share/nftables.d/chain-pre/dstnat_lan/bamqp-refused.nft
644 ./usr/share/nftables.d/table-pre/bamqp-refused.nft
644 ./usr/share/rpcd/acl.d/bamqp.json
FILES
for json in etc/capabilities/bamqp.json usr/share/rpcd/acl.d/bamqp.json; do
  python3 -m json.tool "$image/$json" >/dev/null || fail "$json: no JSON"
done
# No capability, and none that could come back.
python3 - "$image/etc/capabilities/bamqp.json" <<'PYTHON' || fail "the daemon keeps a capability"
import json, sys
sets = json.load(open(sys.argv[1]))
sys.exit(sets != {name: [] for name in ("bounding", "effective", "ambient", "permitted", "inheritable")})
PYTHON
grep -qx "$(sed -n 's/^HOME_DIR=//p' "$package/files/bamqp.init")/" "$image/lib/upgrade/keep.d/bamqp" ||
  fail "an upgrade loses the key"

# All that cargo needs is copied, and nothing of what it made here: no target/ of any size.
make_package prepare
(cd "$build/build_dir/bamqp" && cargo metadata --locked --offline --no-deps --format-version 1 >/dev/null) ||
  fail "the copied sources are no workspace"

# The feed's own test, with the program in reach.
sed "s|/tmp/|$root/|g; s|/etc/|$image/etc/|g; s|/usr/libexec|$image/usr/libexec|" "$package/test.sh" >"$root/test.sh"
version=$(sed -n 's/^PKG_VERSION:=//p' "$package/Makefile")
PATH=$image/usr/bin:$PATH busybox ash "$root/test.sh" bamqp "$version" || fail "test.sh fails"
if PATH=$image/usr/bin:$PATH busybox ash "$root/test.sh" bamqp 9.9 2>/dev/null; then
  fail "test.sh takes any version"
fi
