//! Who is in the pool: SWIM gossip in sealed packets.
