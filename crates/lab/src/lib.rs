//! Several Docker hosts on one machine: namespaces, real engines, real faults.
