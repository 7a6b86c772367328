//! The ledger on disk: nothing is lost but what was not flushed, nothing is altered or cut off unseen.

mod against;
mod command;
mod damage;
#[path = "../common/program.rs"]
mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bamqp_core::channel::{Challenge, Identity, Neighbour, Tally};
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::ledger::{Chain, Entry, Event, Hash};
use bamqp_core::message::init::Init;
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_router::config::Config;
use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_check::{Problem, Report, Wrong, check};
use bamqp_router::ledger_file::{AppendError, InitRecord, Ledger, MAX_WAITING, OpenError, SessionRecord};

/// A new folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory where that is possible: there are thousands of writes that wait for the disk.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let path = base.join(format!("bamqp-ledger-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn config(&self) -> Config {
        Config { log_dir: self.0.join("log"), ..Config::default() }
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.config(), owner().public()).unwrap()
    }

    /// The ledger's files, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("log")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
        files.sort();
        files
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    fn check(&self) -> Report {
        check(&self.files(), &[]).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn owner() -> KeyPair {
    KeyPair::from_seed([7; 32])
}

fn coordinator() -> KeyPair {
    KeyPair::from_seed([8; 32])
}

fn uri(session: u8) -> String {
    format!("http://example.org/{session}")
}

/// The head of the coordinator's INIT to [`owner`], whose ledger has the head `log_head`.
fn init_head(session: u8, log_head: [u8; 32]) -> Vec<u8> {
    static IDENTITY: LazyLock<(Identity, Neighbour)> = LazyLock::new(|| {
        let identity = Identity::from_seed(*coordinator().seed()).unwrap();
        let peer = identity.agree(owner().public()).unwrap();
        (identity, peer)
    });
    let (identity, peer) = &*IDENTITY;
    sealed(identity, peer, &init(session, &uri(session), owner().fingerprint()), log_head)
}

fn init(session: u8, uri: &str, recipient: Fingerprint) -> Init<'_> {
    Init {
        session: SessionId([session; 16]),
        target: Uri::parse(uri).unwrap(),
        size: 100_000_000,
        validator: Validator::entity_tag(b"\"a\\b\"").unwrap(),
        hops: 0,
        recipient,
        first: None,
        user_agent: Some(b"test\\1"),
        accept: None,
    }
}

fn sealed(identity: &Identity, peer: &Neighbour, init: &Init<'_>, log_head: [u8; 32]) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let mut head = HeadWriter::new(&mut buffer);
    init.write(&mut head, &"10.77.0.2:7733");
    let challenge = Challenge { log_head, random: [init.session.0[0]; 16] };
    let (length, ..) = identity.seal_init(head, init, peer, &challenge, &mut Tally::default()).unwrap();
    buffer.truncate(length);
    buffer
}

/// An INIT that countersigns all that the ledger has.
fn append_init(ledger: &Ledger, session: u8) -> Result<[u8; 32], AppendError> {
    append_init_as(ledger, session, &uri(session), &init_head(session, ledger.head()))
}

fn append_init_as(ledger: &Ledger, session: u8, uri: &str, head: &[u8]) -> Result<[u8; 32], AppendError> {
    ledger.append_init(&InitRecord {
        key: coordinator().public(),
        from: "10.77.0.1:40112".parse().unwrap(),
        session: SessionId([session; 16]),
        size: 100_000_000,
        uri,
        head,
    })
}

fn append_session(ledger: &Ledger, session: u8, peers: &[(Fingerprint, [u8; 32])]) {
    ledger
        .append_session(&SessionRecord {
            session: SessionId([session; 16]),
            size: 100_000_000,
            range: &(10..100_000_000),
            uri: &format!("http://example.org/{session}"),
            peers,
        })
        .unwrap();
}

/// Kind of each entry, in order.
fn kinds(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let kind = |line: &str| line.split('\t').nth(4).unwrap().to_owned();
    text.lines().map(kind).collect::<Vec<_>>().join(" ")
}

#[test]
fn entries_are_chained_and_the_file_is_private() {
    let folder = Folder::new();
    let ledger = folder.open();
    let opened = ledger.head();
    let first = append_init(&ledger, 1).unwrap();
    assert_eq!(ledger.head(), first);
    for range in [0..65_536, 65_536..131_072, 262_144..327_680] {
        ledger.append_chunk(SessionId([1; 16]), range).unwrap();
    }
    assert_eq!(ledger.head(), first, "chunks become an entry when their session ends");
    ledger.end_session(SessionId([1; 16]));
    append_session(&ledger, 2, &[(coordinator().fingerprint(), [3; 32])]);
    let head = ledger.head();
    drop(ledger);

    let file = folder.only_file();
    assert_eq!(kinds(&file), "OPEN INIT CHUNK SESSION");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\tranges=0-131071,262144-327679\t"), "{text}");
    assert!(
        text.contains("\turi=http://example.org/1\thead=POST /INIT HTTP/1.1\\r\\nHost: 10.77.0.2:7733\\r\\n")
    );
    assert!(text.contains(&format!("\tprev={}\t", Hash(opened))));
    let report = folder.check();
    assert_eq!((report.owner, report.inits), (Some(owner().fingerprint()), 1));
    assert_eq!((report.first, report.last, report.head), (1, 4, Hash(head)));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A coordinator that asks for many small ranges does not push what was asked before out of the log.
#[test]
fn many_small_ranges_are_one_entry_that_has_them_all() {
    let folder = Folder::new();
    let ledger = folder.open();
    let id = SessionId([1; 16]);
    append_init(&ledger, 1).unwrap();
    // Each third range is next to the one before, the others are far from it; and one again.
    let range = |i: u64| i / 3 * 1_000_000 + i % 3 * 1000..i / 3 * 1_000_000 + i % 3 * 1000 + 500;
    for i in (0..20_000).chain([7]) {
        ledger.append_chunk(id, range(i)).unwrap();
    }
    ledger.end_session(id);
    drop(ledger);
    let file = folder.only_file();
    assert_eq!(kinds(&file), "OPEN INIT CHUNK");
    let text = fs::read_to_string(&file).unwrap();
    let (entry, _) = Entry::parse(text.split_inclusive('\n').nth(2).unwrap().as_bytes()).unwrap();
    let Event::Chunk { ranges, .. } = entry.event else { panic!("{text}") };
    let ranges: Vec<_> = ranges.iter().collect();
    assert!(ranges.len() <= 64, "{}", ranges.len());
    for i in 0..20_000 {
        let wanted = range(i);
        assert!(
            ranges.iter().any(|range| range.start <= wanted.start && wanted.end <= range.end),
            "{wanted:?}"
        );
    }
    assert!(text.len() < 4096, "{} bytes", text.len());
    // What is close together is joined first: the last sessions' worth is as exact as it may be.
    assert_eq!(ranges.last(), Some(&range(7)));
}

#[test]
fn nothing_is_written_before_it_is_time() {
    let folder = Folder::new();
    let ledger = folder.open();
    append_init(&ledger, 1).unwrap();
    assert!(folder.files().is_empty());
    ledger.append_chunk(SessionId([1; 16]), 0..10).unwrap();
    ledger.flush().unwrap();
    assert_eq!(kinds(&folder.only_file()), "OPEN INIT CHUNK");
    let before = fs::read(folder.only_file()).unwrap();
    ledger.flush().unwrap();
    assert_eq!(fs::read(folder.only_file()).unwrap(), before);
    // What has been flushed is there whatever happens to the program.
    std::mem::forget(ledger);
    assert_eq!(folder.check().last, 3);
}

#[test]
fn boots_are_counted_and_restarts_are_not() {
    let folder = Folder::new();
    let first = folder.open();
    assert_eq!(first.boot(), 1);
    let head = first.head();
    drop(first);
    let second = folder.open();
    assert_eq!(second.boot(), 1, "the same boot");
    assert_ne!(second.head(), head);
    drop(second);
    // The system calls this boot otherwise now.
    let file = folder.only_file();
    let text = fs::read_to_string(&file).unwrap();
    let mut earlier = String::new();
    let mut previous = Hash::default();
    for line in text.split_inclusive('\n') {
        let (entry, _) = Entry::parse(line.as_bytes()).unwrap();
        let Event::Open { key, version, .. } = entry.event else { panic!("{line}") };
        let event = Event::Open { key, boot_id: bamqp_core::ledger::Text::Plain(b"another"), version };
        previous = Entry { event, previous, ..entry }.write(&mut earlier).unwrap();
    }
    fs::write(&file, earlier).unwrap();
    assert_eq!(folder.open().boot(), 2);
    assert_eq!(folder.check().last, 3);
}

#[test]
fn full_files_make_room_and_the_chain_goes_on() {
    let folder = Folder::new();
    let config = Config { log_size: 64 * 1024, log_files: 3, ..folder.config() };
    let ledger = Ledger::open(&config, owner().public()).unwrap();
    for round in 0..400u32 {
        append_init(&ledger, round as u8).unwrap();
        // Not all of a file in one write, and sometimes two files in one.
        if round.is_multiple_of(31) {
            ledger.flush().unwrap();
        }
    }
    let head = ledger.head();
    drop(ledger);
    let files = folder.files();
    assert_eq!(files.len(), 3);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 64 * 1024);
        assert!(kinds(file).starts_with("OPEN INIT "));
        check(std::slice::from_ref(file), &[]).unwrap();
    }
    let report = folder.check();
    assert_eq!(report.head, Hash(head));
    assert!(report.first > 1 && report.last > 400);
    // A file in between is missing: that is no rotation.
    let gap = check(&[files[0].clone(), files[2].clone()], &[]).unwrap_err();
    assert_eq!((gap.file.as_path(), gap.line), (files[2].as_path(), 1));
    // Goes on in the last file, which is not full.
    drop(Ledger::open(&config, owner().public()).unwrap());
    assert_eq!(folder.files(), files);
    assert_eq!(folder.check().last, report.last + 1);
    // A power cut between a full file's end and the new one's first byte.
    fs::write(&files[2], "").unwrap();
    drop(Ledger::open(&config, owner().public()).unwrap());
    folder.check();
}

#[test]
fn two_daemons_do_not_share_a_folder() {
    let folder = Folder::new();
    let first = folder.open();
    let second = Ledger::open(&folder.config(), owner().public());
    assert!(matches!(second, Err(OpenError::InUse(_))));
    first.stop();
    drop(folder.open());
    assert_eq!(append_init(&first, 1), Err(AppendError::Stopped));
}

#[test]
fn without_a_disk_nothing_more_is_taken_and_nothing_is_lost() {
    let folder = Folder::new();
    let ledger = folder.open();
    // Writing fails: where the file is to be there is a folder.
    let file = folder.0.join("log/bamqp-0000000001.log");
    fs::create_dir(&file).unwrap();
    let mut taken = 0;
    while append_init(&ledger, 1).is_ok() {
        taken += 1;
        assert!(taken < MAX_WAITING, "never full");
    }
    assert_eq!(append_init(&ledger, 1), Err(AppendError::Full));
    assert_eq!(ledger.append_chunk(SessionId([1; 16]), 0..1), Err(AppendError::Full));
    ledger.flush().unwrap_err();
    fs::remove_dir(&file).unwrap();
    ledger.flush().unwrap();
    append_init(&ledger, 1).unwrap();
    drop(ledger);
    assert_eq!(folder.check().inits, taken + 1);
}

#[test]
fn credentials_are_never_written() {
    let folder = Folder::new();
    let ledger = folder.open();
    let before = ledger.head();
    for name in ["Authorization", "cookie", "Proxy-Authorization"] {
        let head = String::from_utf8(init_head(1, before)).unwrap().replace("User-Agent", name);
        let appended = append_init_as(&ledger, 1, &uri(1), head.as_bytes());
        assert_eq!(appended, Err(AppendError::Credentials), "{name}");
    }
    assert_eq!(ledger.head(), before);
}

/// All threads append at once: the numbers have no gaps and every entry is there.
#[test]
fn many_threads_append_one_chain() {
    let folder = Folder::new();
    let ledger = folder.open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let ledger = &ledger;
            scope.spawn(move || {
                for round in 0..25 {
                    append_init(ledger, thread * 25 + round).unwrap();
                    ledger
                        .append_chunk(
                            SessionId([thread; 16]),
                            u64::from(round) * 10..u64::from(round) * 10 + 5,
                        )
                        .unwrap();
                    if round % 10 == 0 {
                        ledger.flush().unwrap();
                    }
                }
            });
        }
    });
    drop(ledger);
    assert_eq!(folder.check().inits, 100);
}
