//! Three real daemons, a real nginx and a real curl on loopback addresses: what a household sees. Needs nginx, curl and
//! openssl (scripts/install-test-tools). Sizes and contents come from BAMQP_TEST_SEED, which is printed.

mod common;

use std::fs;

use bamqp_core::trust::Standing;
use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_check;
use bamqp_router::status::SessionReport;

use common::street::{Neighbourhood, WINDOW, ledger, seeded};

/// The own link and every neighbour's brought their part and broke no rule; together they brought all.
fn assert_pooled(session: &SessionReport) {
    assert_eq!(session.outcome.as_deref(), Some("complete"), "{session:?}");
    for lane in session.lanes.iter().filter(|lane| lane.name != "own") {
        assert!(lane.bytes > 0, "{} brought nothing: {session:?}", lane.name);
    }
    assert!(session.lanes.iter().all(|lane| lane.violations == 0), "{session:?}");
    assert_eq!(
        session.lanes.iter().map(|lane| lane.bytes).sum::<u64>(),
        session.range.end - session.range.start
    );
    assert!(session.window_used <= WINDOW);
}

#[test]
fn a_plain_download_comes_over_all_links() {
    let mut n = Neighbourhood::start();
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_pooled(&sessions[0]);
    assert_eq!(sessions[0].lanes.len(), 4);

    // Every router tells what it did, once it was stopped; and each helper's log is the one that R1 countersigned.
    n.daemons.clear();
    let own = ledger(&n.folder, 1);
    let text = fs::read_to_string(&own[0]).unwrap();
    let session: Vec<&str> = text.lines().filter(|entry| entry.contains("\tSESSION\t")).collect();
    let [session] = session[..] else { panic!("{text}") };
    assert!(session.contains(&format!("\turi={}\t", n.url("paced"))), "{session}");
    for i in [2, 3] {
        let files = ledger(&n.folder, i);
        let report = ledger_check::check(&files, &own).unwrap();
        assert_eq!(report.owner, Some(KeyPair::from_seed([i; 32]).fingerprint()));
        assert_eq!(report.countersigned, 1);
        let text = fs::read_to_string(&files[0]).unwrap();
        assert!(text.find("\tINIT\t").unwrap() < text.find("\tCHUNK\t").unwrap(), "{text}");
    }
}

#[test]
fn a_client_with_long_fields_costs_no_neighbour_its_name() {
    let n = Neighbourhood::start();
    let agent = "x".repeat(3860);
    assert!(n.download("paced", "out", &["-A", &agent]).unwrap() == n.file, "wrong bytes");
    assert_pooled(&n.ended(1)[0]);
}

#[test]
fn neighbours_get_to_know_what_they_fetch_and_nothing_else_of_the_client() {
    let mut n = Neighbourhood::start();
    let secrets = ["-H", "X-Token: secret-1", "-H", "Accept-Language: secret-2", "-e", "http://secret-3/"];
    let told = ["-A", "agent/1", "-H", "Accept: text/told"];
    assert!(
        n.download("paced", "out", &[secrets.as_slice(), &told].concat()).unwrap() == n.file,
        "wrong bytes"
    );
    assert_pooled(&n.ended(1)[0]);
    n.daemons.clear();
    let from = |i: u8| format!("{}.{i}.1|", n.net);
    let log = fs::read_to_string(n.folder.join("told.log")).unwrap();
    let whole = format!("{}http://secret-3/|secret-1|secret-2|agent/1|text/told", from(1));
    assert!(log.lines().any(|line| line == whole), "the origin gets all from A: {log}");
    for i in [2, 3] {
        let mut lines = log.lines().filter(|line| line.starts_with(&from(i))).peekable();
        assert!(lines.peek().is_some(), "R{i} fetched nothing: {log}");
        assert!(lines.all(|line| line == format!("{}-|-|-|agent/1|text/told", from(i))), "{log}");
        // The log has all of what it was sent.
        let text = fs::read_to_string(&ledger(&n.folder, i)[0]).unwrap();
        assert!(text.contains("Accept: text/told") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn a_download_that_broke_off_is_resumed() {
    let n = Neighbourhood::start();
    let have = 1_000_001 + seeded(3) as usize % 100_000;
    fs::write(n.folder.join("out"), &n.file[..have]).unwrap();
    assert!(n.download("paced", "out", &["-C", "-"]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_pooled(&sessions[0]);
    assert!(sessions[0].range.start >= have as u64 && sessions[0].range.end == n.file.len() as u64);
    assert_eq!(sessions[0].total, n.file.len() as u64);
}

#[test]
fn two_downloads_at_once_are_both_right() {
    let n = Neighbourhood::start();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| n.download("paced", "one", &[]).unwrap());
        assert!(n.download("paced", "two", &[]).unwrap() == n.file, "wrong bytes");
        assert!(other.join().unwrap() == n.file, "wrong bytes");
    });
    n.ended(2).iter().for_each(assert_pooled);
}

#[test]
fn a_client_that_hangs_up_ends_its_session_and_nothing_else() {
    // More than all buffers on the way hold, for a client that takes its time.
    let n = Neighbourhood::with_file_of(40);
    let to = n.folder.join("out");
    let mut curl =
        n.curl(&["--limit-rate", "4M", "-o", to.to_str().unwrap(), &n.url("paced")]).spawn().unwrap();
    n.wait_for(|| n.sessions().iter().any(|s| s.delivered > 100_000));
    curl.kill().unwrap();
    curl.wait().unwrap();
    let sessions = n.ended(1);
    assert_eq!(sessions[0].outcome.as_deref(), Some("client gone"));
    assert!(sessions[0].delivered < n.file.len() as u64);
    assert!(n.download("paced", "again", &[]).unwrap() == n.file, "wrong bytes");
    assert_pooled(&n.ended(2)[1]);
}

#[test]
fn a_slow_client_slows_the_lanes_and_fills_no_memory() {
    let n = Neighbourhood::start();
    assert!(n.download("plain", "out", &["--limit-rate", "4M"]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_eq!(sessions[0].outcome.as_deref(), Some("complete"));
    assert!(sessions[0].window_used <= WINDOW, "{sessions:?}");
}

#[test]
fn what_can_not_be_combined_is_relayed() {
    let n = Neighbourhood::start();
    for place in ["noranges", "weak", "chunked"] {
        assert!(n.download(place, "out", &[]).unwrap() == n.file, "{place}: wrong bytes");
    }
    let head = n.curl(&["-I", &n.url("chunked")]).output().unwrap();
    let head = String::from_utf8(head.stdout).unwrap().to_lowercase();
    assert!(!head.contains("content-length") && !head.contains("etag"), "not what was to be tried: {head}");
    let sessions = n.sessions();
    // An origin that ignores ranges shows that only when it is asked for one.
    assert!(sessions.iter().all(|s| s.target.contains("/noranges/")), "{sessions:?}");
    assert!(sessions.iter().flat_map(|s| &s.lanes).filter(|l| l.name != "original").all(|l| l.bytes == 0));
}

#[test]
fn https_goes_through_a_tunnel() {
    let n = Neighbourhood::start();
    let url = format!("https://{}.9.9:8443/plain/file", n.net);
    let to = n.folder.join("out");
    let output = n.curl(&["-f", "-k", "-o", to.to_str().unwrap(), &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(to).unwrap() == n.file, "wrong bytes");
    let refused = n.curl(&["-k", &format!("https://{}.9.9:8080/", n.net)]).output().unwrap();
    assert!(!refused.status.success(), "CONNECT to another port than those allowed");
    assert!(n.sessions().is_empty());
}

#[test]
fn a_neighbour_that_is_switched_off_costs_nothing_but_speed() {
    let mut n = Neighbourhood::with_file_of(40);
    let third = n.daemons.pop().unwrap();
    let bytes = std::thread::scope(|scope| {
        let download = scope.spawn(|| n.download("paced", "out", &["--limit-rate", "8M"]));
        n.wait_for(|| n.sessions().iter().any(|s| s.lanes.iter().any(|l| l.name == "R3" && l.bytes > 0)));
        third.stop();
        download.join().unwrap()
    });
    assert!(bytes.unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    let lost = sessions[0].lanes.iter().find(|lane| lane.name == "R3").unwrap();
    assert!(lost.failures + lost.timeouts > 0, "the neighbour was not lost: {sessions:?}");
}

#[test]
fn neighbours_that_served_well_come_to_be_trusted() {
    let n = Neighbourhood::start();
    for count in 1..=3 {
        assert!(n.download("paced", "out", &["--limit-rate", "8M"]).unwrap() == n.file, "wrong bytes");
        n.ended(count);
    }
    for view in n.daemons[0].shared().trust.views() {
        assert_eq!(view.standing, Standing::Trusted { accused: false }, "{view:?}");
        assert_eq!((view.scores.sums.sessions, view.scores.untrust), (3, 0), "{view:?}");
    }
}
