//! Power cuts and tampering.

use super::*;

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
pub fn line_end(bytes: &[u8], lines: usize) -> usize {
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
        altered.splice(at..at, [whole[at], whole[at]]);
        expect(&altered, line + usize::from(whole[at] == b'\n'), &format!("byte {at} repeated"));
        // What is left of an entry is none; whole entries alone are a log, which only another one shows to be cut off.
        if at > 0 && whole[at - 1] != b'\n' {
            expect(&whole[..at], line, &format!("cut off before byte {at}"));
        }
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
