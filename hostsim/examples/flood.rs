//! A coordinator that asks a peer for help as fast as it can, over several connections, whatever it is told:
//! `flood KEY PEERS-PUBLIC-KEY PEER FROM SECONDS`. Prints what it was answered, as JSON. For `scripts/neighbour`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bamqp_core::channel::{Identity, Neighbour, Tally};
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::message::SessionId;
use bamqp_core::message::hello::{self, Hello};
use bamqp_core::message::init::{Answer, Init};
use bamqp_router::keys::{KeyPair, base64_decode};
use bamqp_router::net;

/// Connections at a time: more than a peer lets in.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(2);

type Answers = BTreeMap<String, u64>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, public, to, from, seconds] = &arguments[..] else {
        return Err("expected: flood KEY PEERS-PUBLIC-KEY PEER FROM SECONDS".into());
    };
    let me = Identity::from_seed(*KeyPair::load(key.as_ref())?.seed())?;
    let public = std::fs::read_to_string(public)?;
    let peer = me.agree(&base64_decode(public.trim()).ok_or("no public key")?)?;
    let (to, from): (SocketAddr, IpAddr) = (to.parse()?, from.parse()?);
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut all = Answers::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Answers::new();
                    while Instant::now() < until {
                        if let Err(why) = ask(&me, &peer, to, from, until, &mut answers) {
                            *answers.entry(why.to_string()).or_default() += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                    answers
                })
            })
            .collect();
        for answers in threads.into_iter().filter_map(|thread| thread.join().ok()) {
            answers.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
        }
    });
    let members: Vec<String> = all.iter().map(|(what, count)| format!("\"{what}\": {count}")).collect();
    println!("{{{}}}", members.join(", "));
    Ok(())
}

/// HELLO and INIT, again and again over one connection.
fn ask(
    me: &Identity,
    peer: &Neighbour,
    to: SocketAddr,
    from: IpAddr,
    until: Instant,
    answers: &mut Answers,
) -> Result<(), &'static str> {
    const TURNED_AWAY: &str = "connections turned away";
    let mut socket = net::connect(to, Some(from), Instant::now() + PATIENCE).map_err(|_| "not connected")?;
    let prepared = socket.set_nonblocking(false).and_then(|()| socket.set_read_timeout(Some(PATIENCE)));
    prepared.map_err(|_| "not connected")?;
    let target = Uri::parse("http://10.0.0.1/file").map_err(|_| "no URI")?;
    let mut buffer = vec![0; 8192];
    while Instant::now() < until {
        let mut head = HeadWriter::new(&mut buffer);
        hello::write_request(&mut head, &"peer");
        let length = head.finish().map_err(|_| "no HELLO")?;
        socket.write_all(&buffer[..length]).map_err(|_| TURNED_AWAY)?;
        let answer = answer(&mut socket).map_err(|_| TURNED_AWAY)?;
        let response = Response::parse(&answer).ok().flatten().map(|(response, _)| Hello::parse(&response));
        let challenge =
            response.and_then(Result::ok).and_then(|hello| hello.challenge).ok_or("no challenge")?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| "no randomness")?;
        let init = Init {
            session: SessionId(id),
            target,
            size: 96 << 20,
            validator: Validator::entity_tag(b"\"v\"").map_err(|_| "no validator")?,
            hops: 0,
            recipient: peer.fingerprint,
            first: None,
            user_agent: None,
            accept: None,
        };
        let mut head = HeadWriter::new(&mut buffer);
        init.write(&mut head, &"peer");
        let sealed = me.seal_init(head, &init, peer, &challenge, &mut Tally::default());
        let (length, ..) = sealed.map_err(|_| "not sealed")?;
        socket.write_all(&buffer[..length]).map_err(|_| TURNED_AWAY)?;
        let answer = self::answer(&mut socket).map_err(|_| TURNED_AWAY)?;
        let Ok(Some((response, _))) = Response::parse(&answer) else { return Err("no answer") };
        let what = match Answer::parse(&response) {
            Ok(Answer::Accept(_)) => "accepted".to_owned(),
            Ok(Answer::Decline(decline)) => format!("declined ({})", decline.reason),
            Err(_) => format!("answered {}", response.status),
        };
        *answers.entry(what).or_default() += 1;
    }
    Ok(())
}

/// One head.
fn answer(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(head)
}
