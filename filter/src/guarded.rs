//! The state of one part of the gateway.
//!
//! Owns that no borrow is held across a call into the host, which may call back: the state is reached inside a closure
//! only. The closure calls neither the host nor another part that leads there.

use std::cell::RefCell;

use log::error;

/// State that only the part that owns it reaches.
#[derive(Debug, Default)]
pub(crate) struct Guarded<T>(RefCell<T>);

impl<T> Guarded<T> {
    pub(crate) const fn new(state: T) -> Self {
        Self(RefCell::new(state))
    }

    /// The state, unless it is in use further up the stack, which no host call of ours leads to.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        match self.0.try_borrow_mut() {
            Ok(mut state) => Some(act(&mut state)),
            Err(_) => {
                error!("re-entered: refusing");
                None
            }
        }
    }
}
