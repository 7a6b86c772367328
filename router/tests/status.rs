//! `bamqp status|peers|trust` against running daemons: the same for people and as JSON.

#[path = "common/program.rs"]
mod program;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use bamqp_core::trust::{Conduct, Violation};
use bamqp_router::config::Config;
use bamqp_router::control::{SOCKET, ask};
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::{KeyPair, base64_encode};
use serde_json::Value;

/// A daemon with two peers: B runs, C does not.
struct Bed {
    folder: PathBuf,
    daemons: Vec<Daemon>,
    b: KeyPair,
}

impl Bed {
    fn start(name: &str, number: u8) -> Bed {
        let folder = std::env::temp_dir().join(format!("bamqp-status-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let net = format!("127.{}.{number}", 100 + std::process::id() % 100);
        let (a, b, c) =
            (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]), KeyPair::from_seed([3; 32]));
        let config = |own: &str, ip: u8, peers: &[(&str, u8, &KeyPair)]| {
            let state_dir = folder.join(own);
            std::fs::create_dir_all(&state_dir).unwrap();
            let mut text = format!(
                "config bamqp 'main'\n option peer_listen '{net}.{ip}:7733'\n option bandwidth '20M'\n option state_dir '{}'\n",
                state_dir.display()
            );
            for (name, ip, key) in peers {
                let key = base64_encode(key.public());
                text += &format!(
                    "config peer '{name}'\n option address '{net}.{ip}:7733'\n option public_key '{key}'\n"
                );
            }
            std::fs::write(folder.join(format!("{own}.conf")), &text).unwrap();
            Config::parse(&text, &folder).unwrap()
        };
        let daemons = vec![
            Daemon::start(config("B", 2, &[("A", 1, &a)]), b.clone()).unwrap(),
            Daemon::start(config("A", 1, &[("B", 2, &b), ("C", 3, &c)]), a).unwrap(),
        ];
        let bed = Bed { folder, daemons, b };
        let deadline = Instant::now() + Duration::from_secs(20);
        while bed.daemons[1].shared().peers.usable() == 0 || !bed.text(&["peers"]).contains("refused") {
            assert!(Instant::now() < deadline, "B is not seen, or C is: {}", bed.text(&["peers"]));
            std::thread::sleep(Duration::from_millis(20));
        }
        bed
    }

    fn bamqp(&self, arguments: &[&str]) -> Output {
        let config = self.folder.join("A.conf");
        program::bamqp().args(arguments).arg("--config").arg(config).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.bamqp(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, what: &str) -> Value {
        serde_json::from_str(&self.text(&[what, "--json"])).unwrap()
    }

    fn add(&self, conduct: &Conduct) {
        self.daemons[1].shared().trust.add(self.b.fingerprint(), conduct, Some(2_500_000));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.daemons.drain(..).for_each(Daemon::stop);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The line that begins with `word`, as words.
fn line<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let found = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    found
        .into_iter()
        .find(|words| words.first() == Some(&word))
        .unwrap_or_else(|| panic!("no {word}: {text}"))
}

fn good() -> Conduct {
    Conduct { requests: 10, timeouts: 1, bytes: 3 << 20, ..Conduct::default() }
}

#[test]
fn status_tells_of_the_router() {
    let bed = Bed::start("status", 1);
    let text = bed.text(&["status"]);
    assert_eq!(line(&text, "usable"), ["usable", "peers", "1"]);
    assert!(text.contains("sessions: none") && text.contains("own link"), "{text}");
    let json = bed.json("status");
    assert_eq!(json["router"]["router"], bed.daemons[1].shared().keyring.me().fingerprint().to_string());
    assert_eq!(json["router"]["peers"], 2);
    // Nothing is watched on loopback; what is offered is what the owner said.
    let helping = &json["helping"];
    assert_eq!((&helping["state"], &helping["offered_bytes_per_s"]), (&"offering".into(), &2_500_000.into()));
    assert_eq!(helping["fetched_today_bytes"], 0);
    assert_eq!(json["neighbours_helped"].as_array().unwrap().len(), 2);
    assert_eq!(json["router"]["own_link_bytes_per_s"], Value::Null);
    assert_eq!(json["sessions"], Value::Array(vec![]));
    assert_eq!(json["refused_messages"], Value::Array(vec![]));
}

#[test]
fn status_tells_what_routers_sent_that_was_not_done() {
    let bed = Bed::start("refused", 6);
    for (request, reason) in [
        (
            "GET /CHUNK HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\nRange: bytes=0-9\r\n\r\n",
            "unknown-session",
        ),
        (
            "POST /INIT HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\nBAMQP-Target: http://a/\r\nBAMQP-Size: 9\r\n\
             ETag: \"v\"\r\nBAMQP-Hops: 0\r\nBAMQP-Recipient: 01010101010101010101010101010101\r\n\r\n",
            "unsigned",
        ),
    ] {
        let mut line = std::net::TcpStream::connect(bed.daemons[1].peer_address().unwrap()).unwrap();
        line.write_all(request.as_bytes()).unwrap();
        line.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(reason), "{answer}");
    }
    let json = bed.json("status");
    let expected: Value = serde_json::from_str(
        r#"[{"reason": "unsigned", "count": 1}, {"reason": "unknown-session", "count": 1}]"#,
    )
    .unwrap();
    assert_eq!(json["refused_messages"], expected);
    assert_eq!(json["router"]["signatures_verified"], 0);
    assert!(bed.text(&["status"]).contains("unknown-session"));
}

#[test]
fn peers_tells_who_is_there_and_why_others_are_not() {
    let bed = Bed::start("peers", 2);
    let text = bed.text(&["peers"]);
    assert!(line(&text, "B").contains(&"up") && text.contains("20.0 Mbit/s"), "{text}");
    assert!(line(&text, "C").contains(&"down:"), "{text}");
    let json = bed.json("peers");
    let (b, c) = (&json["peers"][0], &json["peers"][1]);
    assert_eq!((&b["peer"], &b["offers_bytes_per_s"]), (&"B".into(), &2_500_000.into()));
    assert!(b["round_trip_us"].is_u64());
    assert!(c["state"].as_str().unwrap().contains("refused"), "{c}");
    assert_eq!(c["round_trip_us"], Value::Null);
}

#[test]
fn trust_tells_the_verdict_with_its_reason_and_forgets_at_the_owners_word() {
    let bed = Bed::start("trust", 3);
    assert_eq!(line(&bed.text(&["trust"]), "B")[..5], ["B", "newcomer", "no", "clean", "session"]);
    (0..2).for_each(|_| bed.add(&good()));
    assert!(bed.text(&["trust"]).contains("2 of 3 clean sessions"));
    bed.add(&good());
    let text = bed.text(&["trust"]);
    assert!(text.contains("T 0.900 > U 0.000") && text.contains("9.0 MiB"), "{text}");
    let json = bed.json("trust");
    let b = &json["trust"][0];
    assert_eq!(b["trust"], 0.9);
    assert_eq!(json["recent_sessions"].as_array().unwrap().len(), 3);
    let shared = bed.daemons[1].shared();
    shared.trust.accuse(bed.b.fingerprint(), shared.keyring.me().fingerprint());
    let b = &bed.json("trust")["trust"][0];
    assert_eq!(b["standing"], "trusted");
    assert_eq!(b["accused_by"], shared.keyring.me().fingerprint().to_string());

    bed.add(&Conduct { violation: Some(Violation::Lie), ..good() });
    let text = bed.text(&["trust"]);
    assert!(text.contains("barred"), "{text}");
    let left = ["lie; 12 h 0 min of running time left", "lie; 11 h 59 min of running time left"];
    assert!(left.iter().any(|left| text.contains(left)), "{text}");
    assert_eq!(bed.json("trust")["trust"][0]["violation"], "lie");
    assert_eq!(bed.text(&["trust", "forget", "B"]), "B is a newcomer now\n");
    assert_eq!(bed.json("trust")["trust"][0]["standing"], "newcomer");
    let output = bed.bamqp(&["trust", "forget", "X"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "bamqp: no peer X; bamqp trust lists them\n");
    assert_eq!(bed.bamqp(&["trust", "forget"]).status.code(), Some(2));
    for wrong in [&["trust", "remember", "B"][..], &["trust", "remember"], &["peers", "forget", "B"]] {
        assert_eq!(bed.bamqp(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn people_and_programs_see_the_same() {
    let bed = Bed::start("same", 4);
    bed.add(&good());
    for what in ["status", "peers", "trust"] {
        let (text, json) = (bed.text(&[what]), bed.json(what));
        for (section, value) in json.as_object().unwrap() {
            let Some(rows) = value.as_array() else { continue };
            let words = section.replace('_', " ");
            let head = format!("{words}:{}", if rows.is_empty() { " none" } else { "" });
            let mut lines = text.lines().skip_while(|line| **line != head);
            assert!(lines.next().is_some(), "no {head}: {text}");
            let lines = lines.take_while(|line| !line.is_empty()).count();
            assert_eq!(lines, if rows.is_empty() { 0 } else { rows.len() + 1 }, "{section}: {text}");
        }
    }
}

#[test]
fn only_the_owner_may_ask_and_nonsense_is_answered() {
    let bed = Bed::start("nonsense", 5);
    let state_dir = bed.folder.join("A");
    let socket = state_dir.join(SOCKET);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for request in ["", "fly", "status --yaml", "trust forget ", &"x".repeat(10_000)] {
        let error = ask(&state_dir, request).unwrap_err().to_string();
        assert!(!error.is_empty(), "{request}");
    }
    // One that says nothing, and one that hangs up: others are answered all the same.
    let silent = UnixStream::connect(&socket).unwrap();
    drop(UnixStream::connect(&socket).unwrap());
    assert!(ask(&state_dir, "status").unwrap().contains("usable peers"));
    drop(silent);
    let mut binary = UnixStream::connect(&socket).unwrap();
    binary.write_all(&[0xff, 0, b'\n']).unwrap();
    let mut answer = String::new();
    binary.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("expected status"), "{answer}");
}

#[test]
fn no_daemon_is_one_line() {
    let bed = Bed::start("none", 6);
    let state_dir = bed.folder.join("A");
    let mut bed = bed;
    // What a killed daemon leaves is no hindrance; a running one is not robbed of its socket.
    let config = Config::load(&bed.folder.join("A.conf")).unwrap();
    let second = Daemon::start(
        Config { peer_listen: None, peers: Vec::new(), ..config.clone() },
        KeyPair::from_seed([1; 32]),
    )
    .unwrap();
    assert!(ask(&state_dir, "peers").is_ok());
    second.stop();
    assert!(ask(&state_dir, "peers").is_ok(), "the second took the first one's socket with it");
    bed.daemons.drain(..).for_each(Daemon::stop);
    let output = bed.bamqp(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.starts_with("bamqp: no daemon answers at ") && error.lines().count() == 1, "{error}");
    drop(std::os::unix::net::UnixListener::bind(state_dir.join(SOCKET)).unwrap());
    let third = Daemon::start(Config { peer_listen: None, ..config }, KeyPair::from_seed([1; 32])).unwrap();
    assert!(ask(&state_dir, "peers").is_ok());
    third.stop();
}
