//! Every decision as a pure function: placement, names, filters; no clock, socket, file or async.
