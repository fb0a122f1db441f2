//! Templates and the answers that Go's text/template (1.21) gave to them, word by word: `go.txt`.
//!
//! A case is a line, and below it what came out (`=`) or why nothing did (`!`); `⏎` is a line feed. Cases of which Go wrote its error
//! texts into the output (`%!`) must fail here. A line that begins with `#` is a heading.

use std::collections::BTreeMap;

use herder_gotemplate::{Functions, Options, Signature, Template, Value};

struct NoFunctions;

impl Functions for NoFunctions {
    fn signature(&self, _: &str) -> Option<Signature> {
        None
    }

    fn call(&self, name: &str, _: &[Value]) -> Result<Value, String> {
        Err(format!("{name} is not there"))
    }
}

fn root() -> Value {
    let pairs = |pairs: &[(&str, &str)]| {
        Value::text_map(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    };
    let any = BTreeMap::from([
        ("one".to_owned(), Value::Number(1)),
        ("list".to_owned(), Value::texts(["x", "y"])),
        ("nil".to_owned(), Value::None),
    ]);
    let inner = vec![("ID", "i1".into()), ("Name", "web".into()), ("Labels", pairs(&[("tier", "x")]))];
    Value::structure(
        "*main.Root",
        vec![
            ("S", "text".into()),
            ("N", Value::Number(42)),
            ("F", Value::Float(1.5)),
            ("B", Value::Bool(true)),
            ("L", Value::texts(["a", "b", "c"])),
            (
                "Any",
                Value::list(vec![Value::Number(1), "x".into(), Value::Float(2.5), Value::None, Value::texts(["q"])]),
            ),
            ("M", pairs(&[("k", "v"), ("a", "b")])),
            ("A", Value::map(any)),
            ("In", Value::structure("main.inner", inner)),
            ("Zero", "".into()),
            ("Empty", Value::texts(Vec::<String>::new())),
        ],
    )
}

fn expand(text: &str) -> String {
    let options = Options { name: "main", ..Options::default() };
    let ran = Template::parse(text, &NoFunctions, options).and_then(|it| it.execute(&root(), &NoFunctions));
    ran.map_or_else(|error| format!("! {error}"), |out| format!("={out}"))
}

#[test]
fn everything_comes_out_as_from_go() {
    let mut lines = include_str!("go.txt").lines();
    let (mut cases, mut wrong) = (0, Vec::new());
    while let Some(text) = lines.next() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let expected = lines.next().expect("an answer").strip_prefix("  ").expect("an indented answer");
        let found = expand(&text.replace('⏎', "\n")).replace('\n', "⏎");
        cases += 1;
        let fits = if expected.contains("%!") { found.starts_with("! ") } else { found == expected };
        if !fits {
            wrong.push(format!("{text}\n  Go  {expected}\n  own {found}"));
        }
    }
    assert!(cases > 200, "only {cases} cases were found");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let found = expand(text);
    assert!(found.starts_with("! ") && found.contains(why), "{text} → {}", &found[..found.len().min(300)]);
}

#[test]
fn a_run_has_limits() {
    refused(r#"{{define "t"}}{{template "t" .}}{{end}}{{template "t" .}}"#, "exceeded maximum template depth");
    refused(
        r#"{{define "t"}}{{if .}}{{range .}}{{template "t" $}}{{end}}{{end}}{{end}}{{template "t" .L}}"#,
        "exceeded maximum template depth",
    );
    refused("{{range 10000}}{{range 10000}}{{end}}{{end}}", "steps");
    refused("{{range 10000}}{{printf \"%10000s\" \"\"}}{{end}}", "more than 16777216 bytes come out of it");
    refused("{{$x := \"0123456789\"}}{{range 40}}{{$x = print $x $x}}{{end}}", "its functions make more than");
    let deep = |count: usize| format!("{}1{}", "{{if true}}".repeat(count), "{{end}}".repeat(count));
    assert_eq!(expand(&deep(90)), "=1");
    refused(&deep(5000), "nested more than 100 deep");
    refused(&format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000)), "nested more than 100 deep");
}

#[test]
fn a_template_that_is_cut_off_is_refused_when_it_is_read() {
    for text in ["{{ if .B }}a", "{{ range .L }}", r#"{{ define "x" }}"#, "{{ with .B }}{{ else }}", "a {{ .B"] {
        refused(text, "un");
    }
    refused("{{ if .Zero }}{{ nope }}{{ end }}", "function \"nope\" not defined");
    refused("{{ if .Zero }}{{ $nope }}{{ end }}", "undefined variable \"$nope\"");
    refused("{{ if .Zero }}{{ template \"nope\" }}{{ end }}", "template \"nope\" not defined");
}

struct Methods;

impl Functions for Methods {
    fn signature(&self, name: &str) -> Option<Signature> {
        (name == "counter").then_some(Signature { fixed: &[], rest: None })
    }

    fn call(&self, _: &str, _: &[Value]) -> Result<Value, String> {
        Ok(Value::Object("*counter", 7))
    }

    fn method(&self, of: &Value, name: &str) -> Option<Signature> {
        matches!((of, name), (Value::Object("*counter", _), "Add"))
            .then_some(Signature { fixed: &[herder_gotemplate::Param::Number], rest: None })
    }

    fn call_method(&self, of: &Value, _: &str, arguments: &[Value]) -> Result<Value, String> {
        match (of, arguments) {
            (Value::Object(_, id), [Value::Number(more)]) => Ok(Value::Number(id.cast_signed() + more)),
            _ => Err("no counter".to_owned()),
        }
    }
}

#[test]
fn methods_get_their_arguments() {
    let run = |text: &str| {
        let options = Options { left: "<<", right: ">>", ..Options::default() };
        let ran = Template::parse(text, &Methods, options).and_then(|it| it.execute(&Value::None, &Methods));
        ran.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(run("<<counter.Add 3>> {{}} <<$c := counter>><<(counter).Add 1>><<5 | $c.Add>>"), "10 {{}} 812");
    let refused = run("<<counter.Add \"a\">>");
    assert_eq!(refused, r#"template: template:1:14: executing "template" at <"a">: expected integer; found "a""#);
    let refused = run("<<counter.Sub 1>>");
    assert!(refused.ends_with("can't evaluate field Sub in type *counter"), "{refused}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_trouble(
        parts in proptest::collection::vec(
            r#"\{\{(if|range|with|define|template|block|else|end)? ?|\}\}|"[ab]?"|[ -~]|\$x|:?=|\.(S|N|L|M|In|A)|printf|index|slice|%[-+# 0]*[0-9.*]*[a-zA-Z]|\PC"#,
            0..30,
        )
    ) {
        let _ = expand(&parts.concat());
        let _ = expand(&format!("{{{{{}}}}}", parts.concat()));
        let _ = expand(&format!("{{{{printf {:?} .N .S .F .L}}}}", parts.concat()));
    }
}
