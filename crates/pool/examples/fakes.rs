//! Many fake engines in one process, until the standard input ends: prints their addresses, separated by commas.
//! `cargo run -p herder-pool --features fake --example fakes -- 1000 30` makes 1,000 engines with 30 containers each.
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use tokio::io::AsyncReadExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (engines, containers) = (numbers.next().transpose()?.unwrap_or(3), numbers.next().transpose()?.unwrap_or(10));
    let mut fakes = Vec::new();
    for engine in 0..engines {
        let mut spec = FakeSpec::new(&format!("node-{engine}"));
        spec.ncpu = 64;
        spec.memory_bytes = 256 << 30;
        spec.labels = vec![format!("zone=z{}", engine % 10), format!("disk={}", ["ssd", "hdd"][engine % 2])];
        let fake = FakeEngine::start(spec).await?;
        for number in 0..containers {
            let mut container = FakeContainer::new(&format!("app-{engine}-{number}"));
            container.labels.insert("com.docker.compose.project".into(), format!("project-{}", number % 7));
            container.labels.insert("com.docker.compose.service".into(), format!("service-{number}"));
            container.memory_bytes = 64 << 20;
            // Made at all times of the last months, as in a real cluster.
            container.created -= i64::try_from((engine * 7_919 + number * 104_729) % 10_000_000)?;
            container.host_port = 8000 + u16::try_from(number)?;
            fake.add(container);
        }
        fakes.push(fake);
    }
    println!("{}", fakes.iter().map(FakeEngine::addr).collect::<Vec<_>>().join(","));
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}
