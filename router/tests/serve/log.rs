//! What the peer side writes down, and when.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::ledger_check::check;
use bamqp_router::ledger_file::Ledger;

use super::bed::{A, B, Bed, eventually, id, seed_of};
use super::origin::{Origin, Reply, bytes};
use super::{TOTAL, session};

/// The ledger's text as it is on the disk after a flush.
fn text(ledger: &Ledger, log_dir: &PathBuf) -> String {
    ledger.flush().unwrap();
    let files = std::fs::read_dir(log_dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn what_is_fetched_is_in_the_log_before() {
    static LOG: OnceLock<(Arc<Ledger>, PathBuf)> = OnceLock::new();
    static BEFORE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let origin = Origin::start(TOTAL, |_, _| {
        let (ledger, log_dir) = LOG.get().unwrap();
        BEFORE.lock().unwrap().push(text(ledger, log_dir));
        Reply::Range
    });
    let bed = Bed::start(&[origin.address.port()]);
    LOG.set((bed.ledger.clone(), bed.log_dir.clone())).unwrap();
    let mut line = session(&bed, &origin, 1);
    for range in [1000..2000, 2000..3000, 90_000..90_001] {
        line.ask(id(1), range.clone());
        assert_eq!(line.chunk(range.clone(), TOTAL).unwrap(), bytes(range));
    }
    let before = BEFORE.lock().unwrap();
    let [first, second, third] = &before[..] else { panic!("{before:?}") };
    let (from, uri) = (line.socket.local_addr().unwrap(), origin.uri());
    let key = base64_encode(KeyPair::from_seed(seed_of(A)).public());
    assert!(first.contains(&format!("\tINIT\tkey={key}\t")), "{first}");
    assert!(
        first.contains(&format!("\tfrom={from}\tsession={}\tsize={TOTAL}\turi={uri}\t", id(1))),
        "{first}"
    );
    assert!(first.contains("\thead=POST /INIT HTTP/1.1\\r\\nHost: peer\\r\\n"), "{first}");
    assert!(first.contains("\tranges=1000-1999\t"), "{first}");
    assert!(second.contains("\tranges=2000-2999\t"), "{second}");
    assert!(third.contains("\tranges=90000-90000\t"), "{third}");
    // What the coordinator signed is what stands in the log, and it countersigned the log.
    let file = std::fs::read_dir(&bed.log_dir).unwrap().next().unwrap().unwrap().path();
    let report = check(&[file], &[]).unwrap();
    assert_eq!((report.owner, report.inits), (Some(bed.key), 1));
}

#[test]
fn what_can_not_be_logged_is_not_fetched() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    eventually("no connection to the origin", || origin.connections() > 0);
    bed.ledger.stop();
    line.ask(id(1), 0..1000);
    assert_eq!(line.chunk(0..1000, TOTAL), Err(DropReason::Busy));
    let mut other = bed.connect(A);
    assert_eq!(other.init(id(2), &origin.uri(), TOTAL), Err(DeclineReason::Busy));
    assert_eq!(bed.serve.report().sessions, 1, "the declined one is gone");
    assert_eq!(origin.requests(), []);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_declined_init_is_not_in_the_log() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = bed.connect(A);
    let refused = line.init(id(1), "http://10.1.2.3/", TOTAL);
    assert_eq!(refused, Err(DeclineReason::RefusedTarget));
    assert!(!text(&bed.ledger, &bed.log_dir).contains("INIT"));
}

#[test]
fn who_fills_the_log_is_declined_with_a_time_and_pushes_nothing_out() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::with(&[origin.address.port()], |config| {
        (config.log_size, config.log_files) = (64 * 1024, 1);
    });
    // Another coordinator was there before.
    let mut other = bed.connect(B);
    other.init(id(200), &origin.uri(), TOTAL).unwrap();
    other.end(id(200)).unwrap();
    let mut line = bed.connect(A);
    let mut taken = 0;
    let declined = loop {
        match line.init(id(1), &origin.uri(), TOTAL) {
            Ok(_) => {
                line.end(id(1)).unwrap();
                taken += 1;
            }
            // What waits for the log is still being written.
            Err(DeclineReason::Busy) => std::thread::sleep(Duration::from_millis(5)),
            Err(reason) => break reason,
        };
        assert!(taken < 1000, "no limit");
    };
    assert_eq!(declined, DeclineReason::Quota);
    assert!((10..24).contains(&taken), "{taken}");
    let verified = bed.keyring.report().tally.verified;
    for _ in 0..15 {
        assert_eq!(line.init(id(1), &origin.uri(), TOTAL), Err(DeclineReason::Quota));
    }
    assert_eq!(bed.keyring.report().tally.verified, verified, "and costs no signature");
    assert_eq!(bed.serve.report().declined(DeclineReason::Quota), 16);
    assert_eq!(bed.serve.excess().iter().map(|(_, count)| count).sum::<u32>(), 16, "and is on record");
    // It was told often enough: its connection ended, and it is not let in for a while.
    drop(bed.connect(A));
    eventually("it is let in", || bed.serve.report().turned_away > 0);
    let log = text(&bed.ledger, &bed.log_dir);
    assert!(log.contains(&format!("session={}", id(200))), "it is still there");
    assert!(log.len() < 48 * 1024, "{} bytes", log.len());
    assert!(other.init(id(201), &origin.uri(), TOTAL).is_ok(), "others are worked for as before");
}
