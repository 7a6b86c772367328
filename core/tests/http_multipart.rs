//! `multipart/byteranges`, as servers write it and as they should not.

use std::ops::Range;

use bamqp_core::http::multipart::{Malformed, Multipart, Step};
use bamqp_core::http::partial::PartialError;
use bamqp_core::http::response::Response;
use bamqp_core::http::validator::Validator;
use proptest::prelude::*;

const TOTAL: u64 = 1000;
const TYPE: &str = "Content-Type: multipart/byteranges; boundary=b0";
const LENGTH: &str = "Content-Length: 77";
const TAG: &str = "ETag: \"v\"";

/// The answer with these fields, and its body's length.
fn of(status: u16, fields: &[&str]) -> Result<(Multipart, u64), PartialError> {
    let head = format!("HTTP/1.1 {status} X\r\n{}\r\n\r\n", fields.join("\r\n"));
    let (response, _) = Response::parse(head.as_bytes()).unwrap().unwrap();
    Multipart::of(&response, TOTAL, &Validator::entity_tag(b"\"v\"").unwrap())
}

fn with_boundary(parameters: &str) -> Result<Multipart, PartialError> {
    let content_type = format!("Content-Type: multipart/byteranges{parameters}");
    of(206, &[&content_type, LENGTH, TAG]).map(|(parts, _)| parts)
}

fn parts() -> Multipart {
    of(206, &[TYPE, LENGTH, TAG]).unwrap().0
}

/// How reading a body came out: its ranges with their bytes, and whether the last delimiter was there.
type Outcome = Result<(Vec<(Range<u64>, Vec<u8>)>, bool), Malformed>;

/// Reads a body that comes in pieces which end at `cuts`.
fn read(body: &[u8], cuts: &[usize]) -> Outcome {
    let (mut multipart, mut found, mut taken) = (parts(), Vec::new(), 0);
    for end in cuts.iter().map(|cut| cut % (body.len() + 1)).chain([body.len()]) {
        while taken <= end {
            let before = multipart.clone();
            match multipart.step(&body[taken..end])? {
                Step::End => return Ok((found, true)),
                Step::Incomplete => break,
                Step::Part(head, range) => {
                    assert!(head <= end - taken, "a head beyond what is there");
                    let text = String::from_utf8_lossy(&body[taken..taken + head]).to_lowercase();
                    let named = [range.start, range.end - 1, TOTAL].map(Some);
                    assert_eq!(numbers(&text), named, "{text:?}");
                    let length = (range.end - range.start) as usize;
                    let Some(content) = body[taken..end].get(head..head + length) else {
                        multipart = before; // it comes again with all of its content
                        break;
                    };
                    found.push((range, content.to_vec()));
                    taken += head + length;
                }
            }
        }
    }
    Ok((found, false))
}

/// The three numbers of a part's `Content-Range`, which may begin with zeros (RFC 9110 section 14.4).
fn numbers(head: &str) -> [Option<u64>; 3] {
    let line = head.lines().find_map(|line| line.strip_prefix("content-range:"));
    let value = line.and_then(|line| line.trim().strip_prefix("bytes "));
    let mut numbers = value.into_iter().flat_map(|value| value.split(['-', '/']));
    [(); 3].map(|()| numbers.next()?.parse().ok())
}

fn byte(at: u64) -> u8 {
    (at * 7 % 251) as u8
}

fn content(range: &Range<u64>) -> Vec<u8> {
    range.clone().map(byte).collect()
}

/// A body as nginx writes it.
fn body(ranges: &[Range<u64>]) -> Vec<u8> {
    let mut body = Vec::new();
    for range in ranges {
        let (first, last) = (range.start, range.end - 1);
        let head = format!(
            "\r\n--b0\r\nContent-Type: text/plain\r\nContent-Range: bytes {first}-{last}/{TOTAL}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend(content(range));
    }
    body.extend_from_slice(b"\r\n--b0--\r\n");
    body
}

fn only(text: &str) -> Result<Step, Malformed> {
    parts().step(text.as_bytes())
}

#[test]
fn the_head_has_to_prove_the_file_and_say_how_long_the_body_is() {
    assert_eq!(of(206, &[TYPE, LENGTH, TAG]).map(|(_, length)| length), Ok(77));
    let refused = |status, fields: &[&str]| of(status, fields).map(drop).unwrap_err();
    assert_eq!(refused(200, &[TYPE, LENGTH, TAG]), PartialError::Changed, "a whole file of another length");
    assert_eq!(refused(200, &["Content-Length: 1000", TAG]), PartialError::NotPartial(200));
    assert_eq!(refused(416, &["Content-Range: bytes */1000", TAG]), PartialError::NotPartial(416));
    assert_eq!(refused(206, &[TYPE, LENGTH, "ETag: \"w\""]), PartialError::Changed);
    assert_eq!(refused(206, &[TYPE, LENGTH, "ETag: W/\"v\""]), PartialError::Unproven);
    assert_eq!(refused(206, &[TYPE, LENGTH]), PartialError::Unproven);
    assert_eq!(refused(206, &[TYPE, TAG]), PartialError::WrongLength);
    assert_eq!(refused(206, &[TYPE, TAG, LENGTH, "Content-Length: 78"]), PartialError::WrongLength);
    assert_eq!(refused(206, &[TYPE, TAG, "Transfer-Encoding: chunked"]), PartialError::Encoded);
    assert_eq!(refused(206, &[TYPE, TAG, LENGTH, "Content-Encoding: gzip"]), PartialError::Encoded);
    // One range, where several were asked for.
    assert_eq!(refused(206, &[TAG, LENGTH, "Content-Range: bytes 0-76/1000"]), PartialError::WrongRange);
    assert_eq!(refused(206, &[TYPE, TYPE, LENGTH, TAG]), PartialError::WrongRange);
}

#[test]
fn boundaries_as_servers_write_them() {
    let seventy = format!("; boundary={}", "x".repeat(70));
    for parameters in ["; boundary=b0", ";boundary=\"b0\"", " ; charset=\"a;b\" ; BOUNDARY=b0 ", &seventy] {
        assert!(with_boundary(parameters).is_ok(), "{parameters}");
    }
    let long = format!("; boundary={}", "x".repeat(71));
    for parameters in
        ["", ";", "; boundary", "; boundary=", "; boundary=\"\"", "; boundary=\"b0", "-x; boundary=b0", &long]
    {
        assert_eq!(with_boundary(parameters).err(), Some(PartialError::WrongRange), "{parameters}");
    }
    let quoted = with_boundary("; boundary=\"a b\"").unwrap().step(b"--a b--");
    assert_eq!(quoted, Ok(Step::End));
}

#[test]
fn parts_in_any_order_with_or_without_the_first_line_end() {
    let ranges = [500..516, 0..1, 984..1000, 16..32u64];
    let whole = body(&ranges);
    for start in [0, 2] {
        let (found, ended) = read(&whole[start..], &[]).unwrap();
        assert!(ended);
        assert_eq!(found, ranges.clone().map(|range| (range.clone(), content(&range))));
    }
    // What looks like a delimiter within a part is content.
    let tricky = b"--b0\r\nContent-Range: bytes 0-9/1000\r\n\r\n\r\n--b0--\r\n\r\n--b0--";
    assert_eq!(read(tricky, &[]), Ok((vec![(0..10, b"\r\n--b0--\r\n".to_vec())], true)));
}

#[test]
fn what_a_part_must_say_of_itself() {
    let part = |fields: &str| only(&format!("--b0\r\n{fields}\r\n\r\n"));
    let head = |fields: &str| "--b0\r\n".len() + fields.len() + 4;
    for fields in [
        "Content-Range: bytes 2-3/1000",
        "Content-Range: bytes 02-003/01000",
        "content-type: x\r\nCONTENT-RANGE:bytes 2-3/1000",
    ] {
        assert_eq!(part(fields), Ok(Step::Part(head(fields), 2..4)), "{fields}");
    }
    for fields in [
        "Content-Type: x",
        "Content-Range: bytes 2-3/1001",
        "Content-Range: bytes 2-3/*",
        "Content-Range: bytes */1000",
        "Content-Range: bytes 3-2/1000",
        "Content-Range: bytes 0-1000/1000",
        "Content-Range: bytes 2-+3/1000",
        "Content-Range: bytes 2-18446744073709551615/1000",
        "Content-Range: pages 2-3/1000",
        "Content-Range: bytes 2-3/1000\r\nContent-Range: bytes 2-3/1000",
        "a b: c",
        "1:1\r\n2:2\r\n3:3\r\n4:4\r\n5:5\r\n6:6\r\n7:7\r\n8:8\r\nContent-Range: bytes 2-3/1000",
    ] {
        assert_eq!(part(fields), Err(Malformed), "{fields}");
    }
}

#[test]
fn what_is_no_delimiter() {
    for text in [
        "preamble\r\n--b0\r\n",
        "\r\n\r\n--b0\r\n",
        "\n--b0\r\nContent-Range: bytes 2-3/1000\r\n\r\n",
        "--b0\nContent-Range: bytes 2-3/1000\n\n",
        "--b0 \r\nContent-Range: bytes 2-3/1000\r\n\r\n",
        "--b1\r\nContent-Range: bytes 2-3/1000\r\n\r\n",
        "-- b0\r\n",
        "\rx--b0\r\n",
    ] {
        assert_eq!(only(text), Err(Malformed), "{text:?}");
    }
    // Between parts the line end is not optional: content that is longer than it says is not skipped.
    let mut multipart = parts();
    assert!(matches!(
        multipart.step(b"--b0\r\nContent-Range: bytes 2-3/1000\r\n\r\nab"),
        Ok(Step::Part(39, _))
    ));
    assert_eq!(multipart.clone().step(b"c\r\n--b0--"), Err(Malformed));
    assert_eq!(multipart.step(b"--b0--"), Err(Malformed));
}

#[test]
fn a_head_without_end_is_given_up() {
    let endless = format!("--b0\r\nX: {}", "y".repeat(100));
    let mut multipart = parts();
    assert_eq!(multipart.step(endless.as_bytes()), Ok(Step::Incomplete));
    let rest = "\r\nContent-Range: bytes 2-3/1000\r\n\r\n";
    assert!(matches!(multipart.step((endless.clone() + rest).as_bytes()), Ok(Step::Part(_, _))), "more came");
    assert_eq!(only(&format!("--b0\r\nX: {}", "y".repeat(5000))), Err(Malformed));
    let many: String = (0..2000).map(|n| format!("{n}:\r\n")).collect();
    assert_eq!(only(&format!("--b0\r\n{many}")), Err(Malformed));
}

fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop::collection::vec((0..TOTAL, 1..60u64).prop_map(|(at, len)| at..(at + len).min(TOTAL)), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However a body comes in pieces, the ranges are those that it has.
    #[test]
    fn any_split(
        ranges in ranges(),
        mut cuts in prop::collection::vec(0usize..10_000, 0..40),
        has_line_end: bool,
    ) {
        let mut whole = body(&ranges);
        if !has_line_end {
            whole.drain(..2);
        }
        cuts.iter_mut().for_each(|cut| *cut %= whole.len() + 1);
        cuts.sort_unstable();
        let (found, ended) = read(&whole, &cuts).unwrap();
        prop_assert!(ended);
        let expected: Vec<_> = ranges.iter().map(|range| (range.clone(), content(range))).collect();
        prop_assert_eq!(found, expected);
    }

    /// Whatever is done to a body: no panic, and `read` finds each range in the bytes that it came from.
    #[test]
    fn any_damage(
        ranges in ranges(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<u8>()), 1..8),
        cut in 0usize..10_000,
    ) {
        let mut damaged = body(&ranges);
        for (place, how, byte) in edits {
            let at = place.index(damaged.len());
            match how {
                0 => damaged[at] = byte,
                1 => damaged.insert(at, byte),
                _ if damaged.len() > 1 => drop(damaged.remove(at)),
                _ => {}
            }
        }
        let at_once = read(&damaged, &[]);
        let in_pieces = read(&damaged, &[cut]);
        // A malformed head may be told before its end is there; nothing else depends on the pieces.
        if let (Ok(one), Ok(other)) = (at_once, in_pieces) {
            prop_assert_eq!(one, other);
        }
    }

    /// The same for what was never a body.
    #[test]
    fn any_garbage(garbage in prop::collection::vec(
        prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            Just(b"\r\n".to_vec()), Just(b"--b0".to_vec()), Just(b"--".to_vec()), Just(b"\r\n\r\n".to_vec()),
            Just(b"Content-Range: bytes 1-2/1000".to_vec()), Just(b"Content-Range: bytes 5-9/*".to_vec()),
        ],
        0..60,
    ), cut in 0usize..10_000) {
        let garbage = garbage.concat();
        let _ = read(&garbage, &[cut]);
    }
}
