//! Packets of DNS: from a question to its answer.

use std::net::IpAddr;

use herder_decide::net::{Answer, Names, Question, RecordData, RecordType};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType as Kind};
use rand::Rng;

/// Largest answer by UDP without EDNS (RFC 1035).
const UDP_BYTES: u16 = 512;

/// Largest answer by UDP, however much a client allows: fits an overlay's MTU without fragments.
const UDP_BYTES_MAX: u16 = 1232;

/// Treatment of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Bytes(Vec<u8>),
    /// Other servers know: these, or those of the host if there are none.
    Forward(Vec<IpAddr>),
    /// The packet is not a question.
    Ignore,
}

/// Answers a packet that came from `source` by the gateway of `network`.
pub fn reply(
    names: &Names,
    network: &str,
    source: IpAddr,
    packet: &[u8],
    is_tcp: bool,
    chance: &mut impl Rng,
) -> Reply {
    let Ok(asked) = Message::from_vec(packet) else {
        return malformed(packet).map_or(Reply::Ignore, Reply::Bytes);
    };
    if asked.metadata.message_type != MessageType::Query {
        return Reply::Ignore;
    }
    let code = |code| Reply::Bytes(write(&asked, code, Vec::new(), is_tcp));
    let [query] = asked.queries.as_slice() else { return code(ResponseCode::FormErr) };
    if asked.metadata.op_code != OpCode::Query || query.query_class() != DNSClass::IN {
        return code(ResponseCode::NotImp);
    }
    let kind = match query.query_type() {
        Kind::A => RecordType::A,
        Kind::AAAA => RecordType::Aaaa,
        Kind::PTR => RecordType::Ptr,
        Kind::MX => RecordType::Mx,
        Kind::ANY => RecordType::Any,
        _ => RecordType::Other,
    };
    let text = query.name().to_ascii();
    let question = Question { name: text.strip_suffix('.').unwrap_or(&text).to_owned(), kind };
    match names.answer(network, source, &question, chance) {
        Answer::Records(records) => {
            let records = records.into_iter().filter_map(|it| {
                let data = match it.data {
                    RecordData::Address(IpAddr::V4(address)) => RData::A(A(address)),
                    RecordData::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
                    RecordData::Name(name) => RData::PTR(PTR(Name::from_ascii(format!("{name}.")).ok()?)),
                };
                Some(Record::from_rdata(query.name().clone(), it.ttl, data))
            });
            Reply::Bytes(write(&asked, ResponseCode::NoError, records.collect(), is_tcp))
        }
        Answer::NoSuchName => code(ResponseCode::NXDomain),
        Answer::Forward { servers } => Reply::Forward(servers),
        Answer::Unreachable => code(ResponseCode::ServFail),
        Answer::Refused => code(ResponseCode::Refused),
    }
}

/// An answer without records.
pub(crate) fn failure(packet: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let asked = Message::from_vec(packet).ok()?;
    Some(write(&asked, code, Vec::new(), false))
}

fn write(asked: &Message, code: ResponseCode, records: Vec<Record>, is_tcp: bool) -> Vec<u8> {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(asked.queries.iter().cloned());
    answer.add_answers(records);
    let mut limit = UDP_BYTES;
    if let Some(edns) = &asked.edns {
        limit = edns.max_payload().clamp(UDP_BYTES, UDP_BYTES_MAX);
        let mut own = Edns::new();
        own.set_max_payload(UDP_BYTES_MAX);
        answer.set_edns(own);
    }
    let bytes = answer.to_vec().unwrap_or_default();
    if is_tcp || bytes.len() <= usize::from(limit) {
        return bytes;
    }
    answer.truncate().to_vec().unwrap_or_default()
}

/// FORMERR to a query that cannot be read, as far as its head can.
fn malformed(packet: &[u8]) -> Option<Vec<u8>> {
    let head: [u8; 12] = packet.get(..12)?.try_into().ok()?;
    let is_query = head[2] & 0x80 == 0;
    is_query.then(|| {
        let code = u8::try_from(u16::from(ResponseCode::FormErr)).unwrap_or(1);
        vec![head[0], head[1], 0x80 | head[2] & 0x79, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]
    })
}
