//! A real daemon whose configuration changes while it runs (SIGHUP), with downloads under way; and what its death leaves
//! behind.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_router::budget::Memory;
use bamqp_router::config::{Config, Peer};
use bamqp_router::daemon::{Daemon, StartError};
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::peers::{PeerState, PeerView};
use common::{Line, OK, Origin, PATIENCE, get, pattern, slow_origin};
use serde_json::Value;

const SIZE: usize = 5_000_000;

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The daemon A as a process, with its neighbour B in this one.
struct Bed {
    folder: PathBuf,
    net: String,
    origin: Origin,
    hurry: Arc<AtomicBool>,
    b: Option<Daemon>,
    a: Child,
}

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

impl Bed {
    fn start(name: &str) -> Bed {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("bamqp-reload-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("A")).unwrap();
        let is_free = |net: &String| std::net::TcpListener::bind(format!("{net}.1:3128")).is_ok();
        let nets = (0..200).map(|i| format!("127.{}.{}", 1 + (std::process::id() + i) % 250, 100 + number));
        let net = nets.into_iter().find(is_free).expect("a free loopback network");
        let hurry = Arc::new(AtomicBool::new(false));
        let origin = slow_origin(SIZE, hurry.clone());
        let at = |ip: u8| format!("{net}.{ip}:7733").parse().unwrap();
        let peer = Peer { name: "A".into(), address: at(1), public_key: *KeyPair::from_seed(A).public() };
        let config = Config {
            listen: Vec::new(),
            peer_listen: Some(at(2)),
            fetch_ports: vec![origin.address.port()],
            peers: vec![peer],
            ..common::config()
        };
        let b = Daemon::start(config, KeyPair::from_seed(B)).unwrap();
        fs::write(folder.join("config"), "").unwrap();
        let none = Command::new("true").spawn().unwrap();
        let mut bed = Bed { folder, net, origin, hurry, b: Some(b), a: none };
        // Its key is known to B, so it can't be one that it makes itself.
        fs::write(bed.folder.join("key"), base64_encode(&A) + "\n").unwrap();
        fs::set_permissions(bed.folder.join("key"), PermissionsExt::from_mode(0o600)).unwrap();
        bed.write(&bed.main(""), &bed.peer("B", 2, B));
        bed.run();
        bed
    }

    fn main(&self, more: &str) -> String {
        let (net, at, port) = (&self.net, self.folder.display(), self.origin.address.port());
        let listen = if more.contains("listen ") { "" } else { &format!("\toption listen '{net}.1:3128'\n") };
        let state_dir =
            if more.contains("state_dir ") { "" } else { &format!("\toption state_dir '{at}/A'\n") };
        format!(
            "config bamqp 'main'\n\toption peer_listen '{net}.1:7733'\n\toption key '{at}/key'\n\
             \toption log_dir '{at}/A/log'\n{listen}{state_dir}\tlist allow_private '127.0.0.0/8'\n\
             \tlist fetch_ports '{port}'\n{more}\n"
        )
    }

    fn peer(&self, name: &str, ip: u8, seed: [u8; 32]) -> String {
        let key = base64_encode(KeyPair::from_seed(seed).public());
        let address = format!("{}.{ip}:7733", self.net);
        format!("config peer '{name}'\n\toption address '{address}'\n\toption public_key '{key}'\n")
    }

    fn write(&self, main: &str, peers: &str) {
        fs::write(self.folder.join("config"), format!("{main}{peers}")).unwrap();
    }

    fn bamqp(&self, arguments: &[&str]) -> Command {
        let mut command = program::bamqp();
        command.args(arguments).arg("--config").arg(self.folder.join("config"));
        command
    }

    fn run(&mut self) {
        let messages = File::create(self.folder.join("messages")).unwrap();
        let mut command = self.bamqp(&["run"]);
        self.a = command.stdin(Stdio::null()).stderr(messages).spawn().unwrap();
        wait_for("B is there", || self.messages().contains("peer B is there"));
    }

    fn messages(&self) -> String {
        fs::read_to_string(self.folder.join("messages")).unwrap()
    }

    /// What A says of itself. Not through the command, which would read the configuration as it is now.
    fn ask(&self, what: &str) -> Value {
        let answer = bamqp_router::control::ask(&self.folder.join("A"), &format!("{what} --json")).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.a.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Changes the configuration; what A says of that.
    fn reload(&self, main: &str, peers: &str) -> String {
        let said = || self.messages().matches("the changed configuration").count();
        let before = said();
        self.write(main, peers);
        self.signal("-HUP");
        wait_for("A has read its configuration", || said() > before);
        let messages = self.messages();
        messages.lines().rfind(|line| line.contains("the changed configuration")).unwrap().into()
    }

    fn client(&self, ip_and_port: &str) -> Line {
        Line::to(format!("{}.{ip_and_port}", self.net).parse().unwrap())
    }

    /// Starts a download; it has begun when this returns.
    fn download(&self, path: &str) -> Download {
        let mut line = self.client("1:3128");
        line.send(get(&self.origin, path));
        assert!(line.head().starts_with("HTTP/1.1 200"));
        let first = line.bytes(100_000);
        let got = Arc::new(AtomicUsize::new(first.len()));
        let count = got.clone();
        let thread = std::thread::spawn(move || {
            let mut body = first;
            while body.len() < SIZE {
                body.extend(line.bytes((SIZE - body.len()).min(10_000)));
                count.store(body.len(), Ordering::SeqCst);
            }
            body
        });
        Download { got, thread }
    }

    fn session(&self) -> Value {
        self.ask("status")["sessions"][0].clone()
    }

    fn lane(&self, name: &str) -> Value {
        let status = self.ask("status");
        let lanes = status["lanes"].as_array().unwrap();
        lanes.iter().find(|lane| lane["lane"] == name).unwrap_or_else(|| panic!("{status}")).clone()
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("A ends", || {
            status = self.a.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.a.kill();
        let _ = self.a.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.messages());
        }
        self.hurry.store(true, Ordering::SeqCst);
        drop(self.b.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Download {
    got: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<u8>>,
}

impl Download {
    /// It goes on, and its end is right.
    fn end(self, hurry: &AtomicBool) {
        assert!(self.got.load(Ordering::SeqCst) < SIZE, "it was over before anything had changed");
        hurry.store(true, Ordering::SeqCst);
        assert!(self.thread.join().unwrap() == pattern(SIZE));
    }
}

#[test]
fn downloads_go_on_while_everything_changes() {
    let bed = Bed::start("changes");
    let (relayed, pooled) = (bed.download("/weak"), bed.download("/file"));
    wait_for("B helps", || bed.lane("B")["brought_bytes"].as_u64() > Some(0));
    let more = format!(
        "\toption listen '{}.3:3128'\n\toption window '256K'\n\toption min_size '2M'\n\toption max_clients '7'\n\
         \toption max_sessions '3'\n\toption max_peer_sessions '2'\n\toption bandwidth '8M'\n\
         \tlist connect_ports '1'\n",
        bed.net
    );
    let peers = bed.peer("B", 2, B) + &bed.peer("C", 4, [3; 32]);
    assert!(bed.reload(&bed.main(&more), &peers).ends_with("in effect"));

    // New connections have the new configuration, and the old address is closed.
    wait_for("the old address is closed", || TcpStream::connect(format!("{}.1:3128", bed.net)).is_err());
    let mut client = bed.client("3:3128");
    client.send("CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 403"), "443 is no connect_port any more");
    let status = bed.ask("status");
    let memory = &status["memory"];
    assert_eq!(
        (&memory["window_bytes"], &memory["max_clients"], &memory["max_sessions"]),
        (&(256 * 1024).into(), &7.into(), &3.into())
    );
    assert_eq!(status["router"]["last_reload"], "in effect");
    let peers = bed.ask("peers");
    assert_eq!((&peers["peers"][0]["state"], &peers["peers"][1]["peer"]), (&"up".into(), &"C".into()));

    // What runs was not touched: neither it nor B's help.
    let before = bed.lane("B")["brought_bytes"].as_u64();
    wait_for("B goes on helping", || bed.lane("B")["brought_bytes"].as_u64() > before);
    assert_eq!(bed.lane("B")["failures"], 0);
    relayed.end(&bed.hurry);
    assert!(pooled.thread.join().unwrap() == pattern(SIZE));
    wait_for("the session ends", || bed.session()["outcome"] == "complete");
}

#[test]
fn a_router_that_is_no_peer_any_more_is_let_go_of_at_once_and_the_download_does_without() {
    let bed = Bed::start("removed");
    let pooled = bed.download("/file");
    wait_for("B helps", || bed.lane("B")["brought_bytes"].as_u64() > Some(0));
    assert!(bed.reload(&bed.main(""), "").ends_with("in effect"));
    assert_eq!(bed.ask("peers")["peers"], Value::Array(Vec::new()));
    wait_for("B's lane is out", || bed.lane("B")["state"].as_str().unwrap().starts_with("left"));
    pooled.end(&bed.hurry);
    wait_for("the session ends", || bed.session()["outcome"] == "complete");

    // It comes back with a wrong key, and then with the right one.
    let state = || bed.ask("peers")["peers"][0]["state"].as_str().unwrap().to_owned();
    bed.reload(&bed.main(""), &bed.peer("B", 2, [9; 32]));
    wait_for("B is another", || state().contains("key"));
    bed.reload(&bed.main(""), &bed.peer("B", 2, B));
    wait_for("B is there", || state() == "up");
}

#[test]
fn who_closes_the_port_neither_helps_nor_is_helped_from_then_on() {
    let bed = Bed::start("closed");
    let pooled = bed.download("/file");
    wait_for("B helps", || bed.lane("B")["brought_bytes"].as_u64() > Some(0));
    let closed = bed.main("").replace("\toption peer_listen", "#\toption peer_listen");
    assert!(bed.reload(&closed, &bed.peer("B", 2, B)).ends_with("in effect"));
    assert_eq!(bed.ask("peers")["peers"], Value::Array(Vec::new()), "nobody is asked");
    wait_for("B's lane is out", || bed.lane("B")["state"].as_str().unwrap().starts_with("left"));
    assert!(std::net::TcpStream::connect(format!("{}.1:7733", bed.net)).is_err(), "and nobody let in");
    pooled.end(&bed.hurry);
    wait_for("the session ends", || bed.session()["outcome"] == "complete");
    // What was known of B is not forgotten, and it is there again with the port.
    let known = bed.ask("trust")["trust"][0].clone();
    assert_eq!((known["peer"].as_str(), known["sessions"].as_u64()), (Some("B"), Some(1)));
    bed.reload(&bed.main(""), &bed.peer("B", 2, B));
    wait_for("B is there", || bed.ask("peers")["peers"][0]["state"] == "up");
}

#[test]
fn whom_we_help_goes_on_being_helped_unless_we_part() {
    // B coordinates here: it is the one with a client, and A helps.
    let bed = Bed::start("helped");
    let a = Peer {
        name: "A".into(),
        address: format!("{}.1:7733", bed.net).parse().unwrap(),
        public_key: *KeyPair::from_seed(A).public(),
    };
    let config = Config {
        peer_listen: Some(format!("{}.7:7733", bed.net).parse().unwrap()),
        fetch_ports: vec![bed.origin.address.port()],
        peers: vec![a],
        ..common::config()
    };
    let other = Daemon::start(config, KeyPair::from_seed([7; 32])).unwrap();
    let both = bed.peer("B", 2, B) + &bed.peer("other", 7, [7; 32]);
    assert!(bed.reload(&bed.main(""), &both).ends_with("in effect"));
    let knows = |view: &PeerView| matches!(view.state, PeerState::Up { details: Some(_), .. });
    wait_for("A knows the other", || other.shared().peers.views().iter().all(knows));
    let mut client = common::client(&other);
    client.send(get(&bed.origin, "/file"));
    assert!(client.head().starts_with("HTTP/1.1 200"));
    let thread = std::thread::spawn(move || client.bytes(SIZE));
    let brought = || {
        let sessions = other.sessions();
        sessions.first().and_then(|session| session.lanes.get(2)).map_or(0, |lane| lane.bytes)
    };
    let failures = || other.sessions()[0].lanes[2].failures;
    wait_for("A helps", || brought() > 0);
    assert!(bed.reload(&bed.main("\toption window '512K'\n"), &both).ends_with("in effect"));
    let before = brought();
    wait_for("A goes on helping", || brought() > before);
    assert_eq!(failures(), 0);
    bed.reload(&bed.main(""), &bed.peer("B", 2, B));
    wait_for("A does not help any more", || bed.ask("status")["router"]["sessions_for_peers"] == 0);
    wait_for("the other notices", || {
        failures() > 0 || other.sessions()[0].lanes[2].state.starts_with("left")
    });
    bed.hurry.store(true, Ordering::SeqCst);
    assert!(thread.join().unwrap() == pattern(SIZE));
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_which_option_is_wrong() {
    let bed = Bed::start("bad");
    let pooled = bed.download("/file");
    wait_for("B helps", || bed.lane("B")["brought_bytes"].as_u64() > Some(0));
    let at = bed.folder.join("config");
    let taken = std::net::TcpListener::bind(format!("{}.5:0", bed.net)).unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let peer = bed.peer("B", 2, B);
    for (more, expected) in [
        ("\toption window 'large'\n".to_owned(), "window 'large': expected a multiple of 16K".to_owned()),
        ("\toption windows '1M'\n".into(), "unknown option windows".into()),
        (format!("\toption listen '{taken}'\n"), format!("can't listen on {taken}: ")),
    ] {
        let said = bed.reload(&bed.main(&more), &peer);
        assert!(said.contains("not used, the last good one stays") && said.contains(&expected), "{said}");
        assert!(said.contains(&at.display().to_string()), "{said}");
        let told = bed.ask("status")["router"]["last_reload"].as_str().unwrap().to_owned();
        assert!(told.contains(&expected), "{told}");
        assert_eq!(bed.lane("B")["failures"], 0);
        drop(bed.client("1:3128"));
    }
    fs::remove_file(&at).unwrap();
    bed.signal("-HUP");
    wait_for("A misses its configuration", || bed.messages().contains("No such file"));
    drop(holder);
    assert!(
        bed.reload(
            &bed.main(&format!("\tlist listen '{}.1:3128'\n\tlist listen '{taken}'\n", bed.net)),
            &peer
        )
        .ends_with("in effect")
    );
    pooled.end(&bed.hurry);
}

#[test]
fn what_has_to_wait_is_said_in_one_line_and_the_rest_takes_effect() {
    let bed = Bed::start("waits");
    let said = bed.reload(
        &bed.main("\toption state_dir '/nonexistent'\n\toption log_files '9'\n\toption window '512K'\n"),
        "",
    );
    assert!(
        said.ends_with("in effect, but state_dir, log_files at the next start of the daemon only"),
        "{said}"
    );
    assert_eq!(bed.ask("status")["memory"]["window_bytes"], 512 * 1024);
}

#[test]
fn a_configuration_that_is_switched_off_ends_the_daemon_well() {
    let mut bed = Bed::start("off");
    bed.reload(&bed.main("\toption enabled '0'\n"), "");
    assert!(bed.ended().success());
}

#[test]
fn clients_that_are_not_served_any_more_are_told_with_their_next_request() {
    let bed = Bed::start("client");
    let quick = Origin::answering(OK);
    let mut client = bed.client("1:3128");
    for _ in 0..2 {
        client.send(get(&quick, "/"));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        client.bytes(2);
        bed.reload(&bed.main(""), "");
    }
    bed.reload(&bed.main("\tlist allow_client '10.0.0.0/8'\n"), "");
    client.send(get(&quick, "/"));
    assert!(client.head().starts_with("HTTP/1.1 403"));
}

#[test]
fn many_changes_leave_nothing_behind() {
    let bed = Bed::start("many");
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", bed.a.id())).unwrap().count();
    let peers = [bed.peer("B", 2, B), bed.peer("B", 2, B) + &bed.peer("C", 4, [3; 32])];
    let flip = |i: usize| bed.reload(&bed.main(""), &peers[i % 2]);
    flip(1);
    flip(0);
    let settled = |what: &str| {
        let mut last = count(what);
        wait_for("it settles", || {
            std::thread::sleep(Duration::from_millis(100));
            std::mem::replace(&mut last, count(what)) == count(what)
        });
        count(what)
    };
    let before = (settled("task"), settled("fd"));
    for i in 0..20 {
        assert!(flip(i + 1).ends_with("in effect"));
    }
    // Before, there may have been one more for a moment that settled late.
    wait_for("threads and descriptors are no more than before", || {
        count("task") <= before.0 && count("fd") <= before.1
    });
}

#[test]
fn a_change_that_takes_too_much_memory_is_refused_and_names_what_to_lower() {
    let daemon = common::start(common::config());
    let memory = Memory { available: Some(20 << 20), sockets: None };
    let config = daemon.shared().config.clone();
    let large = Config { max_clients: Some(1000), ..config.clone() };
    let error = daemon.hub().apply(large.clone(), &memory).unwrap_err();
    assert!(
        matches!(&error, StartError::Memory(_)) && error.to_string().contains("lower max_clients"),
        "{error}"
    );
    assert_eq!(daemon.shared().config, config);
    let error = Daemon::start_within(large, KeyPair::from_seed(A), &memory).unwrap_err();
    assert!(error.to_string().starts_with("not enough memory: "), "{error}");
    assert_eq!(daemon.hub().apply(config, &memory).unwrap(), [""; 0]);
}

#[test]
fn a_daemon_that_was_killed_leaves_nothing_that_stops_the_next_one() {
    let mut bed = Bed::start("killed");
    for _ in 0..3 {
        // In the middle of a download, with a client that keeps its connection: the port is in use as much as can be.
        let mut client = bed.client("1:3128");
        client.send(get(&bed.origin, "/file"));
        client.head();
        client.bytes(100_000);
        bed.a.kill().unwrap();
        bed.a.wait().unwrap();
        assert!(client.rest_or_reset().0.len() < SIZE - 100_000);
        bed.run();
        assert_eq!(bed.ask("status")["router"]["usable_peers"], 1);
    }
    assert!(!bed.messages().contains("WARN"), "{}", bed.messages());
    bed.hurry.store(true, Ordering::SeqCst);
    let pooled = bed.download("/file");
    assert!(pooled.thread.join().unwrap() == pattern(SIZE));
    let log = bed.folder.join("A/log");
    let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some()) {
        let mut text = String::new();
        let _ = File::open(&file).unwrap().read_to_string(&mut text);
        let output = program::bamqp().args(["log", "verify"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}\n{text}", file.display());
    }
    let _: SocketAddr = bed.origin.address;
}
