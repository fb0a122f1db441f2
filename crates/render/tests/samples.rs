//! Templates of consul-template and of confd over answers: what comes out, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use herder_render::config::{Order, Source, confd, file, spec};
use herder_render::consul_template::Environment;
use herder_render::data::{Answer, Data, Dep, Rendered};
use herder_render::render::{Dialect, Reading, read, render, render_confd};
use serde_json::json;

/// Consul's keys in the third seed document's demo.
const KEYS: &[(&str, &str)] = &[
    ("services/webapp/dockerhost01:grave_goldstine:80", "10.100.199.201:49164"),
    ("services/webapp/dockerhost01:happy_bell:80", "10.100.199.201:49165"),
    ("services/proxy/dockerhost02:prim:80", "10.100.199.202:80"),
    ("config/name", "edge"),
    ("config/empty", ""),
    ("config/deep/er", "x"),
    ("config/folder/", ""),
    ("json", r#"{"port": 8080, "tags": ["a", "b"], "on": true}"#),
];

fn environment() -> Environment {
    let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
    Environment { env, now: ("2026-11-30T10:00:00Z".into(), 1_796_032_800) }
}

/// The answer to whatever a template asks for.
fn answer(dep: &Dep) -> Option<Answer> {
    let below = |dir: &str| {
        let prefix = format!("{dir}/");
        let pairs = KEYS.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, *value)));
        Answer::Entries(Arc::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    };
    Some(match dep {
        Dep::Tree(dir) => below(dir),
        Dep::Key(key) => {
            let value = KEYS.iter().find(|(there, _)| there == key);
            let pair = value.map(|(_, value)| (String::new(), (*value).to_owned()));
            Answer::Entries(Arc::new(pair.into_iter().collect()))
        }
        Dep::Services => Answer::Json(Arc::new(json!({ "web": ["v2", "v1"], "consul": [] }))),
        Dep::Service { name, .. } if name == "web" => Answer::Json(Arc::new(json!([
            { "Node": { "Node": "n2", "Address": "10.0.0.2" }, "Checks": [{ "Status": "passing" }],
              "Service": { "ID": "w2", "Service": "web", "Tags": ["v1"], "Address": "", "Port": 81 } },
            { "Node": { "Node": "n1", "Address": "10.0.0.1" }, "Checks": [{ "Status": "critical" }],
              "Service": { "ID": "w1", "Service": "web", "Tags": ["v2"], "Address": "10.9.0.1", "Port": 80, "Meta": { "a": "b" } } },
        ]))),
        Dep::Service { .. } => Answer::Json(Arc::new(json!([]))),
        Dep::File(path) if path == "/there" => Answer::Text(Some("in the file".into())),
        Dep::File(_) => Answer::Text(None),
        Dep::Nodes => Answer::Json(Arc::new(json!([{ "Node": "n1", "Address": "10.0.0.1" }]))),
        Dep::Node(_) => return None,
    })
}

fn template(text: &str, dialect: Dialect) -> Result<herder_gotemplate::Template, String> {
    read(text, &Reading { name: "t", left: "{{", right: "}}", error_on_missing_key: false, dialect })
}

/// Renders in as many passes as it needs, as the loop does.
fn rendered(text: &str) -> String {
    let template = match template(text, Dialect::ConsulTemplate) {
        Ok(template) => template,
        Err(why) => return format!("! {why}"),
    };
    let mut data = Data::default();
    let mut asked = BTreeSet::new();
    loop {
        let (rendered, used) = render(&template, &data, &environment());
        let news: Vec<Dep> = used.difference(&asked).cloned().collect();
        asked.extend(used);
        if news.is_empty() {
            return match rendered {
                Rendered::Text(text) => text,
                Rendered::Failed(why) => format!("! {why}"),
                Rendered::Missing(missing) => {
                    format!("? {}", missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                }
            };
        }
        for dep in news {
            if let Some(answer) = answer(&dep) {
                data.set(dep, answer);
            }
        }
    }
}

#[test]
fn the_sample_for_haproxy_comes_out_byte_for_byte() {
    assert_eq!(rendered(include_str!("haproxy.ctmpl")), include_str!("haproxy.cfg"));
}

#[test]
fn the_sample_for_nginx_comes_out_byte_for_byte() {
    let template = template(include_str!("nginx.tmpl"), Dialect::Confd).expect("a template");
    let services = KEYS.iter().filter(|(key, _)| key.starts_with("services/"));
    let keys = services.map(|(key, value)| (format!("/{key}"), (*value).to_owned())).collect();
    let text = render_confd(&template, &keys, &environment(), |_| false).expect("rendered");
    assert_eq!(text, include_str!("nginx.conf"));
}

#[test]
fn functions_of_consul_template() {
    for (text, expected) in [
        (
            r#"{{ key "config/name" }}{{ keyOrDefault "none" "d" }}{{ keyExists "none" }}{{ keyExists "config/name" }}"#,
            "edgedfalsetrue",
        ),
        (r#"{{ key "none" }}"#, "? key(none)"),
        (r#"{{ range ls "config" }}{{ .Key }}={{ .Value }};{{ end }}"#, "empty=;name=edge;"),
        (r#"{{ range tree "/config/" }}{{ .Path }} {{ end }}"#, "config/deep/er config/empty config/name "),
        (r#"{{ range safeLs "nothing" }}x{{ end }}"#, "? tree(nothing)"),
        (r#"{{ range ls "nothing" }}x{{ else }}none{{ end }}"#, "none"),
        (r#"{{ range services }}{{ .Name }}{{ .Tags | join "," }} {{ end }}"#, "consul webv1,v2 "),
        (
            r#"{{ range service "web" }}{{ .ID }}@{{ .Address }}:{{ .Port }} {{ end }}"#,
            "w1@10.9.0.1:80 w2@10.0.0.2:81 ",
        ),
        (r#"{{ range service "web" "critical" }}{{ .Status }} {{ .ServiceMeta.a }}{{ end }}"#, "critical b"),
        (r#"{{ range service "web" "passing,critical" }}{{ .Status }} {{ end }}"#, "critical passing "),
        (r#"{{ range service "web" "any" }}{{ if .Tags.Contains "v1" }}{{ .ID }}{{ end }}{{ end }}"#, "w2"),
        (
            r#"{{ service "web" "odd" }}"#,
            r#"! template: t:1:3: executing "t" at <service "web" "odd">: error calling service: unknown state "odd"; there are any, passing, warning, critical, maintenance"#,
        ),
        (r#"{{ range $tag, $them := service "web" "any" | byTag }}{{ $tag }}:{{ len $them }} {{ end }}"#, "v1:1 v2:1 "),
        (
            r#"{{ range nodes }}{{ .Node }} {{ .Address }}{{ end }}{{ range $k, $v := tree "services" | byKey }} {{ $k }}{{ len $v }}{{ end }}"#,
            "n1 10.0.0.1 proxy1 webapp2",
        ),
        (r#"{{ env "HOME" }}{{ env "NONE" }}{{ envOrDefault "NONE" "x" }}{{ file "/there" }}"#, "/rootxin the file"),
        (r#"{{ with key "json" | parseJSON }}{{ .port }} {{ index .tags 1 }} {{ .on }}{{ end }}"#, "8080 b true"),
        (r#"{{ key "json" | parseJSON | toJSON }}"#, r#"{"on":true,"port":8080,"tags":["a","b"]}"#),
        (r#"{{ range loop 3 }}{{ . }}{{ end }}{{ range loop 5 7 }}{{ . }}{{ end }}"#, "01256"),
        (
            r#"{{ add 1 2 }} {{ 5 | subtract 2 }} {{ multiply 3 4 }} {{ 10 | divide 3 }} {{ 10 | modulo 3 }} {{ add 1.5 1 }}"#,
            "3 3 12 3 1 2.5",
        ),
        (
            r#"{{ divide 0 1 }}"#,
            r#"! template: t:1:3: executing "t" at <divide 0 1>: error calling divide: division by zero"#,
        ),
        (
            r#"{{ if contains "b" (split "," "a,b") }}y{{ end }}{{ if in "abc" "b" }}y{{ end }}{{ "a b" | toTitle }}{{ " x " | trimSpace }}"#,
            "yyA Bx",
        ),
        (
            r#"{{ "a-b" | replaceAll "-" "_" }} {{ "a1" | regexMatch "[0-9]" }} {{ "a12" | regexReplaceAll "[0-9]+" "<$0>" }}"#,
            "a_b true a<12>",
        ),
        (
            r#"{{ "x" | sha256Hex }} {{ "x" | base64Encode }} {{ "eA==" | base64Decode }} {{ parseInt "7" }} {{ parseBool "true" }}"#,
            "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 eA== x 7 true",
        ),
        (
            r#"{{ scratch.Set "a" "1" }}{{ scratch.Get "a" }}{{ scratch.MapSet "m" "k" 2 }}{{ range scratch.MapValues "m" }}{{ . }}{{ end }}{{ scratch.Key "z" }}"#,
            "12false",
        ),
        (r#"{{ timestamp }} {{ timestamp "unix" }}"#, "2026-11-30T10:00:00Z 1796032800"),
        (r#"{{ nope }}"#, r#"! template: t:1: function "nope" not defined"#),
        (r#"{{ range services }}"#, "! template: t:1: unexpected EOF"),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn functions_of_confd() {
    let keys: BTreeMap<String, String> =
        [("/a/b", "2"), ("/a/c", "1"), ("/a/d/e", "x"), ("/n", "7"), ("/j", r#"{"k":[1,2]}"#)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    for (text, expected) in [
        (r#"{{ getv "/n" }} {{ getv "/none" "d" }} {{ exists "/n" }} {{ exists "/none" }}"#, "7 d true false"),
        (
            r#"{{ getv "/none" }}"#,
            r#"! template: t:1:3: executing "t" at <getv "/none">: error calling getv: key does not exist: /none"#,
        ),
        (r#"{{ with get "/n" }}{{ .Key }}={{ .Value }}{{ end }}"#, "/n=7"),
        (r#"{{ range gets "/a/*" }}{{ .Key }}={{ .Value }} {{ end }}"#, "/a/b=2 /a/c=1 "),
        (r#"{{ range getvs "/a/*" }}{{ . }} {{ end }}{{ range getvs "/a/*/*" }}{{ . }}{{ end }}"#, "1 2 x"),
        (r#"{{ ls "/a" }} {{ lsdir "/a" }} {{ ls "/" }} {{ ls "/none" }}"#, "[b c d] [d] [a j n] []"),
        (r#"{{ $m := json (getv "/j") }}{{ index $m.k 1 }} {{ range jsonArray "[1,2]" }}{{ . }}{{ end }}"#, "2 12"),
        (
            r#"{{ base "/a/b" }} {{ dir "/a/b" }} {{ join (split "a,b" ",") "-" }} {{ replace "aaa" "a" "b" 2 }} {{ trimSuffix "a.b" ".b" }}"#,
            "b /a a-b bba a",
        ),
        (
            r#"{{ $m := map "x" 1 "y" 2 }}{{ $m.y }} {{ seq 1 3 }} {{ atoi "5" | add 1 }} {{ sub 5 2 }} {{ reverse (seq 1 2) }}"#,
            "2 [1 2 3] 6 3 [2 1]",
        ),
        (
            r#"{{ getenv "HOME" }} {{ getenv "NONE" "d" }} {{ fileExists "/x" }} {{ sortByLength (split "ccc,a,bb" ",") }}"#,
            "/root d false [a bb ccc]",
        ),
    ] {
        let found = template(text, Dialect::Confd)
            .and_then(|template| render_confd(&template, &keys, &environment(), |_| false))
            .unwrap_or_else(|why| format!("! {why}"));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn specifications_and_files() {
    let job = spec("a.ctmpl:/etc/a.cfg:sh -c 'echo a:b'").expect("a template");
    assert_eq!(
        (job.destination.as_path(), job.command),
        (Path::new("/etc/a.cfg"), Some(Order::Shell("sh -c 'echo a:b'".into())))
    );
    assert!(spec("a").is_err() && spec(":b").is_err() && spec("a:").is_err());
    let hcl = "consul { address = \"c:8500\" }\ntemplate {\n  contents = \"x\"\n  destination = \"d\"\n  perms = 0600\n  exec { command = [\"a\", \"b\"] }\n  wait { min = \"2s\" }\n}";
    let toml = "[consul]\naddress = 'c:8500'\n[[template]]\ncontents = 'x'\ndestination = 'd'\nperms = '0600'\nexec = { command = ['a', 'b'] }\nwait = { min = '2s' }";
    let json = r#"{"consul": {"address": "c:8500"}, "template": {"contents": "x", "destination": "d", "perms": "0600", "exec": {"command": ["a", "b"]}, "wait": {"min": "2s"}}}"#;
    let read = |name: &str, text: &str| file(Path::new(name), text).expect(name);
    let found = read("c.hcl", hcl);
    assert_eq!((&found, &found), (&read("c.toml", toml), &read("c.json", json)));
    let job = &found.jobs[0];
    assert_eq!((job.perms, &job.source), (Some(0o600), &Source::Text("x".into())));
    assert_eq!(job.command, Some(Order::Program(vec!["a".into(), "b".into()])));
    for (text, why) in [
        ("template { source = \"a\" }", "`destination` is missing"),
        ("template { destination = \"a\" }", "either `source` or `contents`"),
        ("template { source = \"a\" destination = \"b\" sourc = \"c\" }", "`sourc` is not known"),
        ("vault { address = \"x\" }", "`vault` is not built in"),
        ("exec { reload_signal = \"SIGHUP\" }", "exec has no command"),
        ("exec { command = \"x\"\n kill_signal = \"SIGX\" }", "\"SIGX\" is no signal"),
        ("exec { command = \"x\"\n splay = \"5s\" }", "exec: `splay` is not built in"),
    ] {
        let error = file(Path::new("c.hcl"), text).expect_err(text);
        assert!(error.contains(why), "{error}");
    }
    let resource = "[template]\nsrc = 'nginx.tmpl'\ndest = '/etc/nginx/nginx.conf'\nkeys = ['/services']\nmode = '0640'\ncheck_cmd = 'nginx -t -c {{.src}}'\nreload_cmd = 'nginx -s reload'";
    let job = confd(Path::new("n.toml"), resource, Path::new("/etc/confd/templates"), "").expect("a resource");
    assert_eq!(job.source, Source::File("/etc/confd/templates/nginx.tmpl".into()));
    assert_eq!((job.perms, job.check.as_deref()), (Some(0o640), Some("nginx -t -c {{.src}}")));
}
