//! `bamqp log`, and what `bamqp run` leaves behind.

use std::process::{Command, Output};

use bamqp_core::http::request::Request;
use bamqp_core::signature::{FIRST_BUFFER_BYTES, first_of};
use bamqp_router::keys::base64_encode;

use super::against::pair;
use super::damage::line_end;
use super::program::bamqp;
use super::*;

fn log(args: &[&str]) -> Output {
    bamqp().arg("log").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_command_verifies() {
    let (peer, other) = pair(3);
    let (file, other) = (peer.only_file(), other.only_file());
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    let good = log(&["verify", file, "--against", other]);
    assert!(good.status.success(), "{good:?}");
    assert!(text(&good.stdout).starts_with("whole: entries 1 to 7 of router "), "{good:?}");
    assert!(text(&good.stdout).contains("3 sessions"));
    let mut bytes = fs::read(file).unwrap();
    let at = line_end(&bytes, 3) + 20;
    bytes[at] ^= 1;
    fs::write(file, &bytes).unwrap();
    let bad = log(&["verify", file]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).starts_with(&format!("bamqp: {file}:4: ")), "{bad:?}");
    assert!(bad.stdout.is_empty());
}

#[test]
fn the_command_shows_what_is_asked_for() {
    let (peer, other) = pair(3);
    let (file, other) = (peer.only_file(), other.only_file());
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    let lines = |args: &[&str]| {
        let output = log(&[&["show"], args, &[file]].concat());
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).lines().count()
    };
    assert_eq!(lines(&[]), 7);
    assert_eq!(lines(&["--url", "example.org/2"]), 2, "its INIT and its CHUNK");
    assert_eq!(lines(&["--url", "elsewhere"]), 0);
    for peer in ["10.77.0.1", "10.77.0.1:40112", &coordinator().fingerprint().to_string()[..8]] {
        assert_eq!(lines(&["--peer", peer]), 6, "{peer}");
    }
    assert_eq!(lines(&["--peer", "10.77.0.9"]), 0);
    assert_eq!(lines(&["--since", "2001-01-01"]), 7);
    assert_eq!(lines(&["--until", "2001-01-01"]), 0);
    let full = log(&["show", "--full", file]);
    assert_eq!(full.stdout, fs::read(file).unwrap());
    for peer in [owner().fingerprint().to_string(), base64_encode(owner().public())] {
        let own = log(&["show", other, "--peer", &peer]);
        assert_eq!(text(&own.stdout).lines().count(), 3, "{peer}");
        assert!(text(&own.stdout).contains("http://example.org/3"));
    }
    assert_eq!(lines(&["--peer", &base64_encode(coordinator().public())]), 6);
    // By time to the second, between its first and its last entry; all conditions together.
    let times: Vec<String> = fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| line.split('\t').nth(2).unwrap().trim_start_matches("time=").to_owned())
        .collect();
    let before = times.iter().filter(|time| **time < times[6]).count();
    assert_eq!(lines(&["--since", &times[6]]), 7 - before);
    assert_eq!(lines(&["--until", &times[6]]), before);
    assert_eq!(lines(&["--since", &times[0], "--peer", "10.77.0.1", "--url", "org/1"]), 2);
}

#[test]
fn the_command_says_what_is_wrong_with_its_arguments() {
    for args in [&[][..], &["burn"], &["show"], &["verify", "--full", "x"], &["show", "--since", "noon", "x"]]
    {
        let output = log(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1);
    }
    let help = log(&["verify", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("router/LOG.md"));
    assert_eq!(log(&["verify", "/nowhere/log"]).status.code(), Some(1));
}

/// The daemon writes what waits when it is told to stop: the whole program, with the signal that procd sends.
#[test]
fn sigterm_and_sigint_write_what_waits() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let at = folder.0.display();
        let config = folder.0.join("bamqp");
        fs::write(
            &config,
            format!(
                "config bamqp main\n option peer_listen '127.0.12.1:0'\n option key '{at}/key'\n \
                 option state_dir '{at}'\n option log_dir '{at}/log'\n"
            ),
        )
        .unwrap();
        let mut daemon = bamqp()
            .args(["run", "--config", config.to_str().unwrap()])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        // The folder is made when the daemon holds the signals back already.
        while !folder.0.join("log").exists() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let killed = Command::new("kill").args(["-s", signal, &daemon.id().to_string()]).status().unwrap();
        assert!(killed.success());
        while daemon.try_wait().unwrap().is_none() {
            if std::time::Instant::now() >= deadline {
                daemon.kill().unwrap();
                panic!("SIG{signal} did not end it");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(daemon.wait().unwrap().success(), "SIG{signal}");
        assert_eq!(kinds(&folder.only_file()), "OPEN", "SIG{signal}");
    }
}

/// A log for programs that are not ours: scripts/check-log-signatures says where.
#[test]
fn writes_the_sample_log() {
    let Some(folder) = std::env::var_os("BAMQP_SAMPLE_LOG") else { return };
    let config = Config { log_dir: PathBuf::from(folder).join("log"), ..Config::default() };
    let ledger = Ledger::open(&config, owner().public()).unwrap();
    for session in 1..=5 {
        append_init(&ledger, session).unwrap();
        ledger.append_chunk(SessionId([session; 16]), 0..100).unwrap();
        ledger.end_session(SessionId([session; 16]));
    }
    // One that another router has asked the coordinator for.
    let (first, coordinator) = (KeyPair::from_seed([9; 32]), coordinator());
    let identity = |pair: &KeyPair| Identity::from_seed(*pair.seed()).unwrap();
    let uri = uri(6);
    let asked = init(6, &uri, coordinator.fingerprint());
    let challenge = Challenge { log_head: [4; 32], random: [6; 16] };
    let to_coordinator = identity(&first).agree(coordinator.public()).unwrap();
    let head = sealed(&identity(&first), &to_coordinator, &asked, challenge.log_head);
    let (request, _) = Request::parse(&head).unwrap().unwrap();
    let mut buffer = vec![0; FIRST_BUFFER_BYTES];
    let first = first_of(&asked, &request, &head, *first.public(), challenge, &mut buffer).unwrap();
    let passed = Init { hops: 1, first: Some(first), ..init(6, &uri, owner().fingerprint()) };
    let to_owner = identity(&coordinator).agree(owner().public()).unwrap();
    let passed = sealed(&identity(&coordinator), &to_owner, &passed, ledger.head());
    append_init_as(&ledger, 6, &uri, &passed).unwrap();
    append_session(&ledger, 9, &[(coordinator.fingerprint(), [3; 32])]);
    drop(ledger);
    let files = fs::read_dir(config.log_dir).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    assert_eq!(check(&files, &[]).unwrap().inits, 6);
}
