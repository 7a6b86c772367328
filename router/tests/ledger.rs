//! The ledger on disk: nothing is lost but what was not flushed, nothing is altered or cut off unseen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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
        let path = std::env::temp_dir().join(format!("bamqp-ledger-{}-{number}", std::process::id()));
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
    let uri = uri(session);
    let init = Init {
        session: SessionId([session; 16]),
        target: Uri::parse(&uri).unwrap(),
        size: 100_000_000,
        validator: Validator::entity_tag(b"\"a\\b\"").unwrap(),
        hops: 0,
        recipient: owner().fingerprint(),
        user_agent: Some(b"test\\1"),
        accept: None,
    };
    let mut buffer = vec![0; 4096];
    let mut head = HeadWriter::new(&mut buffer);
    init.write(&mut head, &"10.77.0.2:7733");
    let challenge = Challenge { log_head, random: [session; 16] };
    let (length, ..) = identity.seal_init(head, &init, peer, &challenge, &mut Tally::default()).unwrap();
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

/// A power cut at every byte of the file: what was whole before it stays, and the chain goes on.
#[test]
fn a_power_cut_at_any_byte_costs_only_what_was_not_whole() {
    let folder = Folder::new();
    let ledger = folder.open();
    for session in 1..3 {
        append_init(&ledger, session).unwrap();
        ledger.append_chunk(SessionId([session; 16]), 0..100).unwrap();
        ledger.flush().unwrap();
    }
    drop(ledger);
    let file = folder.only_file();
    let whole = fs::read(&file).unwrap();
    let last = init_head(9, [0; 32]);
    let after = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let ledger = folder.open();
        append_init_as(&ledger, 9, &uri(9), &last).unwrap();
        drop(ledger);
        // Two new entries: that the program was started, and the INIT.
        chain(&file) - 2
    };
    for cut in 0..=whole.len() {
        let left = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(after(&whole[..cut]), left, "cut at {cut}");
        assert!(
            fs::read(&file).unwrap().starts_with(&whole[..line_end(&whole, left as usize)]),
            "cut at {cut}"
        );
    }
    // Some file systems leave zeros, or what was there before, where the last write was to go.
    for cut in (0..whole.len()).step_by(97) {
        let left = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let mut holes = whole[..cut].to_vec();
        holes.resize(whole.len(), 0);
        assert_eq!(after(&holes), left, "zeros from {cut}");
        holes.extend_from_slice(b"\nold\nlines\n");
        assert_eq!(after(&holes), left, "zeros and lines from {cut}");
    }
}

/// Number of the last entry, if the chain is whole from the first on.
fn chain(file: &Path) -> u64 {
    let mut chain = Chain::new();
    for line in fs::read(file).unwrap().split_inclusive(|byte| *byte == b'\n') {
        let (entry, _) = chain.next(line).unwrap();
        assert_eq!(entry.sequence, chain.sequence());
    }
    chain.sequence()
}

/// Where the first `lines` lines end.
fn line_end(bytes: &[u8], lines: usize) -> usize {
    bytes.split_inclusive(|byte| *byte == b'\n').take(lines).map(<[u8]>::len).sum()
}

#[test]
fn every_altered_byte_is_found_and_its_entry_named() {
    let folder = Folder::new();
    let ledger = folder.open();
    ledger.append_chunk(SessionId([1; 16]), 0..100).unwrap();
    ledger.end_session(SessionId([1; 16]));
    append_session(&ledger, 2, &[(coordinator().fingerprint(), [3; 32])]);
    // Last, because its signature is slow to verify.
    append_init(&ledger, 1).unwrap();
    drop(ledger);
    let file = folder.only_file();
    let whole = fs::read(&file).unwrap();
    let expect = |altered: &[u8], line: usize, what: &str| {
        fs::write(&file, altered).unwrap();
        match check(&folder.files(), &[]) {
            Err(Problem { line: found, what: Wrong::Entry(_), .. }) => assert_eq!(found, line, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    };
    let mut line = 1;
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        expect(&altered, line, &format!("byte {at} altered"));
        altered.remove(at);
        expect(&altered, line, &format!("byte {at} removed"));
        line += usize::from(whole[at] == b'\n');
    }
    // Lines left out, exchanged, repeated.
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 4);
    expect(&[lines[1], lines[2], lines[3]].concat(), 1, "without the first");
    expect(&[lines[0], lines[2], lines[3]].concat(), 2, "without the second");
    expect(&[lines[0], lines[2], lines[1], lines[3]].concat(), 2, "exchanged");
    expect(&[lines[0], lines[1], lines[1], lines[2]].concat(), 3, "repeated");
    fs::write(&file, "").unwrap();
    assert!(matches!(check(&folder.files(), &[]), Err(Problem { line: 0, what: Wrong::Empty, .. })));
}

#[test]
fn an_init_for_another_router_or_another_file_is_no_evidence() {
    let folder = Folder::new();
    let ledger = folder.open();
    append_init_as(&ledger, 1, "http://example.org/other", &init_head(1, ledger.head())).unwrap();
    drop(ledger);
    let problem = check(&folder.files(), &[]).unwrap_err().to_string();
    assert!(problem.ends_with(".log:2: its uri is not the one that was signed"), "{problem}");
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

/// A peer's log and that of the coordinator which countersigned its heads.
fn pair(sessions: u8) -> (Folder, Folder) {
    let (peer, other) = (Folder::new(), Folder::new());
    let config = Config { log_size: 64 * 1024, log_files: 2, ..peer.config() };
    let ledger = Ledger::open(&config, owner().public()).unwrap();
    let coordinators = Ledger::open(&other.config(), coordinator().public()).unwrap();
    for session in 1..=sessions {
        let head = ledger.head();
        append_init(&ledger, session).unwrap();
        ledger.append_chunk(SessionId([session; 16]), 0..100).unwrap();
        append_session(
            &coordinators,
            session,
            &[(Fingerprint([1; 16]), [1; 32]), (owner().fingerprint(), head)],
        );
        ledger.flush().unwrap();
    }
    (peer, other)
}

#[test]
fn truncation_shows_against_the_coordinators_log() {
    let (peer, other) = pair(5);
    let file = peer.only_file();
    let report = check(&[file.clone()], &other.files()).unwrap();
    assert_eq!((report.countersigned, report.older), (5, 0));
    let whole = fs::read(&file).unwrap();
    // OPEN, then INIT and CHUNK of each session. The CHUNK at the end can go unseen, the INIT before it cannot.
    for (lines, missing) in [(10, None), (9, Some(5)), (8, Some(5)), (7, Some(4)), (2, Some(2)), (1, Some(1))]
    {
        fs::write(&file, &whole[..line_end(&whole, lines)]).unwrap();
        assert!(check(&[file.clone()], &[]).is_ok(), "the chain alone does not show it");
        match (check(&[file.clone()], &other.files()), missing) {
            (Ok(_), None) => {}
            (
                Err(Problem { file, line, what: Wrong::Missing(session, _) | Wrong::NoInit(session) }),
                Some(missing),
            ) => {
                assert_eq!(session, SessionId([missing; 16]), "{lines} lines");
                // The other log begins with OPEN.
                assert_eq!((file, line), (other.only_file(), usize::from(missing) + 1));
            }
            (other, _) => panic!("{lines} lines: {other:?}"),
        }
    }
}

/// Writes the entries that `keep` lets pass again, each a second later, numbered and chained as if they were genuine.
fn rewrite(file: &Path, keep: impl Fn(&Event<'_>) -> bool) {
    let text = fs::read_to_string(file).unwrap();
    let (mut lines, mut previous, mut sequence) = (String::new(), Hash::default(), 0);
    for line in text.split_inclusive('\n') {
        let (entry, _) = Entry::parse(line.as_bytes()).unwrap();
        if keep(&entry.event) {
            sequence += 1;
            let uptime = entry.uptime + 1;
            previous = Entry { sequence, uptime, previous, ..entry }.write(&mut lines).unwrap();
        }
    }
    fs::write(file, lines).unwrap();
}

#[test]
fn a_rewritten_log_is_not_the_one_that_was_countersigned() {
    // The INITs in it pin what was before them.
    let (forged, other) = pair(3);
    rewrite(&forged.only_file(), |_| true);
    let problem = check(&forged.files(), &[]).unwrap_err();
    assert!(matches!(problem, Problem { line: 2, what: Wrong::NotThisLog(_), .. }), "{problem}");
    // Without them it looks like a log, but not to the coordinator.
    rewrite(&forged.only_file(), |event| !matches!(event, Event::Init(_)));
    check(&forged.files(), &[]).unwrap();
    let problem = check(&forged.files(), &other.files()).unwrap_err();
    assert!(matches!(problem.what, Wrong::Missing(..)), "{problem}");
    // A log of somebody else says nothing about this one.
    let stranger = Folder::new();
    drop(Ledger::open(&stranger.config(), coordinator().public()).unwrap());
    let problem = check(&forged.files(), &stranger.files()).unwrap_err();
    assert!(matches!(problem.what, Wrong::Strangers(_)), "{problem}");
}

#[test]
fn what_was_rotated_away_is_not_missing() {
    let (peer, other) = pair(200);
    let files = peer.files();
    assert_eq!(files.len(), 2);
    let report = check(&files, &other.files()).unwrap();
    assert!(report.first > 1 && report.older > 0 && report.countersigned > 0);
    assert_eq!(report.older + report.countersigned, 200);
    // But a cut end is.
    let last = fs::read(&files[1]).unwrap();
    let lines = last.iter().filter(|byte| **byte == b'\n').count();
    fs::write(&files[1], &last[..line_end(&last, lines - 2)]).unwrap();
    let problem = check(&files, &other.files()).unwrap_err();
    assert!(matches!(problem.what, Wrong::Missing(..) | Wrong::NoInit(_)), "{problem}");
}

fn bamqp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bamqp")).arg("log").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_command_verifies() {
    let (peer, other) = pair(3);
    let (file, other) = (peer.only_file(), other.only_file());
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    let good = bamqp(&["verify", file, "--against", other]);
    assert!(good.status.success(), "{good:?}");
    assert!(text(&good.stdout).starts_with("whole: entries 1 to 7 of router "), "{good:?}");
    assert!(text(&good.stdout).contains("3 sessions"));
    let mut bytes = fs::read(file).unwrap();
    let at = line_end(&bytes, 3) + 20;
    bytes[at] ^= 1;
    fs::write(file, &bytes).unwrap();
    let bad = bamqp(&["verify", file]);
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
        let output = bamqp(&[&["show"], args, &[file]].concat());
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
    let full = bamqp(&["show", "--full", file]);
    assert_eq!(full.stdout, fs::read(file).unwrap());
    let own = bamqp(&["show", other, "--peer", &owner().fingerprint().to_string()]);
    assert_eq!(text(&own.stdout).lines().count(), 3);
    assert!(text(&own.stdout).contains("http://example.org/3"));
}

#[test]
fn the_command_says_what_is_wrong_with_its_arguments() {
    for args in [&[][..], &["burn"], &["show"], &["verify", "--full", "x"], &["show", "--since", "noon", "x"]]
    {
        let output = bamqp(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1);
    }
    let help = bamqp(&["verify", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("router/LOG.md"));
    assert_eq!(bamqp(&["verify", "/nowhere/log"]).status.code(), Some(1));
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
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_bamqp"))
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
