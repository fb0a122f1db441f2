//! The door in front of a swarm.

mod calls;
mod compare;
mod fake;
mod networks;
mod played;
mod replay;
mod rules;
