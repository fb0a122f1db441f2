//! `-tags` as a template over the container, with Registrator's functions.

use herder_gotemplate::{Functions, MissingKey, Numbers, Options, Param, Signature, Template, Value};

/// Tags are short.
const TAGS_BYTES_MAX: usize = 64 << 10;

/// The tags that every service gets: a text, or a template.
#[derive(Debug)]
pub struct ForcedTags {
    text: String,
    template: Option<Template>,
}

impl ForcedTags {
    /// Reads the value of `-tags`.
    ///
    /// # Errors
    /// Says why the template cannot run.
    pub fn parse(text: &str) -> Result<ForcedTags, String> {
        if !text.contains("{{") {
            return Ok(ForcedTags { text: text.to_owned(), template: None });
        }
        let options =
            Options { name: "tags", missing_key: MissingKey::None, bytes_max: TAGS_BYTES_MAX, ..Options::default() };
        let template = Template::parse(text, &TagFunctions, options).map_err(|error| error.to_string())?;
        Ok(ForcedTags { text: text.to_owned(), template: Some(template) })
    }

    /// The tags for a container.
    ///
    /// # Errors
    /// Says why the template cannot run over it.
    pub fn of(&self, inspected: &serde_json::Value) -> Result<String, String> {
        let Some(template) = &self.template else { return Ok(self.text.clone()) };
        let mut root = inspected.clone();
        // Go programs know the field by this name.
        if let Some(id) = inspected.get("Id") {
            root["ID"] = id.clone();
        }
        template.execute(&Value::from_json(&root, Numbers::Whole), &TagFunctions).map_err(|error| error.to_string())
    }
}

struct TagFunctions;

impl Functions for TagFunctions {
    fn signature(&self, name: &str) -> Option<Signature> {
        let fixed: &'static [Param] = match name {
            "toUpper" | "toLower" => &[Param::Text],
            "strSlice" => &[Param::Text, Param::Number, Param::Number],
            "sIndex" => &[Param::Number, Param::List],
            "mIndex" => &[Param::Map, Param::Text],
            "replace" => &[Param::Number, Param::Text, Param::Text, Param::Text],
            "join" => &[Param::Text, Param::List],
            "split" => &[Param::Text, Param::Text],
            "splitIndex" => &[Param::Number, Param::Text, Param::Text],
            "matchFirstElement" | "matchAllElements" => &[Param::Text, Param::List],
            "jsonParse" => &[Param::Text, Param::Text],
            "httpGet" => &[Param::Text],
            _ => return None,
        };
        Some(Signature { fixed, rest: None })
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text).unwrap_or_default();
        let list = |at: usize| arguments.get(at).and_then(Value::as_list).unwrap_or_default();
        let number = |at: usize| match arguments.get(at) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        };
        let pattern = |text: &str| regex::Regex::new(text).map_err(|error| error.to_string());
        match name {
            "toUpper" => Ok(text(0).to_uppercase().into()),
            "toLower" => Ok(text(0).to_lowercase().into()),
            "strSlice" => {
                let place = |at: i64| usize::try_from(at).ok();
                let from = place(number(1)).unwrap_or(0);
                let to = place(number(2)).unwrap_or(text(0).len()).min(text(0).len());
                text(0)
                    .get(from..to)
                    .map(Value::from)
                    .ok_or_else(|| format!("no slice {from} to {to} of {:?}", text(0)))
            }
            "sIndex" => {
                let item = usize::try_from(number(0)).ok().and_then(|at| list(1).get(at));
                Ok(item.cloned().unwrap_or_else(|| "".into()))
            }
            "mIndex" => match arguments.first() {
                Some(Value::Map(map)) => Ok(map.entries.get(text(1)).cloned().unwrap_or_else(|| "".into())),
                _ => Ok("".into()),
            },
            "replace" => Ok(match usize::try_from(number(0)) {
                Ok(count) => text(3).replacen(text(1), text(2), count),
                Err(_) => text(3).replace(text(1), text(2)),
            }
            .into()),
            "join" => {
                let texts: Vec<&str> = list(1).iter().filter_map(Value::as_text).collect();
                Ok(texts.join(text(0)).into())
            }
            "split" => Ok(Value::texts(text(1).split(text(0)))),
            "splitIndex" => {
                let part = usize::try_from(number(0)).ok().and_then(|at| text(2).split(text(1)).nth(at));
                Ok(part.unwrap_or_default().into())
            }
            "matchFirstElement" => {
                let pattern = pattern(text(0))?;
                let mut items = list(1).iter().filter_map(Value::as_text);
                Ok(items.find(|item| pattern.is_match(item)).unwrap_or_default().into())
            }
            "matchAllElements" => {
                let pattern = pattern(text(0))?;
                Ok(Value::texts(list(1).iter().filter_map(Value::as_text).filter(|item| pattern.is_match(item))))
            }
            "jsonParse" => {
                let json: serde_json::Value = serde_json::from_str(text(0)).map_err(|error| error.to_string())?;
                let found = text(1).split("::").try_fold(&json, |json, key| match key.parse::<usize>() {
                    Ok(at) if json.is_array() => json.get(at),
                    _ => json.get(key),
                });
                Ok(found.map_or_else(|| "".into(), |json| Value::from_json(json, Numbers::Whole)))
            }
            _ => Err("httpGet is not built in: a template does not make network calls; use a label".to_owned()),
        }
    }
}
