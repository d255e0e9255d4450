//! The intents of calls, and the positions of their audit entries, as gateways with `audit.durable` wrote them to
//! Redis.

use std::collections::BTreeMap;

use portcullis_core::id::OrgId;
use portcullis_redis_lua::Key;

use super::Store;
use crate::report::CliError;

/// One element of the stream.
#[derive(Debug)]
pub(crate) struct Told {
    /// When it was written to Redis, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) fields: BTreeMap<String, String>,
}

/// How many are read at once.
const PAGE: usize = 1_000;

impl Store {
    /// All intents of an organisation, oldest first, page by page.
    pub(crate) fn each_intent(
        &mut self,
        org: &OrgId,
        mut read: impl FnMut(Told),
    ) -> Result<(), CliError> {
        let key = Key::intents(org.as_str());
        let mut from = "-".to_owned();
        loop {
            let mut ask = redis::cmd("XRANGE");
            ask.arg(key.as_str()).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: Vec<(String, BTreeMap<String, String>)> = self.query(&ask)?;
            let whole = page.len() == PAGE;
            for (id, fields) in page {
                let time = id.split('-').next().unwrap_or_default();
                let at_ms = time.parse().unwrap_or_default();
                from = format!("({id}");
                read(Told { at_ms, fields });
            }
            if !whole {
                return Ok(());
            }
        }
    }
}
