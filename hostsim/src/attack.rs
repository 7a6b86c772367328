//! Attacks on real routers during a run: what somebody on the neighbours' network, or an owner with something to hide, would
//! do. Each has to come to nothing; where one does not, the run fails. Not responsible for a peer's wrong bytes.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bamqp_core::channel::{Identity, Refusal, Tally};
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::ledger::{Entry, Event, Hash, InitEvent, Text};
use bamqp_core::message::SessionId;
use bamqp_core::message::hello::{self, Hello};
use bamqp_core::message::init::Init;
use bamqp_router::ledger_check::{Problem, Wrong, check};
use bamqp_router::net;

use crate::fault::{router_name, router_number};
use crate::neighbourhood::Neighbourhood;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One attack on the router of that number, a peer: 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The coordinator's INIT to it is sent again: to it, over several connections, and to another router.
    Replay(usize),
    /// Somebody without the coordinator's key asks in its name, from its address.
    Impersonate(usize),
    /// Its owner alters its log afterwards.
    ForgeLog(usize),
}

impl Attack {
    /// What all attacks look like, in one line.
    pub const FORMS: &str = "replay:N, impersonate:N or forge-log:N";

    /// The router that is attacked.
    pub fn router(self) -> usize {
        let (Attack::Replay(router) | Attack::Impersonate(router) | Attack::ForgeLog(router)) = self;
        router
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Attack::Replay(_) => "replay",
            Attack::Impersonate(_) => "impersonate",
            Attack::ForgeLog(_) => "forge-log",
        };
        write!(f, "{name}:{}", router_name(self.router()))
    }
}

impl FromStr for Attack {
    type Err = ();

    fn from_str(text: &str) -> Result<Attack, ()> {
        let (name, router) = text.split_once(':').ok_or(())?;
        let router = router_number(router).filter(|router| *router > 0).ok_or(())?;
        match name {
            "replay" => Ok(Attack::Replay(router)),
            "impersonate" => Ok(Attack::Impersonate(router)),
            "forge-log" => Ok(Attack::ForgeLog(router)),
            _ => Err(()),
        }
    }
}

/// How often each attack was tried and came to nothing.
pub type Repelled = Vec<(Attack, u64)>;

/// Begins with those that are made while the download is under way.
pub fn start(street: &Arc<Neighbourhood>, attacks: &[Attack]) -> JoinHandle<Result<Repelled, String>> {
    let (street, attacks) = (street.clone(), attacks.to_vec());
    thread::spawn(move || {
        let mut repelled = Vec::new();
        for attack in attacks {
            let tries = match attack {
                Attack::Replay(router) => replay(&street, router),
                Attack::Impersonate(router) => impersonate(&street, router),
                Attack::ForgeLog(_) => continue,
            };
            repelled.push((attack, tries.map_err(|line| format!("{attack}: {line}"))?));
        }
        Ok(repelled)
    })
}

/// Makes those that come afterwards. Routers are stopped for it.
///
/// # Errors
/// A line that says which attack did what it should not.
pub fn finish(street: &Neighbourhood, attacks: &[Attack]) -> Result<Repelled, String> {
    let forge = |attack: &Attack| match *attack {
        Attack::ForgeLog(router) => Some((*attack, forge_log(street, router))),
        _ => None,
    };
    let forged = attacks.iter().filter_map(forge);
    forged.map(|(attack, tries)| Ok((attack, tries.map_err(|line| format!("{attack}: {line}"))?))).collect()
}

fn replay(street: &Neighbourhood, router: usize) -> Result<u64, String> {
    let recorded = recorded_init(street, router)?;
    // On a connection with a challenge of its own, and on one without.
    for with_hello in [true, false] {
        let mut line = Line::from_coordinator(street, router)?;
        if with_hello {
            line.hello()?;
        }
        line.refused(street, router, &recorded, Refusal::StaleChallenge)?;
    }
    let Some(other) = (1..street.routers()).find(|other| *other != router) else { return Ok(2) };
    let mut line = Line::from_coordinator(street, other)?;
    line.hello()?;
    line.refused(street, other, &recorded, Refusal::WrongRecipient)?;
    Ok(3)
}

fn impersonate(street: &Neighbourhood, router: usize) -> Result<u64, String> {
    let attacker = Identity::from_seed([0x66; 32]).map_err(|error| error.to_string())?;
    let victim = street.public_key(router).ok_or("no such router")?;
    let victim = attacker.agree(&victim).map_err(|error| error.to_string())?;
    let name = street.public_key(0).map(|key| bamqp_router::keys::fingerprint_of(&key));
    let name = name.ok_or("no coordinator")?.to_string();
    let url = street.url("not-asked-for");
    for (in_whose_name, expected) in
        [(&attacker.fingerprint().to_string(), Refusal::UnknownKey), (&name, Refusal::BadMac)]
    {
        let mut line = Line::from_coordinator(street, router)?;
        let challenge = line.hello()?.challenge.ok_or("no challenge for the coordinator's address")?;
        let init = Init {
            session: SessionId([0x66; 16]),
            target: Uri::parse(&url).map_err(|_| "its own URL is none")?,
            size: 1,
            validator: Validator::entity_tag(b"\"v\"").map_err(|error| error.to_string())?,
            hops: 0,
            recipient: victim.fingerprint,
            first: None,
            user_agent: None,
            accept: None,
        };
        let mut buffer = vec![0; 8192];
        let mut head = HeadWriter::new(&mut buffer);
        init.write(&mut head, &"peer");
        let sealed = attacker.seal_init(head, &init, &victim, &challenge, &mut Tally::default());
        let (length, ..) = sealed.map_err(|error| error.to_string())?;
        let head = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let head = head.replace(&attacker.fingerprint().to_string(), in_whose_name);
        line.refused(street, router, head.as_bytes(), expected)?;
    }
    Ok(2)
}

/// The coordinator's INIT to that router, as its log has it: what somebody who listened would have, too.
fn recorded_init(street: &Neighbourhood, router: usize) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        street.flush_log(router);
        for file in files(&street.log_dir(router))? {
            let text = fs::read(&file).map_err(|error| error.to_string())?;
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                if let Ok((Entry { event: Event::Init(InitEvent { head, .. }), .. }, _)) = Entry::parse(line)
                {
                    return Ok(head.bytes().collect());
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(format!("router {} took no part", router_name(router)));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn files(log_dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(log_dir) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    Ok(files)
}

/// A connection from the coordinator's address.
struct Line(TcpStream);

impl Line {
    fn from_coordinator(street: &Neighbourhood, to: usize) -> Result<Line, String> {
        let from = street.proxy_of(0).ip();
        let socket = net::connect(street.peer_listener(to), Some(from), Instant::now() + PATIENCE);
        let socket = socket.map_err(|error| error.to_string())?;
        let prepared = socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
        prepared.map_err(|error| error.to_string())?;
        Ok(Line(socket))
    }

    /// One head.
    fn answer(&mut self) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).map_err(|error| error.to_string())?;
            head.extend_from_slice(&byte);
        }
        Ok(head)
    }

    fn hello(&mut self) -> Result<Hello, String> {
        let mut buffer = [0; 512];
        let mut head = HeadWriter::new(&mut buffer);
        hello::write_request(&mut head, &"peer");
        let length = head.finish().map_err(|error| error.to_string())?;
        self.0.write_all(buffer.get(..length).unwrap_or_default()).map_err(|error| error.to_string())?;
        let head = self.answer()?;
        let parsed = Response::parse(&head).ok().flatten().map(|(response, _)| Hello::parse(&response));
        parsed.ok_or("no answer to HELLO")?.map_err(|error| error.to_string())
    }

    /// Sends what has to be refused for that reason, and counted.
    fn refused(
        &mut self,
        street: &Neighbourhood,
        router: usize,
        head: &[u8],
        expected: Refusal,
    ) -> Result<(), String> {
        let before = street.refusals(router, expected);
        self.0.write_all(head).map_err(|error| error.to_string())?;
        let answer = self.answer()?;
        let _ = self.0.shutdown(Shutdown::Both);
        let response = Response::parse(&answer).ok().flatten().map(|(response, _)| response);
        let response = response.ok_or("the answer is not HTTP")?;
        let reason = response.fields.text("BAMQP-Reason").unwrap_or("no reason");
        if response.status != 403 || reason != expected.to_string() {
            return Err(format!("answered with {} ({reason}), expected {expected}", response.status));
        }
        match street.refusals(router, expected) > before {
            true => Ok(()),
            false => Err(format!("{expected} was not counted")),
        }
    }
}

/// Alters copies of a log in the ways that its owner could.
fn forge_log(street: &Neighbourhood, router: usize) -> Result<u64, String> {
    recorded_init(street, router)?;
    street.stop_router(router);
    street.stop_router(0);
    let (own, other) = (files(&street.log_dir(router))?, files(&street.log_dir(0))?);
    check(&own, &other).map_err(|problem| format!("the log as it is: {problem}"))?;
    let file = own.first().ok_or("no log")?;
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let forged = file.with_extension("forged");
    let found = |text: &str, is_it: &dyn Fn(&Problem) -> bool| {
        fs::write(&forged, text).map_err(|error| error.to_string())?;
        match check(std::slice::from_ref(&forged), &other) {
            Err(problem) if is_it(&problem) => Ok(()),
            other => Err(format!("a forged log gives {other:?}")),
        }
    };
    let url = street.url("pooled");
    let place = text.lines().position(|line| line.contains("\tINIT\t")).ok_or("no INIT")?;
    // Another URL in the line.
    let other_url = street.url("qooled");
    found(&text.replacen(&format!("uri={url}"), &format!("uri={other_url}"), 1), &|problem| {
        problem.line == place + 1 && matches!(problem.what, Wrong::Entry(_))
    })?;
    // The same, and the whole chain made anew.
    let rechained = rechain(&text, |event| {
        if let Event::Init(init) = event {
            init.uri = Text::Plain(other_url.as_bytes());
        }
        true
    });
    found(&rechained, &|problem| problem.line == place + 1 && matches!(problem.what, Wrong::Init(_)))?;
    // Without the session, the chain made anew: nothing in it shows that, but the coordinator's log does.
    let without = rechain(&text, |event| matches!(event, Event::Open { .. }));
    found(&without, &|problem| matches!(problem.what, Wrong::Missing(..) | Wrong::NoInit(_)))?;
    Ok(3)
}

/// The entries that `change` keeps, numbered and chained as if they were genuine.
fn rechain<'t>(text: &'t str, change: impl Fn(&mut Event<'t>) -> bool) -> String {
    let (mut lines, mut previous, mut sequence) = (String::new(), Hash::default(), 0);
    for line in text.split_inclusive('\n') {
        let Ok((mut entry, _)) = Entry::parse(line.as_bytes()) else { continue };
        if change(&mut entry.event) {
            sequence += 1;
            previous = Entry { sequence, previous, ..entry }.write(&mut lines).unwrap_or_default();
        }
    }
    lines
}
