//! Secrets on the command line: an error message that repeats an argument never shows a key or a token.
//!
//! Owns which arguments are hidden. The core's redaction of the audit log knows the forms of secrets.

use portcullis_core::audit::shown_text;

const HIDDEN: &str = "(not shown)";
/// A shorter argument is an id or a name.
const SHORTEST: usize = 8;

/// The words of the command line.
pub(crate) fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// `message` without the secrets among `arguments`, the words of the command line.
pub(crate) fn hidden(message: &str, arguments: &[String]) -> String {
    let mut message = message.to_owned();
    for argument in arguments {
        // `--key=pck_…` is one word.
        let value = argument.split_once('=').filter(|_| argument.starts_with("--"));
        let whole = value.into_iter().map(|(_, value)| value);
        let whole: Vec<&str> = whole.chain([argument.trim_start_matches('-')]).collect();
        // A list is split before one of its values is refused.
        let items = whole.iter().flat_map(|text| text.split(','));
        for text in whole.iter().copied().chain(items) {
            if text.len() >= SHORTEST && is_secret(text) {
                message = message.replace(text, HIDDEN);
            }
        }
    }
    message
}

/// Whether `text` contains a secret: a key, a token, a password in a URL.
fn is_secret(text: &str) -> bool {
    shown_text(text).contains("[redacted]")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 5 of a fresh reader: a whole key stood in the error, and in the log of the CI.
    #[test]
    fn a_message_repeats_no_key_and_no_token() {
        let key = "pck_acme_k1a2b3c4d5_0123456789abcdefghijABCDEFGHIJ0123456789abc";
        for argument in [
            key.to_owned(),
            format!("--key={key}"),
            format!("--{key}"),
            "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".to_owned(),
            "redis://app:hunter2@redis.example/".to_owned(),
        ] {
            let secret = argument.trim_start_matches("--").trim_start_matches("key=");
            let said = format!("invalid value '{secret}' for '<ID>'");
            let message = hidden(&said, std::slice::from_ref(&argument));
            assert_eq!(message, "invalid value '(not shown)' for '<ID>'", "{argument}");
        }
        let words = ["key", "show", "k1a2b3c4d5X!", "--limit=50000000"].map(str::to_owned);
        assert_eq!(hidden("invalid value 'k1a2b3c4d5X!'", &words), "invalid value 'k1a2b3c4d5X!'");
    }
}
