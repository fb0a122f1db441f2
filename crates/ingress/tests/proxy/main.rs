//! Requests through an ingress to tasks that are sockets of this process.

mod beside;
mod edge;
mod leaving;
mod requests;
mod smuggling;
