//! Protocol of the roles: one line asked, one line answered, over TCP.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::Duration;

/// Longest time without an answer. The queue lets `POP` wait for 2 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time for a connection to be accepted.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest time that a server waits for the next line of a connection.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Serves lines, with one thread for each connection. `open` makes what answers the lines of one connection; it is dropped when the connection
/// ends.
pub(crate) fn serve<A: FnMut(&str) -> String>(
    port: &str,
    open: impl Fn() -> A + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", number(port)?))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, open) = (stream?, open.clone());
        thread::spawn(move || {
            if let Err(error) = converse(stream, open()) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    Ok(())
}

fn converse(stream: TcpStream, mut answer: impl FnMut(&str) -> String) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        out.write_all((answer(line?.trim_end()) + "\n").as_bytes())?;
    }
    Ok(())
}

/// A connection to `host:port`.
pub(crate) struct Link {
    reader: BufReader<TcpStream>,
    address: String,
}

impl Link {
    pub(crate) fn open(address: &str) -> io::Result<Link> {
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")));
        for address in address.to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX);
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(Link { reader: BufReader::new(stream), address: address.to_owned() })
    }

    /// Asks one line.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<String> {
        // In one piece: a second small packet would wait until the first is acknowledged.
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer)?;
        if answer.ends_with('\n') {
            Ok(answer.trim_end().to_owned())
        } else {
            let text = format!("{} closed without an answer", self.address);
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
        }
    }
}

/// Asks one line of `host:port`.
pub(crate) fn ask(address: &str, line: &str) -> io::Result<String> {
    Link::open(address)?.ask(line)
}

/// Checks the health of this container: a program must listen on this port.
pub(crate) fn check(port: &str) -> io::Result<()> {
    TcpStream::connect(("127.0.0.1", number(port)?)).map(drop)
}

pub(crate) fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("PORT `{port}` is no port")))
}
