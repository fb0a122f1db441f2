//! Create bodies: what an image alone means, one body put over another, old fields in today's words.

use serde_json::{Map, Value, json};

/// The create body that the original made of an image. It pings, so that it runs.
pub fn from_image(image: &str) -> Value {
    json!({
        "Image": image, "Hostname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Cmd": ["/bin/ping", "8.8.8.8"], "WorkingDir": "",
        "PortSpecs": ["80", "22/udp"],
        "HostConfig": {"Memory": 0, "MemorySwap": 0, "Privileged": false},
    })
}

/// Puts `over` over `base`: objects field by field, all else as a whole.
pub fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Says in today's words what templates of 2014 said: `PortSpecs` became `ExposedPorts`, and the original misspelt
/// `AttachStdin`. What is there in both words stays as today's say.
pub fn modernise(body: &mut Value) {
    let Value::Object(body) = body else { return };
    for (old, new) in
        [("AttachedStdin", "AttachStdin"), ("AttachedStdout", "AttachStdout"), ("AttachedStderr", "AttachStderr")]
    {
        if let Some(value) = body.shift_remove(old) {
            body.entry(new).or_insert(value);
        }
    }
    let Some(Value::Array(specs)) = body.shift_remove("PortSpecs") else { return };
    let exposed = body.entry("ExposedPorts").or_insert_with(|| json!({}));
    if exposed.is_null() {
        *exposed = Value::Object(Map::new());
    }
    let Some(exposed) = exposed.as_object_mut() else { return };
    for port in specs.iter().filter_map(Value::as_str) {
        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        exposed.entry(port).or_insert_with(|| json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: Value, over: Value, expected: Value) {
        let mut body = base;
        overlay(&mut body, over);
        modernise(&mut body);
        assert_eq!(body, expected);
    }

    #[test]
    fn a_body_is_put_over_another_field_by_field() {
        check(
            json!({"Image": "x", "Env": ["A=1"], "HostConfig": {"Memory": 1, "Privileged": false}}),
            json!({"Env": ["B=2"], "HostConfig": {"Memory": 2}}),
            json!({"Image": "x", "Env": ["B=2"], "HostConfig": {"Memory": 2, "Privileged": false}}),
        );
        check(json!({"HostConfig": null}), json!({"HostConfig": {"Memory": 2}}), json!({"HostConfig": {"Memory": 2}}));
        check(json!({"Image": "x"}), json!({}), json!({"Image": "x"}));
    }

    #[test]
    fn old_fields_are_said_in_todays_words() {
        check(
            json!({"PortSpecs": ["80", "22/udp"], "AttachedStdin": true, "ExposedPorts": null}),
            json!({}),
            json!({"ExposedPorts": {"80/tcp": {}, "22/udp": {}}, "AttachStdin": true}),
        );
        check(json!({"PortSpecs": null, "Tty": true}), json!({}), json!({"Tty": true}));
        assert_eq!(from_image("ubuntu")["Cmd"], json!(["/bin/ping", "8.8.8.8"]));
    }
}
