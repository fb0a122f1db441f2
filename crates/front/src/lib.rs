//! The doors: the Docker API over all nodes.
