//! Network interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herder_decide::net::{Item, Mac, Value, VxlanDevice};

use crate::NetError;
use crate::netlink::{ACK, Attrs, Bus, CREATE, DUMP, EXCLUSIVE, Message, Received, Socket, address_bytes, u32_at};

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;

const LINK_ADDRESS: u16 = 1;
pub(crate) const IFNAME: u16 = 3;
pub(crate) const MTU: u16 = 4;
const MASTER: u16 = 10;
pub(crate) const LINKINFO: u16 = 18;
pub(crate) const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VXLAN_ID: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
pub(crate) const UP: u32 = 1;
/// `IFA_ADDRESS`, `IFA_LOCAL`.
pub(crate) const ADDRESS: u16 = 1;
pub(crate) const LOCAL: u16 = 2;

/// An interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    master: u32,
    is_up: bool,
    vxlan: Option<Vxlan>,
}

#[derive(Clone, Debug)]
struct Vxlan {
    vni: u32,
    local: Option<IpAddr>,
    port: u16,
    learning: bool,
    /// Index of the device that packets leave by; 0: any.
    over: u32,
}

/// All interfaces, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    pub(crate) by_index: BTreeMap<u32, Link>,
}

/// Head of messages about links.
pub(crate) fn info(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &change.to_ne_bytes()].concat()
}

impl Links {
    pub(crate) fn read(socket: &mut Socket) -> Result<Links, NetError> {
        let all = socket.dump("list of links", Message::new(GET_LINK, DUMP).head(&info(0, 0, 0)))?;
        let links = all.iter().filter_map(Link::parse).map(|link| (link.index, link));
        Ok(Links { by_index: links.collect() })
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.by_index.values().find(|link| link.name == name)
    }

    pub(crate) fn index(&self, name: &str) -> Result<u32, NetError> {
        self.named(name).map(|link| link.index).ok_or_else(|| NetError::NoInterface(name.into()))
    }

    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(|link| link.name.as_str())
    }

    /// VXLAN devices of herder, as items. One that is down, learns or has lost its bridge counts as different from any wanted one.
    pub(crate) fn items(&self) -> impl Iterator<Item = (Item, Value)> {
        self.by_index.values().filter(|link| is_ours(&link.name, 'x')).filter_map(|link| {
            let vxlan = link.vxlan.as_ref()?;
            let is_whole = link.is_up && !vxlan.learning && is_quiet(&link.name);
            let bridge = self.name(link.master).filter(|_| is_whole).unwrap_or_default().to_owned();
            let local = vxlan.local?;
            let over = (vxlan.over != 0).then(|| self.name(vxlan.over).unwrap_or_default().to_owned());
            let device = VxlanDevice { vni: vxlan.vni, local, port: vxlan.port, mtu: link.mtu, bridge, over };
            Some((Item::Vxlan(link.name.clone()), Value::Vxlan(Box::new(device))))
        })
    }
}

/// `hv…` are bridges, `hx…` are VXLAN devices, `hw…` are tunnels.
pub(crate) fn is_ours(name: &str, kind: char) -> bool {
    let digits = name.strip_prefix('h').and_then(|rest| rest.strip_prefix(kind));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Name of the link that a notice is about.
pub(crate) fn link_name(received: &Received) -> Option<String> {
    Attrs::new(received.body.get(16..)?).text(IFNAME)
}

/// The bridge port neither learns nor floods what it does not know.
fn is_quiet(name: &str) -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/brport/{file}")).unwrap_or_default();
    read("learning").trim() == "0" && read("neigh_suppress").trim() == "1"
}

impl Link {
    fn parse(received: &Received) -> Option<Link> {
        let body = &received.body;
        let attrs = Attrs::new(body.get(16..)?);
        let info = attrs.nested(LINKINFO);
        let vxlan = (info.text(INFO_KIND).as_deref() == Some("vxlan")).then(|| {
            let data = info.nested(INFO_DATA);
            let port = data.get(VXLAN_PORT).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
            Vxlan {
                vni: data.u32(VXLAN_ID).unwrap_or_default(),
                local: data.addr(VXLAN_LOCAL).or_else(|| data.addr(VXLAN_LOCAL6)),
                port: port.map(u16::from_be_bytes).unwrap_or_default(),
                learning: data.get(VXLAN_LEARNING) != Some(&[0]),
                over: data.u32(VXLAN_LINK).unwrap_or_default(),
            }
        });
        Some(Link {
            index: u32_at(body, 4)?,
            name: attrs.text(IFNAME)?,
            mtu: attrs.u32(MTU).unwrap_or_default(),
            mac: attrs.get(LINK_ADDRESS).and_then(|bytes| bytes.try_into().ok()).map(Mac),
            master: attrs.u32(MASTER).unwrap_or_default(),
            is_up: u32_at(body, 8)? & UP != 0,
            vxlan,
        })
    }
}

/// Makes a VXLAN device anew: most of its settings cannot be changed later. Another device with its VNI, left over by
/// something else, is removed: the kernel allows only one.
pub(crate) fn put_vxlan(socket: &mut Socket, name: &str, value: &Value) -> Result<(), NetError> {
    let Value::Vxlan(device) = value else { return Ok(()) };
    let VxlanDevice { vni, local, port, mtu, bridge, over } = &**device;
    let links = Links::read(socket)?;
    let master = links.index(bridge)?;
    let over = over.as_deref().map(|dev| links.index(dev)).transpose()?;
    let is_stray = |link: &&Link| {
        let is_same = |it: &Vxlan| it.vni == *vni && it.port == *port;
        link.name == name || link.vxlan.as_ref().is_some_and(is_same)
    };
    for link in links.by_index.values().filter(is_stray) {
        delete(socket, link.index)?;
    }
    let (local_kind, learning) = if local.is_ipv4() { (VXLAN_LOCAL, [0]) } else { (VXLAN_LOCAL6, [0]) };
    let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE);
    let message = message.head(&info(0, UP, UP)).text(IFNAME, name).u32(MTU, *mtu).u32(MASTER, master);
    let message = message.nest(LINKINFO).text(INFO_KIND, "vxlan").nest(INFO_DATA);
    let message = message.u32(VXLAN_ID, *vni).attr(local_kind, &address_bytes(*local));
    let message = message.attr(VXLAN_LEARNING, &learning).attr(VXLAN_PORT, &port.to_be_bytes());
    let message = if let Some(index) = over { message.u32(VXLAN_LINK, index) } else { message }.end().end();
    socket.one("vxlan device", message)?;
    for (file, value) in [("learning", "0"), ("neigh_suppress", "1")] {
        write(&format!("/sys/class/net/{name}/brport/{file}"), value)?;
    }
    Ok(())
}

pub(crate) fn put_mac(socket: &mut Socket, name: &str, mac: Mac) -> Result<(), NetError> {
    let index = Links::read(socket)?.index(name)?;
    socket.one("address of a bridge", Message::new(NEW_LINK, ACK).head(&info(index, 0, 0)).attr(LINK_ADDRESS, &mac.0))
}

pub(crate) fn remove_link(socket: &mut Socket, name: &str) -> Result<(), NetError> {
    let links = Links::read(socket)?;
    links.named(name).map_or(Ok(()), |link| delete(socket, link.index))
}

fn delete(socket: &mut Socket, index: u32) -> Result<(), NetError> {
    socket.one("removal of a link", Message::new(DELETE_LINK, ACK).head(&info(index, 0, 0)))
}

pub(crate) fn write(path: &str, value: &str) -> Result<(), NetError> {
    std::fs::write(path, value).map_err(|source| NetError::File { path: path.into(), source })
}

/// Addresses of all interfaces, without loopback and link-local ones; with the index of their interface.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<(u32, ipnet::IpNet)>, NetError> {
    let all = socket.dump("list of addresses", Message::new(GET_ADDRESS, DUMP).head(&[0; 8]))?;
    let parse = |received: &Received| {
        let body = &received.body;
        let attrs = Attrs::new(body.get(8..)?);
        let address = attrs.addr(LOCAL).or_else(|| attrs.addr(ADDRESS))?;
        let is_local = match address {
            IpAddr::V4(it) => it.is_loopback() || it.is_link_local(),
            IpAddr::V6(it) => it.is_loopback() || it.is_unicast_link_local(),
        };
        let address = ipnet::IpNet::new(address, *body.get(1)?).ok()?;
        (!is_local).then_some((u32_at(body, 4)?, address))
    };
    Ok(all.iter().filter_map(parse).collect())
}

/// Addresses of this host's interfaces, without those of bridges and tunnels of herder.
///
/// # Errors
///
/// If netlink cannot be used.
pub fn interface_addresses() -> Result<Vec<IpAddr>, NetError> {
    let mut socket = Socket::open(Bus::Route)?;
    let links = Links::read(&mut socket)?;
    let all = addresses(&mut socket)?.into_iter();
    let others =
        all.filter(|(index, _)| links.name(*index).is_some_and(|name| !is_ours(name, 'v') && !is_ours(name, 'w')));
    Ok(others.map(|(_, address)| address.addr()).collect())
}

/// MTU of the interface with an address.
///
/// # Errors
///
/// If netlink cannot be used.
pub fn data_path_mtu(address: IpAddr) -> Result<Option<u32>, NetError> {
    let mut socket = Socket::open(Bus::Route)?;
    let index = addresses(&mut socket)?.into_iter().find(|(_, it)| it.addr() == address).map(|(index, _)| index);
    let links = Links::read(&mut socket)?;
    Ok(index.and_then(|index| links.by_index.get(&index)).map(|link| link.mtu))
}

/// Address of the interface with this name: its first one of IPv4, else its first one.
///
/// # Errors
///
/// If netlink cannot be used.
pub fn interface_address(name: &str) -> Result<Option<IpAddr>, NetError> {
    let mut socket = Socket::open(Bus::Route)?;
    let links = Links::read(&mut socket)?;
    let all = addresses(&mut socket)?.into_iter().filter(|(index, _)| links.name(*index) == Some(name));
    let mut all: Vec<IpAddr> = all.map(|(_, address)| address.addr()).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    Ok(all.first().copied())
}
