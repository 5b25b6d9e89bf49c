//! Options as URLs: they are parsed, or rejected with a message that contains no secret. Parsed options are written
//! and give the same options when parsed again.

use super::escapes::without_escapes;
use crate::config::ClientOptions;

/// Parses text as the URL of a client.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match ClientOptions::from_url(&text) {
        Ok(options) => {
            let written = options.expose_url();
            let again = ClientOptions::from_url(&written).unwrap();
            assert_eq!(again.expose_url(), written);
            let shown = options.to_string();
            assert!(shown.len() <= written.len() + '…'.len_utf8() * 64, "{shown}");
            assert_eq!(shown.contains('…'), shown != written, "{shown}");
            let shards = options.shards.len();
            assert!(shards > 0 && shards <= 1 + text.matches(',').count(), "{written}");
            let data = serde_json::to_string(&options).unwrap();
            let _: ClientOptions = serde_json::from_str(&data).unwrap();
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() <= 4_000, "{said}");
            let Some((before, behind)) = text.rsplit_once('@') else {
                return;
            };
            let secret = before.rsplit_once("://").map_or(before, |(_, secret)| secret);
            // The message may show the text after the @, so a secret that is also there is not checked. A short
            // text is not checked either, because it may be a word of the message itself.
            let is_telling = secret.len() >= 40 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
            assert!(
                !is_telling || behind.contains(secret) || !without_escapes(&said).contains(secret),
                "{said}"
            );
        }
    }
}
