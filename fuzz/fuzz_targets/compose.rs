//! Fuzzes Compose files, each after a zero byte, as a stack. They are loaded or refused, and a loaded one can be
//! printed and loaded again.
#![no_main]

use herder_stacks::{Bundle, File};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let names = ["compose.yaml", ".env", "more.yaml", "file"];
    let files = names.iter().zip(bytes.split(|byte| *byte == 0));
    let files = files.map(|(name, bytes)| ((*name).to_owned(), Some(File::of(bytes)))).collect();
    let bundle = Bundle { files, ..Bundle::default() };
    if let Ok(loaded) = bundle.load(Some("s")) {
        let files = [("compose.yaml".to_owned(), Some(File::Text(loaded.canonical_yaml.clone())))];
        let again = Bundle { files: files.into(), ..Bundle::default() };
        // Files that the source refers to by their paths are missing here.
        if let Ok(again) = again.load(Some("s")) {
            assert_eq!(again.canonical, loaded.canonical);
        }
    }
});
