//! An origin that answers requests for several ranges as servers do, and as they should not.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::street::{Neighbourhood, Setup};
use crate::common::{Line, Origin, field, pattern};

const SIZE: usize = 3_000_017;

/// How often each path's several ranges were asked for.
type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// The ranges that a head asks for.
fn ranges(head: &str) -> Vec<Range<usize>> {
    let Some(set) = field(head, "Range").and_then(|value| value.strip_prefix("bytes=")) else {
        return Vec::new();
    };
    let range = |one: &str| {
        let (first, last) = one.split_once('-').unwrap();
        first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
    };
    set.split(',').map(range).collect()
}

/// Sends at 2 MB/s, so that pooling shows.
fn send_paced(line: &mut Line, bytes: &[u8]) {
    let begun = Instant::now();
    for (number, part) in bytes.chunks(20_000).enumerate() {
        line.send(part);
        let due = Duration::from_millis(10) * (number as u32 + 1);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

const SAME: &str = "ETag: \"v\"\r\nAccept-Ranges: bytes\r\n";

fn part(boundary: &str, named: &Range<usize>, total: usize, content: &[u8]) -> Vec<u8> {
    let mut part = format!(
        "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {}-{}/{total}\r\n\r\n",
        named.start,
        named.end - 1
    )
    .into_bytes();
    part.extend_from_slice(content);
    part
}

fn multipart(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{SAME}Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PLAIN: &str = "multipart/byteranges; boundary=b0-b0";

/// What to send for these ranges in the way that is called `how`, and whether the connection ends then.
fn answer(how: &str, asked: &[Range<usize>], file: &[u8]) -> (Vec<u8>, bool) {
    let whole = |ranges: &[Range<usize>], total: usize| {
        let parts: Vec<u8> =
            ranges.iter().flat_map(|range| part("b0-b0", range, total, &file[range.clone()])).collect();
        [&parts[..], b"\r\n--b0-b0--\r\n"].concat()
    };
    let body = whole(asked, SIZE);
    let (first, last) = (asked[0].start, asked[asked.len() - 1].end);
    let open = |length: &str, start: &[u8]| {
        let head =
            format!("HTTP/1.1 206 X\r\n{SAME}Content-Type: {PLAIN}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), start].concat()
    };
    let answer = match how {
        "nginx" | "in-halves" => multipart(PLAIN, &body),
        "quoted" => multipart("Multipart/Byteranges; charset=x; Boundary=\"b0-b0\"", &body),
        "no-first-line-end" => multipart(PLAIN, &body[2..]),
        "epilogue" => multipart(PLAIN, &[&body[..], b"and so on"].concat()),
        "reversed" => multipart(PLAIN, &whole(&asked.iter().rev().cloned().collect::<Vec<_>>(), SIZE)),
        "widened" => {
            let wider = |range: &Range<usize>| range.start.saturating_sub(99)..(range.end + 99).min(SIZE);
            multipart(PLAIN, &whole(&asked.iter().map(wider).collect::<Vec<_>>(), SIZE))
        }
        "joined" => multipart(PLAIN, &whole(std::slice::from_ref(&(first..last)), SIZE)),
        "twice" => multipart(PLAIN, &whole(&[asked, asked].concat(), SIZE)),
        "missing" => multipart(PLAIN, &whole(&asked[1..], SIZE)),
        "none" => multipart(PLAIN, b"\r\n--b0-b0--\r\n"),
        "empty" => multipart(PLAIN, b""),
        "others" => {
            let other =
                |range: &Range<usize>| (range.start + 1) % (SIZE - 20)..(range.start + 1) % (SIZE - 20) + 16;
            multipart(PLAIN, &whole(&asked.iter().map(other).collect::<Vec<_>>(), SIZE))
        }
        "wrong-total" => multipart(PLAIN, &whole(asked, SIZE + 1)),
        "preamble" => multipart(PLAIN, &[b"This is a message with several parts", &body[..]].concat()),
        "line-feeds" => {
            let heads = |range: &Range<usize>| {
                let head = String::from_utf8(part("b0-b0", range, SIZE, b"")).unwrap().replace('\r', "");
                [head.as_bytes(), &file[range.clone()]].concat()
            };
            let parts: Vec<u8> = asked.iter().flat_map(heads).collect();
            multipart(PLAIN, &[&parts[..], b"\n--b0-b0--\n"].concat())
        }
        "long-head" => multipart(PLAIN, format!("--b0-b0\r\nX: {}", "x".repeat(20_000)).as_bytes()),
        "no-boundary" => multipart("multipart/byteranges", &body),
        "only-the-first" => {
            let head = format!(
                "HTTP/1.1 206 X\r\n{SAME}Content-Range: bytes {}-{}/{SIZE}\r\nContent-Length: {}\r\n\r\n",
                first,
                asked[0].end - 1,
                asked[0].len()
            );
            [head.as_bytes(), &file[asked[0].clone()]].concat()
        }
        "chunked" => {
            let head = format!(
                "HTTP/1.1 206 X\r\n{SAME}Content-Type: {PLAIN}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let chunk = format!("{:x}\r\n", body.len());
            [head.as_bytes(), chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
        }
        "whole-file" => {
            let head = format!("HTTP/1.1 200 OK\r\n{SAME}Content-Length: {SIZE}\r\n\r\n");
            [head.as_bytes(), &file[..100_000]].concat() // the rest is on its way
        }
        "refused" => format!("HTTP/1.1 416 X\r\n{SAME}Content-Length: 0\r\n\r\n").into_bytes(),
        "forbidden" => format!("HTTP/1.1 403 X\r\n{SAME}Content-Length: 0\r\n\r\n").into_bytes(),
        "endless-part" => open("3000000", &part("b0-b0", &(0..SIZE), SIZE, &file[..100_000])),
        "endless-parts" => {
            let many = vec![asked[0].clone(); 2000];
            open("18446744073709551615", &whole(&many, SIZE))
        }
        "too-long-to-count" => open("18446744073709551616", &body),
        "truncated" => return (open("3000", &body[..body.len() / 2]), true),
        "closed" => return (Vec::new(), true),
        "silent" => open("3000", b""),
        other => panic!("{other}"),
    };
    (answer, false)
}

fn serve(mut line: Line, file: &[u8], counts: &Counts) {
    loop {
        let head = line.next_head().unwrap_or_default();
        let Some(path) = head.split(' ').nth(1) else { return };
        let how = path.trim_start_matches('/').to_owned();
        let asked = ranges(&head);
        match &asked[..] {
            [] => {
                line.send(format!("HTTP/1.1 200 OK\r\n{SAME}Content-Length: {SIZE}\r\n\r\n"));
                send_paced(&mut line, file);
            }
            [one] => {
                let (first, last, length) = (one.start, one.end - 1, one.len());
                line.send(format!(
                    "HTTP/1.1 206 X\r\n{SAME}Content-Range: bytes {first}-{last}/{SIZE}\r\nContent-Length: {length}\r\n\r\n"
                ));
                send_paced(&mut line, &file[one.clone()]);
            }
            several => {
                *counts.lock().unwrap().entry(how.clone()).or_default() += 1;
                let (answer, ends) = answer(&how, several, file);
                let (one, other) = answer.split_at(if how == "in-halves" { answer.len() / 2 } else { 0 });
                line.send(one);
                std::thread::sleep(Duration::from_millis(if one.is_empty() { 0 } else { 60 }));
                line.send(other);
                if ends {
                    return;
                }
            }
        }
    }
}

/// Downloads each way's path; how the peers did, and how often several ranges were asked for.
fn download(ways: &[&str]) -> Vec<(bool, usize)> {
    let file: Arc<[u8]> = pattern(SIZE).into();
    let counts = Counts::default();
    let origin = {
        let (file, counts) = (file.clone(), counts.clone());
        Origin::start(move |line, _| serve(line, &file, &counts))
    };
    let ports = vec![origin.address.port()];
    let n = Neighbourhood::with(Setup { megabytes: 1, ports, ..Setup::default() });
    let mut results = Vec::new();
    assert!(ways.len() <= 16, "a daemon remembers no more downloads");
    for (number, how) in ways.iter().enumerate() {
        let to = n.folder.join(how);
        let output =
            n.curl(&["-f", "-o", to.to_str().unwrap(), &origin.url(&format!("/{how}"))]).output().unwrap();
        assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(to).unwrap() == *file, "{how}: wrong bytes");
        let session = n.ended(number + 1).remove(number);
        println!("{how}: {session:?}");
        let peers = session.lanes.iter().filter(|lane| lane.name.starts_with('R'));
        assert!(
            peers.clone().all(|lane| lane.verdict.is_none() && lane.violations == 0),
            "{how}: {session:?}"
        );
        let helped = peers.clone().any(|lane| lane.bytes > 0);
        results.push((helped, counts.lock().unwrap().get(*how).copied().unwrap_or(0)));
        // The next is to be checked like a newcomer, too.
        for peer in ["R2", "R3"] {
            n.daemons[0].shared().trust.forget(peer);
        }
    }
    drop(n);
    results
}

#[test]
fn parts_as_servers_write_them() {
    let ways = ["nginx", "quoted", "no-first-line-end", "epilogue", "reversed", "widened", "twice"];
    for (how, (helped, several)) in ways.iter().zip(download(&ways)) {
        assert!(helped && several > 1, "{how}: helped {helped}, {several} requests for several ranges");
    }
}

/// The lane's thread is woken meanwhile: what it has of the answer must not be lost, or it would ask for one place at a time
/// from then on.
#[test]
fn an_answer_that_comes_in_two_halves_is_one_answer() {
    let [(helped, several)] = download(&["in-halves"])[..] else { unreachable!("one result a way") };
    assert!(helped && several > 4, "helped {helped}, {several} requests for several ranges");
}

/// None of them is asked for several ranges again, and peers help all the same.
fn one_place_at_a_time(ways: &[&str]) {
    for (how, (helped, several)) in ways.iter().zip(download(ways)) {
        // Requests that were on their way already are answered, too.
        assert!(
            helped && (1..=4).contains(&several),
            "{how}: helped {helped}, {several} requests for several ranges"
        );
    }
}

#[test]
fn bodies_of_no_use_end_requests_for_several_ranges_and_nothing_else() {
    one_place_at_a_time(&[
        "joined",
        "missing",
        "none",
        "empty",
        "others",
        "wrong-total",
        "preamble",
        "line-feeds",
        "long-head",
    ]);
}

#[test]
fn so_do_answers_that_are_none_or_have_no_end() {
    one_place_at_a_time(&[
        "no-boundary",
        "only-the-first",
        "chunked",
        "whole-file",
        "refused",
        "forbidden",
        "endless-part",
        "endless-parts",
        "too-long-to-count",
    ]);
}

#[test]
fn an_origin_that_breaks_off_or_says_nothing_costs_no_bytes() {
    for (_, several) in download(&["truncated", "closed", "silent"]) {
        assert!(several > 0);
    }
}
