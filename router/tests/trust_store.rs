//! Trust records over restarts, reboots, clocks that jump and files that are torn.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bamqp_core::message::Fingerprint;
use bamqp_core::trust::{Conduct, HALF_DAY, Moment, Record, Standing, Violation};
use bamqp_router::config::{Config, Peer};
use bamqp_router::keys::fingerprint_of;
use bamqp_router::trust_store::file::{self, Saved, State};
use bamqp_router::trust_store::{FILE, Reading, SAVE_EVERY, SAVE_RUNNING_EVERY, TrustStore};
use proptest::prelude::*;

thread_local! {
    /// What the clocks say to this test.
    static CLOCKS: Cell<Reading> = const { Cell::new(Reading { uptime: 0, clock: None }) };
}

fn set(uptime: u32, clock: Option<u32>) {
    CLOCKS.set(Reading { uptime, clock });
}

fn pass(seconds: u64) {
    let Reading { uptime, clock } = CLOCKS.get();
    set(uptime + seconds as u32, clock.map(|clock| clock + seconds as u32));
}

/// A router's `state_dir`, removed at the end.
struct Router(PathBuf);

impl Router {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bamqp-trust-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        set(100, None);
        Self(path)
    }

    fn config(&self) -> Config {
        let peer = |name: &str, key| Peer {
            name: name.into(),
            address: "10.77.0.2:7733".parse().unwrap(),
            public_key: [key; 32],
        };
        Config { state_dir: self.0.clone(), peers: vec![peer("B", 1), peer("C", 2)], ..Config::default() }
    }

    fn open(&self, boot_id: &str) -> TrustStore {
        TrustStore::open_with(&self.config(), boot_id, || CLOCKS.get())
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn text(&self) -> Option<String> {
        std::fs::read_to_string(self.file()).ok()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn b() -> Fingerprint {
    fingerprint_of(&[1; 32])
}

fn c() -> Fingerprint {
    fingerprint_of(&[2; 32])
}

fn good() -> Conduct {
    Conduct { requests: 9, bytes: 5_000_000, ..Conduct::default() }
}

fn lie() -> Conduct {
    Conduct { violation: Some(Violation::Lie), ..good() }
}

fn left(store: &TrustStore, key: Fingerprint) -> u32 {
    match store.standing(key) {
        Standing::Barred { left, .. } => left,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_known_outlasts_a_restart() {
    let router = Router::new();
    let store = router.open("one");
    (0..3).for_each(|_| store.add(b(), &good(), Some(1_250_000)));
    store.add(c(), &Conduct { mismatch: Some(77), timeouts: 2, drops: 1, ..good() }, None);
    assert!(store.accuse(b(), c()));
    assert!(!store.accuse(Fingerprint([9; 16]), c()), "no peer of ours");
    assert!(store.prospect(b()).is_fresh);
    store.close();
    let again = router.open("one");
    assert_eq!(format!("{:?}", again.views()), format!("{:?}", store.views()));
    assert_eq!(again.standing(b()), Standing::Trusted { accused: true });
    assert_eq!((again.prospect(b()).rate, again.prospect(b()).is_fresh), (Some(1_250_000), false));
    assert_eq!(again.now(), store.now());
}

#[test]
fn flash_is_written_rarely_and_at_once_for_a_violation() {
    let router = Router::new();
    let store = router.open("one");
    for _ in 0..100 {
        store.add(b(), &good(), None);
        store.tick();
    }
    assert_eq!(router.text(), None, "a download writes nothing");
    pass(SAVE_EVERY.as_secs() - 1);
    store.tick();
    assert_eq!(router.text(), None);
    pass(1);
    store.tick();
    let written = router.text().unwrap();
    pass(10 * SAVE_EVERY.as_secs());
    store.tick();
    assert_eq!(router.text().as_ref(), Some(&written), "nothing is new");
    store.add(b(), &lie(), None);
    assert_ne!(router.text().unwrap(), written, "at once");
    // While the bar runs, the time that it has run is written every now and then.
    let written = router.text().unwrap();
    pass(SAVE_RUNNING_EVERY.as_secs() - 1);
    store.tick();
    assert_eq!(router.text().unwrap(), written);
    pass(1);
    store.tick();
    assert_ne!(router.text().unwrap(), written);
    let mode = std::fs::metadata(router.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> =
        std::fs::read_dir(&router.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
}

#[test]
fn a_bar_lasts_for_twelve_hours_of_running_time_over_reboots_and_power_cuts() {
    let router = Router::new();
    set(5000, Some(1_700_000_000));
    let store = router.open("one");
    store.add(b(), &lie(), None);
    pass(3600);
    store.close();
    drop(store);
    // Switched off for days; the clock is set, then jumps.
    set(10, Some(1_700_900_000));
    let store = router.open("two");
    assert_eq!(left(&store, b()), HALF_DAY - 3600);
    set(3610, Some(1));
    assert_eq!(left(&store, b()), HALF_DAY - 7200);
    store.tick();
    pass(1800);
    drop(store); // a power cut: what was not written does not count in its favour
    set(0, None);
    let store = router.open("three");
    assert_eq!(left(&store, b()), HALF_DAY - 7200);
    pass(u64::from(HALF_DAY) - 7200);
    assert_eq!(store.standing(b()), Standing::Newcomer { clean: 0 });
    assert_eq!(store.standing(c()), Standing::Newcomer { clean: 0 });
}

#[test]
fn boots_are_told_apart_and_counted() {
    let router = Router::new();
    let trust = |store: &TrustStore| store.views()[0].scores.trust;
    let store = router.open("one");
    assert_eq!(store.now().boot, 1);
    store.add(b(), &good(), None);
    store.close();
    set(200, None);
    let store = router.open("one");
    assert_eq!((store.now().boot, trust(&store)), (1, 1000), "a restart of the daemon is no reboot");
    let store = router.open("two");
    assert_eq!((store.now().boot, trust(&store)), (2, 250));
    let nameless = router.open("");
    assert_eq!(nameless.now().boot, 2);
}

#[test]
fn the_owner_may_forget_by_name_or_key() {
    let router = Router::new();
    let store = router.open("one");
    store.add(b(), &lie(), Some(5));
    store.add(c(), &lie(), None);
    assert_eq!(store.forget("X"), None);
    assert_eq!(store.forget("B").as_deref(), Some("B"));
    assert_eq!(store.forget(&c().to_string()).as_deref(), Some("C"));
    let again = router.open("one");
    for key in [b(), c()] {
        assert_eq!(again.standing(key), Standing::Newcomer { clean: 0 });
    }
    assert_eq!(again.prospect(b()).rate, None);
}

#[test]
fn nowhere_to_write_is_no_reason_to_stop() {
    let router = Router::new();
    let store = router.open("one");
    std::fs::remove_dir_all(&router.0).unwrap();
    store.add(b(), &lie(), None);
    assert!(matches!(store.standing(b()), Standing::Barred { .. }));
    // It is tried again when the folder is back.
    std::fs::create_dir_all(&router.0).unwrap();
    pass(SAVE_EVERY.as_secs());
    store.tick();
    assert!(router.text().unwrap().contains("violation=lie@"));
    let nowhere = TrustStore::open(&Config { state_dir: "/nonexistent".into(), ..router.config() });
    nowhere.add(b(), &lie(), None);
    assert!(matches!(nowhere.standing(b()), Standing::Barred { .. }));
}

#[test]
fn a_file_that_was_planted_under_the_new_name_is_not_written_through() {
    let router = Router::new();
    let target = router.0.join("target");
    std::fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, router.file().with_extension("new")).unwrap();
    let store = router.open("one");
    store.add(b(), &lie(), None);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");
    assert!(router.text().is_some());
}

/// A file with all that it can have.
fn full() -> (State, Vec<Saved>) {
    let state = State { boot: 7, boot_id: "a-b".into(), running: 99_000 };
    let mut now = Moment { boot: 6, uptime: 50, running: 80_000, clock: None };
    let mut records = [Record::default(), Record::default()];
    for record in &mut records {
        for step in 0..60 {
            now.uptime += 1000;
            now.running += 1000 / 60;
            now.clock = (step % 2 == 0).then_some(1_700_000_000 + now.uptime);
            record.add(now, &Conduct { timeouts: step % 3, drops: step % 2, ..good() });
        }
        record.add(now, &Conduct { mismatch: Some(4_000_000_000), ..good() });
        record.add(now, &Conduct { mismatch: Some(1), ..good() });
    }
    records[0].add(now, &lie());
    records[0].accuse(now, c());
    let [one, other] = records;
    let mut peers = vec![
        Saved::new(b(), "10.77.0.2:7733".parse().unwrap()),
        Saved::new(c(), "[fd00::2]:7733".parse().unwrap()),
    ];
    (peers[0].record, peers[0].rate, peers[1].record) = (one, Some(u32::MAX), other);
    (state, peers)
}

#[test]
fn the_file_says_everything() {
    let (state, peers) = full();
    let text = file::text(&state, peers.iter());
    assert_eq!(file::parse(&text), (state, peers, 0));
    assert_eq!(file::parse(""), (State::default(), Vec::new(), 0));
    assert!(text.lines().next().unwrap().starts_with("bamqp-trust-1 boot=7 boot_id=a-b running=99000 #"));
}

#[test]
fn a_file_torn_at_any_byte_loses_what_is_torn_and_a_bar_last() {
    let (state, peers) = full();
    let text = file::text(&state, peers.iter());
    let bars = text.match_indices('\n').nth(1).unwrap().0 + 1;
    for end in (0..text.len()).step_by(7).chain(0..bars + 200).filter(|end| *end < text.len()) {
        let (found_state, found, wrong) = file::parse(&text[..end]);
        assert!(wrong <= 2, "{end}");
        if end >= bars {
            assert_eq!((found[0].record.violation, &found_state), (peers[0].record.violation, &state));
            assert_eq!(found[0].record.alert, peers[0].record.alert);
        }
        for (found, whole) in found.iter().zip(&peers) {
            assert!(whole.record.recent.starts_with(&found.record.recent));
        }
    }
    // Without its first line, what runs out has not run at all.
    let rest = &text[text.find('\n').unwrap() + 1..];
    let (found_state, found, wrong) = file::parse(rest);
    assert_eq!((found.len(), wrong), (2, 1));
    assert!(found_state.running >= found[0].record.violation.unwrap().1 && found_state.boot == 6);
}

#[test]
fn damaged_files_are_read_as_far_as_they_go() {
    let router = Router::new();
    let store = router.open("one");
    store.add(b(), &lie(), None);
    let text = router.text().unwrap();
    std::fs::write(router.file(), [text.as_bytes(), &[0xff, 0, b'\n', b'x']].concat()).unwrap();
    assert!(matches!(router.open("one").standing(b()), Standing::Barred { .. }));
    std::fs::write(router.file(), vec![0; 100_000]).unwrap();
    assert_eq!(router.open("one").standing(b()), Standing::Newcomer { clean: 0 });
    std::fs::remove_file(router.file()).unwrap();
    std::fs::create_dir(router.file()).unwrap();
    assert_eq!(router.open("one").standing(b()), Standing::Newcomer { clean: 0 });
    assert!(Path::new(&router.file()).is_dir());
}

proptest! {
    #[test]
    fn a_changed_byte_costs_its_line_alone(at in 0usize..10_000, byte in any::<u8>()) {
        let (state, peers) = full();
        let mut bytes = file::text(&state, peers.iter()).into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (_, found, wrong) = file::parse(&text);
        prop_assert!(wrong > 0);
        for one in &found {
            let whole = peers.iter().find(|peer| peer.key == one.key).unwrap();
            prop_assert_eq!(&one.record.old, &whole.record.old);
            prop_assert!(one.record.recent.iter().all(|one| whole.record.recent.contains(one)));
        }
    }
}
