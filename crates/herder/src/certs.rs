//! `herder certs`: everything that TLS needs, in one folder, and the flags that use it.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use herder_cli::Certs;
use herder_tls::certs::{Authority, Pair, Usage, is_name};

/// One folder with `ca.pem`, `cert.pem` and `key.pem`, as `DOCKER_CERT_PATH` wants it.
struct Holder {
    folder: String,
    common_name: String,
    names: Vec<String>,
    usage: Usage,
}

/// Makes the CA and all certificates, or nothing.
pub(crate) fn make(certs: &Certs) -> anyhow::Result<()> {
    let holders = holders(certs)?;
    if certs.dir.exists() && !certs.force && fs::read_dir(&certs.dir)?.next().is_some() {
        bail!(
            "{} is there and not empty; --force replaces what is in it, --dir names another folder",
            certs.dir.display()
        );
    }
    let (now, lifetime) = (SystemTime::now(), Duration::from_secs(u64::from(certs.days) * 24 * 3600));
    // A name of its own for each CA: who gets a certificate of another one is told so, and not that the signature is wrong.
    let made = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let authority = Authority::new(&format!("herder CA {made:x}"), now, lifetime)?;
    let sign = |holder: &Holder| authority.sign(&holder.common_name, &holder.names, holder.usage, now, lifetime);
    let pairs: Vec<Pair> = holders.iter().map(sign).collect::<Result<_, _>>()?;
    write(&certs.dir.join("ca.pem"), &authority.pair.cert, 0o644)?;
    write(&certs.dir.join("ca-key.pem"), &authority.pair.key, 0o600)?;
    for (holder, pair) in holders.iter().zip(&pairs) {
        let folder = certs.dir.join(&holder.folder);
        write(&folder.join("ca.pem"), &authority.pair.cert, 0o644)?;
        write(&folder.join("cert.pem"), &pair.cert, 0o644)?;
        write(&folder.join("key.pem"), &pair.key, 0o600)?;
    }
    let root = fs::canonicalize(&certs.dir)?;
    if certs.format == "json" {
        let list: Vec<_> = holders.iter().map(|holder| description(&root, holder)).collect();
        anstream::println!("{}", serde_json::json!({"ca": root.join("ca.pem"), "certificates": list}));
    } else {
        print(&root, &holders);
    }
    Ok(())
}

fn holders(certs: &Certs) -> anyhow::Result<Vec<Holder>> {
    let names = |text: &str, flag: &str| -> anyhow::Result<Vec<String>> {
        let names: Vec<String> = text.split(',').map(str::trim).map(str::to_owned).collect();
        match names.iter().find(|name| !is_name(name)) {
            Some(wrong) => bail!("--{flag} `{wrong}` is neither an address nor a host name"),
            None => Ok(names),
        }
    };
    let mut holders = Vec::new();
    for engine in &certs.engine {
        let names = names(engine, "engine")?;
        holders.push(Holder {
            folder: format!("engine-{}", names[0]),
            common_name: names[0].clone(),
            names,
            usage: Usage::Engine,
        });
    }
    let endpoint = names(&certs.endpoint, "endpoint")?;
    holders.push(Holder {
        folder: "endpoint".into(),
        common_name: endpoint[0].clone(),
        names: endpoint,
        usage: Usage::Endpoint,
    });
    for client in &certs.client {
        let name = names(client, "client")?.swap_remove(0);
        holders.push(Holder {
            folder: format!("client-{name}"),
            common_name: name,
            names: vec![],
            usage: Usage::Client,
        });
    }
    Ok(holders)
}

/// Writes a file whole, with its rights from the start: a key is never readable by others.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    use std::io::Write as _;
    let what = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(what)?;
    }
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).with_context(what)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)
}

fn kind(usage: Usage) -> &'static str {
    match usage {
        Usage::Engine => "engine",
        Usage::Endpoint => "endpoint",
        Usage::Client => "client",
    }
}

fn description(root: &Path, holder: &Holder) -> serde_json::Value {
    let folder = root.join(&holder.folder);
    serde_json::json!({"kind": kind(holder.usage), "folder": folder, "names": holder.names, "use": usage(&folder, holder)})
}

/// The command line that uses the certificate.
fn usage(folder: &Path, holder: &Holder) -> String {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let flags = format!(
        "--tlsverify --tlscacert {} --tlscert {} --tlskey {}",
        file("ca.pem").display(),
        file("cert.pem").display(),
        file("key.pem").display()
    );
    match holder.usage {
        Usage::Engine => format!("dockerd {flags} -H tcp://0.0.0.0:2376 -H unix://"),
        Usage::Endpoint => format!("herder manage {flags} -H tcp://0.0.0.0:2376 ENGINE:2376,…"),
        Usage::Client => {
            let folder = folder.display();
            format!("export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={folder} DOCKER_HOST=tcp://ENDPOINT:2376")
        }
    }
}

fn print(root: &Path, holders: &[Holder]) {
    for holder in holders {
        let names = if holder.names.is_empty() { holder.common_name.clone() } else { holder.names.join(", ") };
        anstream::println!("{} {names}\n  {}\n", kind(holder.usage), usage(&root.join(&holder.folder), holder));
    }
    anstream::println!("Each engine needs only its own folder. Keep {} secret.", root.join("ca-key.pem").display());
}
