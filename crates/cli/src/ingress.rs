//! `herder ingress` and `herder cert`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::up::Door;

/// The ingress: host names to services, by labels.
#[derive(Clone, Debug, Args)]
pub struct IngressArgs {
    #[command(subcommand)]
    pub verb: IngressVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum IngressVerb {
    /// Let nodes listen for requests, and route them by the labels of services
    Enable(IngressEnable),
    /// Let no node listen any more
    Disable(IngressDoor),
    /// Show the routes, with how many tasks serve
    Ls(IngressLs),
    /// Show the labels that cannot be used; fails if there are any
    Check(IngressDoor),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  herder ingress enable                                    all nodes listen on 80 (web) and 443 (websecure)
  herder ingress enable --on node.labels.edge==true --entrypoint web=:8080 --access-log json
  herder ingress enable --resolver directory=letsencrypt,email=ops@example.com
  herder ingress enable --resolver name=intern,directory=own")]
pub struct IngressEnable {
    /// Constraint on the nodes that listen; may be given several times [default: all nodes]
    #[arg(long, value_name = "CONSTRAINT")]
    pub on: Vec<String>,
    /// Port to listen on; /udp for datagrams [default: web=:80 and websecure=:443]
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub entrypoint: Vec<String>,
    /// Peers that begin connections with a PROXY header, on all entrypoints
    #[arg(long, value_name = "CIDR")]
    pub proxy_protocol: Vec<String>,
    /// Peers whose X-Forwarded headers are believed
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<String>,
    /// Address where nodes that listen show figures, as /metrics for Prometheus [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Authority that certificates are ordered from. Members: name (default), directory (URL, letsencrypt,
    /// letsencrypt-staging or own), email, challenge (http-01, tls-alpn-01, dns-01), root=FILE, hook=PROGRAM, eab-id,
    /// eab-secret, fallback=NAME (asked when this one does not issue); may be given several times
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub resolver: Vec<String>,
    /// Route services with Traefik labels that do not say traefik.enable=true, too
    #[arg(long)]
    pub exposed_by_default: bool,
    /// Format of the request log
    #[arg(long, default_value = "off", value_parser = ["off", "common", "combined", "json"])]
    pub access_log: String,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct IngressDoor {
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct IngressLs {
    /// Output format
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    pub format: String,
    #[command(flatten)]
    pub door: Door,
}

/// Certificates of the ingress.
#[derive(Clone, Debug, Args)]
pub struct CertArgs {
    #[command(subcommand)]
    pub verb: CertVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum CertVerb {
    /// Show all certificates with their names and ends
    Ls(IngressLs),
    /// Show one certificate: where it is from, when it is renewed, why not
    Show(CertShow),
    /// Take in a certificate and its key, or replace one
    Import(CertImport),
    /// Print a certificate with its chain, or write it and its key into files
    Export(CertExport),
    /// Ask for a new certificate now, and wait for it
    Renew(CertRm),
    /// Print the certificate of the swarm's own authority (resolvers with directory=own)
    Authority(IngressDoor),
    /// Remove a certificate
    Rm(CertRm),
}

#[derive(Clone, Debug, Args)]
pub struct CertImport {
    /// Name of the object here
    pub name: String,
    /// PEM file with the certificate, followed by those of its CA
    #[arg(long, value_name = "FILE")]
    pub chain: PathBuf,
    /// PEM file with its key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct CertShow {
    pub name: String,
    /// Output format
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct CertExport {
    pub name: String,
    /// PEM file for the certificate and those of its CA [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub chain: Option<PathBuf>,
    /// PEM file for its key, which only its owner can read [default: the key is not written]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub door: Door,
}

#[derive(Clone, Debug, Args)]
pub struct CertRm {
    pub name: String,
    #[command(flatten)]
    pub door: Door,
}
