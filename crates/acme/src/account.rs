//! Accounts at authorities: made once, kept by the managers.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use herder_model::swarm::{Kind, Resolver};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde_json::json;

use crate::Failed;
use crate::book::Book;
use crate::client::Client;

/// The account that a resolver has at its authority.
pub(crate) async fn account(book: &Book, resolver: &Resolver) -> Result<Account, Failed> {
    // Another mail address or another external account is another account.
    let parts = [&resolver.directory, &resolver.email, &resolver.eab_id];
    let name = parts.into_iter().filter(|it| !it.is_empty()).cloned().collect::<Vec<_>>().join(" ");
    let builder = || Client::new(&resolver.root).map(|it| Account::builder_with_http(Box::new(it)));
    let kept = book
        .authority(&name)
        .and_then(|it| serde_json::from_value::<AccountCredentials>(it["credentials"].clone()).ok());
    if let Some(credentials) = kept {
        return Ok(builder()?.from_credentials(credentials).await?);
    }
    let contact = format!("mailto:{}", resolver.email);
    let contact: &[&str] = if resolver.email.is_empty() { &[] } else { &[&contact] };
    let new = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = external(book, resolver)?;
    let (account, credentials) = builder()?.create(&new, resolver.directory.clone(), external.as_ref()).await?;
    let credentials = serde_json::to_value(credentials).map_err(|error| Failed::refused(error.to_string()))?;
    book.keep_authority(&name, &json!({"credentials": credentials})).await?;
    tracing::info!(directory = resolver.directory, "an account at an authority was made");
    Ok(account)
}

/// Returns the external account binding (RFC 8555, 7.3.4), if the resolver names one.
fn external(book: &Book, resolver: &Resolver) -> Result<Option<ExternalAccountKey>, Failed> {
    if resolver.eab_id.is_empty() {
        return Ok(None);
    }
    let view = book.store.view();
    let secret = view.named(Kind::Secret, &resolver.eab_secret).and_then(|id| view.secrets.get(id));
    let bytes = secret.and_then(|it| STANDARD.decode(&it.spec.data).ok());
    let text = bytes.and_then(|it| String::from_utf8(it).ok()).ok_or_else(|| {
        Failed::refused(format!("the swarm has no secret {} with the key of the external account", resolver.eab_secret))
    })?;
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|error| {
        Failed::refused(format!("the secret {} is no key in base64url: {error}", resolver.eab_secret))
    })?;
    Ok(Some(ExternalAccountKey::new(resolver.eab_id.clone(), &key)))
}
