//! Numbers that are secret without a name: payment cards and bank accounts.
//!
//! Owns how they are distinguished from other numbers: a card by the prefixes and lengths that issuers use and its
//! check digit (ISO/IEC 7812), an account by the length of its country and its check digits (ISO 13616). Reads a text
//! once.

/// A number with fewer digits is neither. A Dutch IBAN has twelve.
pub(super) const FEWEST_DIGITS: usize = 12;
/// The longest number, with the blanks between its groups.
const LONGEST: usize = 48;
/// Lengths of IBANs by country.
const ACCOUNTS: [(&str, usize); 38] = [
    ("AE", 23),
    ("AT", 20),
    ("BE", 16),
    ("BG", 22),
    ("BR", 29),
    ("CH", 21),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("EE", 20),
    ("ES", 24),
    ("FI", 18),
    ("FR", 27),
    ("GB", 22),
    ("GR", 27),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IS", 26),
    ("IT", 27),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("MC", 27),
    ("MT", 31),
    ("NL", 18),
    ("NO", 15),
    ("PL", 28),
    ("PT", 25),
    ("RO", 24),
    ("SA", 24),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("TR", 26),
];

/// The first number in `text` that is secret: where it begins and ends.
pub(super) fn find(text: &str) -> Option<(usize, usize)> {
    let mut before = None;
    for (at, letter) in text.char_indices() {
        // A number is no part of a longer word.
        let begins = !before.replace(letter).is_some_and(char::is_alphanumeric);
        if begins && (letter.is_ascii_digit() || letter.is_ascii_uppercase()) {
            let rest = text.get(at..).unwrap_or_default();
            let length = if letter.is_ascii_digit() { card(rest) } else { account(rest) };
            if let Some(length) = length {
                return Some((at, at.saturating_add(length)));
            }
        }
    }
    None
}

/// Whether the number of a JSON document is one of a card.
pub(super) fn is_card(number: &str) -> bool {
    card(number) == Some(number.len())
}

/// The letters of a number that may be written in groups, each with where it ends.
fn letters(text: &str, part: fn(u8) -> bool, separators: &'static [u8]) -> Vec<(u8, usize)> {
    let mut letters: Vec<(u8, usize)> = Vec::new();
    let mut separated = true;
    for (at, byte) in text.bytes().take(LONGEST).enumerate() {
        match byte {
            byte if part(byte) => {
                letters.push((byte, at.saturating_add(1)));
                separated = false;
            }
            byte if separators.contains(&byte) && !separated => separated = true,
            _ => break,
        }
    }
    letters
}

/// How long the card number is that `text` begins with.
fn card(text: &str) -> Option<usize> {
    if text.len() < FEWEST_DIGITS {
        return None;
    }
    let digits = letters(text, |byte| byte.is_ascii_digit(), b" -");
    let lead = |most: usize| {
        digits.iter().take(most).fold(0_u32, |number, (digit, _)| {
            number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
        })
    };
    let length = match (lead(2), lead(4)) {
        (34 | 37, _) => 15,
        (30 | 36 | 38, _) => 14,
        (40..=59 | 60 | 62 | 64 | 65 | 35, _) | (_, 2221..=2720) => 16,
        _ => return None,
    };
    let number = digits.get(..length)?;
    let end = number.last()?.1;
    let ends = !text.get(end..)?.starts_with(|letter: char| letter.is_alphanumeric());
    let doubled = |(nth, (digit, _)): (usize, &(u8, usize))| {
        let digit = u32::from(digit.wrapping_sub(b'0'));
        match nth % 2 {
            0 => digit,
            _ if digit > 4 => digit.saturating_mul(2).saturating_sub(9),
            _ => digit.saturating_mul(2),
        }
    };
    let sum: u32 = number.iter().rev().enumerate().map(doubled).fold(0, u32::saturating_add);
    (ends && sum.is_multiple_of(10)).then_some(end)
}

/// How long the IBAN is that `text` begins with.
fn account(text: &str) -> Option<usize> {
    let (country, length) = ACCOUNTS.iter().find(|(country, _)| text.starts_with(country))?;
    let part = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    let all = letters(text, part, b" ");
    let number = all.get(..*length)?;
    let end = number.last()?.1;
    let ends = !text.get(end..)?.starts_with(|letter: char| letter.is_alphanumeric());
    let (head, tail) = number.split_at_checked(country.len().saturating_add(2))?;
    let checks = head.iter().skip(country.len()).all(|(digit, _)| digit.is_ascii_digit());
    let rest = tail.iter().chain(head).fold(0_u32, |rest, (letter, _)| match letter {
        b'0'..=b'9' => {
            rest.wrapping_mul(10).wrapping_add(u32::from(letter.wrapping_sub(b'0'))) % 97
        }
        _ => rest.wrapping_mul(100).wrapping_add(u32::from(letter.wrapping_sub(55))) % 97,
    });
    (ends && checks && rest == 1).then_some(end)
}
