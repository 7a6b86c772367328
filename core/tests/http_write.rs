//! Heads written into lent buffers.

use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::write::{HeadWriter, WriteError};
use proptest::prelude::*;

#[test]
fn a_buffer_of_exactly_the_size_is_enough() {
    let whole = b"HTTP/1.1 200 OK\r\nA: b\r\nC: 5\r\n\r\n";
    let write = |size: usize| {
        let mut buffer = vec![0; size];
        let mut head = HeadWriter::new(&mut buffer);
        head.status(200, "OK").field("A", b"b").field_args("C", format_args!("{}", 5));
        let length = head.finish()?;
        buffer.truncate(length);
        Ok::<_, WriteError>(buffer)
    };
    assert_eq!(write(whole.len()).unwrap(), whole);
    for size in 0..whole.len() {
        assert_eq!(write(size), Err(WriteError::Overflow), "{size}");
    }
}

#[test]
fn nothing_can_be_smuggled_into_a_head() {
    type Write = fn(&mut HeadWriter<'_>);
    let writes: [Write; 10] = [
        |head| _ = head.field("A", "b\r\nC: d"),
        |head| _ = head.field("A", b"\0"),
        |head| _ = head.field("A ", "b"),
        |head| _ = head.field("", "b"),
        |head| _ = head.field_args("A", format_args!("{}", "b\nC: d")),
        |head| _ = head.request("GET", "/a b"),
        |head| _ = head.request("G T", "/"),
        |head| _ = head.request("GET", "/\r\n"),
        |head| _ = head.status(200, "O\rK"),
        |head| _ = head.status(20, "OK"),
    ];
    for (number, write) in writes.iter().enumerate() {
        let mut buffer = [0; 256];
        let mut head = HeadWriter::new(&mut buffer);
        write(&mut head);
        assert_eq!(head.finish(), Err(WriteError::Invalid), "write {number}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_parsed_to_the_same(
        method in "[A-Z]{1,8}",
        target in "/[!-~]{0,20}",
        status in 100u16..1000,
        reason in "([!-~][ !-~]{0,10})?",
        fields in prop::collection::vec(("[A-Za-z0-9-]{1,10}", "([!-~]([ \t!-~]{0,10}[!-~])?)?"), 0..10),
    ) {
        let mut buffer = [0; 1024];
        let mut head = HeadWriter::new(&mut buffer);
        head.request(&method, &target);
        fields.iter().for_each(|(name, value)| _ = head.field(name, value));
        let length = head.finish().unwrap();
        let (request, parsed) = Request::parse(&buffer).unwrap().unwrap();
        prop_assert_eq!((parsed, request.method, request.target), (length, method.as_str(), target.as_str()));
        let found: Vec<_> = request.fields.iter().map(|f| (f.name.to_string(), String::from_utf8_lossy(f.value).to_string())).collect();
        prop_assert_eq!(&found, &fields);

        let mut buffer = [0; 1024];
        let mut head = HeadWriter::new(&mut buffer);
        head.status(status, &reason);
        let length = head.finish().unwrap();
        let (response, parsed) = Response::parse(&buffer).unwrap().unwrap();
        prop_assert_eq!((parsed, response.status, response.reason), (length, status, reason.as_str()));
    }
}
