//! Rule `ledger`: no reservation is granted unless loaded + reserved + unloading + new <= capacity; what a model needs
//! beyond its reservation is overrun, and while there is any nothing is granted.

use crate::ledger::Ledger;

/// Bytes that really are charged, added up copy by copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Of loaded copies.
    pub loaded: u64,
    /// Of loads.
    pub reserved: u64,
    /// Of unloads that were sent.
    pub unloading: u64,
}

/// Whether `bytes` may be promised.
#[must_use]
pub fn may_reserve(ledger: &Ledger, bytes: u64) -> bool {
    ledger.overrun() == 0 && ledger.taken().checked_add(bytes).is_some_and(|taken| taken <= ledger.capacity())
}

/// Whether the account is within its rule and says what the copies say.
///
/// # Errors
/// What is wrong, with the numbers.
pub fn check(ledger: &Ledger, charges: Charges) -> Result<(), String> {
    let account = Charges { loaded: ledger.loaded(), reserved: ledger.reserved(), unloading: ledger.unloading() };
    if account != charges {
        return Err(format!("the account says {account:?}, the copies say {charges:?}"));
    }
    if ledger.taken().saturating_sub(ledger.capacity()) != ledger.overrun() {
        return Err(format!("more is charged than the capacity and the overrun allow: {ledger:?}"));
    }
    Ok(())
}
