# What OpenWrt gives to init scripts, as far as files/bamqp.init uses it: recorded instead of done. Sourced by init.sh
# under busybox ash, in a root directory ($root) of its own.
#
#   $root/procd.json   what procd was told by the last `set`: the service with its instances and triggers
#   $root/calls        everything else, a line each: signals, deletions, chown, complaints
#   $root/running      exists while procd has a running daemon
#
# shellcheck shell=dash disable=SC3043 # ash has local

record() { echo "$*" >>"$root/calls"; }

# --- JSON, as jshn.sh offers it: a text that grows, and whether the next value needs a comma.
json=
json_value() { # NAME VALUE
	case "$json" in
	*'{' | *'[') ;;
	*) json="$json," ;;
	esac
	case "$open" in
	o*) json="$json\"$1\":$2" ;;
	*) json="$json$2" ;;
	esac
}
json_text() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }
json_init() { json='{' open=o; }
json_add_object() { json_value "$1" '{' && open="o$open"; }
json_add_array() { json_value "$1" '[' && open="a$open"; }
json_close_object() { json="$json}" open="${open#o}"; }
json_close_array() { json="$json]" open="${open#a}"; }
json_add_string() { json_value "$1" "$(json_text "$2")"; }
json_add_int() { json_value "$1" "$2"; }
json_add_boolean() { if [ "$2" = 0 ]; then json_value "$1" false; else json_value "$1" true; fi; }
json_strings() { # NAME VALUE...
	json_add_array "$1"
	shift
	local value
	for value; do json_add_string '' "$value"; done
	json_close_array
}

# --- procd.sh
procd_open_instance() { json_add_object "$1"; }
procd_close_instance() {
	close_jail
	json_close_object
}
procd_set_param() {
	local name="$1" value
	shift
	case "$name" in
	command | respawn | file) json_strings "$name" "$@" ;;
	limits | env)
		json_add_object "$name"
		for value; do json_add_string "${value%%=*}" "${value#*=}"; done
		json_close_object
		;;
	stdout | stderr | no_new_privs) json_add_boolean "$name" "$1" ;;
	term_timeout) json_add_int "$name" "$1" ;;
	user | group | capabilities) json_add_string "$name" "$1" ;;
	*) fail "procd_set_param $name: procd.sh would ignore it" ;;
	esac
}
# The jail's object stays open until no more mounts can come.
jail=
procd_add_jail() {
	local flag
	json_add_object jail
	json_add_string name "$1"
	shift
	for flag; do json_add_boolean "$flag" 1; done
	json_add_object mount
	jail=1
}
procd_add_jail_mount() { for mount; do json_add_string "$mount" 0; done; }
procd_add_jail_mount_rw() { for mount; do json_add_string "$mount" 1; done; }
close_jail() {
	[ -z "$jail" ] && return
	json_close_object
	json_close_object
	jail=
}
procd_open_data() { close_jail; json_add_object data; }
procd_close_data() { json_close_object; }
procd_add_mdns_service() { # SERVICE PROTO PORT TXT
	json_add_object "$1_$3"
	json_add_string service "_$1._$2.local"
	json_add_int port "$3"
	json_strings txt "$4"
	json_close_object
}
procd_add_reload_trigger() { json_strings '' config.change "$@" reload; }
procd_add_raw_trigger() { json_strings '' "$@"; }
procd_running() { [ -e "$root/running" ]; }
procd_send_signal() { record "signal $*"; }
procd_set_config_changed() { record "config_changed $*"; }

# --- rc.common. The order is that of the real one: nothing is sent before start_service and service_triggers are done.
start() {
	json_init
	json_add_string name bamqp
	json_add_object instances
	start_service "$@"
	json_close_object
	json_add_array triggers
	service_triggers
	json_close_array
	echo "$json}" >"$root/procd.json"
	record "procd set"
	# procd starts what it is told of, and stops what it is not told of any more.
	rm -f "$root/running"
	case "$json" in *'"command"'*) : >"$root/running" ;; esac
}
reload() { reload_service "$@"; }
boot() { start "$@"; }

# --- functions.sh: the sections of one UCI file, without their quotes
config_load() { uci_file="$root/etc/config/$1"; }
uci_value() { # SECTION OPTION: all its values in one line
	awk -v wanted="$1" -v option="$2" -v q="'" '
		{ gsub(q, "") }
		$1 == "config" { count[$2]++; section = ($3 != "") ? $3 : "cfg" count[$2] }
		($1 == "option" || $1 == "list") && section == wanted && $2 == option {
			$1 = ""; $2 = ""; sub(/^ +/, ""); value = (value == "") ? $0 : value " " $0
		}
		END { print value }' "$uci_file"
}
config_get() { # VARIABLE SECTION OPTION [DEFAULT]
	local value
	value="$(uci_value "$2" "$3")"
	eval "$1=\"\${value:-\$4}\""
}
config_get_bool() {
	config_get "$@"
	eval "case \"\$$1\" in 1|on|true|yes|enabled) $1=1 ;; 0|off|false|no|disabled) $1=0 ;; *) $1=\"\$4\" ;; esac"
}
config_foreach() { # FUNCTION TYPE
	local section
	# shellcheck disable=SC2013 # names are words
	for section in $(awk -v type="$2" -v q="'" '{ gsub(q, "") }
		$1 == "config" && $2 == type { n++; print ($3 != "") ? $3 : "cfg" n }' "$uci_file"); do
		"$1" "$section"
	done
}

# --- programs
logger() { record "logger $*"; }
chown() { record "chown $*"; }
# Everything belongs to the daemon already, except what a test lists in $root/foreign.
ls() {
	local last
	for last; do :; done
	grep -qx "$last" "$root/foreign" 2>/dev/null && echo "-rw------- 1 root root 32 Jan 1 00:00 $last"
	return 0
}
# As `ubus call network.interface dump` has it, and what jsonfilter would find there.
ubus() { [ ! -e "$root/network" ] || echo dump; }
jsonfilter() {
	case "$2 $4" in
	*ipv4-address*) echo 198.51.100.7 && echo 192.168.1.1 ;;
	*ipv6-address*) echo 2001:db8::7 ;;
	*ipv6-prefix-assignment*) echo assignment ;;
	assignment\ *address) echo 2001:db8:1:: ;;
	assignment\ *mask) echo 64 ;;
	esac
}
