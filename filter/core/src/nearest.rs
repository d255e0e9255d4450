//! Suggests the name that an operator probably meant.
//!
//! Owns the distance between names. Knows nothing of their purpose.

/// Longer lists of names are not shown.
const MOST_LISTED: usize = 30;

/// `expected` and the names, with the one that `found` is probably a misspelling of.
#[must_use]
pub(crate) fn one_of(expected: &str, found: &str, known: &[&str]) -> String {
    let mut text = format!("{expected}{}", known.get(..MOST_LISTED).unwrap_or(known).join(", "));
    if known.is_empty() {
        text.push_str("there is none");
    }
    if known.len() > MOST_LISTED {
        text.push_str(", …");
    }
    text + &hint(found, known)
}

/// `; did you mean x?`, or nothing.
#[must_use]
pub(crate) fn hint(found: &str, known: &[&str]) -> String {
    nearest(found, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// `; did you mean x?` where `found` is most probably a typing error: one or two letters of a longer word. For warnings
/// about a name that may be right.
#[must_use]
pub fn slip(found: &str, known: &[&str]) -> String {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
    let found = plain(found);
    let near = known.iter().copied().filter_map(|name| {
        let name_plain = plain(name);
        let letters = found.chars().count().min(name_plain.chars().count());
        let most = match letters {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        let distance = strsim::osa_distance(&found, &name_plain);
        (distance <= most).then_some((distance, name))
    });
    near.min().map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default()
}

fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    const SHORTEST_PART: usize = 4;
    let plain = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
    let found = plain(found);
    let slips = |name: &str| match name.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    let near = known.iter().copied().filter_map(|name| {
        let distance = strsim::osa_distance(&found, &plain(name));
        (distance <= slips(name) && distance < found.chars().count()).then_some((distance, name))
    });
    let contains = |long: &str, short: &str| short.len() >= SHORTEST_PART && long.contains(short);
    near.min().map(|(_, name)| name).or_else(|| {
        let part = |name: &&str| contains(&found, &plain(name)) || contains(&plain(name), &found);
        known.iter().copied().find(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blames_a_name_takes_no_other_word_for_it() {
        for (found, known) in
            [("custmer_number", "customerNumber"), ("qery_users", "query_users"), ("call", "calls")]
        {
            assert_eq!(slip(found, &[known]), format!("; did you mean {known}?"));
        }
        for (found, known) in [
            ("calls_hourly", "calls"),
            ("get_users", "get_orders"),
            ("search_all", "search"),
            ("dob", "job"),
            ("name", "date"),
            ("email", "email_subject"),
        ] {
            assert_eq!(slip(found, &[known]), "", "{found}");
        }
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["allow", "show", "deny", "prompts", "allow_write", "organisations", "limit"];
        for (found, meant) in [
            ("alow", "allow"),
            ("Allow", "allow"),
            ("allow-write", "allow_write"),
            ("organizations", "organisations"),
            ("promts", "prompts"),
            ("rate_limit", "limit"),
            ("hsow", "show"),
        ] {
            assert_eq!(nearest(found, &known), Some(meant), "{found}");
        }
        for found in ["colour", "x", "", "resources", "zzz"] {
            assert_eq!(nearest(found, &known), None, "{found}");
        }
        assert_eq!(
            one_of("one of ", "alow", &known[..2]),
            "one of allow, show; did you mean allow?"
        );
    }
}
