//! Random text and numbers from the operating system's generator. Owns that they are uniform where it matters: the
//! secrets of keys come from here.

use crate::report::CliError;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Uniform base62 characters.
pub(crate) fn base62(length: usize) -> Result<String, CliError> {
    // 248 = 4 * 62: larger bytes would favour the first characters.
    const FAIR: u8 = 248;
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).map_err(|error| {
            CliError::new(format!("no random bits: {error}"), "the operating system")
        })?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let digits = fair.filter_map(|byte| BASE62.get(usize::from(byte % 62)));
        let missing = length.saturating_sub(text.len());
        text.extend(digits.take(missing).copied().map(char::from));
    }
    Ok(text)
}

/// A number below `bound`; for waits, not for secrets.
pub(crate) fn below(bound: u64) -> u64 {
    getrandom::u64().unwrap_or_default().checked_rem(bound).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_text_is_base62_of_the_length_asked_and_uses_every_character() {
        let text = base62(20_000).unwrap();
        assert_eq!(text.len(), 20_000);
        for digit in BASE62 {
            let count = text.bytes().filter(|byte| byte == digit).count();
            // 322 expected; ten standard deviations either way.
            assert!((140..=505).contains(&count), "{}: {count}", char::from(*digit));
        }
        assert!(text.bytes().all(|byte| BASE62.contains(&byte)));
    }
}
