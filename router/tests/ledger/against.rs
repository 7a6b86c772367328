//! A peer's log against the log of the coordinator that countersigned it.

use super::damage::line_end;
use super::*;

/// A peer's log and that of the coordinator which countersigned its heads.
pub fn pair(sessions: u8) -> (Folder, Folder) {
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
    let files = peer.files();
    let file = peer.only_file();
    let report = check(&files, &other.files()).unwrap();
    assert_eq!((report.countersigned, report.older), (5, 0));
    let whole = fs::read(&file).unwrap();
    // OPEN, then INIT and CHUNK of each session. The CHUNK at the end can go unseen, the INIT before it cannot.
    for (lines, missing) in [(10, None), (9, Some(5)), (8, Some(5)), (7, Some(4)), (2, Some(2)), (1, Some(1))]
    {
        fs::write(&file, &whole[..line_end(&whole, lines)]).unwrap();
        assert!(check(&files, &[]).is_ok(), "the chain alone does not show it");
        match (check(&files, &other.files()), missing) {
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
