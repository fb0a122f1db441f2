//! Services that are asked beside the one that a route leads to: who may pass, and pages of errors.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use herder_decide::ingress::ForwardAuth;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use regex::Regex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use herder_http::Body;

use crate::Shared;
use crate::body::Lent;
use crate::middleware::Passing;
use crate::page::{full, page};
use crate::proxy;
use crate::request::{forward, remove_hop_headers};

/// Time limit for the answer of a service that is asked.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A middleware that asks who may pass.
#[derive(Debug)]
pub(crate) struct Auth {
    is: ForwardAuth,
    answered: Vec<HeaderName>,
    told: Vec<HeaderName>,
    regex: Option<Regex>,
}

impl Auth {
    /// None, if a name is no header or the expression cannot be read.
    pub(crate) fn of(is: ForwardAuth) -> Option<Auth> {
        let names = |all: &[String]| all.iter().map(|it| it.parse().ok()).collect::<Option<Vec<HeaderName>>>();
        let (answered, told) = (names(&is.response_headers)?, names(&is.request_headers)?);
        // Names are in lower case here, and expressions are written for Go's names.
        let regex = Some(&is.response_regex).filter(|it| !it.is_empty()).map(|it| Regex::new(&format!("(?i){it}")));
        Some(Auth { answered, told, regex: regex.transpose().ok()?, is })
    }

    /// Asks. An answer that is no success is the one that the client gets.
    pub(crate) async fn ask(
        &self,
        shared: &Arc<Shared>,
        passing: &mut Passing<'_>,
        parts: &mut Parts,
    ) -> Result<(), Box<Response<Body>>> {
        let failed = |text: String| {
            tracing::warn!(
                address = self.is.address,
                error = text,
                "the service that says who may pass does not answer"
            );
            let text = "the service that says who may pass does not answer";
            Box::new(page(StatusCode::INTERNAL_SERVER_ERROR, text, &parts.headers))
        };
        let asked = self.question(shared, passing, parts).map_err(&failed)?;
        let answer = timeout(ANSWER_TIME_MAX, self.send(shared, asked)).await;
        let mut reply = answer.map_err(|_| failed("it takes too long".to_owned()))?.map_err(&failed)?;
        remove_hop_headers(reply.headers_mut());
        if !reply.status().is_success() {
            self.complete_location(reply.headers_mut());
            return Err(Box::new(reply.map(|body| body.map_err(Into::into).boxed_unsync())));
        }
        let is_answered = |it: &HeaderName| {
            self.answered.contains(it) || self.regex.as_ref().is_some_and(|regex| regex.is_match(it.as_str()))
        };
        // What the client says of itself in them is no answer.
        let said: Vec<HeaderName> = parts.headers.keys().filter(|it| is_answered(it)).cloned().collect();
        said.iter().for_each(|it| drop(parts.headers.remove(it)));
        for (name, value) in reply.headers().iter().filter(|(name, _)| is_answered(name)) {
            parts.headers.append(name, value.clone());
        }
        let user = reply.headers().get(&self.is.user_header).and_then(|it| it.to_str().ok());
        passing.user = user.map(str::to_owned).or(passing.user.take());
        Ok(())
    }

    fn question(&self, shared: &Shared, passing: &Passing<'_>, parts: &Parts) -> Result<Parts, String> {
        let method = if self.is.keep_method { parts.method.clone() } else { Method::GET };
        let asked = Request::builder().method(method).uri(self.is.target()).body(()).map_err(|it| it.to_string())?;
        let (mut asked, ()) = asked.into_parts();
        asked.headers = match self.told.is_empty() {
            true => parts.headers.clone(),
            false => self
                .told
                .iter()
                .flat_map(|it| parts.headers.get_all(it).iter().map(|v| (it.clone(), v.clone())))
                .collect(),
        };
        remove_hop_headers(&mut asked.headers);
        // It has no body.
        for name in [header::CONTENT_LENGTH, header::EXPECT, header::HOST] {
            asked.headers.remove(name);
        }
        let trusted = self.is.trust_forwarded && shared.table.load().trusts(passing.arrival.peer.ip());
        let told = |name: &str| parts.headers.get(name).filter(|_| trusted).cloned();
        let before = [told("x-forwarded-method"), told("x-forwarded-uri")];
        forward(&mut asked.headers, passing.arrival, passing.host, passing.client, trusted);
        for ((name, value), before) in
            [("x-forwarded-method", parts.method.as_str()), ("x-forwarded-uri", &passing.target())]
                .into_iter()
                .zip(before)
        {
            if let Some(value) = before.or_else(|| HeaderValue::from_str(value).ok()) {
                asked.headers.insert(name, value);
            }
        }
        Ok(asked)
    }

    async fn send(&self, shared: &Arc<Shared>, asked: Parts) -> Result<Response<Incoming>, String> {
        let (authority, host, port) = self.is.host().ok_or("its address cannot be read")?;
        let named = HeaderValue::from_str(authority).map_err(|it| it.to_string())?;
        if !self.is.service.is_empty() {
            return proxy::ask(shared, &self.is.service, &asked, &named, self.is.target()).await;
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await.map_err(|it| it.to_string())?;
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|it| it.to_string())?;
        tokio::spawn(connection);
        let mut request = Request::from_parts(asked, Lent::empty());
        request.headers_mut().insert(header::HOST, named);
        sender.send_request(request).await.map_err(|it| it.to_string())
    }

    /// A place without a host is one of the service that was asked.
    fn complete_location(&self, headers: &mut HeaderMap) {
        let place = headers.get(header::LOCATION).and_then(|it| it.to_str().ok()).filter(|it| it.starts_with('/'));
        if let (Some(place), Some((authority, ..)), false) = (place, self.is.host(), self.is.keep_location)
            && let Ok(value) = HeaderValue::from_str(&format!("http://{authority}{place}"))
        {
            headers.insert(header::LOCATION, value);
        }
    }
}

/// Puts the page of another service in the place of an answer. Its status stays.
pub(crate) async fn error_page(
    shared: &Arc<Shared>,
    service: &str,
    query: &str,
    asked: &HeaderMap,
    url: &str,
    reply: Response<Body>,
) -> Response<Body> {
    let status = reply.status();
    let escaped = percent_encoding::utf8_percent_encode(url, percent_encoding::NON_ALPHANUMERIC).to_string();
    let target = query.replace("{status}", status.as_str()).replace("{url}", &escaped);
    let question = Request::get(&target).body(()).map(|it| it.into_parts().0);
    let Ok(mut question) = question else { return reply };
    for name in [header::ACCEPT, header::ACCEPT_LANGUAGE] {
        if let Some(value) = asked.get(&name) {
            question.headers.insert(name, value.clone());
        }
    }
    let host = asked.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("errors"));
    match timeout(ANSWER_TIME_MAX, proxy::ask(shared, service, &question, &host, &target)).await {
        Ok(Ok(mut found)) => {
            remove_hop_headers(found.headers_mut());
            *found.status_mut() = status;
            found.map(|body| body.map_err(Into::into).boxed_unsync())
        }
        Ok(Err(error)) => {
            tracing::warn!(service, error, "the service with the pages of errors does not answer");
            reply
        }
        Err(_) => reply,
    }
}

/// A body of at most so many bytes. Longer ones are answered with 413.
pub(crate) async fn limited(max: u64, headers: &HeaderMap, body: Body) -> Result<Body, Box<Response<Body>>> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    let bad = || Box::new(page(StatusCode::BAD_REQUEST, "the body ended too early", headers));
    let too_long = || Box::new(page(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long", headers));
    match length {
        _ if max == 0 => Ok(body),
        Some(length) if length > max => Err(too_long()),
        // hyper sees to it that no more comes.
        Some(_) => Ok(body),
        None if http_body::Body::is_end_stream(&body) => Ok(body),
        None => {
            let (mut body, mut all) = (body, BytesMut::new());
            while let Some(frame) = body.frame().await {
                let data = frame.map_err(|_| bad())?.into_data().unwrap_or_default();
                if (all.len() + data.len()) as u64 > max {
                    return Err(too_long());
                }
                all.extend_from_slice(&data);
            }
            Ok(full(all.freeze()))
        }
    }
}
