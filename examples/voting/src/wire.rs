//! Protocol of the roles: one line asked, one line answered, over TCP.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A peer that says nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Serves `answer` for each line, one thread a connection.
pub(crate) fn serve(port: &str, answer: impl Fn(&str) -> String + Clone + Send + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", number(port)?))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, answer) = (stream?, answer.clone());
        thread::spawn(move || {
            if let Err(error) = converse(stream, answer) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    Ok(())
}

fn converse(stream: TcpStream, answer: impl Fn(&str) -> String) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writeln!(out, "{}", answer(line?.trim_end()))?;
    }
    Ok(())
}

/// Asks one line of `host:port`.
pub(crate) fn ask(address: &str, line: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.ends_with('\n') {
        Ok(answer.trim_end().to_owned())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{address} closed without an answer")))
    }
}

/// Checks the health of this container: a program must listen on this port.
pub(crate) fn check(port: &str) -> io::Result<()> {
    TcpStream::connect(("127.0.0.1", number(port)?)).map(drop)
}

pub(crate) fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("PORT `{port}` is no port")))
}
