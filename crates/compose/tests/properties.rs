//! Properties that hold for every input.

use herder_compose::{Options, Project, Sources, Step, load};
use proptest::prelude::*;

fn options(files: &[&str]) -> Options {
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    Options { files, directory: "/p".into(), ..Options::default() }
}

fn run(files: &[(&str, &[u8])]) -> Option<Box<Project>> {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let mut sources: Sources =
        files.iter().map(|(name, content)| (format!("/p/{name}"), Some(content.to_vec()))).collect();
    loop {
        match load(&sources, &options(&names)) {
            Step::Need(files) => sources.extend(files.into_iter().map(|file| (file, None))),
            Step::Done(project) => return Some(project),
            Step::Refused(_) => return None,
        }
    }
}

/// The bodies of services of the golden cases, as material.
fn bodies() -> Vec<String> {
    let text = include_str!("cases/service.txt");
    text.split("\n\n").filter_map(|block| block.split("\n=>").next()).map(str::to_owned).collect()
}

fn file(bodies: &[String]) -> String {
    let services = bodies.iter().zip(1..).map(|(body, number)| {
        let lines: String = body.lines().map(|line| format!("    {line}\n")).collect();
        let image = if body.starts_with("image:") { "" } else { "    image: i\n" };
        format!("  s{number}:\n{lines}{image}")
    });
    let services: String = services.collect();
    format!(
        "services:\n{services}  b: {{image: i}}\nnetworks: {{n: {{}}, m: {{}}}}\nvolumes: {{v: {{}}}}\n\
         secrets: {{s: {{file: s}}, t: {{file: t}}}}\nconfigs: {{c: {{file: c}}, d: {{file: d}}}}\n"
    )
}

fn some_bodies() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(bodies()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_exported_project_loads_to_the_same(bodies in some_bodies()) {
        let text = file(&bodies);
        if let Some(project) = run(&[("compose.yaml", text.as_bytes())]) {
            let json = project.export().to_string();
            let again = run(&[("compose.yaml", json.as_bytes())]);
            prop_assert_eq!(again.map(|it| it.to_json()), Some(project.to_json()));
            let yaml = project.export_yaml();
            let again = run(&[("compose.yaml", yaml.as_bytes())]);
            prop_assert_eq!(again.map(|it| it.to_json()), Some(project.to_json()), "{}", yaml);
        }
    }

    #[test]
    fn an_empty_file_on_top_changes_nothing(bodies in some_bodies()) {
        let text = file(&bodies);
        let alone = run(&[("compose.yaml", text.as_bytes())]);
        let merged = run(&[("compose.yaml", text.as_bytes()), ("empty.yaml", b"services: {}")]);
        prop_assert_eq!(merged.map(|it| it.to_json()), alone.map(|it| it.to_json()));
    }

    #[test]
    fn damaged_files_are_refused_without_a_panic(
        bodies in some_bodies(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes = file(&bodies).into_bytes();
        for (index, byte) in damages {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        run(&[("compose.yaml", &bytes)]);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&[("compose.yaml", &bytes)]);
    }
}
