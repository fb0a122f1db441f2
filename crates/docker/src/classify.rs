//! Recognizes answers of engines whose status alone does not say enough: engines tell the rest only in words.
//!
//! Each function is checked with messages as engines of several versions sent them. No other code looks into such texts.

/// The engine lacks the image. Missing networks and volumes are a 404, too.
pub fn misses_image(status: u16, message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    status == 404 && (lower.contains("no such image") || lower.contains("not found: manifest"))
}

/// The image has no variant for the platform of this engine, so that another one may do.
pub fn is_for_another_platform(message: &str) -> bool {
    message.contains("cannot be used on this platform")
}

/// The engine lacks a network of the container, or has just removed it.
pub fn misses_network(message: &str) -> bool {
    message.starts_with("network ") && message.ends_with(" not found")
}

/// The container is connected to this network already.
pub fn is_connected_already(status: u16, message: &str) -> bool {
    status == 403 && message.contains("already exists in network")
}

/// A swarm object was changed by another client since it was read.
pub fn is_out_of_date(message: &str) -> bool {
    message.contains("update out of sequence")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_engines_are_told_apart() {
        let kinds = |status: u16, message: &str| -> Vec<&str> {
            let all = [
                ("image", misses_image(status, message)),
                ("platform", is_for_another_platform(message)),
                ("network", misses_network(message)),
                ("connected", is_connected_already(status, message)),
                ("old", is_out_of_date(message)),
            ];
            all.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind).collect()
        };
        for (status, message, expected) in [
            (404, "No such image: busybox:latest", "image"),
            (404, "no such image: example/web:2: No such image: example/web:2", "image"),
            (404, "manifest for busybox:nope not found: manifest unknown: manifest unknown", "image"),
            (404, "network backend not found", "network"),
            (404, "network 9eadfddc58f1 not found", "network"),
            (403, "network x is in use", ""),
            (404, "get data: no such volume", ""),
            (500, "No such image: busybox:latest", ""),
            (400, "image operating system \"windows\" cannot be used on this platform", "platform"),
            (403, "endpoint with name web already exists in network backend", "connected"),
            (
                403,
                "container sharing network namespace with another container cannot be connected to any other network",
                "",
            ),
            (500, "rpc error: code = Unknown desc = update out of sequence", "old"),
        ] {
            assert_eq!(kinds(status, message).concat(), expected, "{status} {message}");
        }
    }
}
