//! Secrets, mounted as folders of files.

use std::path::Path;

use anyhow::{Context as _, bail};
use secrecy::SecretString;

use crate::store::pg::{EndpointParts, SchemaName};

/// What the files host, port, dbname, username and password of a database say; without certificates, which are kept
/// elsewhere.
pub(super) fn database(
    folder: &Path,
    schema: &SchemaName,
    application_name: &str,
) -> anyhow::Result<EndpointParts> {
    let file = |name: &str| text(&folder.join(name));
    let port = file("port")?;
    Ok(EndpointParts {
        host: file("host")?,
        port: port.parse().with_context(|| format!("port {port:?} is not a number up to 65535"))?,
        dbname: file("dbname")?,
        user: file("username")?,
        password: SecretString::from(file("password")?),
        ca_pem: None,
        ssl_mode: None,
        schema: schema.clone(),
        application_name: application_name.to_owned(),
    })
}

/// A file's text without the line break that an editor adds.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; is its Secret complete?", path.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(text.to_owned())
}
