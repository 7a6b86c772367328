//! Request targets (RFC 9112 section 3.2) and the authority that a request is for. Not responsible for
//! resolving names, nor for whether an address may be reached ([`crate::address`]).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Version;
use super::request::Request;

/// Longest host name that is taken (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// `http://host/path`: what a client asks of its proxy.
    Absolute(Uri<'b>),
    /// `host:port`: only with CONNECT.
    Authority(Authority<'b>),
    /// `/path?query`, with the authority of the `Host` field: a transparent proxy's clients, and messages
    /// between routers.
    Origin(Uri<'b>),
    /// `*`: only with OPTIONS.
    Asterisk,
}

impl<'b> Target<'b> {
    /// The target of `request`, after checking its `Host`: missing (HTTP/1.1), repeated, or invalid is an
    /// error; one that differs from an absolute-form target is ignored (RFC 9112 sections 3.2 and 3.2.2).
    ///
    /// # Errors
    /// What is wrong with target or `Host`; the answer is 400, or 501 for [`TargetError::Scheme`].
    pub fn of(request: &Request<'b>) -> Result<Target<'b>, TargetError> {
        let host = request.fields.only("Host").map_err(|_| TargetError::SeveralHosts)?;
        let host = match host {
            None if request.version == Version::Http11 => return Err(TargetError::NoHost),
            None | Some(b"") => None,
            Some(value) => {
                let text = core::str::from_utf8(value).map_err(|_| TargetError::Host)?;
                Some(Authority::parse(text, Some(80))?)
            }
        };
        let target = request.target;
        if request.method == "CONNECT" {
            return Authority::parse(target, None).map(Target::Authority);
        }
        if target == "*" {
            return if request.method == "OPTIONS" { Ok(Target::Asterisk) } else { Err(TargetError::Form) };
        }
        if target.starts_with('/') {
            check_path(target)?;
            let Authority { host, port } = host.ok_or(TargetError::NoHost)?;
            return Ok(Target::Origin(Uri { host, port, path: target, has_userinfo: false }));
        }
        Uri::parse(target).map(Target::Absolute)
    }
}

/// A host, as a name still to be resolved or as an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'b> {
    /// A name of letters, digits, `-`, `.` and `_`, at most 255 bytes. What some resolvers read as an
    /// address ("127.1") is a name here: addresses are checked after resolving.
    Name(&'b str),
    /// An address; IPv6 is in brackets in a URI.
    Ip(IpAddr),
}

impl<'b> Host<'b> {
    fn parse(text: &'b str) -> Result<Host<'b>, TargetError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(TargetError::Host)?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| TargetError::Host)?;
            return Ok(Host::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Ip(IpAddr::V4(ip)));
        }
        let named = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if text.is_empty() || text.len() > MAX_HOST_BYTES || !named {
            return Err(TargetError::Host);
        }
        Ok(Host::Name(text))
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A host and a port; displayed as `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    /// Where to.
    pub host: Host<'b>,
    /// 1 to 65535.
    pub port: u16,
}

impl<'b> Authority<'b> {
    /// Parses `host[:port]`; without a port it is `default`, and without that an error.
    ///
    /// # Errors
    /// [`TargetError::Host`] or [`TargetError::Port`].
    pub fn parse(text: &'b str, default: Option<u16>) -> Result<Authority<'b>, TargetError> {
        // The colons of an IPv6 address are inside of its brackets.
        let after_ip = text.find(']').map_or(0, |i| i + 1);
        let colon = text.get(after_ip..).and_then(|rest| rest.find(':')).map(|i| i + after_ip);
        let (host, port) = match colon.and_then(|at| text.split_at_checked(at)) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
            None => (text, ""),
        };
        let port = match (port, default) {
            // RFC 3986 section 3.2.3: the port may be empty after its colon.
            ("", Some(default)) => default,
            ("", None) => return Err(TargetError::Port),
            (digits, _) => super::decimal(digits.as_bytes())
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n != 0)
                .ok_or(TargetError::Port)?,
        };
        Ok(Authority { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An `http` URI without a fragment; displayed in full, without userinfo and default port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'b> {
    /// Where it is.
    pub host: Host<'b>,
    /// 80 unless given.
    pub port: u16,
    /// As it was sent: may be empty or start with `?`; see [`Uri::path_and_query`].
    path: &'b str,
    /// Whether `user:password@` was there. It is not kept: RFC 9110 section 4.2.4.
    pub has_userinfo: bool,
}

impl<'b> Uri<'b> {
    /// Parses `http://[userinfo@]host[:port][/path][?query]`.
    ///
    /// # Errors
    /// What is wrong with it; [`TargetError::Scheme`] if it is an absolute URI of another scheme.
    pub fn parse(text: &'b str) -> Result<Uri<'b>, TargetError> {
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::Form)?;
        let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme || !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(TargetError::Form);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::Scheme);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(TargetError::Form)?;
        check_path(path)?;
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, authority),
        };
        let Authority { host, port } = Authority::parse(authority, Some(80))?;
        Ok(Uri { host, port, path, has_userinfo: userinfo.is_some() })
    }

    /// Host and port, for connecting.
    pub fn authority(&self) -> Authority<'b> {
        Authority { host: self.host, port: self.port }
    }

    /// What goes into the `Host` field: the port only if it is not 80.
    pub fn host_field(&self) -> HostField<'b> {
        HostField(self.authority())
    }

    /// What goes into an origin-form request line: an empty path is `/` (RFC 9112 section 3.2.1).
    pub fn path_and_query(&self) -> PathAndQuery<'b> {
        PathAndQuery(self.path)
    }

    /// Whether neither path nor query were given: `OPTIONS http://host` means `OPTIONS *` (RFC 9112 section
    /// 3.2.4).
    pub fn is_bare(&self) -> bool {
        self.path.is_empty()
    }

    /// How many bytes [`Display`](fmt::Display) writes.
    pub fn len(&self) -> usize {
        struct Count(usize);
        impl fmt::Write for Count {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.0 += s.len();
                Ok(())
            }
        }
        let mut count = Count(0);
        let _ = fmt::write(&mut count, format_args!("{self}"));
        count.0
    }

    /// Never: a URI has a scheme and a host.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host_field(), self.path_and_query())
    }
}

/// See [`Uri::host_field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostField<'b>(Authority<'b>);

impl fmt::Display for HostField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port {
            80 => write!(f, "{}", self.0.host),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// See [`Uri::path_and_query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAndQuery<'b>(&'b str);

impl fmt::Display for PathAndQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.starts_with('/') {
            f.write_str("/")?;
        }
        f.write_str(self.0)
    }
}

/// No white space or control characters, and no fragment: that one is never sent (RFC 9110 section 7.1).
fn check_path(path: &str) -> Result<(), TargetError> {
    if path.contains('#') {
        return Err(TargetError::Fragment);
    }
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(TargetError::Form);
    }
    Ok(())
}

/// Why a target can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// None of the four forms, or one that the method doesn't have.
    Form,
    /// An absolute URI of a scheme other than `http`.
    Scheme,
    /// A `#` in it.
    Fragment,
    /// Neither a name nor an address.
    Host,
    /// Not 1 to 65535, or missing with CONNECT.
    Port,
    /// HTTP/1.1 or an origin-form target without a usable `Host`.
    NoHost,
    /// More than one `Host` line.
    SeveralHosts,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TargetError::Form => "the request target has a form that this method does not have",
            TargetError::Scheme => "only http URIs can be fetched; https goes through CONNECT",
            TargetError::Fragment => "a request target has no fragment (#)",
            TargetError::Host => "the host is neither a name nor an address",
            TargetError::Port => "the port is missing or not 1 to 65535",
            TargetError::NoHost => "the Host field is missing",
            TargetError::SeveralHosts => "several Host fields",
        })
    }
}

impl core::error::Error for TargetError {}
