//! The household comes first, and what its owner allows: withdrawal in the middle of a chunk, pacing, quotas, targets.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_core::message::drop::Drop as DropMessage;
use bamqp_core::message::hello::Hello;
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::spare::Offer;
use bamqp_router::config::{Config, Helping, Target};

use super::bed::{A, B, Bed, eventually, id};
use super::origin::{Origin, Reply, bytes};
use super::{TOTAL, session};

#[test]
fn what_was_fetched_counts_even_if_the_coordinator_goes_away_before_its_end() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..TOTAL);
    assert_eq!(line.answer().unwrap().status(), 206);
    assert!(line.body(TOTAL - 1) == bytes(0..TOTAL - 1));
    drop(line);
    eventually("it is not counted", || bed.usage.report().day.0 >= TOTAL - 1);
}

/// What a kernel would count of a line on which a household downloads, over what is fetched for others or not.
struct Line {
    file: PathBuf,
    household: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    fn new(name: &str) -> Line {
        let file =
            PathBuf::from(format!("{}/wan-{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id()));
        let (household, stopping) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (rate, stop, path) = (household.clone(), stopping.clone(), file.clone());
        let write =
            move |came: u64| fs::write(&path, format!("   wan: {:20} {:20}\n", came + 66, 1)).unwrap();
        write(0);
        let thread = std::thread::spawn(move || {
            let (mut came, mut last) = (0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                came += rate.load(Ordering::Relaxed) * last.elapsed().as_micros() as u64 / 1_000_000;
                last = Instant::now();
                write(came);
            }
        });
        Line { file, household, stopping, thread: Some(thread) }
    }

    fn helping(&self) -> Helping {
        let wan_interface = Some("wan".into());
        Helping { wan_interface, wan_counters: self.file.clone(), ..Helping::default() }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let _ = fs::remove_file(&self.file);
    }
}

fn with(port: u16, change: impl FnOnce(&mut Config)) -> Bed {
    let bed = Bed::with(&[port], change);
    let uplink = bed.uplink.clone();
    bed.live.spawn("uplink", move || uplink.run()).unwrap();
    bed
}

#[test]
fn a_chunk_is_cut_short_when_the_household_wants_its_line_and_what_follows_is_told_when_to_ask_again() {
    let origin = Origin::start(TOTAL, |_, _| Reply::CutAfter(1000));
    let wan = Line::new("cut");
    let bed = with(origin.address.port(), |config| config.helping = wan.helping());
    let mut line = session(&bed, &origin, 1);
    // The household takes all of its 20 Mbit/s.
    wan.household.store(2_500_000, Ordering::Relaxed);
    eventually("it helps on", || bed.uplink.is_withdrawn());
    line.ask(id(1), 0..10_000);
    let head = line.answer().unwrap();
    let drop = head.with(|response| DropMessage::of_answer(response).unwrap());
    assert_eq!(drop.reason, DropReason::Busy);
    assert!((1..=60).contains(&drop.retry_after), "{}", drop.retry_after);
    assert_eq!(origin.requests(), [], "nothing is fetched");
    assert_eq!(bed.connect(B).init(id(2), &origin.uri(), TOTAL), Err(DeclineReason::Busy));
    // It tells nobody to come; and when the household is calm it helps again.
    let hello = bed.connect(A).hello().unwrap().with(|response| Hello::parse(response).unwrap());
    assert_eq!(hello.details.unwrap().bandwidth, 0);
    wan.household.store(0, Ordering::Relaxed);
    eventually("it does not help again", || !bed.uplink.is_withdrawn());
    assert!(bed.connect(B).init(id(2), &origin.uri(), TOTAL).is_ok());
}

#[test]
fn a_chunk_under_way_ends_at_once() {
    // The origin sends the first part of the chunk and then nothing: without being woken, the peer would wait for it.
    let origin = Origin::start(TOTAL, |_, _| {
        let head = "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Length: 100000\r\nContent-Range: bytes 0-99999/3000000\r\n\r\n";
        Reply::Raw(format!("{head}abc"))
    });
    let wan = Line::new("under-way");
    let bed = with(origin.address.port(), |config| config.helping = wan.helping());
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..100_000);
    assert_eq!(line.answer().unwrap().status(), 206);
    wan.household.store(2_500_000, Ordering::Relaxed);
    assert_eq!(line.body(100_000), b"abc", "cut short, never padded");
}

#[test]
fn what_is_fetched_keeps_to_the_share() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    // A quarter of 20 Mbit/s are 625 kB/s: 1 MB takes 1.6 s, less what may be read at once.
    let bed = Bed::with(&[origin.address.port()], |config| config.helping.share = 25);
    assert_eq!(bed.uplink.offer(), Offer::Open { rate: 625_000, pace: Some(625_000) });
    let mut line = bed.connect(A);
    assert_eq!(line.init(id(1), &origin.uri(), TOTAL).unwrap().0, 5_000_000);
    let begun = Instant::now();
    for chunk in 0..4u64 {
        let range = chunk * 250_000..(chunk + 1) * 250_000;
        line.ask(id(1), range.clone());
        assert_eq!(line.chunk(range.clone(), TOTAL).unwrap(), bytes(range));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "{:?}", begun.elapsed());
}

#[test]
fn a_quota_ends_helping_with_a_time_and_only_who_has_had_its_share_is_declined() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::with(&[origin.address.port()], |config| config.helping.quota_peer_day = Some(1000));
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..1000);
    assert_eq!(line.chunk(0..1000, TOTAL).unwrap(), bytes(0..1000));
    line.ask(id(1), 1000..2000);
    let drop = line.answer().unwrap().with(|response| DropMessage::of_answer(response).unwrap());
    assert_eq!(drop.reason, DropReason::Quota);
    assert!((1..=3600).contains(&drop.retry_after));
    assert_eq!(line.init(id(2), &origin.uri(), TOTAL), Err(DeclineReason::Quota));
    assert!(bed.connect(B).init(id(3), &origin.uri(), TOTAL).is_ok());
    assert_eq!(bed.usage.report().day.0, 1000);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn of_what_was_asked_for_before_the_quota_was_used_up_only_what_has_begun_is_finished() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::with(&[origin.address.port()], |config| config.helping.quota_day = Some(1000));
    let mut line = session(&bed, &origin, 1);
    let ranges = [0..100_000, 100_000..200_000, 200_000..300_000];
    for range in &ranges {
        line.ask(id(1), range.clone());
    }
    assert!(line.chunk(ranges[0].clone(), TOTAL).unwrap() == bytes(ranges[0].clone()));
    for _ in 1..3 {
        let drop = line.answer().unwrap().with(|response| DropMessage::of_answer(response).unwrap());
        assert_eq!(drop.reason, DropReason::Quota);
        assert!((1..=3600).contains(&drop.retry_after));
    }
    assert_eq!(bed.usage.report().day.0, 100_000);
}

#[test]
fn outside_its_hours_a_router_helps_nobody() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    // Whatever the time is, or whether the clock is set: these hours do not begin within one, nor end.
    let now = bamqp_router::clock::local_time().unwrap_or(0) % 86_400 / 3600;
    let hours =
        |from: u64, until: u64| format!("{:02}-{:02}", (now + from) % 24, (now + until) % 24).parse().ok();
    let closed = Bed::with(&[origin.address.port()], |config| config.helping.hours = hours(2, 12));
    assert_eq!(closed.connect(A).init(id(1), &origin.uri(), TOTAL), Err(DeclineReason::Busy));
    let open = Bed::with(&[origin.address.port()], |config| config.helping.hours = hours(12, 2));
    let expected = if bamqp_router::clock::local_time().is_some() { None } else { Some(DeclineReason::Busy) };
    assert_eq!(open.connect(A).init(id(1), &origin.uri(), TOTAL).err(), expected);
}

#[test]
fn some_targets_are_never_fetched() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let port = origin.address.port();
    let never = |target: Target| Bed::with(&[port], |config| config.helping.never_fetch = vec![target]);
    let bed = never(Target::Network(format!("{}/32", origin.address.ip()).parse().unwrap()));
    assert_eq!(bed.connect(A).init(id(1), &origin.uri(), TOTAL), Err(DeclineReason::RefusedTarget));
    let bed = never(Target::Name("example.org".into()));
    assert!(bed.connect(A).init(id(1), &origin.uri(), TOTAL).is_ok());
    assert_eq!(origin.requests(), []);
}
