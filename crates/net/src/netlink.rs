//! Netlink messages: one small codec for the three families that overlay networks need (routes, nftables, connection tracking).

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, netdevice, recv, send,
    socket_with, sockopt,
};

use crate::NetError;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 16;

/// Messages that are sent before their acknowledgements are read. More would overflow the receive buffer of a socket.
const UNACKNOWLEDGED_MAX: usize = 100;

/// Larger than the largest part of a dump, and than the notices that kernels send at once.
const DUMP_BYTES: usize = 1 << 18;

/// Larger than an acknowledgement with the message that it answers. Allocators give back larger buffers, which costs more than a change of
/// some elements.
const ANSWER_BYTES: usize = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Route,
    Netfilter,
    Generic,
}

/// A message under construction.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Message { bytes, open: Vec::new() }
    }

    /// Asks the kernel to answer even if there is no error.
    pub(crate) fn acknowledged(mut self) -> Message {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// The fixed part after the header.
    pub(crate) fn head(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Message {
        self.attr(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub(crate) fn addr(self, kind: u16, value: IpAddr) -> Message {
        self.attr(kind, &address_bytes(value))
    }

    pub(crate) fn nest(mut self, kind: u16) -> Message {
        self.open.push(self.bytes.len());
        self.attr(kind | NESTED, &[])
    }

    pub(crate) fn end(mut self) -> Message {
        if let Some(start) = self.open.pop() {
            let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
            self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        }
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

pub(crate) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A message that was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: u16,
    sequence: u32,
    /// Port of the socket whose request it answers, or has caused; 0: the kernel's.
    port: u32,
    pub(crate) body: Vec<u8>,
}

/// Ports of sockets that this process changes the kernel with, those used last at the end. The kernel gives ports of its own choice, and does
/// not give one again soon.
static PORTS: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());

/// Ports that are remembered. With one that is forgotten, a change of this process looks like another's, which costs a look.
const PORTS_MAX: usize = 4096;

/// True if this process has caused a notice.
pub(crate) fn is_own(received: &Received) -> bool {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().any(|port| *port == received.port)
}

fn remember(port: u32) {
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    if ports.back() == Some(&port) {
        return;
    }
    ports.retain(|it| *it != port);
    ports.push_back(port);
    if ports.len() > PORTS_MAX {
        ports.pop_front();
    }
}

/// Attributes, by type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Attrs<'a> {
        Attrs(bytes)
    }

    pub(crate) fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16_at(rest, 0)?);
            let kind = u16_at(rest, 2)? & TYPE_MASK;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find(|(it, _)| *it == kind).map(|(_, value)| value)
    }

    pub(crate) fn nested(self, kind: u16) -> Attrs<'a> {
        Attrs(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned())
    }

    pub(crate) fn addr(self, kind: u16) -> Option<IpAddr> {
        address(self.get(kind)?)
    }
}

pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A socket for requests, or for notices of some groups.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open(bus: Bus) -> Result<Socket, NetError> {
        Socket::listen(bus, 0)
    }

    /// `groups` is a mask of multicast groups.
    pub(crate) fn listen(bus: Bus, groups: u32) -> Result<Socket, NetError> {
        let open = || -> rustix::io::Result<(OwnedFd, u32)> {
            let protocol: Option<Protocol> = match bus {
                Bus::Route => None,
                Bus::Netfilter => Some(netlink::NETFILTER),
                Bus::Generic => Some(netlink::GENERIC),
            };
            let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            // A larger buffer loses no notices in a burst; without the right to it the default has to do.
            let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
            let _ = sockopt::set_socket_send_buffer_size_force(&fd, 4 << 20);
            bind(&fd, &SocketAddrNetlink::new(0, groups))?;
            let port = SocketAddrNetlink::try_from(getsockname(&fd)?).map_or(0, |own| own.pid());
            Ok((fd, port))
        };
        let (fd, port) = open().map_err(|error| failed("socket", error.into()))?;
        remember(port);
        Ok(Socket { fd, port, buffer: Vec::new(), sequence: 0 })
    }

    pub(crate) fn fd(&self) -> impl AsFd + '_ {
        self.fd.as_fd()
    }

    /// Receives notices.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Received>> {
        self.receive_up_to(DUMP_BYTES)
    }

    fn receive_up_to(&mut self, bytes: usize) -> io::Result<Vec<Received>> {
        self.buffer.clear();
        self.buffer.reserve(bytes);
        recv(&self.fd, spare_capacity(&mut self.buffer), RecvFlags::empty())?;
        let mut rest = &self.buffer[..];
        let mut all = Vec::new();
        while let (Some(length), Some(kind), Some(sequence), Some(port)) =
            (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8), u32_at(rest, 12))
        {
            let length = length as usize;
            let Some(body) = rest.get(HEADER_BYTES..length) else { break };
            all.push(Received { kind, sequence, port, body: body.to_vec() });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(all)
    }

    fn transmit(&mut self, messages: impl Iterator<Item = Message>) -> io::Result<Vec<u32>> {
        let mut bytes = Vec::new();
        let mut sequences = Vec::new();
        for message in messages {
            self.sequence += 1;
            sequences.push(self.sequence);
            bytes.extend(message.finish(self.sequence));
        }
        send(&self.fd, &bytes, SendFlags::empty())?;
        Ok(sequences)
    }

    /// Index of an interface.
    pub(crate) fn index(&self, name: &str) -> Result<u32, NetError> {
        netdevice::name_to_index(&self.fd, name).map_err(|_| NetError::NoInterface(name.to_owned()))
    }

    /// Reads a table of the kernel.
    pub(crate) fn dump(&mut self, what: &'static str, message: Message) -> Result<Vec<Received>, NetError> {
        let mut all = Vec::new();
        self.dump_each(what, message, |received| all.push(received))?;
        Ok(all)
    }

    /// Reads a table of the kernel, entry by entry: it may be larger than what is kept of it.
    pub(crate) fn dump_each(
        &mut self,
        what: &'static str,
        message: Message,
        mut see: impl FnMut(Received),
    ) -> Result<(), NetError> {
        let sent = self.transmit([message].into_iter()).map_err(|error| failed(what, error))?;
        loop {
            for received in self.receive().map_err(|error| failed(what, error))? {
                if !sent.contains(&received.sequence) {
                    continue;
                }
                match received.kind {
                    DONE => return Ok(()),
                    ERROR => return error_of(&received).map_or(Ok(()), |error| Err(failed(what, error))),
                    _ => see(received),
                }
            }
        }
    }

    /// Sends requests one by one and returns what became of each.
    pub(crate) fn each(&mut self, what: &'static str, messages: Vec<Message>) -> Vec<Result<(), NetError>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut rest = messages.into_iter().peekable();
        while rest.peek().is_some() {
            let part: Vec<Message> = rest.by_ref().take(UNACKNOWLEDGED_MAX).collect();
            let count = part.len();
            match self.acknowledged(part) {
                Ok(part) => outcomes.extend(part.into_iter().map(|outcome| match outcome {
                    Some(error) => Err(failed(what, error)),
                    None => Ok(()),
                })),
                Err(error) => {
                    let text = error.to_string();
                    outcomes.extend((0..count).map(|_| Err(failed(what, io::Error::other(text.clone())))));
                }
            }
        }
        outcomes
    }

    fn acknowledged(&mut self, messages: Vec<Message>) -> io::Result<Vec<Option<io::Error>>> {
        let sent = self.transmit(messages.into_iter())?;
        let mut outcomes: Vec<Option<io::Error>> = sent.iter().map(|_| None).collect();
        let mut open = sent.len();
        while open > 0 {
            for received in self.receive_up_to(ANSWER_BYTES)?.into_iter().filter(|it| it.kind == ERROR) {
                if let Some(n) = sent.iter().position(|sequence| *sequence == received.sequence) {
                    outcomes[n] = error_of(&received);
                    open -= 1;
                }
            }
        }
        Ok(outcomes)
    }

    pub(crate) fn one(&mut self, what: &'static str, message: Message) -> Result<(), NetError> {
        self.each(what, vec![message]).pop().unwrap_or(Ok(()))
    }

    /// Sends a transaction: all of it happens, or nothing. Only the last message asks for an acknowledgement; the kernel reports
    /// errors of the others as well.
    pub(crate) fn transaction(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> io::Result<()> {
        remember(self.port);
        let count = messages.len();
        let all = [begin].into_iter().chain(messages).chain([end]);
        let sent = self.transmit(all)?;
        let Some(last) = sent.get(count) else { return Ok(()) };
        let mut failure = None;
        loop {
            for received in self
                .receive_up_to(ANSWER_BYTES)?
                .into_iter()
                .filter(|it| it.kind == ERROR && sent.contains(&it.sequence))
            {
                if let Some(error) = error_of(&received) {
                    failure.get_or_insert(error);
                }
                // A refusal of the whole batch answers its first message.
                if received.sequence == *last || Some(&received.sequence) == sent.first() {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }
}

fn error_of(received: &Received) -> Option<io::Error> {
    let code = i32::from_ne_bytes(received.body.get(0..4)?.try_into().ok()?);
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

pub(crate) fn failed(what: &'static str, source: io::Error) -> NetError {
    NetError::Netlink { what, source }
}

pub(crate) fn is(outcome: &Result<(), NetError>, kinds: &[i32]) -> bool {
    matches!(outcome, Err(NetError::Netlink { source, .. }) if source.raw_os_error().is_some_and(|it| kinds.contains(&it)))
}
