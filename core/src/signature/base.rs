//! The signature base (RFC 9421 section 2.5): the text that a signature is made over. Not responsible for which
//! components a message of ours has to cover ([`super::terms`]).

use core::fmt;

use super::{Mac, Message, SignatureError};
use crate::base64::Base64;
use crate::http::fields::Fields;

/// Where the pieces of a base go: a hash, mostly.
pub(super) type Sink<'s> = dyn FnMut(&[u8]) + 's;

/// Gives the signature base of `message` to `sink`, piece by piece. `input` is the value of `@signature-params` as it
/// stands in `Signature-Input`: the list of components, and parameters.
///
/// Components are `@method`, `@authority`, `@path`, `@query`, `@status`, and fields, which may have the parameter `key`
/// (section 2.1.2); of the request that is answered (section 2.4) only the signature `mac`.
///
/// # Errors
/// [`SignatureError::Malformed`] or [`SignatureError::Component`].
pub(super) fn write_base(
    message: &Message<'_, '_>,
    input: &str,
    sink: &mut Sink<'_>,
) -> Result<(), SignatureError> {
    let list = input.strip_prefix('(').ok_or(SignatureError::Malformed)?;
    let (mut list, _) = list.split_once(')').ok_or(SignatureError::Malformed)?;
    while !list.is_empty() {
        let (component, rest) = Component::parse(list)?;
        sink(component.text.as_bytes());
        sink(b": ");
        component.write_value(message, sink)?;
        sink(b"\n");
        list = match rest.strip_prefix(' ') {
            Some(next) if !next.is_empty() => next,
            None if rest.is_empty() => rest,
            _ => return Err(SignatureError::Malformed),
        };
    }
    sink(b"\"@signature-params\": ");
    put(input.as_bytes(), sink)
}

/// One component identifier, such as `"signature";req;key="mac"`.
struct Component<'t> {
    text: &'t str,
    name: &'t str,
    of_request: bool,
    key: Option<&'t str>,
}

impl<'t> Component<'t> {
    /// The identifier at the start of `list`, and what follows it.
    fn parse(list: &'t str) -> Result<(Self, &'t str), SignatureError> {
        let (name, mut rest) = quoted(list).ok_or(SignatureError::Malformed)?;
        let (mut of_request, mut key) = (false, None);
        while let Some(parameter) = rest.strip_prefix(';') {
            if let Some(value) = parameter.strip_prefix("key=") {
                let (value, after) = quoted(value).ok_or(SignatureError::Malformed)?;
                (key, rest) = (Some(value), after);
            } else {
                rest = parameter.strip_prefix("req").ok_or(SignatureError::Component)?;
                of_request = true;
            }
        }
        let text = list.get(..list.len() - rest.len()).ok_or(SignatureError::Malformed)?;
        Ok((Component { text, name, of_request, key }, rest))
    }

    fn write_value(&self, message: &Message<'_, '_>, sink: &mut Sink<'_>) -> Result<(), SignatureError> {
        match (self.name, self.key, message) {
            ("signature", Some("mac"), Message::Answer(_, Mac(mac))) if self.of_request => {
                let written = fmt::write(&mut Into(sink), format_args!(":{}:", Base64(mac)));
                written.map_err(|_| SignatureError::Component)
            }
            _ if self.of_request => Err(SignatureError::Component),
            ("@method", None, Message::Request(request)) => put(request.method.as_bytes(), sink),
            ("@path", None, Message::Request(request)) => put(path(request.target).0.as_bytes(), sink),
            ("@query", None, Message::Request(request)) => {
                sink(b"?");
                put(path(request.target).1.as_bytes(), sink)
            }
            ("@authority", None, Message::Request(request)) => authority(&request.fields, sink),
            ("@status", None, Message::Answer(response, _)) => {
                let written = fmt::write(&mut Into(sink), format_args!("{}", response.status));
                written.map_err(|_| SignatureError::Component)
            }
            (name, ..) if name.starts_with('@') => Err(SignatureError::Component),
            (name, Some(key), _) => {
                let member = member(message.fields(), name, key)?;
                put(member.ok_or(SignatureError::Component)?.as_bytes(), sink)
            }
            (name, None, _) => field(message.fields(), name, sink),
        }
    }
}

/// The quoted string at the start of `text`, which has no escapes (no component name does), and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (inside, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!inside.is_empty() && !inside.contains('\\')).then_some((inside, rest))
}

/// Path and query of a target in origin form (sections 2.2.6 and 2.2.7).
fn path(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// `Host` in lower case and without the default port (section 2.2.3).
fn authority(fields: &Fields<'_>, sink: &mut Sink<'_>) -> Result<(), SignatureError> {
    let host = fields.only("Host").ok().flatten().ok_or(SignatureError::Component)?;
    let host = host.strip_suffix(b":80").unwrap_or(host);
    host.iter().try_for_each(|byte| put(&[byte.to_ascii_lowercase()], sink))
}

/// All lines of a field (section 2.1).
fn field(fields: &Fields<'_>, name: &str, sink: &mut Sink<'_>) -> Result<(), SignatureError> {
    let mut lines = fields.all(name);
    put(lines.next().ok_or(SignatureError::Component)?, sink)?;
    lines.try_for_each(|line| {
        sink(b", ");
        put(line, sink)
    })
}

/// One member of a dictionary field (section 2.1.2): the only one of that key. Nothing is normalised; whoever sees
/// other white space than is usual comes to another base, and refuses.
///
/// # Errors
/// [`SignatureError::Malformed`] if there are several.
pub(super) fn member<'b>(
    fields: &Fields<'b>,
    name: &str,
    key: &str,
) -> Result<Option<&'b str>, SignatureError> {
    let mut found = None;
    for member in fields.list(name) {
        let member = core::str::from_utf8(member).map_err(|_| SignatureError::Malformed)?;
        let value = member.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        if value.is_some() && core::mem::replace(&mut found, value).is_some() {
            return Err(SignatureError::Malformed);
        }
    }
    Ok(found)
}

/// Only ASCII that can be seen, and blanks, may be part of a base (section 2.5).
fn put(value: &[u8], sink: &mut Sink<'_>) -> Result<(), SignatureError> {
    if !is_signable(value) {
        return Err(SignatureError::Component);
    }
    sink(value);
    Ok(())
}

/// Whether a field with this value can be signed: it is ASCII.
pub fn is_signable(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// Formats into a sink.
struct Into<'s, 'k>(&'s mut Sink<'k>);

impl fmt::Write for Into<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.0)(text.as_bytes());
        Ok(())
    }
}
