//! Digests and ids in hexadecimal digits.
//!
//! Owns the digits of what everybody may see, in one pass. What depends on a secret goes through `base16ct`, which takes
//! the same time whatever the digits are.

/// Two lower-case digits for each byte.
pub(crate) fn lower(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len().saturating_mul(2)];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
    String::from_utf8(digits).unwrap_or_default()
}

fn digit(nibble: u8) -> u8 {
    let from = if nibble < 10 { b'0' } else { b'a'.wrapping_sub(10) };
    from.wrapping_add(nibble)
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_those_of_the_crate() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for length in [0, 1, 32, 256] {
            let bytes = &bytes[..length];
            assert_eq!(super::lower(bytes), base16ct::lower::encode_string(bytes));
        }
    }
}
