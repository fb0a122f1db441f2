//! Clients that come back to the task that they were with, by a cookie.

use herder_http::Body;
use herder_model::swarm::Sticky;
use http::Response;
use http::header::{self, HeaderMap, HeaderValue};

use crate::balance::{Service, cookie_name, sticky_value};

/// A service whose clients come back to the same task.
pub(crate) struct Stuck<'s> {
    sticky: &'s Sticky,
    name: String,
    /// The task that the client was with, if it still takes requests.
    pub(crate) task: Option<String>,
}

impl<'s> Stuck<'s> {
    pub(crate) fn of(sticky: &'s Sticky, service: &Service, headers: &HeaderMap) -> Stuck<'s> {
        let name = if sticky.name.is_empty() { cookie_name(&service.name) } else { sticky.name.clone() };
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
        let value = cookies.flat_map(|it| it.split(';')).find_map(|it| {
            it.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        });
        let task = value.and_then(|value| {
            let tasks = service.tasks();
            tasks.iter().find(|it| sticky_value(&service.name, &it.id) == value).map(|it| it.id.clone())
        });
        Stuck { sticky, name, task }
    }

    pub(crate) fn renew(&self, mut reply: Response<Body>, service: &Service, task: &str) -> Response<Body> {
        if self.task.as_deref() == Some(task) {
            return reply;
        }
        let Sticky { secure, http_only, same_site, max_age, path, domain, .. } = self.sticky;
        let path = if path.is_empty() { "/" } else { path };
        let mut cookie = format!("{}={}; Path={path}", self.name, sticky_value(&service.name, task));
        if !domain.is_empty() {
            cookie += &format!("; Domain={domain}");
        }
        if *max_age != 0 {
            cookie += &format!("; Max-Age={max_age}");
        }
        cookie += if *http_only { "; HttpOnly" } else { "" };
        cookie += if *secure { "; Secure" } else { "" };
        cookie += match same_site.as_str() {
            "none" => "; SameSite=None",
            "lax" => "; SameSite=Lax",
            "strict" => "; SameSite=Strict",
            _ => "",
        };
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            reply.headers_mut().append(header::SET_COOKIE, value);
        }
        reply
    }
}
