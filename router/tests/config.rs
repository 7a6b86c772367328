//! The configuration file: what is understood, what is refused and with which line.

use std::path::Path;

use bamqp_router::budget::DEFAULT_COUNTS;
use bamqp_router::config::{Config, Helping, Peer, Target};

const EXAMPLE: &str = include_str!("../openwrt/files/bamqp.config");
const KEY_B: &str = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=";
const KEY_C: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/config/bamqp")).map_err(|error| error.to_string())
}

fn main_with(line: &str) -> Result<Config, String> {
    parse(&format!("config bamqp 'main'\n\toption listen '192.168.1.1:3128'\n\t{line}\n"))
}

#[test]
fn listen_peer_listen_and_peers_are_enough() {
    let config = parse(&format!(
        "config bamqp 'main'\n option listen 192.168.1.1:3128\n option peer_listen \"10.77.0.1:7733\"\n\
         config peer 'B'\n option address '10.77.0.2:7733'\n option public_key '{KEY_B}'\n"
    ));
    let expected = Config {
        listen: vec!["192.168.1.1:3128".parse().unwrap()],
        transparent_listen: vec!["192.168.1.1:3129".parse().unwrap()],
        peer_listen: Some("10.77.0.1:7733".parse().unwrap()),
        peers: vec![Peer {
            name: "B".into(),
            address: "10.77.0.2:7733".parse().unwrap(),
            public_key: *b"abcdefghijklmnopqrstuvwxyz012345",
        }],
        ..Config::default()
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn every_option_is_read() {
    let config = parse(
        "config bamqp main
           option enabled 'yes'
           list listen '192.168.1.1:3128'
           list listen '[fd00::1]:3128'
           option transparent '1'
           list transparent_listen '192.168.1.1:8080'
           option peer_listen '10.77.0.1:7733'
           option discover '0'
           option discover_port '7734'
           option name 'kitchen'
           option wan_address '203.0.113.5'
           option key '/tmp/key'
           option state_dir '/tmp/state'
           option log_dir '/tmp/log'
           option log_size '1M'
           option log_files '9'
           option window '512K'
           option min_size '1048577'
           list allow_private '10.0.0.0/24'
           list allow_client '192.168.1.0/24'
           list fetch_ports '8080'
           list connect_ports '443'
           list connect_ports '8443'
           option bandwidth '20M'
           option max_clients '7'
           option max_sessions '2'
           option max_peer_sessions '3'
           option max_hops '1'
           option fast_enough '50M'
           option wan_interface 'pppoe-wan'
           option share '80%'
           option floor '500k'
           option quota_day '2G'
           option quota_month '30G'
           option quota_peer_day '512M'
           option hours '22-06:30'
           list never_fetch '.Example.org'
           list never_fetch '203.0.113.0/24'",
    )
    .unwrap();
    let expected = Config {
        enabled: true,
        listen: vec!["192.168.1.1:3128".parse().unwrap(), "[fd00::1]:3128".parse().unwrap()],
        transparent: true,
        transparent_listen: vec!["192.168.1.1:8080".parse().unwrap()],
        peer_listen: Some("10.77.0.1:7733".parse().unwrap()),
        discover: false,
        discover_port: 7734,
        name: Some("kitchen".parse().unwrap()),
        wan_address: Some("203.0.113.5".parse().unwrap()),
        key: "/tmp/key".into(),
        state_dir: "/tmp/state".into(),
        log_dir: "/tmp/log".into(),
        log_size: 1 << 20,
        log_files: 9,
        window: 512 * 1024,
        min_size: 1_048_577,
        allow_private: vec!["10.0.0.0/24".parse().unwrap()],
        allow_client: vec!["192.168.1.0/24".parse().unwrap()],
        fetch_ports: vec![8080],
        connect_ports: vec![443, 8443],
        bandwidth: 20_000_000,
        max_clients: Some(7),
        max_sessions: Some(2),
        max_peer_sessions: Some(3),
        max_hops: 1,
        fast_enough: 50_000_000,
        helping: Helping {
            wan_interface: Some("pppoe-wan".into()),
            share: 80,
            floor: 500_000,
            quota_day: Some(2 << 30),
            quota_month: Some(30 << 30),
            quota_peer_day: Some(512 << 20),
            hours: Some("22-06:30".parse().unwrap()),
            never_fetch: vec![
                Target::Name("example.org".into()),
                Target::Network("203.0.113.0/24".parse().unwrap()),
            ],
            ..Helping::default()
        },
        peers: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn a_host_is_never_fetched_with_all_below_it_and_addresses_as_they_are() {
    let config = main_with(
        "list never_fetch 'example.org'\n list never_fetch '203.0.113.7'\n list never_fetch '2001:db8::/32'",
    );
    let never = config.unwrap().helping.never_fetch;
    let has = |host: &str| never.iter().any(|target| target.has_host(host));
    for host in ["example.org", "EXAMPLE.org.", "www.a.example.org", "203.0.113.7", "[2001:db8::1]"] {
        assert!(has(host), "{host}");
    }
    for host in ["badexample.org", "example.org.uk", "org", "203.0.113.8", "[2001:db9::1]"] {
        assert!(!has(host), "{host}");
    }
    let ip = |text: &str| never.iter().any(|target| target.has_address(text.parse().unwrap()));
    assert!(ip("203.0.113.7") && ip("::ffff:203.0.113.7") && !ip("203.0.113.8"));
}

#[test]
fn who_closes_the_port_has_no_partners() {
    let peer = "\nconfig peer 'b'\n option address '10.0.0.2:7733'\n option public_key 'YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU='\n";
    let open = parse(&format!("config bamqp 'main'\n option peer_listen '10.0.0.1:7733'{peer}")).unwrap();
    let closed = parse(&format!("config bamqp 'main'\n option listen '10.0.0.1:3128'{peer}")).unwrap();
    assert_eq!((open.partners().len(), closed.partners().len(), closed.peers.len()), (1, 0, 1));
}

#[test]
fn the_default_lan_is_private_and_local_addresses() {
    let lan = Config::default().allow_client;
    let inside = |address: &str| lan.iter().any(|range| range.contains(address.parse().unwrap()));
    for address in
        ["10.1.2.3", "172.31.0.1", "192.168.9.9", "127.0.0.1", "169.254.1.1", "::1", "fd12::1", "fe80::1"]
    {
        assert!(inside(address), "{address}");
    }
    for address in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "11.0.0.1"] {
        assert!(!inside(address), "{address}");
    }
}

#[test]
fn redirected_connections_arrive_beside_the_clients_unless_told_otherwise_and_only_if_wanted() {
    let config = main_with("option transparent '0'").unwrap();
    assert!(config.transparent_listen().is_empty());
    let config = main_with("option transparent '1'").unwrap();
    assert_eq!(config.transparent_listen(), ["192.168.1.1:3129".parse().unwrap()]);
    let config = main_with("option transparent 1\n list transparent_listen '[fd00::1]:80'").unwrap();
    assert_eq!(config.transparent_listen(), ["[fd00::1]:80".parse().unwrap()]);
    let nowhere = "config bamqp 'main'\n option peer_listen '10.0.0.1:7733'\n option transparent '1'\n";
    assert!(parse(nowhere).unwrap_err().contains(":1: transparent without an address"));
}

#[test]
fn sizes() {
    for (text, bytes) in [("1M", 1 << 20), ("512K", 1 << 19), ("1048576", 1 << 20), ("0", 0), ("2G", 1 << 31)]
    {
        assert_eq!(main_with(&format!("option min_size '{text}'")).unwrap().min_size, bytes, "{text}");
    }
    for text in ["", "M", "-1", "+1", "1.5M", "1MB", "1 M", "99999999999999999999", "18446744073709551615K"] {
        assert_eq!(
            main_with(&format!("option min_size '{text}'")),
            Err(format!(
                "/etc/config/bamqp:3: min_size '{text}': expected a number of bytes, such as 1048576, 512K or 1M"
            ))
        );
    }
}

#[test]
fn bad_values_are_named_with_their_line() {
    for (line, expected) in [
        ("option enabled 'maybe'", "enabled 'maybe': expected 0 or 1"),
        ("option window '100K'", "window '100K': expected a multiple of 16K from 128K to 12M"),
        ("option window '112K'", "window '112K': expected a multiple of 16K from 128K to 12M"),
        ("option window '13M'", "window '13M': expected a multiple of 16K from 128K to 12M"),
        ("option wan_address '0.0.0.0'", "wan_address '0.0.0.0': expected an address of this router"),
        ("option discover_port '0'", "discover_port '0': expected a port from 1 to 65535"),
        ("option name 'my router'", "name 'my router': expected 1 to 32 letters, digits and _"),
        ("option key 'key'", "key 'key': expected a path that starts with /"),
        ("list allow_private '10.0.0.0/33'", "allow_private '10.0.0.0/33': expected an address range"),
        ("list fetch_ports '0'", "fetch_ports '0': expected a port from 1 to 65535"),
        ("list fetch_ports '+80'", "fetch_ports '+80': expected a port from 1 to 65535"),
        ("option max_clients '0'", "max_clients '0': expected a number from 1 to 1000"),
        ("option bandwidth 'fast'", "bandwidth 'fast': expected bits per second"),
        ("option share '0'", "share '0': expected hundredths from 1 to 100"),
        ("option wan_interface 'eth 0'", "wan_interface 'eth 0': expected an interface's name"),
        ("option hours '22'", "hours '22': expected two times of the day"),
        ("list never_fetch 'a..b'", "never_fetch 'a..b': expected a host such as example.org"),
        ("option peer_listen '10.77.0.1'", "peer_listen '10.77.0.1': expected an address and a port"),
        ("option windows '1M'", "unknown option windows in a section bamqp; expected one of enabled, listen"),
        ("option listen 'x:1", "expected a closing ' on the same line"),
        ("option listen '10.0.0.1:1'", "option listen is given twice; expected list listen or one option"),
        ("list listen '192.168.1.1:3128'", "listen '192.168.1.1:3128' is given twice; expected it once"),
        ("list window '1M'", "window has one value; expected option window"),
        ("config bamqp 'other'", "a second section bamqp; expected only one"),
        ("config router 'x'", "unknown section router; expected bamqp or peer"),
    ] {
        let error = main_with(line).unwrap_err();
        assert!(error.starts_with(&format!("/etc/config/bamqp:3: {expected}")), "{line}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn peers_are_complete_and_distinct() {
    let with =
        |peers: &str| parse(&format!("config bamqp 'main'\n option peer_listen '10.0.0.1:7733'\n{peers}"));
    let b = format!("config peer 'B'\n option address '10.0.0.2:7733'\n option public_key '{KEY_B}'\n");
    let line = |error: Result<Config, String>| error.unwrap_err();
    assert_eq!(
        line(with("config peer 'B'\n")),
        "/etc/config/bamqp:3: a peer without option address; expected option address"
    );
    assert!(line(with("config peer\n")).starts_with("/etc/config/bamqp:3: a peer without a name"));
    assert!(
        line(with("config peer 'B'\n option public_key 'x'\n"))
            .contains(":4: public_key 'x': expected the 44")
    );
    for (name, address, key) in
        [("B", "10.0.0.3:1", KEY_C), ("C", "10.0.0.2:7733", KEY_C), ("C", "10.0.0.3:1", KEY_B)]
    {
        let twin = format!("config peer '{name}'\n option address '{address}'\n option public_key '{key}'\n");
        assert!(line(with(&format!("{b}{twin}"))).contains(":6: peer '"), "{twin}");
    }
    let own = format!("config peer 'A'\n option address '10.0.0.1:7733'\n option public_key '{KEY_C}'\n");
    assert!(line(with(&format!("{b}{own}"))).contains(":6: peer 'A' has this router's own peer_listen"));
}

#[test]
fn a_file_without_a_main_section_or_listener() {
    assert_eq!(parse(""), Err("/etc/config/bamqp: no section bamqp; expected config bamqp 'main'".into()));
    assert!(parse("\nconfig bamqp\n").unwrap_err().starts_with("/etc/config/bamqp:2: nowhere to listen"));
    assert!(parse("option x y\n").unwrap_err().contains(":1: x stands before any section"));
    let missing = Config::load(Path::new("/nonexistent/bamqp")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/bamqp: "), "{missing}");
}

#[test]
fn the_example_parses_and_is_switched_off() {
    let config = parse(EXAMPLE).unwrap();
    assert!(!config.enabled, "the package ships switched off");
    assert!(config.peers.is_empty());
    for warning in ["illegal", "terms"] {
        assert!(EXAMPLE.contains(warning), "the example says what taking part means: {warning}");
    }
}

/// Uncommenting everything changes nothing but what has no default, so the comments tell the defaults.
#[test]
fn the_example_names_every_option_with_its_default() {
    let all: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if ["config ", "\toption ", "\tlist "].iter().any(|word| rest.starts_with(word)) => {
                rest
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = parse(&all).unwrap();
    assert_eq!(config.peers.len(), 1);
    assert!(config.wan_address.is_some() && config.peer_listen.is_some() && !config.listen.is_empty());
    assert!(config.name.is_some());
    assert!(config.bandwidth > 0 && !config.allow_private.is_empty());
    let expected = Config {
        enabled: false,
        listen: config.listen.clone(),
        transparent_listen: vec!["192.168.1.1:3129".parse().unwrap()],
        max_clients: Some(DEFAULT_COUNTS.clients),
        max_sessions: Some(DEFAULT_COUNTS.sessions),
        max_peer_sessions: Some(DEFAULT_COUNTS.peer_sessions),
        peer_listen: config.peer_listen,
        name: config.name.clone(),
        wan_address: config.wan_address,
        allow_private: config.allow_private.clone(),
        bandwidth: config.bandwidth,
        fast_enough: config.fast_enough,
        helping: Helping { share: 100, floor: 0, ..config.helping.clone() },
        peers: config.peers.clone(),
        ..Config::default()
    };
    assert_eq!(config, expected);
    for option in [
        "transparent",
        "discover",
        "discover_port",
        "key",
        "state_dir",
        "log_dir",
        "window",
        "min_size",
        "max_clients",
        "max_sessions",
        "max_peer_sessions",
        "max_hops",
        "share",
        "floor",
        "wan_interface",
        "quota_day",
        "quota_month",
        "quota_peer_day",
        "hours",
        "fast_enough",
    ] {
        assert!(all.contains(&format!("\toption {option} ")), "{option}");
    }
    for list in ["transparent_listen", "allow_client", "fetch_ports", "connect_ports", "never_fetch"] {
        assert!(all.contains(&format!("\tlist {list} ")), "{list}");
    }
}
