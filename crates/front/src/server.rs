//! Listening sockets and the connections on them.
