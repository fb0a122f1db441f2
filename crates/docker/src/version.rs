//! Versions of the Docker API.

/// The newest version of the Docker API that herder speaks with engines.
pub const API_VERSION_MAX: &str = "1.50";

/// The version to speak with an engine that speaks `engine`: the older of that one and [`API_VERSION_MAX`].
pub fn spoken_version(engine: &str) -> String {
    let parts = |version: &str| -> Vec<u32> { version.split('.').filter_map(|part| part.parse().ok()).collect() };
    let known = parts(engine);
    if known.is_empty() || known > parts(API_VERSION_MAX) { API_VERSION_MAX.into() } else { engine.into() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_older_version_is_spoken() {
        for (engine, expected) in [("1.41", "1.41"), ("1.9", "1.9"), ("1.51", "1.50"), ("2.0", "1.50"), ("", "1.50")] {
            assert_eq!(super::spoken_version(engine), expected, "{engine}");
        }
    }
}
