//! Storing a document under its digest and making it active.

use super::change::Change;
use super::{NOT_ACTIVATED, compile, count, fits};
use crate::args::{PushArgs, Session};
use crate::document::Document;
use crate::report::{Refusal, Report};
use crate::scribe::Scribe;
use crate::store::{Store, Verb};

pub(crate) fn push(session: &Session, args: &PushArgs) -> Result<Report, Refusal> {
    let document = Document::read(&args.file)?;
    let (policy, version) = compile(&document).map_err(|faults| {
        Refusal::new(format!("the document has {}", count(faults.len(), "fault")), &document.place)
            .expected("a policy without faults; nothing was changed")
            .next(format!("repair them, then portcullis policy check {}", document.place))
            .faults(faults)
    })?;
    let scribe = Scribe::new(session, Some(&args.reason))?;
    let mut store = Store::open(session)?;
    fits(&policy, &document.place, &store)?;
    store.put_policy(&version, &document.value)?;
    let organisations = policy.organisations.iter().cloned().collect();
    let change = Change { version, scribe, verb: Verb::Push, organisations };
    store.until_done(NOT_ACTIVATED, |store| change.carry_out(store))
}
