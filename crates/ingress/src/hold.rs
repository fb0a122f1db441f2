//! Sockets that outlive herder: a process of its own (`herder ingress-hold`) has them, too, until the next herder takes them.
//!
//! Meanwhile the kernel completes the handshakes of clients, and they wait instead of being refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, recvmsg, sendmsg, socket_with,
};
use serde::{Deserialize, Serialize};

/// Sockets that are held; further ones end with herder.
const SOCKETS_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Time without a herder after which the sockets are closed: clients are then refused, and go elsewhere.
const ALONE_TIME_MAX: Duration = Duration::from_secs(60);
/// Time for the answer of the process that holds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
const BACKLOG: i32 = 4;

/// The process that holds sockets.
#[derive(Clone, Debug)]
pub struct HoldSettings {
    /// Program and arguments of a process that calls [`hold`].
    pub command: Vec<OsString>,
    /// Folder for the socket by which it is told.
    pub folder: PathBuf,
}

/// A message of herder, or the answer. The sockets go with it, in the order of their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Message {
    /// Asks for all sockets.
    take: bool,
    /// Addresses of the sockets that are held from now on.
    keep: Vec<String>,
}

/// herder's side.
#[derive(Debug)]
pub(crate) struct Holder {
    settings: HoldSettings,
    open: Option<OwnedFd>,
}

impl Holder {
    pub(crate) fn new(settings: HoldSettings) -> Holder {
        Holder { settings, open: None }
    }

    /// The sockets that an earlier herder left, by address. None, if there was none.
    pub(crate) fn take(&mut self) -> BTreeMap<String, OwnedFd> {
        let taken = self.connect().and_then(|open| {
            send(&open, &Message { take: true, ..Message::default() }, &[])?;
            wait(&[open.as_fd()], Some(ANSWER_TIME_MAX))?;
            let (message, sockets) = receive(&open)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.open = Some(open);
            Ok(message.keep.into_iter().zip(sockets).collect())
        });
        taken.unwrap_or_else(|error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::ConnectionRefused {
                tracing::warn!(%error, "sockets of an earlier process are not taken over");
            }
            BTreeMap::new()
        })
    }

    /// Lets these sockets, and no others, outlive this process.
    pub(crate) fn keep(&mut self, sockets: &BTreeMap<String, BorrowedFd<'_>>) {
        if let Err(error) = self.try_keep(sockets) {
            self.open = None;
            tracing::warn!(%error, "sockets are not held; clients are refused while herder restarts");
        }
    }

    fn try_keep(&mut self, sockets: &BTreeMap<String, BorrowedFd<'_>>) -> io::Result<()> {
        let all = sockets.iter().take(SOCKETS_MAX);
        let message = Message { keep: all.clone().map(|(it, _)| it.clone()).collect(), ..Message::default() };
        let sockets: Vec<BorrowedFd<'_>> = all.map(|(_, it)| *it).collect();
        if let Some(open) = &self.open
            && send(open, &message, &sockets).is_ok()
        {
            return Ok(());
        }
        let open = match self.connect() {
            Ok(open) => open,
            Err(_) if sockets.is_empty() => return Ok(()),
            Err(_) => self.start()?,
        };
        send(&open, &message, &sockets)?;
        self.open = Some(open);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.settings.folder.join("ingress-hold.sock")
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let socket = unix_socket()?;
        connect(&socket, &SocketAddrUnix::new(self.path())?)?;
        Ok(socket)
    }

    /// Starts a process that holds, and connects to it. It gets the socket that it is told by, so nobody waits for it.
    fn start(&self) -> io::Result<OwnedFd> {
        // One that is left over by a process that has ended.
        let _ = std::fs::remove_file(self.path());
        let listener = unix_socket()?;
        bind(&listener, &SocketAddrUnix::new(self.path())?)?;
        listen(&listener, BACKLOG)?;
        let (program, arguments) = self.settings.command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        // A process group of its own: what ends herder does not end it.
        command.args(arguments).stdin(listener).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        // Only takes its status, so that it is no zombie.
        std::thread::Builder::new().name("ingress-hold".to_owned()).spawn(move || child.wait())?;
        self.connect()
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn send(to: &OwnedFd, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(to, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message. None, if the other end has closed.
fn receive(from: &OwnedFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let sockets = control.drain().flat_map(|it| match it {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let sockets: Vec<OwnedFd> = sockets.collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, sockets)))
}

/// Waits until one of them can be read. Returns which can; all false when the time is over.
fn wait(sockets: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = sockets.iter().map(|it| PollFd::from_borrowed_fd(*it, PollFlags::IN)).collect();
    let limit = limit.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    poll(&mut polled, limit.as_ref())?;
    Ok(polled.iter().map(|it| !it.revents().is_empty()).collect())
}

/// Holds the listening sockets of the ingress for the herders that connect. The standard input is a socket that
/// listens. It ends when there has been no herder for a minute, or nothing is held.
///
/// # Errors
///
/// If the standard input is no socket that listens.
pub fn hold() -> io::Result<()> {
    let listener = io::stdin();
    hold_by(listener.as_fd(), ALONE_TIME_MAX)
}

fn hold_by(listener: BorrowedFd<'_>, alone_max: Duration) -> io::Result<()> {
    let mut held: BTreeMap<String, OwnedFd> = BTreeMap::new();
    let mut herder: Option<OwnedFd> = None;
    let mut alone_since = Instant::now();
    loop {
        let limit = herder.is_none().then(|| alone_max.saturating_sub(alone_since.elapsed()));
        let watched: Vec<BorrowedFd<'_>> =
            [Some(listener), herder.as_ref().map(AsFd::as_fd)].into_iter().flatten().collect();
        let ready = wait(&watched, limit)?;
        if ready.get(1) == Some(&true) {
            let message = herder.as_ref().map(receive).transpose().unwrap_or_default().flatten();
            match (message, &herder) {
                (Some((Message { take: true, .. }, _)), Some(herder)) => {
                    let sockets: Vec<BorrowedFd<'_>> = held.values().map(AsFd::as_fd).collect();
                    // One that has gone meanwhile shows at the next turn.
                    let _ = send(herder, &Message { keep: held.keys().cloned().collect(), take: false }, &sockets);
                }
                (Some((Message { keep, .. }, sockets)), _) => {
                    held = keep.into_iter().zip(sockets).collect();
                    if held.is_empty() {
                        return Ok(());
                    }
                }
                (None, _) => (herder, alone_since) = (None, Instant::now()),
            }
        } else if ready.first() == Some(&true) {
            herder = Some(accept(listener)?);
        } else if herder.is_none() && alone_since.elapsed() >= alone_max {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A process that holds, as a thread. It ends well when it has nothing to hold.
    fn holding(folder: &std::path::Path, alone_max: Duration) -> std::thread::JoinHandle<io::Result<()>> {
        let listener = unix_socket().expect("a socket");
        bind(&listener, &SocketAddrUnix::new(folder.join("ingress-hold.sock")).expect("a path")).expect("bound");
        listen(&listener, BACKLOG).expect("it listens");
        std::thread::spawn(move || hold_by(listener.as_fd(), alone_max))
    }

    fn holder(folder: &std::path::Path) -> Holder {
        Holder::new(HoldSettings { command: Vec::new(), folder: folder.to_owned() })
    }

    #[test]
    fn a_client_that_comes_between_two_herders_waits_for_the_second() {
        let folder = tempfile::tempdir().expect("a folder");
        let process = holding(folder.path(), ALONE_TIME_MAX);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let mut first = holder(folder.path());
        assert!(first.take().is_empty());
        first.keep(&[(":80".to_owned(), listener.as_fd())].into());
        drop((first, listener));
        let client = TcpStream::connect(address).expect("it is not refused");
        let mut second = holder(folder.path());
        let taken = second.take().remove(":80").expect("the socket");
        let (_, from) = TcpListener::from(taken).accept().expect("the client");
        assert_eq!(from, client.local_addr().expect("an address"));
        second.keep(&BTreeMap::new());
        process.join().expect("no panic").expect("it ends well");
        assert!(TcpStream::connect(address).is_err(), "nobody has it any more");
    }

    #[test]
    fn sockets_without_a_herder_are_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let process = holding(folder.path(), Duration::from_millis(50));
        process.join().expect("no panic").expect("it ends well");
        let mut late = holder(folder.path());
        assert!(late.take().is_empty());
        // Nothing is to be held, so no process is needed.
        late.keep(&BTreeMap::new());
    }
}
