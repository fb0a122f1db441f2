//! Answers of the DNS server: how many one core gives, and how long one takes.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::world::World;
use crate::note;
use crate::report::Times;

/// Questions that wait for an answer at the same time, when as many as possible are asked.
const WINDOW: usize = 64;
const MEASURED: Duration = Duration::from_secs(3);
/// Questions per second of the second part.
const RATE: u32 = 20_000;
const NAME: &[u8] = b"\x09bench-web\x00";

/// The server on the first host, held on one processor, asked by a container's address from another one. Returns answers per second and
/// the milliseconds that 99 of 100 take at most.
pub(super) fn measure(world: &World) -> anyhow::Result<(f64, f64)> {
    note("DNS");
    let host = world.on("h1");
    host.output(&[
        "sh",
        "-ec",
        "for p in /proc/[0-9]*; do if grep -qz net-dns $p/cmdline; then taskset -apc 0 ${p#/proc/}; fi; done",
    ])?;
    let network = host.output(&["sh", "-ec", "ip -4 -br addr show | awk '/^hv/ && !/^hv4096/ {print $3; exit}'"])?;
    let gateway = network.trim().split('/').next().unwrap_or_default().to_owned();
    let program = std::env::current_exe()?.display().to_string();
    let words =
        ["nsenter", "-t", &world.client_pid, "-n", "taskset", "-c", "1", &program, "dns-load", "--gateway", &gateway];
    let said = host.output(&words)?;
    let (rate, p99) = said.trim().split_once(' ').context("two figures")?;
    Ok((rate.parse()?, p99.parse()?))
}

/// Asks a server, and prints the two figures. Runs in a container's network.
pub(crate) fn load(gateway: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((gateway, 53))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut question = [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], NAME, &[0, 1, 0, 1]].concat();
    let mut buffer = [0; 512];
    let (mut answers, mut waiting) = (0_u32, 0);
    let began = Instant::now();
    while began.elapsed() < MEASURED {
        while waiting < WINDOW {
            socket.send(&question)?;
            waiting += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(_) => (answers, waiting) = (answers + 1, waiting - 1),
            // Lost ones are asked anew.
            Err(_) => waiting = 0,
        }
    }
    let rate = f64::from(answers) / began.elapsed().as_secs_f64();
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_nonblocking(true)?;
    let (mut times, mut sent, mut number) = (Vec::new(), VecDeque::new(), 0_u16);
    let began = Instant::now();
    let mut asked = 0_u32;
    while began.elapsed() < MEASURED {
        if f64::from(asked) < began.elapsed().as_secs_f64() * f64::from(RATE) {
            question[..2].copy_from_slice(&number.to_be_bytes());
            if socket.send(&question).is_ok() {
                sent.push_back((number, Instant::now()));
                (asked, number) = (asked + 1, number.wrapping_add(1));
            }
        }
        while socket.recv(&mut buffer).is_ok() {
            let answered = u16::from_be_bytes([buffer[0], buffer[1]]);
            while let Some((number, at)) = sent.pop_front() {
                if number == answered {
                    times.push(at.elapsed());
                    break;
                }
            }
        }
    }
    println!("{rate:.0} {:.3}", times.into_iter().collect::<Times>().ms(0.99));
    Ok(())
}
