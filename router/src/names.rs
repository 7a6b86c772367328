//! Whether the name that a request gives leads where its connection was going before it was redirected here (DESIGN
//! section 7): only then may peers, who resolve the name, be asked for the same. Not responsible for what follows.
//!
//! The client must not wait for the resolver: it is asked, on a thread of its own, while the origin is.

use core::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bamqp_core::http::target::{Authority, Host};

use crate::live::Live;

/// How long a response that could be pooled waits for the resolver. Mostly the client has just asked it the same.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Answer {
    agrees: Mutex<Option<bool>>,
    is_there: Condvar,
}

/// What one client's connection has asked of the resolver.
#[derive(Debug)]
pub struct Names {
    /// Where the connection was going.
    destination: SocketAddr,
    /// The last name, and whether it leads there.
    asked: Option<(String, Arc<Answer>)>,
}

impl Names {
    /// For a connection that was going there.
    pub fn new(destination: SocketAddr) -> Self {
        Self { destination, asked: None }
    }

    /// Asks the resolver, unless it was asked already, or has not answered yet what it was asked before.
    pub fn ask(&mut self, authority: &Authority<'_>, live: &Live) {
        let (name, port) = match authority.host {
            Host::Name(name) => (name.to_owned(), authority.port),
            Host::Ip(_) => return,
        };
        if let Some((other, answer)) = &self.asked {
            let is_open = answer.agrees.lock().unwrap_or_else(PoisonError::into_inner).is_none();
            if is_open || *other == authority.to_string() {
                return;
            }
        }
        let (answer, destination) = (Arc::new(Answer::default()), self.destination);
        let told = answer.clone();
        let started = live.spawn("resolve", move || {
            let found = (name.as_str(), port).to_socket_addrs();
            let agrees = found.is_ok_and(|mut found| found.any(|address| is_same(address, destination)));
            *told.agrees.lock().unwrap_or_else(PoisonError::into_inner) = Some(agrees);
            told.is_there.notify_all();
        });
        self.asked = started.ok().map(|()| (authority.to_string(), answer));
    }

    /// Whether the name leads to where the connection was going, as far as is known within a moment.
    pub fn agrees(&self, authority: &Authority<'_>) -> bool {
        if let Host::Ip(ip) = authority.host {
            return is_same((ip, authority.port).into(), self.destination);
        }
        let Some((_, answer)) = self.asked.as_ref().filter(|(name, _)| *name == authority.to_string()) else {
            return false;
        };
        let deadline = Instant::now() + PATIENCE;
        let mut agrees = answer.agrees.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match *agrees {
                Some(agrees) => return agrees,
                None if left.is_zero() => return false,
                None => {}
            }
            agrees = answer.is_there.wait_timeout(agrees, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip().to_canonical(), one.port()) == (other.ip().to_canonical(), other.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_agree_only_with_where_they_lead() {
        let live = Live::default();
        let mut names = Names::new("127.0.0.1:80".parse().unwrap());
        let parse = |text| Authority::parse(text, Some(80)).unwrap();
        let mut agrees = |text| {
            names.ask(&parse(text), &live);
            // The resolver may take longer than a client may wait.
            let deadline = Instant::now() + Duration::from_secs(20);
            while names.asked.as_ref().is_some_and(|(_, answer)| answer.agrees.lock().unwrap().is_none()) {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(5));
            }
            names.agrees(&parse(text))
        };
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]", true),
            ("127.0.0.1:81", false),
            ("127.0.0.2", false),
            ("localhost", true),
            ("localhost:81", false),
            ("name.invalid", false),
            ("localhost", true),
        ] {
            assert_eq!(agrees(text), expected, "{text}");
        }
        live.stop();
        assert!(!names.agrees(&parse("other.invalid")), "nobody was asked");
    }
}
