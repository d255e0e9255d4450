//! Texts that JSON writes as they are.

/// Whether no escape is needed: no control, no quotation mark, no backslash. Compares eight bytes at a time.
pub(super) fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The high bits of zero bytes; a borrow can only set a neighbour's bit when there is a zero byte.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    let odd = words.iter().fold(0, |odd, bytes| {
        let word = u64::from_ne_bytes(*bytes);
        let controls = word.wrapping_sub(ONES.wrapping_mul(0x20)) & !word & HIGH;
        let marks = zeros(word ^ ONES.wrapping_mul(0x22)) | zeros(word ^ ONES.wrapping_mul(0x5c));
        odd | controls | marks
    });
    odd == 0 && rest.iter().all(|byte| !matches!(byte, b'"' | b'\\' | ..0x20))
}
