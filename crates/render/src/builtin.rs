//! Templates that need no file: `builtin/haproxy`, `builtin/nginx`.

use std::path::Path;

const HAPROXY: &str = include_str!("../templates/haproxy.tmpl");
const NGINX: &str = include_str!("../templates/nginx.tmpl");

/// The text of a built-in template.
pub(crate) fn template(path: &Path) -> Option<&'static str> {
    match path.to_str()? {
        "builtin/haproxy" => Some(HAPROXY),
        "builtin/nginx" => Some(NGINX),
        _ => None,
    }
}
