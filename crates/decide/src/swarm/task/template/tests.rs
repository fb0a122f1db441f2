//! Results of a real swarm of Docker 20.10 for the same texts.

use super::*;

fn context() -> Context {
    let node = NodeFacts { id: "n1".into(), hostname: "h1".into(), os: "linux".into(), architecture: "x86_64".into() };
    let labels = BTreeMap::from([("tier".to_owned(), "x".to_owned())]);
    Context::new(["s1", "web"], &labels, &node, ["t1", "web.2.t1", "2"])
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(context().expand(text).unwrap_or_else(|error| error), expected, "{text}");
}

#[test]
fn fields_and_functions() {
    check("plain }} text", "plain }} text");
    check("{{.Service.Name}}-{{.Task.Slot}}", "web-2");
    check("{{.Node.Hostname}}/{{ .Node.ID }}", "h1/n1");
    check("{{.Node.Platform}} {{.Node.Platform.OS}}", "{x86_64 linux} linux");
    check("{{.Service}}", "{s1 web map[tier:x]}");
    check(r#"{{index .Service.Labels "tier"}}{{index .Service.Labels "none"}}"#, "x");
    check("{{.Service.Labels.tier}}", "x");
    check(r#"{{join "." "a" .Service.Name .Task.Slot}}"#, "a.web.2");
    check(r#"a{{ .Service.Name | printf "%s-%q" "z" }}"#, r#"az-"web""#);
    check("{{/* c */}}{{1}}", "1");
    check("a {{- .Task.Slot -}} b", "a2b");
    check(r#"{{if eq .Task.Slot "2"}}two{{else}}other{{end}}"#, "two");
    check(r#"{{if not .Task.Slot}}a{{else if .Service.Name}}b{{else}}c{{end}}"#, "b");
    check(r#"{{ (index .Service.Labels "tier") }}"#, "x");
    check("{{ `raw}}` }}", "raw}}");
    check("{{len .Service.Name}}", "3");
}

#[test]
fn the_whole_language_is_there() {
    check(r#"{{printf "%05d|%-4s|%5.1f" 42 "a" 3.14159}}"#, "00042|a   |  3.1");
    check("{{range $key, $value := .Service.Labels}}{{$key}}={{$value}}{{end}}", "tier=x");
    check("{{with .Node.Platform}}{{.OS}}{{end}}", "linux");
    check(r#"{{define "pair"}}{{.}}!{{end}}{{template "pair" .Task.Slot}}"#, "2!");
    check(r#"{{$slot := .Task.Slot}}{{if and (eq $slot "2") .Service.Name}}{{$slot}}{{end}}"#, "2");
    check(
        r#"{{printf "%d" .Task.Slot}}"#,
        r#"template: expansion:1:2: executing "expansion" at <printf "%d" .Task.Slot>: error calling printf: %d does not fit 2 of type string"#,
    );
}

#[test]
fn refusals_are_those_of_go() {
    let place = |column: usize, place: &str, why: &str| {
        format!(r#"template: expansion:1:{column}: executing "expansion" at <{place}>: {why}"#)
    };
    for (text, column, at, why) in [
        (".Nope", 2, ".Nope", "can't evaluate field Nope in type *template.Context"),
        (
            ".Service.Nope",
            10,
            ".Service.Nope",
            "can't evaluate field Nope in type struct { ID string; Name string; Labels map[string]string }",
        ),
        (".Service.Labels.foo", 10, ".Service.Labels.foo", "map has no entry for key \"foo\""),
        (".Service.Labels.a.b", 10, ".Service.Labels.a.b", "map has no entry for key \"a\""),
        (".Task.Slot.x", 7, ".Task.Slot.x", "can't evaluate field x in type string"),
        (
            r#"index .Service "a""#,
            2,
            r#"index .Service "a""#,
            "error calling index: can't index item of type struct { ID string; Name string; Labels map[string]string }",
        ),
        (
            "index .Service.Labels 1",
            2,
            "index .Service.Labels 1",
            "error calling index: value has type int; should be string",
        ),
        ("join 1 2", 7, "1", "expected string; found 1"),
        (
            r#"join "," .Service.Labels"#,
            19,
            ".Service.Labels",
            "wrong type for value; expected string; got map[string]string",
        ),
        (".Service.Name .Task.Slot", 10, ".Service.Name", "Name has arguments but cannot be invoked as function"),
    ] {
        check(&format!("{{{{{text}}}}}"), &place(column, at, why));
    }
    for (text, why) in [
        ("{{nope}}", "function \"nope\" not defined"),
        ("{{.Service.Name | nope}}", "function \"nope\" not defined"),
        ("{{secret \"x\"}}", "function \"secret\" not defined"),
        ("{{.Service", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{\"a}}", "unterminated quoted string"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if .Service}}", "unexpected EOF"),
        ("{{range .Service.Labels}}", "unexpected EOF"),
    ] {
        check(text, &format!("template: expansion:1: {why}"));
    }
    check(
        "a\n b{{.Nope}}",
        r#"template: expansion:2:4: executing "expansion" at <.Nope>: can't evaluate field Nope in type *template.Context"#,
    );
}

#[test]
fn a_service_is_refused_for_its_templates_in_the_words_of_swarm_mode() {
    let nope = r#"template: expansion:1:2: executing "expansion" at <.Nope>: can't evaluate field Nope in type *template.Context"#;
    let volume =
        |options: &str| format!(r#"{{"Mounts": [{{"Type": "volume", "Source": "x", "VolumeOptions": {options}}}]}}"#);
    for (spec, why) in [
        (r#"{"Hostname": "{{.Nope}}"}"#.to_owned(), format!("expanding hostname failed: {nope}")),
        (
            r#"{"Env": ["B", "A={{.Nope}}"]}"#.to_owned(),
            format!(r#"expanding env failed: expanding env "A={{{{.Nope}}}}": {nope}"#),
        ),
        (
            r#"{"Mounts": [{"Source": "{{.Nope}}"}]}"#.to_owned(),
            format!(r#"expanding mounts failed: expanding mount source "{{{{.Nope}}}}": {nope}"#),
        ),
        (
            r#"{"Mounts": [{"Target": "{{.Nope}}"}]}"#.to_owned(),
            format!(r#"expanding mounts failed: expanding mount target "{{{{.Nope}}}}": {nope}"#),
        ),
        (
            volume(r#"{"Labels": {"a": "{{.Nope}}"}}"#),
            format!(
                r#"expanding mounts failed: expanding volume labels: expanding map entry "a"="{{{{.Nope}}}}": {nope}"#
            ),
        ),
        (
            volume(r#"{"DriverConfig": {"Options": {"a": "{{.Nope}}"}}}"#),
            format!(
                r#"expanding mounts failed: expanding volume driver config: expanding map entry "a"="{{{{.Nope}}}}": {nope}"#
            ),
        ),
    ] {
        let spec: ContainerSpec = serde_json::from_str(&spec).expect("a container");
        let refusal = check_templates(&spec, &BTreeMap::new()).expect_err("refused");
        assert_eq!(refusal.text, why);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_trouble(text in r#"(\{\{|\}\}|[ -."|()a-z{}0-9]|\{\{(if|range|with|define|template) |else|\{\{end\}\}|\.Service|printf|index|\$x :?= |\PC){0,30}"#) {
        let _ = context().expand(&text);
    }
}
