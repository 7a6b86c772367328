//! Fields and lists.

use bamqp_core::http::fields::{Duplicate, members};
use bamqp_core::http::request::Request;
use proptest::prelude::*;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nA: 1\r\nB: x, \"y, \\\", z\" ,,w\r\na: 2\r\nb: V\r\n\r\n";

#[test]
fn names_have_no_case_and_lines_keep_their_order() {
    let (request, _) = Request::parse(HEAD).unwrap().unwrap();
    let fields = &request.fields;
    assert_eq!(fields.get("a"), Some(&b"1"[..]));
    assert_eq!(fields.all("A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!((fields.count("A"), fields.count("C")), (2, 0));
    assert_eq!(fields.only("A"), Err(Duplicate));
    assert_eq!(fields.only("C"), Ok(None));
    assert_eq!((fields.len(), fields.is_empty()), (4, false));
}

#[test]
fn a_list_spans_lines_and_a_quoted_comma_does_not_separate() {
    let (request, _) = Request::parse(HEAD).unwrap().unwrap();
    let list: Vec<_> = request.fields.list("B").collect();
    assert_eq!(list, [&b"x"[..], b"\"y, \\\", z\"", b"w", b"V"]);
    assert!(request.fields.has_token("b", "v"));
    assert!(!request.fields.has_token("b", "z"));
}

#[test]
fn an_open_quote_swallows_the_rest_of_its_line_only() {
    assert_eq!(members(b"a, \"b, c").collect::<Vec<_>>(), [&b"a"[..], b"\"b, c"]);
}

proptest! {
    #[test]
    fn without_quotes_members_are_what_split_gives(text in "[a-c, \t]{0,30}") {
        let expected: Vec<_> = text.split(',').map(str::trim).filter(|m| !m.is_empty()).collect();
        let found: Vec<_> = members(text.as_bytes()).map(|m| std::str::from_utf8(m).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn members_never_panic_and_are_never_empty(value in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assert!(members(&value).all(|member| !member.is_empty()));
    }
}
