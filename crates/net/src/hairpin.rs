//! Bridge ports that send frames back where they came from.
//!
//! A connection to a virtual IP may be balanced to the container that opened it: its frames leave by the port that they came in by.
//! Engines reset the flag at every start of a container.

use std::fs;

use crate::links::is_ours;

/// Sets the flag on all container ports of herder's bridges. Returns the names of those that lacked it.
pub(crate) fn set() -> Vec<String> {
    let mut mended = Vec::new();
    let bridges = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let bridges = bridges.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_ours(name, 'v'));
    for bridge in bridges {
        let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif")).into_iter().flatten().flatten();
        let ports = ports.filter_map(|entry| entry.file_name().into_string().ok());
        for port in ports.filter(|name| !is_ours(name, 'x')) {
            let path = format!("/sys/class/net/{port}/brport/hairpin_mode");
            let is_set = fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
            // A port that goes away meanwhile needs no flag.
            if !is_set && fs::write(&path, "1").is_ok() {
                mended.push(port);
            }
        }
    }
    mended
}
