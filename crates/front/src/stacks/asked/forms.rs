//! Requests to deploy whose files come as a form or an archive. The other members of the document are in the query.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;

use bytes::Bytes;
use futures_util::stream;
use herder_stacks::File;
use http::{StatusCode, header};
use multer::Multipart;
use serde_json::Value;

use super::{Asked, AskedOptions, BODY_BYTES_MAX, Texts, parse, read};
use crate::stacks::problem::Problem;
use crate::{Call, Query, guard};

/// The field of a form that holds the document, where there is one.
const DOCUMENT: &str = "request";

/// Reads a request to deploy: JSON, a form (`multipart/form-data`) or an archive (`application/x-tar`).
pub(crate) async fn read_any(call: &mut Call) -> Result<Asked, Problem> {
    let kind = call.parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.to_owned();
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "multipart/form-data" => {
            // A page of a stranger can send a form without asking.
            if !guard::same_origin(&call.parts.headers) {
                let detail = "a form from a page of another origin is refused";
                return Err(Problem::new(StatusCode::FORBIDDEN, "other_origin", detail));
            }
            let boundary = multer::parse_boundary(&kind).map_err(|error| Problem::bad_request(error.to_string()))?;
            let mut asked = of_query(&call.query)?;
            form(&mut asked, call.bytes(BODY_BYTES_MAX).await?, boundary).await?;
            Ok(asked)
        }
        "application/x-tar" => {
            let mut asked = of_query(&call.query)?;
            asked.files = archive(&call.bytes(BODY_BYTES_MAX).await?)?;
            Ok(asked)
        }
        _ => read(call).await,
    }
}

/// The members of a document that are no files, as a query has them.
fn of_query(query: &Query) -> Result<Asked, Problem> {
    let texts = |key: &str| query.all(key).map(str::to_owned).collect::<Vec<_>>();
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| Problem::bad_request(format!("{key}: `{text}` is no number"))),
    };
    let flag = |key: &str| query.get(key).map(|_| query.flag(key));
    let mut environment = BTreeMap::new();
    for text in query.all("env") {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Problem::bad_request(format!("env: `{text}` is not NAME=VALUE")))?;
        environment.insert(name.to_owned(), Value::from(value));
    }
    let env_files = texts("env_file");
    Ok(Asked {
        name: query.get("name").map(str::to_owned),
        files: BTreeMap::new(),
        main: Texts::Many(texts("main")),
        directory: query.get("directory").unwrap_or_default().to_owned(),
        environment,
        env_files: (!env_files.is_empty()).then_some(Texts::Many(env_files)),
        profiles: Texts::Many(texts("profile")),
        options: AskedOptions {
            prune: flag("prune"),
            timeout: number("timeout")?,
            keep: flag("keep"),
            resolve: query.get("resolve").map(str::to_owned),
            supersede: query.flag("supersede"),
        },
    })
}

/// Takes a form over. The field `request` is the document, each other part a file, named by its file name or its field.
async fn form(asked: &mut Asked, bytes: Bytes, boundary: String) -> Result<(), Problem> {
    let wrong = |error: multer::Error| Problem::bad_request(format!("the form cannot be read: {error}"));
    let mut parts = Multipart::new(stream::iter([Ok::<_, Infallible>(bytes)]), boundary);
    let mut files = BTreeMap::new();
    while let Some(part) = parts.next_field().await.map_err(wrong)? {
        let name = part.file_name().or(part.name()).unwrap_or_default().to_owned();
        let is_document = part.file_name().is_none() && part.name() == Some(DOCUMENT);
        let content = part.bytes().await.map_err(wrong)?;
        if is_document {
            *asked = parse(&content)?;
        } else if name.is_empty() {
            return Err(Problem::bad_request("a part of the form has neither a file name nor a name"));
        } else {
            files.insert(name, Some(File::of(&content)));
        }
    }
    asked.files.append(&mut files);
    Ok(())
}

/// The files of an archive. Folders are passed over; links are refused, since a bundle has none.
fn archive(bytes: &[u8]) -> Result<BTreeMap<String, Option<File>>, Problem> {
    let wrong = |error: std::io::Error| Problem::bad_request(format!("the archive cannot be read: {error}"));
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let kind = entry.header().entry_type();
        let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").to_owned();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() {
            return Err(Problem::bad_request(format!("the archive: {path} is a link or a device; send files only")));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(wrong)?;
        files.insert(path, Some(File::of(&content)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(files: &BTreeMap<String, Option<File>>) -> String {
        let one = |(path, file): (&String, &Option<File>)| match file {
            Some(File::Text(text)) => format!("{path}={text}"),
            Some(File::Base64 { base64 }) => format!("{path}=base64:{base64}"),
            None => format!("{path}=none"),
        };
        files.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    async fn of_form(parts: &[(&str, &str)]) -> Result<Asked, Problem> {
        let parts = parts
            .iter()
            .map(|(head, content)| format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"));
        let text = parts.collect::<String>() + "--x--\r\n";
        let mut asked = Asked::default();
        form(&mut asked, text.into(), "x".into()).await.map(|()| asked)
    }

    #[tokio::test]
    async fn a_form_has_files_and_at_most_one_document() {
        let asked = of_form(&[
            ("name=\"request\"", r#"{"name": "shop", "files": {"a": "1"}, "profiles": ["p"]}"#),
            ("name=\"files\"; filename=\"compose.yaml\"", "services: {}"),
            ("name=\"conf/page.txt\"", "hello"),
        ]);
        let asked = asked.await.expect("it is read");
        assert_eq!(asked.name.as_deref(), Some("shop"));
        assert_eq!(shown(&asked.files), "a=1 compose.yaml=services: {} conf/page.txt=hello");
        let refused = of_form(&[("name=\"request\"", r#"{"nam": "shop"}"#)]).await.expect_err("a wrong member");
        assert!(refused.detail.contains("unknown field `nam`"), "{}", refused.detail);
        let refused = of_form(&[("name=\"\"", "x")]).await.expect_err("no name");
        assert_eq!(refused.detail, "a part of the form has neither a file name nor a name");
    }

    #[test]
    fn an_archive_has_files_only() {
        let made = |link: bool| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut head = tar::Header::new_gnu();
            head.set_size(2);
            builder.append_data(&mut head, "./compose.yaml", &b"a\n"[..]).expect("it is taken");
            let mut head = tar::Header::new_gnu();
            head.set_size(1);
            builder.append_data(&mut head, format!("{}/b", "long".repeat(40)), &b"\xff"[..]).expect("it is taken");
            if link {
                let mut head = tar::Header::new_gnu();
                head.set_entry_type(tar::EntryType::Symlink);
                head.set_size(0);
                builder.append_link(&mut head, "l", "/etc/passwd").expect("it is taken");
            }
            builder.into_inner().expect("an archive")
        };
        let files = archive(&made(false)).expect("it is read");
        assert_eq!(shown(&files), format!("compose.yaml=a\n {}/b=base64:/w==", "long".repeat(40)));
        let refused = archive(&made(true)).expect_err("a link");
        assert_eq!(refused.detail, "the archive: l is a link or a device; send files only");
        let cut = made(false);
        assert!(archive(&cut[..700]).is_err());
    }

    #[test]
    fn a_query_has_the_other_members() {
        let query = |text: &str| {
            let pairs = text.split('&').filter_map(|it| it.split_once('='));
            Query(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        };
        let asked =
            of_query(&query("name=shop&main=a.yml&main=b.yml&env=A=1=2&timeout=7&prune=0")).expect("it is read");
        assert_eq!(asked.name.as_deref(), Some("shop"));
        assert_eq!(Vec::from(asked.main), ["a.yml", "b.yml"]);
        assert_eq!(asked.environment["A"], "1=2");
        assert_eq!((asked.options.prune, asked.options.timeout, asked.options.keep), (Some(false), Some(7), None));
        assert_eq!(of_query(&query("env=A")).expect_err("no value").detail, "env: `A` is not NAME=VALUE");
        assert_eq!(of_query(&query("timeout=x")).expect_err("no number").detail, "timeout: `x` is no number");
    }
}
