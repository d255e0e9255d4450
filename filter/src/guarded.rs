//! The state of one part of the gateway.
//!
//! Owns that no borrow is held across a call into the host, which may call back: the state is available only inside a
//! closure. The closure calls neither the host nor another part that does.

use std::cell::RefCell;

use log::error;

/// State that only its owner can access.
#[derive(Debug, Default)]
pub(crate) struct Guarded<T>(RefCell<T>);

impl<T> Guarded<T> {
    pub(crate) const fn new(state: T) -> Self {
        Self(RefCell::new(state))
    }

    /// The state, unless it is in use further up the stack, which none of our host calls causes.
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
