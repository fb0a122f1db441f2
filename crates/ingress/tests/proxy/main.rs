//! Requests through an ingress to tasks that are sockets of this process.

mod edge;
mod requests;
mod smuggling;
