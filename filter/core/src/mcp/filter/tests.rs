//! The filter over responses, chunk by chunk.

use super::*;

#[derive(Default)]
struct Told(Vec<String>);

impl Reader for Told {
    fn item(&mut self, _: Listing, item: &[u8]) -> Shown {
        self.0.push(String::from_utf8_lossy(item).into_owned());
        if item.windows(6).any(|part| part == b"hidden") { Shown::No } else { Shown::Yes }
    }
    fn unreadable(&mut self, listing: Listing, why: Unreadable) {
        self.0.push(format!("{} {}", listing.member(), why.name()));
    }
    fn message(&mut self, seen: Seen) {
        self.0.push(format!("{:?}", seen.outcome));
    }
}

fn filtered(text: &str, size: usize) -> Result<(String, Vec<String>), Malformed> {
    let (mut filter, mut told, mut out) = (MessageFilter::default(), Told::default(), Vec::new());
    for chunk in text.as_bytes().chunks(size) {
        filter.feed(chunk, &mut out, &mut told)?;
    }
    assert!(filter.is_complete(), "{text}: {filter:?}");
    assert_eq!(filter.edited(), out != text.as_bytes(), "{text}");
    Ok((String::from_utf8(out).unwrap(), told.0))
}

fn passes(text: &str) -> String {
    let whole = filtered(text, text.len()).unwrap();
    for size in 1..9 {
        assert_eq!(filtered(text, size), Ok(whole.clone()), "chunks of {size}");
    }
    whole.0
}

// Findings 4.2, 4.3, 5.1, 5.6. Proves: C3, X17
#[test]
fn hidden_items_leave_and_everything_else_stays_as_written() {
    for (before, after) in [
        (
            r#"{"result":{"tools":["b", "hidden","a" ] ,"x":1e400}}"#,
            r#"{"result":{"tools":["b","a" ] ,"x":1e400}}"#,
        ),
        (
            r#"{"result":{"tools":[ "hidden" , {"n":18446744073709551617} ,"hidden"]}}"#,
            r#"{"result":{"tools":[  {"n":18446744073709551617}]}}"#,
        ),
        (
            r#"{"result":{"tools":["hidden"],"tools":["hidden",1]}}"#,
            r#"{"result":{"tools":[],"tools":[1]}}"#,
        ),
        (
            r#"{"result":{"\u0074ools":["hidden"],"Prompts":["hidden"]},"RE\u017fULT":{"Resource\u017f":["hidden"]}}"#,
            r#"{"result":{"\u0074ools":[],"Prompts":[]},"RE\u017fULT":{"Resource\u017f":[]}}"#,
        ),
        (
            r#"[[{"result":{"resourceTemplates":["hidden",2]}}],{"method":"x","params":{"tools":["hidden"]}}]"#,
            r#"[[{"result":{"resourceTemplates":[2]}}],{"method":"x","params":{"tools":["hidden"]}}]"#,
        ),
        (
            r#"{"result":{"tools":{"0":"hidden"},"prompts":null,"resources":"[hidden]"}}"#,
            r#"{"result":{"tools":[],"prompts":null,"resources":[]}}"#,
        ),
        (
            r#"{"result":{"ttlMs":99999,"cacheScope":"public","tools":[]}}"#,
            r#"{"result":{"ttlMs":10000,"cacheScope":"private","tools":[]}}"#,
        ),
        (
            r#"{"result":{"tools":[],"ttlMs": 3 ,"cacheScope":7}}"#,
            r#"{"result":{"tools":[],"ttlMs": 3 ,"cacheScope":"private"}}"#,
        ),
        (
            r#"{"result":{"ttlMs":99999,"cacheScope":"public"}}"#,
            r#"{"result":{"ttlMs":99999,"cacheScope":"public"}}"#,
        ),
        (
            r#"{"result":{"content":[{"tools":["hidden"]}],"a":{"tools":["hidden"]}}}"#,
            r#"{"result":{"content":[{"tools":["hidden"]}],"a":{"tools":["hidden"]}}}"#,
        ),
        ("\u{feff}[7]", "\u{feff}[7]"),
    ] {
        assert_eq!(passes(before), after);
    }
    for bad in [r#"{"result":{"tools":[1,}"#, r#"{"re\ud800":1}"#, "7", "\0{\0"] {
        assert!(filtered(bad, 1).is_err(), "{bad:?}");
    }
}

// RFC 8259, section 7. Proves: C3
#[test]
fn a_name_with_a_bare_control_character_is_no_name() {
    for text in [
        "{\"result\":{\"tools\n\":[\"hidden\"]}}",
        "{\"result\":{\"to\u{1}ols\":[\"hidden\"]}}",
        "{\"res\rult\":{\"tools\":[\"hidden\"]}}",
    ] {
        assert_eq!(filtered(text, text.len()), Err(Malformed), "{text:?}");
        assert_eq!(filtered(text, 1), Err(Malformed), "{text:?}");
    }
    passes("{\"result\":{\"x\u{7f}\":1,\"y\\n\":2,\"A\":\"\n\"}}");
}

// Finding 5.6.
#[test]
fn an_item_of_any_size_takes_no_more_memory_than_one_may_have() {
    let (mut filter, mut told, mut out) = (MessageFilter::default(), Told::default(), Vec::new());
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(5_000_000));
    let text = format!("{{\"result\":{{\"tools\":[{large},\n2]}}}}");
    for chunk in text.as_bytes().chunks(9_000) {
        filter.feed(chunk, &mut out, &mut told).unwrap();
        assert!(filter.kept.len() <= MAX_ITEM_BYTES);
    }
    assert_eq!(String::from_utf8(out).unwrap(), "{\"result\":{\"tools\":[\n2]}}");
    assert_eq!(told.0, ["tools too_large", "2", "Some(Result { rows: None })"]);
}

#[test]
fn what_went_on_already_is_changed_beforehand() {
    let (mut filter, mut told, mut out) = (MessageFilter::default(), Told::default(), Vec::new());
    filter.feed(br#"{"result":{"ttlMs":99999,"x":"#, &mut out, &mut told).unwrap();
    filter.release(&mut out);
    assert_eq!(out, br#"{"result":{"ttlMs":10000,"x":"#);
    out.clear();
    filter.feed(br#"1,"cacheScope":"public","tools":["hidden"]}}"#, &mut out, &mut told).unwrap();
    assert_eq!(out, br#"1,"cacheScope":"private","tools":[]}}"#);
}
