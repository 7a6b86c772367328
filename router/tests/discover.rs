//! Routers that announce themselves on one link: daemons on loopback addresses with real multicast, who they hear, what a
//! stranger can do to them, and how a person makes one a peer. (Between machines, and over IPv6: scripts/discover.)

#[path = "common/program.rs"]
mod program;

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bamqp_core::announce::Announcement;
use bamqp_core::limits::{MAX_HEARD, MAX_NAME_BYTES};
use bamqp_router::config::Config;
use bamqp_router::control;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::reload::Reloaded;
use rustix::net::sockopt;
use serde_json::Value;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 33);

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A link of its own: a loopback network and a port that no other test has.
struct Link {
    folder: PathBuf,
    net: String,
    port: u16,
}

impl Link {
    fn new(name: &str) -> Link {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("bamqp-discover-{id}-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Link {
            folder,
            net: format!("127.{}.{}", 1 + id % 250, 150 + number),
            port: 20_000 + (id % 1000) as u16 * 10 + number,
        }
    }

    fn key(seed: u8) -> KeyPair {
        KeyPair::from_seed([seed; 32])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the configuration of the router with this name and number.
    fn configure(&self, name: &str, ip: u8, more: &str) -> Config {
        let state_dir = self.folder.join(format!("{name}-state"));
        std::fs::create_dir_all(&state_dir).unwrap();
        let text = format!(
            "# {name}'s\nconfig bamqp 'main'\n\toption peer_listen '{}.{ip}:7733'\n\toption state_dir '{}'\n\
             \toption key '{}/key'\n\toption discover_port '{}'\n\toption name '{name}'\n{more}",
            self.net,
            state_dir.display(),
            state_dir.display(),
            self.port
        );
        std::fs::write(self.file(name), &text).unwrap();
        Config::parse(&text, Path::new(name)).unwrap()
    }

    fn start(&self, name: &str, ip: u8, more: &str) -> Daemon {
        Daemon::start(self.configure(name, ip, more), Link::key(ip)).unwrap()
    }

    fn stranger(&self, ip: u8) -> Stranger {
        let own: Ipv4Addr = format!("{}.{ip}", self.net).parse().unwrap();
        let socket = UdpSocket::bind((own, 0)).unwrap();
        sockopt::set_ip_multicast_if(&socket, &own).unwrap();
        let stranger = Stranger { socket, port: self.port };
        stranger.reach(255);
        stranger
    }

    fn bamqp(&self, name: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = program::bamqp();
        command.args(arguments).arg("--config").arg(self.file(name));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What the router says of itself.
    fn ask(&self, name: &str, what: &str) -> Value {
        let answer = control::ask(&self.folder.join(format!("{name}-state")), &format!("{what} --json"));
        serde_json::from_str(&answer.unwrap()).unwrap()
    }

    fn discovery(&self, name: &str, what: &str) -> u64 {
        self.ask(name, "status")["discovery"][what].as_u64().unwrap()
    }

    /// The names that the router hears, sorted.
    fn heard(&self, name: &str) -> Vec<String> {
        let peers = self.ask(name, "peers");
        let names =
            peers["heard"].as_array().unwrap().iter().map(|one| one["heard"].as_str().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Waits until the router has begun to listen.
    fn wait_until_it_listens(&self, name: &str) {
        wait_for("it listens", || self.discovery(name, "announcements_sent") > 0);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Somebody who sends what it likes.
struct Stranger {
    socket: UdpSocket,
    port: u16,
}

impl Stranger {
    fn reach(&self, ttl: u32) {
        sockopt::set_ip_multicast_ttl(&self.socket, ttl).unwrap();
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, (GROUP, self.port)).unwrap();
    }

    fn announce(&self, name: &str, public_key: [u8; 32]) {
        let announcement = Announcement { public_key, name: name.parse().unwrap(), port: 7733 };
        let mut buffer = [0; 512];
        let length = announcement.write(&mut buffer).unwrap();
        self.send(&buffer[..length]);
    }
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn three_routers_hear_each_other_and_become_peers_by_their_owners_word() {
    let link = Link::new("three");
    let (a, b) = (link.start("A", 1, ""), link.start("B", 2, ""));
    let _c = link.start("C", 3, "");
    for (name, others) in [("A", ["B", "C"]), ("B", ["A", "C"]), ("C", ["A", "B"])] {
        wait_for("all hear each other", || link.heard(name) == others);
    }
    let peers = link.ask("A", "peers");
    let heard = peers["heard"].as_array().unwrap().iter().find(|one| one["heard"] == "B").unwrap();
    assert_eq!(heard["address"], format!("{}.2:7733", link.net));
    assert_eq!(heard["key"], Link::key(2).fingerprint().to_string());
    assert_eq!(heard["note"], Value::Null);
    assert_eq!(peers["peers"], Value::Array(vec![]), "what is heard is no peer");
    let text = String::from_utf8(link.bamqp("A", &["peers"], "").stdout).unwrap();
    assert!(text.contains("peers: none") && text.contains("heard:"), "{text}");

    // The owner says no, then yes; the other one is sure.
    let before = std::fs::read_to_string(link.file("A")).unwrap();
    for no in ["n\n", "", "what?\n"] {
        let said = failure(&link.bamqp("A", &["peers", "approve", "B"], no));
        assert_eq!(said, "bamqp: not approved; nothing was changed\n");
        assert_eq!(std::fs::read_to_string(link.file("A")).unwrap(), before);
    }
    let output = link.bamqp("A", &["peers", "approve", "B", "--as", "kitchen"], "y\n");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(&Link::key(2).fingerprint().to_string()) && shown.contains("reload"), "{shown}");
    let after = std::fs::read_to_string(link.file("A")).unwrap();
    let key = base64_encode(Link::key(2).public());
    let section = format!(
        "\nconfig peer 'kitchen'\n\toption address '{}.2:7733'\n\toption public_key '{key}'\n",
        link.net
    );
    assert_eq!(after, before + &section);
    assert!(link.bamqp("B", &["peers", "approve", "A", "--yes"], "").status.success());
    for (daemon, name) in [(&a, "A"), (&b, "B")] {
        assert_eq!(daemon.hub().reload(&link.file(name)), Reloaded::Applied(vec![]));
        wait_for("the new peer is there", || daemon.shared().peers.usable() == 1);
    }
    wait_for("A still hears B", || {
        let peers = link.ask("A", "peers");
        peers["heard"].as_array().unwrap().iter().any(|one| one["note"] == "is peer kitchen")
    });
    let said = failure(&link.bamqp("A", &["peers", "approve", "B", "--yes"], ""));
    assert_eq!(said, "bamqp: it is a peer already: kitchen\n");
    assert!(
        failure(&link.bamqp("A", &["peers", "approve", "D", "--yes"], "")).contains("no router D is heard")
    );
    for wrong in [
        &["peers", "approve"][..],
        &["peers", "approve", "B", "C"],
        &["peers", "approve", "B", "--as", "x y"],
    ] {
        assert_eq!(link.bamqp("A", wrong, "").status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn an_impostor_with_a_peers_name_changes_nothing() {
    let link = Link::new("impostor");
    let key = base64_encode(Link::key(2).public());
    let peer =
        format!("config peer 'B'\n\toption address '{}.2:7733'\n\toption public_key '{key}'\n", link.net);
    let daemon = link.start("A", 1, &peer);
    link.wait_until_it_listens("A");
    let before = (link.ask("A", "peers")["peers"][0]["key"].clone(), std::fs::read(link.file("A")).unwrap());
    // Another key under its name, and its own key at another address.
    link.stranger(9).announce("B", *Link::key(9).public());
    link.stranger(8).announce("B", *Link::key(2).public());
    wait_for("both are heard", || link.heard("A") == ["B", "B"]);
    let peers = link.ask("A", "peers");
    assert_eq!(peers["peers"].as_array().unwrap().len(), 1);
    assert_eq!(peers["peers"][0]["address"], format!("{}.2:7733", link.net));
    let notes = peers["heard"].as_array().unwrap().iter().map(|one| one["note"].as_str().unwrap());
    let mut notes: Vec<&str> = notes.collect();
    notes.sort_unstable();
    assert_eq!(
        notes,
        ["another router has this name: go by the key", "has the key of peer B, at another address"]
    );
    for wanted in ["B", &Link::key(9).fingerprint().to_string(), &Link::key(2).fingerprint().to_string()] {
        let said = failure(&link.bamqp("A", &["peers", "approve", wanted, "--yes"], ""));
        assert!(
            ["several routers", "there is a peer B", "it is a peer already"]
                .iter()
                .any(|why| said.contains(why)),
            "{said}"
        );
    }
    assert_eq!(daemon.hub().reload(&link.file("A")), Reloaded::Applied(vec![]));
    let after = (link.ask("A", "peers")["peers"][0]["key"].clone(), std::fs::read(link.file("A")).unwrap());
    assert_eq!(after, before);
}

#[test]
fn what_is_no_announcement_is_counted_and_what_was_routed_is_not_heard() {
    let link = Link::new("malformed");
    let _a = link.start("A", 1, "");
    link.wait_until_it_listens("A");
    let stranger = link.stranger(9);
    // One after the other: the socket's buffer is small.
    for (bytes, count) in
        [&b""[..], b"\0\xff", b"GET / HTTP/1.1\r\n\r\n", &[b'x'; 513], &[0; 4000]].into_iter().zip(1..)
    {
        stranger.send(bytes);
        wait_for("it is counted", || link.discovery("A", "malformed") == count);
    }
    let long = "n".repeat(MAX_NAME_BYTES);
    stranger.announce(&long, *Link::key(8).public());
    // In the order in which they were sent: when the second one is heard, the first one was dropped.
    stranger.reach(254);
    stranger.announce("routed", *Link::key(7).public());
    stranger.reach(255);
    stranger.announce("direct", *Link::key(6).public());
    wait_for("the last one is heard", || link.heard("A").contains(&"direct".into()));
    assert_eq!(link.heard("A"), ["direct", &long]);
    assert_eq!(link.discovery("A", "malformed"), 5);
    // The third key of one address.
    stranger.announce("third", *Link::key(5).public());
    wait_for("it is counted", || link.discovery("A", "not_kept") == 1);
    assert_eq!(link.heard("A").len(), 2);
}

#[test]
fn switched_off_or_without_a_port_nobody_is_heard_or_told() {
    let link = Link::new("off");
    let a = link.start("A", 1, "");
    let b = link.start("B", 2, "");
    wait_for("they hear each other", || link.heard("A") == ["B"] && link.heard("B") == ["A"]);
    drop(b);
    let stranger = link.stranger(9);
    let off = link.configure("A", 1, "\toption discover '0'\n");
    a.hub().apply(off, &bamqp_router::budget::Memory::of_system()).unwrap();
    assert_eq!(link.ask("A", "status")["discovery"]["discovery"], "off");
    assert_eq!(link.heard("A"), Vec::<String>::new());
    // And on again.
    let on = link.configure("A", 1, "");
    a.hub().apply(on.clone(), &bamqp_router::budget::Memory::of_system()).unwrap();
    let sent = link.discovery("A", "announcements_sent");
    wait_for("A announces itself again", || link.discovery("A", "announcements_sent") > sent);
    stranger.announce("C", *Link::key(3).public());
    wait_for("A hears others again", || link.heard("A") == ["C"]);
    assert_eq!(link.ask("A", "status")["discovery"]["discovery"], "on");
    for peer_listen in [None, Some("0.0.0.0:0".parse().unwrap())] {
        let listen = vec![format!("{}.1:0", link.net).parse().unwrap()];
        let config = Config { peer_listen, listen, ..on.clone() };
        a.hub().apply(config, &bamqp_router::budget::Memory::of_system()).unwrap();
        assert_eq!(link.ask("A", "status")["discovery"]["discovery"], "off", "{peer_listen:?}");
        assert_eq!(link.heard("A"), Vec::<String>::new());
    }
}

/// A daemon as a process, so that its memory can be looked at.
struct Process(Child);

impl Process {
    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_flood_of_ten_thousand_routers_is_bounded() {
    let link = Link::new("flood");
    link.configure("A", 1, "");
    let mut command = program::bamqp();
    command.args(["run", "--config"]).arg(link.file("A"));
    let messages = std::fs::File::create(link.file("messages")).unwrap();
    let a = Process(command.stdin(Stdio::null()).stderr(messages).spawn().unwrap());
    let state_dir = link.folder.join("A-state");
    wait_for("A answers", || control::ask(&state_dir, "status").is_ok());
    link.wait_until_it_listens("A");
    let friend = link.stranger(2);
    friend.announce("friend", *Link::key(2).public());
    wait_for("the friend is heard", || link.heard("A") == ["friend"]);
    let memory = a.memory_kib();

    let strangers: Vec<Stranger> = (3..250).map(|ip| link.stranger(ip)).collect();
    let (mut sent, mut most) = (0u32, 0);
    wait_for("the table is full, and more was heard", || {
        // At least ten thousand, and as long as it takes.
        for _ in 0..500 {
            let mut key = [7; 32];
            key[..4].copy_from_slice(&sent.to_be_bytes());
            strangers[sent as usize % strangers.len()].announce(&format!("r{sent}"), key);
            sent += 1;
        }
        most = most.max(link.heard("A").len());
        sent >= 10_000 && most == MAX_HEARD && link.discovery("A", "not_kept") >= 50
    });
    assert_eq!(link.heard("A").len(), MAX_HEARD);
    assert!(link.heard("A").contains(&"friend".into()), "who was there before is still there");
    assert!(link.discovery("A", "announcements_heard") < 10_000, "not all of it was looked at");
    let lines = std::fs::read_to_string(link.file("messages")).unwrap().lines().count();
    assert!(lines < 50, "{lines} lines of the log");
    if std::env::var_os("BAMQP_TEST_RUNNER").is_none() {
        let now = a.memory_kib();
        assert!(now < memory + 512, "{memory} KiB before, {now} KiB now");
    }
}
