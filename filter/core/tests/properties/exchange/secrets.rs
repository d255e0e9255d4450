//! Secrets must not be visible, neither as text nor as the bytes that `Debug` prints.
//!
//! Owns the search. Does not know the source of a text.

use crate::fixtures::{self, CANARY, HOLDERS};

/// Fails when `text` contains a key, a credential or a secret argument.
pub(super) fn is_clean(text: &str) {
    let keys = HOLDERS.into_iter().map(fixtures::key);
    for secret in keys.chain([CANARY]) {
        // The end of it, as text and as the bytes that `Debug` shows.
        let tail = &secret[secret.len() - 12..];
        let bytes = format!("{:?}", tail.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        if let Some(at) = text.find(tail).or_else(|| text.find(bytes)) {
            let before: String = text[..at].chars().rev().take(80).collect();
            panic!("{secret} stands after: {}", before.chars().rev().collect::<String>());
        }
    }
}
